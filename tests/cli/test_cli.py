"""The user's seat: commands, files, messages and exit codes, with a tiny model."""

from __future__ import annotations

import gc
import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from loracle import cli
from loracle.data.reading.dataset import read_examples
from loracle.data.rendering.renderer import Rendered
from loracle.experiment import answering, working
from loracle.experiment.attempt import attempt_base
from loracle.model import adapter
from loracle.report.results import results_schema
from loracle.training import loop as training
from tests import tiny
from tests.data.audit.test_leakage import unlike

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
    # Trained before, and its questions answered: neither is done again.
    monkeypatch.setattr(adapter, "save", forbid_after(adapter.save, 0))
    monkeypatch.setattr(answering, "_prediction", forbid_after(answering._prediction, 0))
    assert run(model_folder, monkeypatch) == 0
    shown = capsys.readouterr().err
    assert "already finished" in shown
    assert "starting over" not in shown
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


def test_a_metric_that_changed_is_another_plan(model_folder, data, monkeypatch, capsys):
    module = data / "own_metrics.py"
    module.write_text("def same(prediction, references):\n    return prediction in references\n")
    (data / "plan.yaml").write_text(
        f"model: {model_folder}\ncandidates: [a.jsonl]\n"
        "evaluation: [{path: test.jsonl, metrics: ['own_metrics:same', f1]}]\n"
        "training: {max_steps: 1, batch_size: 8}\ngeneration: {max_new_tokens: 4}\n"
    )
    command = ["run", "--plan", "plan.yaml", "--out", "run"]
    assert loracle(*command, monkeypatch=monkeypatch) == 0
    assert (
        "own_metrics:same"
        in json.loads((data / "run/plan.json").read_text())["plan"]["metric_modules"]
    )
    module.write_text("def same(prediction, references):\n    return 0.0\n")
    capsys.readouterr()
    assert loracle(*command, monkeypatch=monkeypatch) == 2
    assert "metric_modules.own_metrics:same" in capsys.readouterr().err


def test_a_run_trains_without_the_rendered_rows_as_lists(model_folder, data, monkeypatch):
    left: list[int] = []

    def counting(*arguments):
        gc.collect()
        left.append(sum(type(one) is Rendered for one in gc.get_objects()))
        return attempt_base(*arguments)

    monkeypatch.setattr(working, "attempt_base", counting)
    before = sum(type(one) is Rendered for one in gc.get_objects())
    assert run(model_folder, monkeypatch) == 0
    assert left == [before]


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
        "did you mean lora.rank_pattern?",
    ),
    "another tool's name of a LoRA field": (
        ["run", "a.jsonl", "--eval", "test.jsonl", "--set", "lora.rank=16"],
        "did you mean lora.r?",
    ),
    "a missing model folder": (
        ["run", "a.jsonl", "--eval", "test.jsonl", "--model", "./nowhere"],
        "there is no such folder",
    ),
    "a slip in the embedded model's name": (
        ["run", "a.jsonl", "--eval", "test.jsonl", "--model", "embeded"],
        "did you mean embedded?",
    ),
    "a folder that is no model": (
        ["run", "a.jsonl", "--eval", "test.jsonl", "--model", "."],
        "config.json",
    ),
    "a missing plan": (["run", "--plan", "nope.yaml"], "nope.yaml"),
    "no run folder to decide": (["decide", "nope"], "nope is not a run folder"),
    "no run folder to compare": (["compare", "nope", "nope"], "nope is not a run folder"),
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


def test_a_missing_model_is_found_before_there_is_a_run_folder(data, monkeypatch, capsys):
    command = ["run", "a.jsonl", "--eval", "test.jsonl", "--model", "./nowhere", "--out", "run"]
    assert loracle(*command, monkeypatch=monkeypatch) == 2
    assert "model ./nowhere: there is no such folder" in capsys.readouterr().err
    assert not (data / "run").exists()


