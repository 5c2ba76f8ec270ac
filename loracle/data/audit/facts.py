"""What the audit compares of a chunk of rows, as columns of numbers; texts as their hashes.

    [Example] --facts_of--> Facts

Only questions and the lines of passages are kept as texts, each once: they are looked through for
near copies later.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from loracle.data import plain
from loracle.data.audit.containment import contains
from loracle.data.audit.groups import I32, U64
from loracle.data.audit.normalizing import DENSE_WEIGHT, all_normalized, normalized
from loracle.data.audit.texts import PackedTexts, text_hash
from loracle.data.conversation import ROLES, Example, Message
from loracle.data.prompt_parts import parts_of

MIN_PASSAGE_WEIGHT = 80
"""A passage says at least as much as this many letters."""

_SAYING = ("L", "N", "S")
"""Unicode categories of which an answer has at least one character: letters, numbers, symbols."""
_HASH_MASK = (1 << 64) - 1
_ROLE_NUMBERS = {role: number for number, role in enumerate(ROLES)}


class Facts(NamedTuple):
    """N rows. Shapes (N,) but for references, lines and texts.

    prompts: all that stands before the answer. questions: the question, 0 if it has none;
    question_texts: its number in `texts`, -1 for none. replies: the last reply with its calls.
    reply_lengths, shortest_references: in characters. references: what counts as the answer,
    ascending, num_references for every row. lines: of the passage, numbers in `texts`, num_lines of
    each row; line_keys: of all of a row's lines. stands: an answer stands in the passage, if that
    is long enough to be one.
    says: the last reply says something.
    """

    prompts: U64
    questions: U64
    question_texts: I32
    replies: U64
    reply_lengths: I32
    num_references: I32
    references: U64
    shortest_references: I32
    num_lines: I32
    lines: I32
    line_keys: U64
    stands: np.ndarray[tuple[int], np.dtype[np.bool_]]
    says: np.ndarray[tuple[int], np.dtype[np.bool_]]
    texts: PackedTexts


@dataclass(slots=True)
class _Places:
    """Where a row's texts stand among the distinct ones of its chunk."""

    prompt: list[tuple[int, int, list[int]]]
    question: list[int]
    lines: list[int]
    reply: int
    calls: str
    answers: list[int]
    says: bool


@dataclass
class _Kept:
    """The chunk's texts that are kept, by number."""

    numbers: dict[str, int] = field(default_factory=dict)
    hashes: list[int] = field(default_factory=list)

    def number_of(self, text: str, hashed: int) -> int:
        number = self.numbers.setdefault(text, len(self.numbers))
        if number == len(self.hashes):
            self.hashes.append(hashed)
        return number


def facts_of(examples: Sequence[Example]) -> Facts:
    """The facts of a chunk of rows."""
    places: dict[str, int] = {}
    rows = [_places_of(example, places) for example in examples]
    texts = all_normalized(list(places))
    return _columns(rows, texts)


def packed_facts(examples: Sequence[Example]) -> bytes:
    """The facts as bytes, for `unpacked_facts`."""
    return plain.packed(facts_of(examples))


def unpacked_facts(packed: bytes) -> Facts:
    """The facts that `packed_facts` packed."""
    facts: Facts = plain.unpacked(packed)
    return facts


def _places_of(example: Example, places: dict[str, int]) -> _Places:
    """Take a row apart; its texts are added to `places`."""

    def place(text: str) -> int:
        return places.setdefault(text, len(places))

    messages = example.conversation.messages
    num_before = len(messages) - 1
    while messages[num_before].role != "assistant":
        num_before -= 1
    last = messages[num_before]
    parts = parts_of(example)
    return _Places(
        [
            (
                _ROLE_NUMBERS[turn.role],
                text_hash(calls_text(turn)) if turn.tool_calls else 0,
                [place(line) for line in turn.content.split("\n")],
            )
            for turn in messages[:num_before]
        ],
        [place(line) for line in parts.question.split("\n")],
        [place(line) for line in parts.passages],
        place(last.content),
        calls_text(last),
        [place(answer) for answer in example.answers],
        _says_something(example),
    )


