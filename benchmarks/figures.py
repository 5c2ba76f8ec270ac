"""Write the figures that the README and docs quote from the files under benchmarks/results.

    python benchmarks/figures.py            # says which figures differ from their files; status 1
    python benchmarks/figures.py --write    # writes them

A row of a table whose last cell names result files takes its figures from them, one a cell:

    | a training step, XQuAD, against TRL | 10.9 | `training_step-xquad.json` |

In a table of speed every row must. Sentences that quote a file are in SENTENCES.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any, NamedTuple

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = REPOSITORY / "benchmarks" / "results"
PAGES = ("README.md", "README.zh.md", "docs/speed.md", "docs/models.md", "docs/planning.md")

# The figure that a table quotes for every benchmark.
HEADLINES = {
    "training_step": "trl_over_loracle.median",
    "answering": "generate_over_loracle.median",
    "whole_job": "sequential_over_loracle.median",
}
_TIES = "answers_that_differ_from_one_at_a_time.bfloat16.batches_of_64_with_drafts"
_FILES = re.compile(r"`([\w-]+\.json)`")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_ROW = re.compile(r"^\|(.+)\|$")
_SPEED_HEADINGS = ("## Speed", "## 速度")


class Sentence(NamedTuple):
    """pattern: with a group for each figure; keys: where each one is in the file."""

    pattern: str
    file: str
    keys: tuple[str, ...]


SENTENCES = (
    Sentence(r"(\d+) of (\d+) short\s+answers of an adapter did", "near_ties-adapter.json",
             (_TIES, "num_rows")),
    Sentence(r"一个适配器的 (\d+) 个短答案中有 (\d+) 个如此", "near_ties-adapter.json",
             ("num_rows", _TIES)),
)  # fmt: skip


class Quoted(NamedTuple):
    """A figure on a page, at [start, stop) of its text, and what its file says.

    found: as it stands; wanted: as the file has it; source: the file, or "" where none is named.
    """

    page: str
    start: int
    stop: int
    found: str
    wanted: str
    source: str

    @property
    def is_right(self) -> bool:
        return bool(self.source) and self.found == self.wanted

    @property
    def problem(self) -> str:
        if not self.source:
            return f"{self.page}: {self.found} stands in the table of speed without its file"
        return f"{self.page}: found {self.found}, {self.source} says {self.wanted}"


def quoted(page: str, text: str, results: Path = RESULTS) -> list[Quoted]:
    """Every figure of a page that comes from a result file, or should."""
    found = [*_in_tables(page, text, results), *_in_sentences(page, text, results)]
    return sorted(found, key=lambda figure: figure.start)


def _in_tables(page: str, text: str, results: Path) -> Iterator[Quoted]:
    start, in_speed = 0, False
    for line in text.splitlines(keepends=True):
        if line.startswith("## "):
            in_speed = line.rstrip() in _SPEED_HEADINGS
        row = _ROW.match(line.rstrip())
        if row:
            yield from _in_row(page, start, row[1].split("|"), results, in_speed)
        start += len(line)


def _in_row(
    page: str, start: int, cells: list[str], results: Path, in_speed: bool
) -> Iterator[Quoted]:
    files = _FILES.findall(cells[-1])
    at = start + 1 + len(cells[0]) + 1
    num_figures = 0
    for cell in cells[1:]:
        # A cell is a figure if nothing else stands in it; words may hold numbers.
        number = _NUMBER.fullmatch(cell.strip())
        if number and (files or in_speed):
            source = files[num_figures] if num_figures < len(files) else ""
            first = at + cell.index(number[0])
            wanted = headline(results / source) if source else ""
            yield Quoted(page, first, first + len(number[0]), number[0], wanted, source)
            num_figures += 1
        at += len(cell) + 1


def _in_sentences(page: str, text: str, results: Path) -> Iterator[Quoted]:
    for sentence in SENTENCES:
        result = _read(results / sentence.file)
        for match in re.finditer(sentence.pattern, text):
            for group, key in enumerate(sentence.keys, start=1):
                wanted = str(_at(result, key))
                yield Quoted(page, *match.span(group), match[group], wanted, sentence.file)


def headline(path: Path) -> str:
    """The figure that a table quotes of this file, with one decimal."""
    result = _read(path)
    figure = Decimal(str(_at(result, HEADLINES[result["benchmark"]])))
    return str(figure.quantize(Decimal("0.1"), ROUND_HALF_UP))


def written(text: str, figures: list[Quoted]) -> str:
    """The text with every figure as its file has it."""
    for figure in sorted(figures, key=lambda figure: -figure.start):
        if figure.source:
            text = text[: figure.start] + figure.wanted + text[figure.stop :]
    return text


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        sys.exit(f"a page quotes {path.name}, which is not in {path.parent}: run its benchmark")
    result: dict[str, Any] = json.loads(path.read_text())
    return result


def _at(result: Any, key: str) -> Any:
    for part in key.split("."):
        result = result[part]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write the figures into the pages")
    arguments = parser.parse_args()
    problems = []
    for page in PAGES:
        path = REPOSITORY / page
        text = path.read_text(encoding="utf-8")
        figures = quoted(page, text)
        if arguments.write:
            text = written(text, figures)
            path.write_text(text, encoding="utf-8")
            figures = quoted(page, text)
        problems += [figure.problem for figure in figures if not figure.is_right]
    sys.exit("\n".join(problems) or 0)


if __name__ == "__main__":
    main()
