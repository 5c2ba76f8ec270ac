"""Rows for the benchmark of the data check: made, the same ones every time, in five languages.

    {"context": "...", "question": "...", "answer": "..."}      half: five questions a passage
    {"question": "...", "answer": "..."}                        a third: an instruction alone
    {"context": "...", "question": "...", "answer": "..."}      the rest: a passage of its own

Each row has about 1 kB in UTF-8. Words are drawn as often as words are (Zipf). Some rows are
copies, near copies and contradictions of earlier ones, some lines are no JSON, and every tenth
evaluation row is a copy or a paraphrase of a training row.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROW_BYTES = 1000
_PLANTED_EVERY = 10
_COPIED_EVERY = 97
_BROKEN_EVERY = 9973


class Language(NamedTuple):
    """first, num: its letters' range. letters: of a word, from and to; dense: no spaces."""

    first: int
    num: int
    letters: tuple[int, int]
    dense: bool
    end: str


LANGUAGES = (
    Language(ord("a"), 26, (2, 10), False, "?"),
    Language(0x4E00, 3500, (1, 3), True, "？"),
    Language(0x0430, 32, (2, 11), False, "?"),
    Language(0x3042, 80, (1, 4), True, "？"),
    Language(0x0905, 50, (2, 7), False, "?"),
)


class Texts:
    """Endless text of one language."""

    def __init__(self, language: Language, seed: int) -> None:
        self._language = language
        self._random = np.random.default_rng(seed)
        low, high = language.letters
        lengths = self._random.integers(low, high, 20_000)
        letters = self._random.integers(0, language.num, int(lengths.sum())) + language.first
        text, ends = "".join(map(chr, letters.tolist())), np.cumsum(lengths)
        self._words = [
            text[e - n : e] for e, n in zip(ends.tolist(), lengths.tolist(), strict=True)
        ]
        weights = 1 / (np.arange(20_000) + 3)
        self._sums = np.cumsum(weights / weights.sum())
        self._drawn: list[str] = []

    def of_bytes(self, num_bytes: int) -> str:
        """A text of at least so many bytes."""
        space = "" if self._language.dense else " "
        parts, size = [], 0
        while size < num_bytes:
            if not self._drawn:
                numbers = np.searchsorted(self._sums, self._random.random(200_000))
                self._drawn = [self._words[min(n, 19_999)] for n in numbers.tolist()]
            parts.append(self._drawn.pop())
            size += len(parts[-1].encode()) + len(space)
        return space.join(parts)

    def question(self, num_bytes: int) -> str:
        return self.of_bytes(num_bytes) + self._language.end


def training_rows(number: int, seed: int = 1) -> Iterator[dict[str, str]]:
    """`number` rows; the first ones of a longer set are those of a shorter one."""
    texts = [Texts(language, seed + i) for i, language in enumerate(LANGUAGES)]
    random = np.random.default_rng(seed)
    made, last = 0, {"question": "what is it?", "answer": "nothing"}
    while made < number:
        text = texts[int(random.integers(len(texts)))]
        for row in _group(text, float(random.random())):
            made += 1
            if made % _COPIED_EVERY == 0:
                row = _copy(last, made // _COPIED_EVERY)
            last = row
            if made <= number:
                yield row


def _group(text: Texts, drawn: float) -> list[dict[str, str]]:
    if drawn < 1 / 4:
        passage = text.of_bytes(850)
        return [_about(text, passage, place * 20) for place in range(5)]
    if drawn < 2 / 3:
        return [{"question": text.question(300), "answer": text.of_bytes(620)} for _ in range(2)]
    return [_about(text, text.of_bytes(850), 40)]


def _about(text: Texts, passage: str, place: int) -> dict[str, str]:
    answer = passage[place : place + 18].strip() or passage[:18]
    return {"context": passage, "question": text.question(60), "answer": answer}


def _copy(row: dict[str, str], number: int) -> dict[str, str]:
    """The row once more: to the letter, with other punctuation, nearly, or answered otherwise."""
    kind = number % 4
    if kind == 1:
        return {**row, "question": f"{row['question']} !"}
    if kind == 2:
        key = "context" if "context" in row else "question"
        middle = len(row[key]) // 2
        return {**row, key: f"{row[key][:middle]} other {row[key][middle:]}"}
    return {**row, "answer": "something else"} if kind == 3 else row


def write_files(folder: Path, num_train: int, num_evaluation: int = 500) -> int:
    """Write train.jsonl and test.jsonl; returns their bytes."""
    planted: list[dict[str, str]] = []
    step = max(1, num_train // (num_evaluation // _PLANTED_EVERY))
    with (folder / "train.jsonl").open("w", encoding="utf-8") as file:
        for number, row in enumerate(training_rows(num_train)):
            if number % step == step // 2:
                planted.append(row)
            line = json.dumps(row, ensure_ascii=False)
            broken = number % _BROKEN_EVERY == _BROKEN_EVERY - 1
            file.write(f"{line[:-5] if broken else line}\n")
    evaluation = list(training_rows(num_evaluation, seed=1000))
    for number, row in enumerate(planted[: num_evaluation // _PLANTED_EVERY]):
        evaluation[number * _PLANTED_EVERY] = _copy(row, number)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in evaluation)
    (folder / "test.jsonl").write_text(lines, encoding="utf-8")
    return sum((folder / name).stat().st_size for name in ("train.jsonl", "test.jsonl"))
