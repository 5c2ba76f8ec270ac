"""A small run with a tiny model, and what must be the same after whatever happens to it."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from loracle.experiment.run import run
from loracle.experiment.selection import Selection
from loracle.plan import Plan, load_plan
from loracle.run_folder.views import QuietView
from tests import tiny

SETTINGS = ("training.epochs=1", "training.batch_size=8", "generation.max_new_tokens=4")
_TIMES = ("seconds", "training_seconds", "evaluation_seconds")


class World(NamedTuple):
    """A folder with a model, two candidates, an evaluation set, and where the run goes."""

    root: Path
    run: Path

    @property
    def model(self) -> Path:
        return self.root / "model"

    def plan(self, *overrides: str) -> Plan:
        return load_plan(
            candidates=[self.root / "a.jsonl", self.root / "b.jsonl"],
            evaluations=[self.root / "test.jsonl"],
            model=str(self.model),
            overrides=[*SETTINGS, *overrides],
        )

    def start(self, *overrides: str, selection: Selection | None = None) -> dict[str, Any]:
        """Run, or resume, in this process; returns the results."""
        with contextlib.redirect_stderr(io.StringIO()):
            return run(
                self.plan(*overrides), self.run, QuietView(), selection=selection or Selection()
            )

    def copied(self, run: Path) -> World:
        """A copy of the run, of the same data and model."""
        shutil.copytree(self.run, run)
        return World(self.root, run)


def make_world(root: Path, *, num_layers: int = 3) -> World:
    """The files of a run that has not been started."""
    root.mkdir(parents=True, exist_ok=True)
    tiny.save_model(root / "model", num_hidden_layers=num_layers)
    examples = tiny.passage_examples(3, 4)
    for name, chosen in (("a", examples), ("b", examples[:6]), ("test", examples[8:])):
        rows = [
            {"messages": [{"role": m.role, "content": m.content} for m in e.conversation.messages]}
            for e in chosen
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (root / f"{name}.jsonl").write_text(text)
    return World(root, root / "run")


def numbers(results: Any) -> Any:
    """The results without times, paths and the date."""
    if isinstance(results, dict):
        return {
            key: numbers(value)
            for key, value in results.items()
            if key not in (*_TIMES, "run", "created")
        }
    return [numbers(value) for value in results] if isinstance(results, list) else results
