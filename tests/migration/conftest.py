"""A working folder with small data in the forms that the examples name."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import yaml

from loracle import cli
from loracle.plan import Plan, load_plan

EXAMPLES = Path(__file__).parent / "examples"
NUM_ROWS = 40

Loracle = Callable[..., int]


def _write(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    if path.suffix == ".json":
        path.write_text(json.dumps(list(rows)), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The examples, and the data that they name: registry/ and, for a default of LLaMA-Factory,
    data/."""
    monkeypatch.chdir(tmp_path)
    for example in EXAMPLES.iterdir():
        shutil.copy(example, tmp_path)
    registry = tmp_path / "registry"
    registry.mkdir()
    numbers = range(NUM_ROWS)
    sums = [{"instruction": f"What is {n} plus {n}?", "output": str(2 * n)} for n in numbers]
    _write(registry / "sums.json", sums)
    chats = [
        [
            {"from": "human", "value": f"Which number follows {n}?"},
            {"from": "gpt", "value": str(n + 1)},
        ]
        for n in numbers
    ]
    _write(registry / "chats.json", [{"conversations": turns} for turns in chats])
    _write(
        registry / "quiz.jsonl",
        [
            {
                "messages": [
                    {"role": "user", "content": f"Count down from {n + 100} by one."},
                    {"role": "assistant", "content": str(n + 99)},
                ]
            }
            for n in numbers
        ],
    )
    _write(
        registry / "questions.jsonl",
        [{"query": f"Double {n}, please.", "response": str(2 * n)} for n in numbers],
    )
    _write(
        registry / "tickets.jsonl",
        [{"ask": f"Ticket {n}: what is its number?", "reply": str(n)} for n in numbers],
    )
    entries = {
        "sums": {"file_name": "sums.json"},
        "chats": {"file_name": "chats.json", "formatting": "sharegpt"},
        "quiz": {
            "file_name": "quiz.jsonl",
            "formatting": "openai",
        },
    }
    (registry / "dataset_info.json").write_text(json.dumps(entries), encoding="utf-8")
    shutil.copytree(registry, tmp_path / "data")
    return tmp_path


@pytest.fixture
def loracle(monkeypatch: pytest.MonkeyPatch) -> Loracle:
    """Runs a command of `loracle` in this process; returns its exit code."""

    def run(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["loracle", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0)

    return run


Migrated = Callable[..., tuple[Plan, str]]


@pytest.fixture
def migrated(folder: Path, loracle: Loracle, capsys: pytest.CaptureFixture[str]) -> Migrated:
    """Makes a plan from an example through the command; returns it, loaded, and what was shown."""

    def run(name: str, *arguments: object) -> tuple[Plan, str]:
        assert loracle("init", "--from", name, *arguments) == 0
        return load_plan("plan.yaml"), capsys.readouterr().out

    return run


def block(shown: str, title: str) -> list[str]:
    """The lines below a title of what was shown."""
    lines = shown.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith(title))
    below = lines[start + 1 :]
    return [line.strip() for line in below[: below.index("")]]


def keys_of(path: Path) -> set[str]:
    """The keys of an example in YAML, or the flags of its command."""
    if path.suffix == ".sh":
        return set(re.findall(r"--(\w+)", path.read_text(encoding="utf-8"))) - {"adapters"}
    return set(yaml.safe_load(path.read_text(encoding="utf-8")))
