"""An experiment on a model that the caller loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from loracle.errors import RunFolderError
from loracle.experiment.run import run
from loracle.files import read_json
from loracle.model.base import BaseModel, base_fingerprint, wrap_base
from loracle.plan import Plan, load_plan
from loracle.run_folder.folder import RunFolder
from loracle.run_folder.views import QuietView
from tests import tiny
from tests.original.conftest import question_rows, write_rows

SETTINGS = (
    "training.max_steps=2",
    "training.batch_size=4",
    "generation.max_new_tokens=4",
    "lora.target_modules=[q_proj]",
)


def given_base(seed: int = 1) -> BaseModel:
    model = tiny.model(seed=seed, num_hidden_layers=2, hidden_size=32)
    return wrap_base("mine", model, tiny.tokenizer())


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    rows = question_rows()
    asked = write_rows(tmp_path / "test.jsonl", [{**row, "id": f"t{row['id']}"} for row in rows])
    candidates = [str(write_rows(tmp_path / f"{name}.jsonl", rows)) for name in ("a", "b")]
    return load_plan(
        None, candidates=candidates, evaluations=[str(asked)], model="mine", overrides=SETTINGS
    )


def results_without_times(results: dict[str, Any]) -> dict[str, Any]:
    rows = [
        {key: value for key, value in row.items() if not key.endswith("_seconds")}
        for row in results["rows"]
    ]
    return {"rows": rows, "decisions": results["decisions"], "model": results["model"]}


def test_a_given_base_is_used_and_named_by_its_fingerprint(plan: Plan, tmp_path: Path) -> None:
    base = given_base()
    before = base_fingerprint(base.model)
    results = run(plan, tmp_path / "run", QuietView(), base)
    assert [row["status"] for row in results["rows"]] == ["done"] * 3
    assert results["model"]["base_fingerprint"] == before == base_fingerprint(base.model)
    frozen = RunFolder(tmp_path / "run").frozen_plan()
    assert (frozen["model"]["name"], frozen["model"]["fingerprint"]) == ("mine", before)


def test_a_run_is_resumed_when_the_same_base_is_given_again(plan: Plan, tmp_path: Path) -> None:
    first = run(plan, tmp_path / "run", QuietView(), given_base())
    done = tmp_path / "run/trials/b--s0/DONE"
    kept = (tmp_path / "run/trials/a--s0/DONE").stat().st_mtime_ns
    done.unlink()
    second = run(plan, tmp_path / "run", QuietView(), given_base())
    assert done.is_file()
    assert (tmp_path / "run/trials/a--s0/DONE").stat().st_mtime_ns == kept
    assert results_without_times(second) == results_without_times(first)


def test_another_base_in_the_same_folder_is_refused(plan: Plan, tmp_path: Path) -> None:
    run(plan, tmp_path / "run", QuietView(), given_base())
    with pytest.raises(RunFolderError, match=r"model\.fingerprint"):
        run(plan, tmp_path / "run", QuietView(), given_base(seed=2))


def test_a_given_base_gives_what_the_same_model_gives_from_its_folder(
    plan: Plan, tmp_path: Path
) -> None:
    folder = tiny.save_model(tmp_path / "model", num_hidden_layers=2, hidden_size=32)
    named = plan.model_copy(
        update={"model": plan.model.model_copy(update={"name": str(folder), "dtype": "float32"})}
    )
    loaded = run(named, tmp_path / "loaded", QuietView())
    given = run(plan, tmp_path / "given", QuietView(), given_base())
    for name in ("a", "b"):
        trained = [
            read_json(tmp_path / where / f"trials/{name}--s0/trial.json")["adapter_fingerprint"]
            for where in ("loaded", "given")
        ]
        assert trained[0] == trained[1]
    assert loaded["model"]["base_fingerprint"] == given["model"]["base_fingerprint"]
