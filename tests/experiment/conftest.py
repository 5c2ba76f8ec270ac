"""Runs in processes that are killed, and what they must make: one server and one run for all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests import tiny
from tests.experiment.test_kills import Children, made


@pytest.fixture(scope="session")
def children(tmp_path_factory) -> Iterator[Children]:
    folder = tmp_path_factory.mktemp("kills")
    tiny.save_model(folder / "model")
    examples = tiny.passage_examples(3, 4)
    for name, chosen in (("a", examples), ("b", examples[1:]), ("test", examples[2:])):
        rows = [
            {"messages": [{"role": m.role, "content": m.content} for m in e.conversation.messages]}
            for e in chosen
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text)
    running = Children(folder)
    yield running
    running.close()


@pytest.fixture(scope="session")
def undisturbed(children) -> dict[str, Any]:
    assert children.run("undisturbed").code == 0, children.shown("undisturbed")
    return made(children.folder / "undisturbed")
