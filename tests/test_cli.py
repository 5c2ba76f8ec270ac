"""The user's seat: commands, files, messages and exit codes, with a tiny model."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jsonschema
import pytest

from loracle import adapter, cli, training
from loracle.report.results import results_schema
from tests import tiny

FAST = ["training.epochs=1", "training.batch_size=8", "generation.max_new_tokens=6"]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> Path:
    return tiny.save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    """A working folder with two candidates and an evaluation set."""
    monkeypatch.chdir(tmp_path)
    examples = tiny.passage_examples(3, 4)
    for name, chosen in (("a", examples), ("b", examples[:6]), ("test", examples[8:])):
        rows = [
            {"messages": [{"role": m.role, "content": m.content} for m in e.conversation.messages]}
            for e in chosen
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text)
    return tmp_path


def loracle(*arguments: object, monkeypatch) -> int:
    monkeypatch.setattr(sys, "argv", ["loracle", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def run(model_folder, monkeypatch, *arguments: object, out: str = "run") -> int:
    settings = [part for item in FAST for part in ("--set", item)]
    command = ["run", "a.jsonl", "b.jsonl", "--eval", "test.jsonl", "--model", model_folder]
    return loracle(*command, "--out", out, *settings, *arguments, monkeypatch=monkeypatch)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_run_trains_evaluates_and_ranks(model_folder, data, monkeypatch, capsys):
    assert run(model_folder, monkeypatch) == 0
    shown = capsys.readouterr()
    assert "base" in shown.out
    assert "F1" in shown.out
    assert "step 2/2" in shown.err
    results = json.loads((data / "run/results.json").read_text())
    jsonschema.validate(results, results_schema())
    rows = {row["candidate"]: row for row in results["rows"]}
    assert list(rows) == ["base", "a", "b"]
    assert (rows["a"]["num_examples"], rows["a"]["num_steps"]) == (12, 2)
    assert rows["a"]["tokens_computed"] < rows["a"]["tokens_read"]
    steps = [
        json.loads(s) for s in (data / "run/trials/a--s0/steps.jsonl").read_text().splitlines()
    ]
    assert set(steps[0]) == {
        "step",
        "epoch",
        "loss",
        "gradient_norm",
        "learning_rate",
        "tokens_read",
        "tokens_computed",
        "seconds",
    }
    found = set(files(data / "run"))
    for name in ("plan.json", "environment.json", "events.jsonl", "training.log"):
        assert name in found
    for name in ("trial.json", "DONE", "adapter/adapter_model.safetensors"):
        assert f"trials/b--s0/{name}" in found
    assert "base/predictions/test.jsonl" in found


def test_predictions_can_be_scored_again_from_their_file(model_folder, data, monkeypatch, capsys):
    run(model_folder, monkeypatch, "--json")
    results = json.loads(capsys.readouterr().out)
    path = "run/trials/a--s0/predictions/test.jsonl"
    assert loracle("score", path, "--json", monkeypatch=monkeypatch) == 0
    means = json.loads(capsys.readouterr().out)["means"]
    (row,) = [row for row in results["rows"] if row["candidate"] == "a"]
    assert means["f1"] == pytest.approx(row["scores"]["test"]["f1"]["mean"], abs=1e-12)


def test_the_same_command_runs_no_finished_trial_again(model_folder, data, monkeypatch, capsys):
    assert run(model_folder, monkeypatch) == 0
    before = files(data / "run/trials")
    (data / "run/trials/b--s0/DONE").unlink()
    monkeypatch.setattr(adapter, "save", forbid_after(adapter.save, 1))
    assert run(model_folder, monkeypatch) == 0
    shown = capsys.readouterr().err
    assert "finished before" in shown
    assert "starting over" in shown
    after = files(data / "run/trials")
    assert after.keys() == before.keys()
    same = [name for name in before if name.endswith((".safetensors", "predictions/test.jsonl"))]
    assert len(same) == 4
    assert all(after[name] == before[name] for name in same)


def forbid_after(function, num_calls: int):
    calls = []

    def limited(*arguments):
        calls.append(arguments)
        assert len(calls) <= num_calls, "a finished trial ran again"
        return function(*arguments)

    return limited


def test_a_damaged_trial_runs_again(model_folder, data, monkeypatch, capsys):
    run(model_folder, monkeypatch)
    (data / "run/trials/a--s0/predictions/test.jsonl").write_text("{}\n")
    assert run(model_folder, monkeypatch) == 0
    assert "predictions/test.jsonl has changed" in capsys.readouterr().err


def test_another_plan_is_refused_with_the_difference(model_folder, data, monkeypatch, capsys):
    run(model_folder, monkeypatch)
    capsys.readouterr()
    assert run(model_folder, monkeypatch, "--set", "training.learning_rate=0.5") == 2
    assert "training.learning_rate" in capsys.readouterr().err


def test_a_failing_candidate_fails_alone(model_folder, data, monkeypatch, capsys):
    forest_loss = training.forest_loss
    calls: list[int] = []

    def not_finite_at_first(base, micro_batch):
        calls.append(1)
        return forest_loss(base, micro_batch) * (float("nan") if len(calls) == 1 else 1.0)

    monkeypatch.setattr(training, "forest_loss", not_finite_at_first)
    assert run(model_folder, monkeypatch) == 1
    results = json.loads((data / "run/results.json").read_text())
    status = {row["candidate"]: row["status"] for row in results["rows"]}
    assert status == {"base": "done", "a": "failed", "b": "done"}
    assert "loss nan" in capsys.readouterr().out
    assert (data / "run/trials/a--s0/FAILED.json").exists()
    monkeypatch.setattr(training, "forest_loss", forest_loss)
    assert run(model_folder, monkeypatch) == 0


def test_seeds_nll_and_padded_batches_work_from_a_plan(model_folder, data, monkeypatch, capsys):
    (data / "plan.yaml").write_text(
        f"""
        model: {model_folder}
        candidates: [a.jsonl]
        evaluation: [{{path: test.jsonl, metrics: [f1, answer_nll]}}]
        training: {{max_steps: 2, batch_size: 4, batching: padded, order: shuffled}}
        generation: {{max_new_tokens: 4, dtype: float32}}
        seeds: [0, 1]
        decision: {{metric: answer_nll}}
        """
    )
    assert loracle("run", "--plan", "plan.yaml", "--out", "r", monkeypatch=monkeypatch) == 0
    results = json.loads((data / "r/results.json").read_text())
    assert [row["seed"] for row in results["rows"]] == [None, 0, 1]
    assert results["model"]["batching"] == "padded"
    means = [row["scores"]["test"]["answer_nll"]["mean"] for row in results["rows"]]
    assert means[1] < means[0]
    assert results["ranking"][0]["candidate"] == "a"


MISTAKES = {
    "a missing file": (["run", "nope.jsonl", "--eval", "test.jsonl"], "nope.jsonl"),
    "no evaluation set": (["run", "a.jsonl"], "--eval"),
    "no candidate": (["run", "--eval", "test.jsonl"], "candidate"),
    "an unknown key": (
        ["run", "a.jsonl", "--eval", "test.jsonl", "--set", "training.epoch=2"],
        "training.epochs",
    ),
    "an unknown metric": (
        ["run", "a.jsonl", "--eval", "test.jsonl", "--set", "decision.metric=f2"],
        "f1",
    ),
    "an unknown LoRA field": (
        ["run", "a.jsonl", "--eval", "test.jsonl", "--set", "lora.rank_pattern_=1"],
        "did you mean rank_pattern",
    ),
    "a missing model folder": (
        ["run", "a.jsonl", "--eval", "test.jsonl", "--model", "./nowhere"],
        "there is no such folder",
    ),
    "a folder that is no model": (
        ["run", "a.jsonl", "--eval", "test.jsonl", "--model", "."],
        "config.json",
    ),
    "a missing plan": (["run", "--plan", "nope.yaml"], "nope.yaml"),
    "a missing file to score": (["score", "nope.jsonl"], "nope.jsonl"),
    "an unknown option": (["run", "--evel", "x"], "--evel"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_clear_message_and_exit_code_2(mistake, data, monkeypatch, capsys):
    arguments, expected = MISTAKES[mistake]
    if arguments[0] == "run":
        arguments = [*arguments, "--out", "run"]
    assert loracle(*arguments, monkeypatch=monkeypatch) == 2
    shown = capsys.readouterr()
    assert expected in shown.err
    assert "Traceback" not in shown.err
    assert not (data / "run/base").exists()


BAD_ROWS = {
    "bad JSON": ('{"messages": [}', "a.jsonl:2"),
    "no assistant turn": ('{"messages": [{"role": "user", "content": "x"}]}', "assistant"),
    "a row that is no object": ("[1]", "a.jsonl:2"),
}


@pytest.mark.parametrize("fault", BAD_ROWS)
def test_bad_rows_are_named_before_a_model_is_loaded(
    fault, model_folder, data, monkeypatch, capsys
):
    line, expected = BAD_ROWS[fault]
    first = (data / "a.jsonl").read_text().splitlines()[0]
    (data / "a.jsonl").write_text(f"{first}\n{line}\n")
    (data / "b.jsonl").write_text("")
    monkeypatch.setattr("loracle.experiment.load_model", lambda *_: pytest.fail("too late"))
    assert run(model_folder, monkeypatch) == 2
    shown = capsys.readouterr().err
    assert "a.jsonl:2" in shown
    assert expected in shown
    assert "b.jsonl" in shown


def test_the_options_of_run_are_these():
    import typer.main

    command = typer.main.get_command(cli.app).commands["run"]
    options = {name for parameter in command.params for name in parameter.opts}
    expected = {"candidates", "--eval", "--model", "--out", "--plan", "--set", "--json"}
    assert options - {"--help"} == expected
