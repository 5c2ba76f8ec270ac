"""How much a dataset's rows share: tokens as separate rows over tokens in the prefix forest.

Without a tokenizer the same is computed on characters, whose sharing is similar to that of tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from loracle.data.conversation import Conversation, Example
from loracle.data.prompt_parts import passage_spans, question_spans
from loracle.data.stored import StoredExamples
from loracle.data.workers import ALONE, Workers
from loracle.forest.limits import MAX_ROW_TOKENS
from loracle.forest.trie import Sequences, num_forest_nodes

MAX_MEASURED_CHARACTERS = 20_000_000
"""Rows beyond this many characters are not looked at: the first ones tell the ratio."""
MIN_WORTHWHILE_GAIN = 1.2
"""Putting the passage first is proposed where it makes at least this many times fewer tokens."""


@dataclass(frozen=True, slots=True)
class Sharing:
    """Over all rows at once; a batch holds fewer, so training shares somewhat less.

    num_separate: what separate rows compute. num_forest: what the forest computes.
    num_passage_first: what the forest would compute with every question behind its passage; None
    where that would not help.
    """

    num_rows: int
    num_separate: int
    num_forest: int
    num_passage_first: int | None

    @property
    def ratio(self) -> float:
        """How many times fewer tokens the forest computes."""
        return self.num_separate / max(1, self.num_forest)

    @property
    def possible_gain(self) -> float | None:
        """How many times fewer again, with the passage first."""
        if self.num_passage_first is None:
            return None
        return self.num_forest / max(1, self.num_passage_first)


def sharing_of(sequences: Sequences, passage_first: Sequences | None = None) -> Sharing:
    """Measure the forest of `sequences`, and of the same rows with the passage first."""
    separate = num_forest_nodes(sequences, max_row_tokens=MAX_ROW_TOKENS, share=False)
    forest = num_forest_nodes(sequences, max_row_tokens=MAX_ROW_TOKENS)
    better = None
    if passage_first is not None:
        better = num_forest_nodes(passage_first, max_row_tokens=MAX_ROW_TOKENS)
    return _sharing(sequences.num_sequences, separate, forest, better)


def character_sharing(
    examples: Sequence[Example], *, try_passage_first: bool, workers: Workers = ALONE
) -> Callable[[], Sharing]:
    """The same of characters in place of tokens, as far as MAX_MEASURED_CHARACTERS reach; what is
    returned waits for it.

    Whatever shares is joined, however long: the limit of a row is made for tokens.
    """
    if not isinstance(examples, StoredExamples):
        return ALONE.begin(_measured, (examples, try_passage_first))
    # A row that is moved may lose white space, so that a few more are looked at.
    blocks = examples.first_blocks(MAX_MEASURED_CHARACTERS * 11 // 10)
    return workers.begin(_measured, (blocks, try_passage_first))


def _measured(task: tuple[Iterable[Example], bool]) -> Sharing:
    examples, try_passage_first = task
    texts, moved_texts = _Texts(), _Texts()
    for example in examples:
        moved = _moved(example) if try_passage_first else example
        text = texts.add(_text(example))
        moved_texts.add(text if moved is example else _text(moved))
        if texts.is_full and moved_texts.is_full:
            break
    forest = _num_nodes(texts.texts)
    better = _num_nodes(moved_texts.texts) if try_passage_first else None
    return _sharing(len(texts.texts), texts.num_characters, forest, better)


class _Texts:
    """Texts, up to as many characters as are measured."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.num_characters = 0

    @property
    def is_full(self) -> bool:
        return self.num_characters >= MAX_MEASURED_CHARACTERS

    def add(self, text: str) -> str:
        if not self.is_full:
            self.texts.append(text)
            self.num_characters += len(text)
        return text


def _text(example: Example) -> str:
    return "".join(f"{turn.role}\n{turn.content}\n" for turn in example.conversation.messages)


def _sharing(num: int, separate: int, forest: int, better: int | None) -> Sharing:
    is_worthwhile = better is not None and better * MIN_WORTHWHILE_GAIN <= forest
    return Sharing(num, separate, forest, better if is_worthwhile else None)


def _num_nodes(texts: Sequence[str]) -> int:
    """The characters of a forest of texts. Neighbours in their order share the most."""
    ordered = sorted(texts)
    shared = sum(_num_shared(left, right) for left, right in pairwise(ordered))
    return sum(map(len, ordered)) - shared


def _num_shared(left: str, right: str) -> int:
    """How many characters two texts share from the start."""
    shared, step = 0, 32
    end = min(len(left), len(right))
    while shared < end:
        stop = min(shared + step, end)
        if left[shared:stop] != right[shared:stop]:
            return _first_difference(left, right, shared, stop)
        shared, step = stop, 2 * step
    return shared


def _first_difference(left: str, right: str, start: int, stop: int) -> int:
    """Where two texts first differ, which they do from `start` to `stop`."""
    while stop - start > 1:
        middle = (start + stop) // 2
        if left[start:middle] == right[start:middle]:
            start = middle
        else:
            stop = middle
    return start


def with_passage_first(examples: Sequence[Example]) -> list[Example] | None:
    """The rows with their question moved behind the passage; None where in no row it is before."""
    moved, is_any = [], False
    for example in examples:
        moved.append(_moved(example))
        is_any |= moved[-1] is not example
    return moved if is_any else None


def _moved(example: Example) -> Example:
    messages = list(example.conversation.messages)
    users = [i for i, m in enumerate(example.conversation.prompt.messages) if m.role == "user"]
    if not users:
        return example
    content = messages[users[-1]].content
    questions = question_spans(content, example.question)
    passages = passage_spans(content, example.question)
    # Sentences picked out of one line are no question that could be moved.
    if len(questions) != 1 or not passages or passages[0].start < questions[0].start:
        return example
    question = content[questions[0].start : questions[0].stop].strip()
    rest = content[: questions[0].start] + content[questions[0].stop :].lstrip()
    messages[users[-1]] = replace(messages[users[-1]], content=f"{rest.rstrip()}\n{question}")
    return replace(example, conversation=Conversation(tuple(messages)))
