"""Phrases that readers stumbled over stay out of prose: documents, comments, messages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDERS = ("loracle", "training", "examples", "benchmarks", "docs", "tests", ".github")
ENDINGS = {".md", ".py", ".yaml", ".yml", ".sh", ".j2", ".js", ".ipynb", ".toml"}
PHRASES = ("anew", "goes on", "where there is", "of each", r"vouch(?:es|ed|ing)?")
# Old entries stay as they were; a sentence with such a phrase is data; the phrases themselves.
LEFT_OUT = {"CHANGELOG.md", "tests/metrics/test_answers.py", "tests/test_english.py"}


def texts() -> Iterator[Path]:
    for path in REPOSITORY.iterdir():
        if path.is_file():
            yield path
    for folder in FOLDERS:
        yield from (REPOSITORY / folder).rglob("*")


@pytest.mark.parametrize("phrase", PHRASES)
def test_a_phrase_that_readers_stumbled_over_is_nowhere(phrase: str) -> None:
    found, num_read = [], 0
    for path in texts():
        name = path.relative_to(REPOSITORY).as_posix()
        if path.suffix not in ENDINGS or name in LEFT_OUT or not path.is_file():
            continue
        num_read += 1
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if re.search(rf"\b{phrase}\b", line, re.IGNORECASE):
                found.append(f"{name}:{number}: {line.strip()[:100]}")
    assert num_read > 400
    assert found == []
