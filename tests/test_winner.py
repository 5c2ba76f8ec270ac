"""Reports and exports of a run that a tiny model has really made."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
from safetensors.torch import load_file

from loracle import cli, winner
from tests import tiny

SETTINGS = ["training.epochs=1", "training.batch_size=8", "generation.max_new_tokens=6"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one candidate."""
    folder = tmp_path_factory.mktemp("work")
    model = tiny.save_model(folder / "model")
    examples = tiny.passage_examples(3, 4)
    for name, chosen in (("a", examples), ("test", examples[4:])):
        rows = [
            {"messages": [{"role": m.role, "content": m.content} for m in e.conversation.messages]}
            for e in chosen
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = [part for item in SETTINGS for part in ("--set", item)]
    files = [folder / "a.jsonl", "--eval", folder / "test.jsonl"]
    assert loracle("run", *files, "--model", model, "--out", folder / "run", *settings) == 0
    return folder / "run"


def loracle(*arguments: object) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["loracle", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    return int(ended.value.code or 0)


def test_a_run_writes_its_report_and_the_command_makes_the_same_again(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = (run / "report.html").read_bytes()
    assert b"How many in" not in first  # questions are packed, never markup
    (run / "report.html").unlink()
    assert loracle("report", run) == 0
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    assert (run / "report.html").read_bytes() == first


def test_predictions_are_exported_by_the_command(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert loracle("export", run, "--predictions", tmp_path / "all.parquet") == 0
    assert "16 rows in" in capsys.readouterr().out
    prompts = parquet.read_table(tmp_path / "all.parquet")["prompt"].to_pylist()
    assert prompts[0][-1]["content"].startswith("Box 1 holds")


def test_an_exported_adapter_is_the_run_s_with_a_card(run: Path, tmp_path: Path) -> None:
    assert loracle("export", run, "a", "--out", tmp_path / "out") == 0
    name = "adapter_model.safetensors"
    assert (tmp_path / "out" / name).read_bytes() == (
        run / "trials/a--s0/adapter" / name
    ).read_bytes()
    card = (tmp_path / "out" / "README.md").read_text()
    plan = json.loads((run / "plan.json").read_text())["plan"]
    results = json.loads((run / "results.json").read_text())
    assert card.startswith("---\nbase_model: ")
    assert plan["candidates"][0]["sha256"] in card
    assert results["decisions"][0]["sentence"]["zh"] in card
    assert "95% interval" in card
    assert "[More Information Needed]" not in card


def test_a_merged_model_is_base_plus_adapter_and_answers_alike(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert loracle("export", run, "a", "--to", "ollama", "--out", out, "--dtype", "float32") == 0
    assert "greedy answer to each of 8 evaluation questions" in capsys.readouterr().out
    merged, base = load_file(out / "model.safetensors"), load_file(_model(run))
    changed = [name for name, weight in merged.items() if not weight.equal(base[name])]
    assert changed
    assert all("_proj" in name for name in changed)
    assert "FROM .\n" in (out / "Modelfile").read_text()
    assert (out / "tokenizer.json").is_file()


def _model(run: Path) -> Path:
    return run.parent / "model" / "model.safetensors"


def test_a_merged_model_that_answers_otherwise_is_refused_and_leaves_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = winner._greedy_answers

    def with_one_other(record: Any, base: Any, adapted: Any, prompts: Any) -> Any:
        found = answers(record, base, adapted, prompts)
        return found if adapted is not None else [(*found[0], 7), *found[1:]]

    monkeypatch.setattr(winner, "_greedy_answers", with_one_other)
    merged = ("--to", "merged", "--dtype", "float32", "--out", tmp_path / "out")
    assert loracle("export", run, "a", *merged) == 2
    assert "answers 1 of 8 questions otherwise than the adapter" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_exists_an_unknown_name_and_no_wish_are_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, message in (
        (("a", "--out", tmp_path), "exists; name a new folder"),
        (("b", "--out", tmp_path / "out"), "has no candidate 'b'; it has: a"),
        (("a", "--dtype", "int4", "--out", tmp_path / "out"), "found 'int4', expected one of"),
        ((), "name a candidate to export, or a file"),
    ):
        assert loracle("export", run, *arguments) == 2
        assert message in capsys.readouterr().err
