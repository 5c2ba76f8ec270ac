"""A run and a check whose evaluation set is held out of the candidates."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jsonschema
import pytest

from loracle.data.holdout import HELD_OUT_FILE
from loracle.data.reading.dataset import read_examples
from loracle.data_check import cached as run_check
from loracle.report.results import results_schema
from tests import tiny
from tests.cli.test_cli import FAST, loracle
from tests.data.audit.test_leakage import unlike

PASSAGES = 10


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> Path:
    return tiny.save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_data()
    return tmp_path


def write_data() -> None:
    """Two candidates: b has half of a's passages, and answers a part of its questions otherwise."""
    for name, passages in (("a", range(PASSAGES)), ("b", range(PASSAGES // 2))):
        rows = [
            {
                "id": f"{p}-{q}",
                "context": unlike(str(p))[:90],
                "question": f"What of {p} in {q}?",
                "answer": f"{name if q else ''}{p}",
            }
            for p in passages
            for q in range(2)
        ]
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


HOLDOUT = ["--set", "holdout=0.2"]
SETTINGS = [part for item in FAST for part in ("--set", item)]


def run(model_folder, monkeypatch, *arguments: object) -> int:
    command = ["run", "a.jsonl", "b.jsonl", "--model", model_folder, "--out", "run"]
    return loracle(*command, *SETTINGS, *arguments, monkeypatch=monkeypatch)


@pytest.fixture(scope="module")
def finished(model_folder, tmp_path_factory) -> Path:
    """A run of the same data, made once."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_data()
        assert run(model_folder, patch, *HOLDOUT) == 0
    return folder / "run"


@pytest.fixture
def checked(data, finished) -> None:
    """A copy of the run in the folder of the test."""
    shutil.copytree(finished, data / "run")


def read(path: str) -> dict:
    return json.loads(Path(path).read_text())


def test_without_an_evaluation_set_the_error_names_the_holdout(data, monkeypatch, capsys):
    assert loracle("run", "a.jsonl", "b.jsonl", monkeypatch=monkeypatch) == 2
    assert "--set holdout=0.1" in capsys.readouterr().err


def test_a_run_holds_out_trains_on_the_rest_and_counts_as_the_check_does(
    model_folder, data, monkeypatch, capsys
):
    command = ["check", "a.jsonl", "b.jsonl", "--model", model_folder, "--json"]
    assert loracle(*command, *HOLDOUT, monkeypatch=monkeypatch) == 0
    counted = json.loads(capsys.readouterr().out)
    assert run(model_folder, monkeypatch, *HOLDOUT) == 0
    shown = capsys.readouterr()

    results, kept = read("run/results.json"), read("run/check.json")
    jsonschema.validate(results, results_schema())
    assert kept["datasets"] == counted["datasets"]
    assert kept["holdout"] == counted["holdout"]
    held_out = kept["holdout"]["num_held_out"]
    assert all(held_out.values())
    for dataset in kept["datasets"][:-1]:
        name, accounting = dataset["name"], dataset["accounting"]
        trained = read(f"run/trials/{name}--s0/trial.json")
        assert trained["num_examples"] == accounting["num_kept"]
        assert trained["supervised_tokens"] == accounting["supervised"]
        assert accounting["num_read"] == accounting["num_kept"] + held_out[name]
    assert f"a: 20 read · {20 - held_out['a']} kept · {held_out['a']} held out" in shown.err
    assert "rows held out of the candidates and not trained on: a " in shown.out
    assert "the candidates disagree about the answer" in shown.err
    [evaluation] = results["evaluations"]
    assert (evaluation["name"], evaluation["held_out"]) == ("holdout", held_out)

    asked = read_examples(f"run/{HELD_OUT_FILE}")
    assert len(asked) == evaluation["num_examples"] == len(kept["holdout"]["questions"])
    predictions = Path("run/base/predictions/holdout.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in predictions] == [e.id for e in asked]
    assert not [found for found in kept["leakage"] if found["leaked_ids"]]
    assert "held out of the candidates themselves" in Path("run/report.html").read_text()


def test_what_was_held_out_can_be_given_to_another_run(model_folder, checked, monkeypatch, capsys):
    again = ["check", "a.jsonl", "--eval", "run/holdout.jsonl", "--json"]
    assert loracle(*again, monkeypatch=monkeypatch) == 1
    [leakage] = json.loads(capsys.readouterr().out)["leakage"]
    assert leakage["clean_ids"] == [], "the files themselves are whole"


def test_a_holdout_beside_an_evaluation_set_is_named_as_unused(
    model_folder, data, monkeypatch, capsys
):
    command = ["check", "a.jsonl", "--eval", "b.jsonl", "--model", model_folder]
    assert loracle(*command, *HOLDOUT, monkeypatch=monkeypatch) == 1
    assert "holdout: 0.2 is not used" in " ".join(capsys.readouterr().out.split())


def test_a_holdout_that_cannot_be_drawn_is_an_error_of_the_check_and_of_the_run(
    model_folder, data, monkeypatch, capsys
):
    row = Path("a.jsonl").read_text().splitlines()[0]
    for name in ("a", "b"):
        Path(f"{name}.jsonl").write_text(row)
    command = ["check", "a.jsonl", "b.jsonl", "--model", model_folder]
    assert loracle(*command, *HOLDOUT, monkeypatch=monkeypatch) == 2
    assert "cannot hold out 20% of 2 rows by passage" in " ".join(
        capsys.readouterr().out.replace("│", " ").split()
    )
    assert run(model_folder, monkeypatch, *HOLDOUT) == 2
    assert "cannot hold out 20% of 2 rows by passage" in capsys.readouterr().err


def forbid(*_: object) -> None:
    pytest.fail("the data was checked again")


def test_the_check_of_a_run_is_not_repeated_while_nothing_changed(
    model_folder, checked, monkeypatch, capsys
):
    before = Path("run/check.json").read_bytes()
    results = read("run/results.json")
    with monkeypatch.context() as patched:
        patched.setattr(run_check, "examined", forbid)
        assert run(model_folder, patched, *HOLDOUT) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "already checked" in line]
    assert len(told) == 1
    assert Path("run/check.json").read_bytes() == before
    again = read("run/results.json")
    assert again["decisions"] == results["decisions"]
    assert again["evaluations"] == results["evaluations"]


@pytest.mark.parametrize("change", ["program", "rows", "damage", "another plan's"])
def test_a_check_of_anything_else_is_made_again(change, model_folder, checked, monkeypatch, capsys):
    before = read("run/check.json")
    if change == "program":
        monkeypatch.setattr(run_check, "_program_sha256", lambda: "of another version")
    elif change == "rows":
        monkeypatch.setattr(run_check, "_rows_sha256", lambda fitted: "of another tokenizer")
    elif change == "damage":
        Path("run/check.json").write_text('{"version": 1')
    else:
        before["made_from"]["plan"] = "of another plan"
        Path("run/check.json").write_text(json.dumps(before))
    assert run(model_folder, monkeypatch, *HOLDOUT) == 0
    shown = capsys.readouterr().err
    assert "already checked" not in shown
    assert "a: 20 read" in shown
    assert read("run/check.json")["datasets"] == before["datasets"]


def test_candidates_that_were_refused_are_refused_again(model_folder, data, monkeypatch, capsys):
    with Path("b.jsonl").open("a") as file:
        file.write("not json\n" * 5)
    assert run(model_folder, monkeypatch, "--eval", "a.jsonl") == 1
    capsys.readouterr()
    with monkeypatch.context() as patched:
        patched.setattr(run_check, "examined", forbid)
        assert run(model_folder, patched, "--eval", "a.jsonl") == 1
    shown = capsys.readouterr()
    assert "already checked" in shown.err
    assert "5 of 15 rows dropped" in shown.out


def test_a_changed_file_is_another_plan(model_folder, checked, monkeypatch, capsys):
    text = Path("b.jsonl").read_text()
    Path("b.jsonl").write_text(text.replace("What of 0", "What about 0"))
    assert run(model_folder, monkeypatch, *HOLDOUT) == 2
    shown = capsys.readouterr().err
    assert "candidates.1.sha256" in shown


def test_the_longest_row_is_settled_when_the_run_begins(model_folder, checked, monkeypatch, capsys):
    from loracle.data_check import datasets as intake
    from loracle.model.memory import FreeMemory

    settled = read("run/check.json")["max_length"]
    monkeypatch.setattr(intake, "free_memory", lambda device: FreeMemory(10**7, "memory"))
    monkeypatch.setattr(run_check, "_program_sha256", lambda: "of another version")
    assert run(model_folder, monkeypatch, *HOLDOUT) == 0
    assert read("run/check.json")["max_length"] == settled