def calls_text(message: Message) -> str:
    """A turn's tool calls as text; "" where it has none."""
    return "".join(f"{call.name}{json.dumps(call.arguments)}" for call in message.tool_calls)


def reply_text(message: Message) -> str:
    """A reply with its calls, normalised."""
    return " ".join(filter(None, (normalized(message.content), calls_text(message))))


def reference_texts(example: Example) -> list[str]:
    """What counts as the answer, normalised, each text once."""
    answers = list(dict.fromkeys(map(normalized, example.answers)))
    return answers or [reply_text(example.conversation.last_reply)]


def _says_something(example: Example) -> bool:
    reply = example.conversation.messages[-1]
    if reply.tool_calls:
        return True
    return any(unicodedata.category(char)[0] in _SAYING for char in example.conversation.reply)


def _columns(rows: Sequence[_Places], texts: Sequence[str]) -> Facts:
    hashes = [text_hash(text) for text in texts]
    kept = _Kept()
    prompts, questions, question_texts, replies, reply_lengths = [], [], [], [], []
    references, num_references, shortest = [], [], []
    lines, num_lines, line_keys, stands = [], [], [], []
    for row in rows:
        prompts.append(_prompt_key(row, hashes))
        asked = [place for place in row.question if hashes[place]]
        question = " ".join(texts[place] for place in asked)
        hashed = hashes[asked[0]] if len(asked) == 1 else text_hash(question)
        questions.append(hashed)
        question_texts.append(kept.number_of(question, hashed) if question else -1)
        reply, reply_hash = texts[row.reply], hashes[row.reply]
        if row.calls:
            reply = f"{reply} {row.calls}" if reply else row.calls
            reply_hash = text_hash(reply)
        replies.append(reply_hash)
        reply_lengths.append(len(reply))
        accepted = {hashes[place]: texts[place] for place in row.answers} or {reply_hash: reply}
        references += sorted(accepted)
        num_references.append(len(accepted))
        shortest.append(min(map(len, accepted.values())))
        passage = [place for place in row.lines if hashes[place]]
        lines += [kept.number_of(texts[place], hashes[place]) for place in passage]
        num_lines.append(len(passage))
        line_keys.append(combined(hashes[place] for place in passage))
        stands.append(
            sum(DENSE_WEIGHT * len(texts[place]) + 1 for place in passage) > MIN_PASSAGE_WEIGHT
            and _stands(" ".join(texts[place] for place in passage), {reply, *accepted.values()})
        )
    return Facts(
        _hashes(prompts),
        _hashes(questions),
        np.array(question_texts, np.int32),
        _hashes(replies),
        np.array(reply_lengths, np.int32),
        np.array(num_references, np.int32),
        _hashes(references),
        np.array(shortest, np.int32),
        np.array(num_lines, np.int32),
        np.array(lines, np.int32),
        _hashes(line_keys),
        np.array(stands, np.bool_),
        np.array([row.says for row in rows], np.bool_),
        PackedTexts.of(list(kept.numbers), kept.hashes),
    )


def _prompt_key(row: _Places, hashes: Sequence[int]) -> int:
    """The turns before the answer, each its role and what it says, without empty lines."""
    turns = []
    for role, calls, places in row.prompt:
        said = [hashed for place in places if (hashed := hashes[place])]
        turns.append((role, calls, *said) if calls else (role, *said))
    return hash(tuple(turns)) & _HASH_MASK


def combined(hashes: Iterable[int]) -> int:
    """The hash of a sequence of hashes: the same in every process, as integers' hashes are."""
    return hash(tuple(hashes)) & _HASH_MASK


def _stands(passage: str, answers: set[str]) -> bool:
    return any(answer and contains(passage, answer) for answer in answers)


def _hashes(values: Sequence[int]) -> U64:
    return np.array(values, np.uint64)