def test_a_run_is_named_by_date_and_candidates_and_found_again(
    model_folder, data, monkeypatch, capsys
):
    settings = [part for item in FAST for part in ("--set", item)]
    command = ["run", "a.jsonl", "b.jsonl", "--eval", "test.jsonl", "--model", model_folder]
    for _ in range(2):
        assert loracle(*command, *settings, monkeypatch=monkeypatch) == 0
    [folder] = (data / "runs").iterdir()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d-a-vs-b", folder.name)
    shown = capsys.readouterr().err
    assert "already finished" in shown
    # The way on: report, reasons, and the adapter if one is recommended.
    report, reasons, *adapter = shown.split("Next:\n")[-1].splitlines()
    assert report.split() == ["the", "report", f"runs/{folder.name}/report.html"]
    assert reasons.split() == ["the", "reasons", "loracle", "decide", f"runs/{folder.name}"]
    results = json.loads((folder / "results.json").read_text())
    recommended = results["decisions"][0]["recommended"]
    assert len(adapter) == (recommended is not None)


def test_a_run_speaks_chinese_or_not_at_all(model_folder, data, monkeypatch, capsys):
    assert run(model_folder, monkeypatch, "--language", "zh") == 0
    shown = capsys.readouterr()
    sentence = json.loads((data / "run/results.json").read_text())["decisions"][0]["sentence"]
    assert "".join(shown.out.split()).endswith("".join(sentence["zh"].split()))
    assert "run 已结束，用时" in shown.err
    assert "接下来：" in shown.err
    assert "run finished in" in (data / "run/pipeline.log").read_text()
    assert run(model_folder, monkeypatch, "--quiet") == 0
    quiet = capsys.readouterr()
    assert "".join(quiet.out.split()).endswith("".join(sentence["en"].split()))
    assert all(line.startswith("warning: ") for line in quiet.err.splitlines())
    assert run(model_folder, monkeypatch, "--json", "-v") == 0
    assert "run_started" not in json.loads(capsys.readouterr().out)


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
    monkeypatch.setattr(
        "loracle.experiment.preparing.load_model", lambda *_: pytest.fail("too late")
    )
    assert run(model_folder, monkeypatch) == 2
    shown = capsys.readouterr().err
    assert "a.jsonl:2" in shown
    assert expected in shown
    assert "b.jsonl" in shown


