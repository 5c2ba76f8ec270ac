"""How much a dataset's rows share: tokens as separate rows over tokens in the prefix forest.

Without a tokenizer the same is computed on characters, whose sharing is similar to that of tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from loracle.data.conversation import Conversation, Example
from loracle.data.prompt_parts import passage_spans, question_spans
from loracle.forest.limits import MAX_ROW_TOKENS
from loracle.forest.trie import Sequences, common_prefix_lengths, num_forest_nodes

MAX_MEASURED_TOKENS = 20_000_000
"""Rows beyond this many tokens are not looked at: the first ones tell the ratio."""
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


def sharing_of(
    sequences: Sequences,
    passage_first: Sequences | None = None,
    max_row_tokens: int | None = MAX_ROW_TOKENS,
) -> Sharing:
    """Measure the forest of `sequences`, and of the same rows with the passage first.

    max_row_tokens: None joins whatever shares, as long as it grows: right for characters, whose
    rows are several times longer than the tokens' that the limit is made for.
    """
    forest = _num_nodes(sequences, max_row_tokens)
    separate = num_forest_nodes(sequences, max_row_tokens=MAX_ROW_TOKENS, share=False)
    better = _num_nodes(passage_first, max_row_tokens) if passage_first is not None else None
    if better is not None and better * MIN_WORTHWHILE_GAIN > forest:
        better = None
    return Sharing(sequences.num_sequences, separate, forest, better)


def _num_nodes(sequences: Sequences, max_row_tokens: int | None) -> int:
    if max_row_tokens is not None:
        return num_forest_nodes(sequences, max_row_tokens=max_row_tokens)
    _, common = common_prefix_lengths(sequences)
    return int(sequences.lengths.sum() - common.sum())


def characters_of(examples: Sequence[Example]) -> Sequences:
    """The rows' turns as sequences of code points, as far as MAX_MEASURED_TOKENS reach."""
    texts: list[str] = []
    size = 0
    for example in examples:
        turns = example.conversation.messages
        texts.append("".join(f"{turn.role}\n{turn.content}\n" for turn in turns))
        size += len(texts[-1])
        if size >= MAX_MEASURED_TOKENS:
            break
    points = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.int32)
    offsets = np.concatenate(([0], np.cumsum([len(text) for text in texts], dtype=np.int64)))
    return Sequences(points, offsets)


def with_passage_first(examples: Sequence[Example]) -> list[Example] | None:
    """The rows with their question moved behind the passage; None where in no row it is before."""
    moved = [_moved(example) for example in examples]
    return None if all(new is old for new, old in zip(moved, examples, strict=True)) else moved


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
