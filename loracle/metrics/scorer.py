"""Scores of the predictions of one evaluation set, with counts of what could not be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Self

from loracle.data.reasoning import answer_of
from loracle.metrics.answers import Script, script_of_set
from loracle.metrics.registry import get_metric, score


@dataclass
class Scorer:
    """Scores one prediction after another, all of one evaluation set.

    reasoning_end, opened: as for `answer_of`.
    """

    metrics: Sequence[str]
    script: Script
    reasoning_end: str | None = None
    opened: bool = False
    num_scored: int = 0
    num_reasoned: int = 0
    """Predictions with a reasoning block, unfinished ones among them."""
    num_unfinished: int = 0
    """Predictions whose reasoning never ended: their answer is empty."""
    unreadable: Counter[str] = field(default_factory=Counter)
    """By metric, the answers in which it reads nothing, not counting unfinished ones."""

    @classmethod
    def of(
        cls,
        metrics: Sequence[str],
        references_by_row: Iterable[Sequence[str]],
        reasoning_end: str | None = None,
        opened: bool = False,
    ) -> Self:
        """The scorer of an evaluation set with these references."""
        return cls(metrics, script_of_set(references_by_row), reasoning_end, opened)

    def score(
        self, prediction: str, references: Sequence[str], *, is_cut: bool = False
    ) -> dict[str, float]:
        """The value of the prediction's answer in each metric, by name.

        is_cut: whether the prediction ended at its token limit.
        """
        answer = answer_of(prediction, self.reasoning_end, opened=self.opened, is_cut=is_cut)
        self.num_scored += 1
        self.num_reasoned += answer.has_reasoning
        self.num_unfinished += answer.is_unfinished
        if not answer.is_unfinished:
            for name in self.metrics:
                reads = get_metric(name).reads_prediction
                self.unreadable[name] += reads is not None and not reads(answer.text)
        return score(answer.text, references, self.metrics, self.script)

    @property
    def num_unreadable(self) -> dict[str, int]:
        """By metric, predictions in which it found nothing to score; only metrics with any."""
        return {name: num for name, num in self.unreadable.items() if num}

    @property
    def warnings(self) -> list[str]:
        """What was scored 0 because there was no answer, in words."""
        found = []
        if self.num_unfinished:
            found.append(
                f"{self.num_unfinished:,} of {self.num_scored:,} predictions were cut while the "
                "model was still reasoning, so they have no answer and score 0; raise "
                "generation.max_new_tokens, or switch the reasoning off (Qwen3: "
                "model.chat_template_kwargs: {enable_thinking: false})"
            )
        found += [
            f"{name} reads no {get_metric(name).reads_what} in {num:,} of {self.num_scored:,} "
            "predictions; they score 0"
            for name, num in self.unreadable.items()
            if num
        ]
        return found