def test_a_finished_run_is_decided_and_compared_from_its_files(
    model_folder, data, monkeypatch, capsys
):
    assert run(model_folder, monkeypatch) == 0
    shown = capsys.readouterr().out
    before = files(data / "run")
    results = json.loads((data / "run/results.json").read_text())
    sentence = results["decisions"][0]["sentence"]
    assert " ".join(shown.split()).endswith(sentence["en"])

    assert loracle("decide", "run", monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out.startswith(sentence["en"])
    assert loracle("decide", "run", "--language", "zh", monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out.startswith(sentence["zh"])
    assert loracle("decide", "run", "--json", monkeypatch=monkeypatch) == 0
    decided = json.loads(capsys.readouterr().out)
    assert decided.pop("frozen_rule") is True
    assert decided == {key: results[key] for key in decided}
    judged = {"rule", "precision", "estimates", "comparisons", "decisions", "read_first"}
    assert set(decided) == judged

    changed = ("decide", "run", "--metric", "em", "--confidence", "0.9")
    assert loracle(*changed, monkeypatch=monkeypatch) == 0
    assert "is weaker evidence" in capsys.readouterr().err
    assert loracle(*changed, "--json", monkeypatch=monkeypatch) == 0
    other = json.loads(capsys.readouterr().out)
    assert (other["frozen_rule"], other["rule"]["metric"]) == (False, "em")

    assert loracle("compare", "run", "run", monkeypatch=monkeypatch) == 0
    assert "The plans are the same." in capsys.readouterr().out
    assert loracle("compare", "run", "run", "--json", monkeypatch=monkeypatch) == 0
    compared = json.loads(capsys.readouterr().out)["comparisons"]
    assert {comparison["difference"] for comparison in compared} == {0.0}
    assert files(data / "run") == before


def test_predictions_say_which_questions_belong_together(model_folder, data, monkeypatch):
    # Four questions about one passage, two about a second, four about a third.
    (data / "test.jsonl").write_text(
        (data / "b.jsonl").read_text() + (data / "test.jsonl").read_text()
    )
    assert run(model_folder, monkeypatch) == 0
    rows = [
        json.loads(line)
        for line in (data / "run/base/predictions/test.jsonl").read_text().splitlines()
    ]
    expected = 4 * ["passage:0"] + 2 * ["passage:4"] + 4 * ["passage:6"]
    assert [row["cluster"] for row in rows] == expected
    [evaluation] = json.loads((data / "run/results.json").read_text())["evaluations"]
    assert (evaluation["num_clusters"], evaluation["clusters_by"]) == (3, {"passage": 10})


def test_what_the_check_counts_is_what_training_reports(model_folder, data, monkeypatch, capsys):
    """Also with rows shortened, dropped as unusable, and dropped as too long."""
    text = (data / "a.jsonl").read_text()
    long = {"messages": [{"role": "user", "content": "x" * 900}, {"role": "assistant"}]}
    long["messages"][1]["content"] = "y"
    passage = "\n".join(f"Line {n} of a passage that is much too long." for n in range(20))
    cut = json.loads(json.dumps(long))
    cut["messages"][0]["content"] = f"Context: {passage}\nQuestion: How many lines?"
    rows = [*text.splitlines(), "not json", json.dumps(long), json.dumps(cut)]
    (data / "a.jsonl").write_text("\n".join(rows) + "\n")
    limits = ["--set", "training.max_length=400", "--set", "candidates.0.max_dropped=0.5"]
    assert loracle(
        *("check", "a.jsonl", "b.jsonl", "--eval", "test.jsonl", "--model", model_folder),
        *(*limits, "--json"),
        monkeypatch=monkeypatch,
    ) in (0, 1)
    counted = {d["name"]: d for d in json.loads(capsys.readouterr().out)["datasets"]}
    assert run(model_folder, monkeypatch, *limits) == 0
    for name in ("a", "b"):
        trained = json.loads((data / f"run/trials/{name}--s0/trial.json").read_text())
        accounting = counted[name]["accounting"]
        assert trained["num_examples"] == accounting["num_kept"]
        assert trained["supervised_tokens"] == accounting["supervised"]
    accounting = counted["a"]["accounting"]
    assert accounting["dropped_by_reason"] == {"not JSON": 1, "too long": 1}
    assert [note["line"] for note in accounting["shortened"]] == [15]
    kept = json.loads((data / "run/check.json").read_text())["datasets"]
    assert {d["name"]: d["accounting"] for d in kept} == {
        name: d["accounting"] for name, d in counted.items()
    }


def test_a_candidate_that_loses_too_many_rows_fails_alone(model_folder, data, monkeypatch, capsys):
    with (data / "b.jsonl").open("a") as file:
        file.write("not json\n" * 3)
    assert run(model_folder, monkeypatch, "--json") == 1
    shown = capsys.readouterr()
    rows = {row["candidate"]: row for row in json.loads(shown.out)["rows"]}
    assert (rows["a"]["status"], rows["b"]["status"]) == ("done", "failed")
    assert "3 of 9 rows dropped (33.3%: not JSON 3)" in rows["b"]["reason"]
    assert (data / "run/trials/b--s0/FAILED.json").exists()
    assert "a: 12 read · 12 kept · 0 dropped · 0 shortened" in shown.err
    limit = "longest row allowed: 2,048 tokens (the model's own limit); longer ones are shortened"
    assert limit in shown.err


def test_where_every_candidate_loses_too_much_nothing_is_trained(
    model_folder, data, monkeypatch, capsys
):
    for name in ("a", "b"):
        with (data / f"{name}.jsonl").open("a") as file:
            file.write("not json\n" * 9)
    assert run(model_folder, monkeypatch) == 2
    assert "no candidate can be used for training" in capsys.readouterr().err


def test_a_run_says_what_its_candidates_know_of_the_evaluation_set(
    model_folder, data, monkeypatch, capsys
):
    assert run(model_folder, monkeypatch) == 0
    assert "a contains 4 of the 4 rows of test; 0 are clean" in capsys.readouterr().err


def test_check_prints_cards_and_ends_by_what_it_found(data, monkeypatch, capsys):
    assert loracle("check", "a.jsonl", monkeypatch=monkeypatch) == 0
    shown = capsys.readouterr().out
    assert "a · candidate" in shown
    assert "12 read · 12 kept" in shown
    assert "characters" in shown
    assert loracle("check", "a.jsonl", "--eval", "test.jsonl", monkeypatch=monkeypatch) == 1
    shown = capsys.readouterr().out
    assert "a → test · leakage" in shown
    assert "a.jsonl:9" in shown
    assert loracle("check", "missing.jsonl", "a.jsonl", monkeypatch=monkeypatch) == 2
    shown = capsys.readouterr().out
    assert "there is no file" in " ".join(shown.replace("│", " ").split())
    assert "a · candidate" in shown
    assert loracle("check", monkeypatch=monkeypatch) == 2


def test_a_check_without_a_model_loads_no_torch(data):
    program = (
        "import sys\n"
        "from loracle.data_check.datasets import check_files\n"
        "from loracle.data_check.card import cards\n"
        "cards(check_files(['a.jsonl'], ['test.jsonl']))\n"
        "print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], cwd=data, capture_output=True, text=True, check=True
    )
    assert shown.stdout.split() == ["False", "False"]


def test_inspect_marks_what_is_learned(model_folder, data, monkeypatch, capsys):
    command = ["inspect", "a.jsonl", "--row", 2, "--model", model_folder]
    assert loracle(*command, monkeypatch=monkeypatch) == 0
    shown = capsys.readouterr().out
    assert "row 2 · a.jsonl:2 · id a-2" in shown
    assert "<|im_start|>assistant\n⟦0 of 1<|im_end|>⟧" in shown
    assert loracle(*command, "--ids", monkeypatch=monkeypatch) == 0
    end = tiny.tokenizer().eos_token_id
    assert f"<|im_end|>⟨{end}⟩⟧" in capsys.readouterr().out


def test_inspect_shows_where_a_row_was_cut(model_folder, data, monkeypatch, capsys):
    passage = " ".join(f"Line {n} of a passage." for n in range(60))
    content = f"Context: {passage}\nQuestion: How many?"
    turns = [{"role": "user", "content": content}, {"role": "assistant", "content": "60"}]
    (data / "long.jsonl").write_text(json.dumps({"messages": turns}) + "\n")
    command = ["inspect", "long.jsonl", "--model", model_folder]
    assert loracle(*command, "--set", "training.max_length=400", monkeypatch=monkeypatch) == 0
    shown = capsys.readouterr().out
    assert "characters cut]" in shown
    assert "shortened: " in shown
    assert "⟦60<|im_end|>⟧" in shown
    dropping = ["--set", "training.max_length=400", "--set", "training.overlong=drop"]
    assert loracle(*command, *dropping, monkeypatch=monkeypatch) == 0
    assert "dropped: " in capsys.readouterr().out
    assert loracle("inspect", "a.jsonl", "--row", 99, monkeypatch=monkeypatch) == 2
    assert "there is no row 99; found rows 1 to 12" in capsys.readouterr().err


def test_split_writes_two_files_with_every_row_and_never_over_others(data, monkeypatch, capsys):
    rows = [
        {"id": f"{p}-{q}", "context": unlike(str(p)), "question": f"Q{q}?", "answer": "x"}
        for p in range(10)
        for q in range(3)
    ]
    (data / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["split", "c.jsonl", "--holdout", 0.2, "--out", "parts", "--json"]
    assert loracle(*command, monkeypatch=monkeypatch) == 0
    told = json.loads(capsys.readouterr().out)
    sides = [read_examples(told[side]) for side in ("train", "holdout")]
    assert [len(side) for side in sides] == [told["num_train"], told["num_holdout"]] == [24, 6]
    assert {e.id for side in sides for e in side} == {row["id"] for row in rows}
    assert not {e.context for e in sides[0]} & {e.context for e in sides[1]}
    original = {e.id: e.conversation for e in read_examples("c.jsonl")}
    assert all(e.conversation == original[e.id] for side in sides for e in side)
    assert loracle(*command, monkeypatch=monkeypatch) == 2
    assert "there already" in capsys.readouterr().err
    assert loracle("split", "c.jsonl", "--holdout", 1.5, monkeypatch=monkeypatch) == 2
    assert "expected a share between 0 and 1" in capsys.readouterr().err


READING = ["--format", "--column", "--split", "--encoding", "--unanswerable"]


@pytest.mark.parametrize("command", ["check", "inspect", "split", "convert"])
def test_commands_that_read_files_take_the_same_options_of_reading(command):
    import typer.main

    found = typer.main.get_command(cli.app).commands[command].params
    assert set(READING) <= {name for parameter in found for name in parameter.opts}


@pytest.mark.parametrize("command", ["check", "inspect", "split", "convert"])
def test_columns_and_encoding_of_the_command_line_are_used(
    command, model_folder, data, monkeypatch, capsys
):
    rows = [{"query": f"问 {n}？", "reply": f"答 {n}"} for n in range(9)]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (data / "gbk.jsonl").write_bytes(text.encode("gbk"))
    arguments = {
        "check": ["--json"],
        "inspect": ["--model", model_folder],
        "split": ["--holdout", 0.3, "--json"],
        "convert": ["--out", "out.jsonl"],
    }[command]
    reading = ["--encoding", "gb18030", "--column", "question=query", "--column", "answer=reply"]
    reading += ["--format", "question_answer"]
    assert loracle(command, "gbk.jsonl", *arguments, monkeypatch=monkeypatch) == 2
    capsys.readouterr()
    assert loracle(command, "gbk.jsonl", *arguments, *reading, monkeypatch=monkeypatch) == 0
    shown = capsys.readouterr().out
    if command == "check":
        [dataset] = json.loads(shown)["datasets"]
        assert dataset["accounting"]["num_kept"] == 9
    elif command == "inspect":
        # The tiny tokenizer has no Chinese.
        assert "row 1 · gbk.jsonl:1 · id gbk-1" in shown
    elif command == "split":
        told = json.loads(shown)
        assert told["num_train"] + told["num_holdout"] == 9
    else:
        assert read_examples("out.jsonl")[0].conversation.reply == "答 0"


@pytest.mark.parametrize("command", ["check", "inspect", "split", "convert"])
@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--format", "mesages"], "format: found"),
        (["--column", "question"], "--column question: expected field=column"),
        (["--column", "qestion=query"], "columns"),
        (["--encoding", "utf-7b"], "encoding: found"),
        (["--unanswerable", "keep"], "unanswerable: found"),
    ],
)
def test_a_wrong_option_of_reading_is_one_message(
    command, option, message, data, monkeypatch, capsys
):
    more = ["--out", "out.jsonl"] if command == "convert" else []
    assert loracle(command, "a.jsonl", *option, *more, monkeypatch=monkeypatch) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("error:") == 1


def test_options_of_reading_without_a_file_are_refused(data, monkeypatch, capsys):
    (data / "plan.yaml").write_text("candidates: [a.jsonl]\nevaluation: [test.jsonl]\n")
    command = ["check", "--plan", "plan.yaml", "--format", "messages"]
    assert loracle(*command, monkeypatch=monkeypatch) == 2
    assert "found format without a file" in capsys.readouterr().err


def test_inspect_takes_a_setting_without_an_evaluation_set(model_folder, data, monkeypatch, capsys):
    command = ["inspect", "a.jsonl", "--model", model_folder, "--set", "training.max_length=900"]
    assert loracle(*command, monkeypatch=monkeypatch) == 0
