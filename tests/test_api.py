"""`import loracle`: light, complete, typed, and the same road as the command line."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import subprocess
import sys
import textwrap
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch

import loracle
from tests import tiny

PUBLIC = [
    "Decision",
    "Judged",
    "LoadedBase",
    "Run",
    "__version__",
    "check",
    "compare",
    "decide",
    "errors",
    "open_run",
    "resume",
    "run",
    "score",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two candidates and an evaluation set."""
    folder = tmp_path_factory.mktemp("data")
    examples = tiny.passage_examples(3, 4)
    for name, chosen in (("a", examples), ("b", examples[:6]), ("test", examples[8:])):
        rows = [
            {"messages": [{"role": m.role, "content": m.content} for m in e.conversation.messages]}
            for e in chosen
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_model(tmp_path_factory.mktemp("model"))


def tiny_run(data: Path, model: Path | str, out: Path, **plan: Any) -> loracle.Run:
    return loracle.run(
        [data / "a.jsonl", {"path": str(data / "b.jsonl"), "name": "<b>"}],
        evaluation=data / "test.jsonl",
        model=model,
        out=out,
        progress="quiet",
        training={"epochs": 1, "batch_size": 8},
        generation={"max_new_tokens": 6},
        **plan,
    )


@pytest.fixture(scope="module")
def run(data: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> loracle.Run:
    return tiny_run(data, model, tmp_path_factory.mktemp("runs") / "one")


def in_new_process(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_public_names_are_these() -> None:
    assert loracle.__all__ == PUBLIC
    assert set(PUBLIC) <= set(dir(loracle))
    assert all(getattr(loracle, name) is not None for name in PUBLIC)
    with pytest.raises(AttributeError, match="no attribute 'predict'"):
        loracle.predict  # noqa: B018


def test_importing_loads_no_other_package_and_little_of_pythons_own() -> None:
    program = (
        "import sys\nbefore = set(sys.modules)\nimport loracle\n"
        "new = set(sys.modules) - before\n"
        "print({name.split('.')[0] for name in new} - set(sys.stdlib_module_names), len(new) < 20)"
    )
    assert in_new_process(program) == "{'loracle'} True\n"


def test_a_run_is_read_and_judged_without_torch(run: loracle.Run) -> None:
    program = (
        f"import sys, loracle\nrun = loracle.open_run({str(run.folder)!r})\n"
        "run.decision, run.estimates(), run.predictions(), run.adapter('a')\n"
        "loracle.decide(run), loracle.compare(run, run)\n"
        "print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    assert in_new_process(program) == "False False\n"


def test_every_public_function_and_method_is_typed_and_explained() -> None:
    functions = [
        getattr(loracle, name) for name in PUBLIC if inspect.isfunction(getattr(loracle, name))
    ]
    methods = [
        method.fget if isinstance(method, property) else method
        for owner in (loracle.Run, loracle.Decision, loracle.Judged)
        for name, method in vars(owner).items()
        if not name.startswith("_") and (isinstance(method, property) or inspect.isfunction(method))
    ]
    assert len(functions) == 7
    for function in [*functions, *methods]:
        signature = inspect.signature(function)
        assert function.__doc__, function
        assert signature.return_annotation is not inspect.Signature.empty, function
        for parameter in signature.parameters.values():
            typed = parameter.annotation is not inspect.Parameter.empty
            assert typed or parameter.name in ("self", "cls"), function
    assert typing.get_type_hints(loracle.Decision)["winner"] == str | None


def test_a_run_tells_its_decision_and_its_numbers(run: loracle.Run) -> None:
    results = json.loads((run.folder / "results.json").read_text())
    assert run.decision.sentence == results["decisions"][0]["sentence"]["en"]
    assert run.decision.said("zh") == results["decisions"][0]["sentence"]["zh"]
    assert run.decision.reasons
    assert run.failures == {}
    estimates, comparisons = run.estimates(), run.comparisons()
    assert isinstance(estimates, pandas.DataFrame)
    assert estimates.to_dict("records") == [
        pytest.approx(row, nan_ok=True) for row in results["estimates"]
    ]
    assert list(comparisons["b"].unique()) == ["base", "<b>"]
    predictions = run.predictions()
    assert list(predictions["trial"].unique()) == ["base", "a", "<b>"]
    assert len(predictions) == 12
    assert {"prompt", "answers", "prediction", "f1"} <= set(predictions)
    assert (run.adapter("a") / "adapter_model.safetensors").is_file()
    assert run.report == run.folder / "report.html"
    assert run.report.is_file()


def test_without_pandas_numbers_are_lists_of_records(
    run: loracle.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert run.estimates() == run.results["estimates"]
    assert {type(row) for row in run.predictions()} == {dict}


def test_the_same_call_resumes_and_an_opened_run_is_the_same(
    run: loracle.Run, data: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run.folder / "trials/a--s0/DONE").read_bytes()
    again = tiny_run(data, model, run.folder)
    assert (run.folder / "trials/a--s0/DONE").read_bytes() == before
    assert again.decision == run.decision == loracle.open_run(run.folder).decision
    assert repr(again) == f"Run({str(run.folder)!r})"


def test_a_finished_run_is_resumed_without_a_model_and_a_failed_candidate_on_request(
    run: loracle.Run, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run.folder, copy)
    program = (
        f"import sys, loracle\nfound = loracle.resume({str(copy)!r}, progress='quiet')\n"
        "print(found.was_finished, list(found.notes), 'torch' in sys.modules)"
    )
    assert in_new_process(program) == "True [] False\n"
    (copy / "trials" / "a--s0" / "DONE").unlink()
    (copy / "trials" / "a--s0" / "training.json").unlink()
    again = loracle.resume(copy, candidate="a", progress="quiet")
    assert not again.was_finished
    assert again.decision == run.decision
    with pytest.raises(loracle.errors.PlanError, match="the run has: a, <b>"):
        loracle.resume(copy, candidate="c")
    assert loracle.open_run(copy).was_finished


def test_a_model_that_the_caller_loaded_is_the_base_and_stays_as_it_was(
    data: Path, model: Path, run: loracle.Run, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = AutoModelForCausalLM.from_pretrained(model, dtype="auto")
    before = {name: tensor.clone() for name, tensor in loaded.state_dict().items()}
    base = loracle.LoadedBase(loaded, AutoTokenizer.from_pretrained(model))
    found = tiny_run(data, "mine", tmp_path / "run", base=base)
    assert found.results["model"]["name"] == "mine"
    assert not found.was_finished
    after = loaded.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    done = (found.folder / "trials/a--s0/DONE").read_bytes()
    tiny_run(data, "mine", found.folder, base=tuple(base))
    assert (found.folder / "trials/a--s0/DONE").read_bytes() == done
    with pytest.raises(loracle.errors.RunFolderError, match="a model that a program had loaded"):
        loracle.resume(found.folder)


def test_a_notebook_shows_names_as_text(run: loracle.Run) -> None:
    shown = run._repr_html_()
    assert "<td>&lt;b&gt;</td>" in shown
    assert "<b>" not in shown
    assert "<table>" in shown


def test_a_run_is_decided_by_another_rule_with_a_note(run: loracle.Run) -> None:
    judged = loracle.decide(run)
    assert (judged.follows_plan, judged.note) == (True, None)
    assert judged.decision == run.decision
    assert len(judged.estimates()) == len(run.estimates())
    other = loracle.decide(run.folder, metric="em", confidence=0.9)
    assert not other.follows_plan
    assert "is weaker evidence" in str(other.note)
    assert loracle.compare(run, run).plan_changes == []


def test_a_candidate_is_exported(run: loracle.Run, tmp_path: Path) -> None:
    exported = run.export("a", out=tmp_path / "best")
    assert (exported.folder / "adapter_model.safetensors").is_file()
    assert exported.checked
    assert run.export_predictions(tmp_path / "all.parquet") == 12
    if run.decision.recommended is None:
        with pytest.raises(loracle.errors.RunFolderError, match="recommends no candidate"):
            run.export(out=tmp_path / "none")


def test_files_are_checked_and_scored(data: Path, tmp_path: Path) -> None:
    checked = loracle.check(data / "a.jsonl", evaluation=[data / "test.jsonl"])
    assert checked.exit_code == 1
    assert [report.name for report in checked.reports] == ["a", "test"]
    named = loracle.check([{"path": str(data / "a.jsonl"), "name": "mine"}])
    assert [report.name for report in named.reports] == ["mine"]
    (tmp_path / "p.jsonl").write_text('{"prediction": "x", "answers": ["x"]}\n')
    assert loracle.score(tmp_path / "p.jsonl").means == {"em": 1.0, "f1": 1.0}


def test_mistakes_are_errors_of_loracle(data: Path, tmp_path: Path) -> None:
    with pytest.raises(loracle.errors.PlanError, match=r"did you mean training\.epochs"):
        loracle.run(data / "a.jsonl", data / "test.jsonl", epochs=2)
    with pytest.raises(loracle.errors.RunFolderError, match="not a run folder"):
        loracle.open_run(tmp_path)
    with pytest.raises(loracle.errors.UserError):
        loracle.score(tmp_path / "missing.jsonl")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: loracle.check(3), r"^candidates: found 3 \(int\); expected a path"),
        (lambda: loracle.check(None), "^candidates: found None; expected a path"),
        (lambda: loracle.check(["a.jsonl", 3, b"c"]), r"^candidates\[1\]: .*\ncandidates\[2\]: "),
        (lambda: loracle.check([{"question": "a", "answer": "b"}]), "rows must be in a file"),
        (lambda: loracle.check({"path": 3}), r"^candidates\.path: found 3 \(int\)"),
        (lambda: loracle.check(pandas.DataFrame({"question": ["a"]})), "write the rows to a file"),
        (lambda: loracle.check([pandas.DataFrame()]), r"^candidates\[0\]: found a DataFrame"),
        (lambda: loracle.check("a.jsonl", model=3), "^model: found 3"),
        (lambda: loracle.check("a.jsonl", overrides="training.epoch=2"), r"training\.epochs\?$"),
        (lambda: loracle.check("a.jsonl", overrides=[1]), "^overrides: found a list; expected"),
        (lambda: loracle.run("a.jsonl", eval="b.jsonl"), "eval; did you mean evaluation"),
        (lambda: loracle.run("a.jsonl", "b.jsonl", progress="loud"), "^progress: found 'loud'"),
        (lambda: loracle.run("a.jsonl", "b.jsonl", language="fr"), "expected auto, en or zh"),
        (lambda: loracle.run("a.jsonl", "b.jsonl", out=3), "^out: found 3"),
        (lambda: loracle.run("a.jsonl", "b.jsonl", base=3), r"^base: found 3 \(int\); expected"),
        (lambda: loracle.run("a.jsonl", "b.jsonl", base=("m", "t")), r"^base: found \('m' \(str\)"),
        (lambda: loracle.run(plan_file={"seeds": [0]}), "^plan_file: found a dict"),
        (lambda: loracle.open_run(None), "^folder: found None; expected a run folder"),
        (lambda: loracle.resume(3), "^folder: found 3"),
        (lambda: loracle.decide(3), "^run: found 3"),
        (lambda: loracle.compare(["a", "b"], "c"), "^run_a: found a list; expected a run folder"),
        (lambda: loracle.score([{"prediction": "x"}]), "^file: found a list; expected a path"),
        (lambda: loracle.score("p.jsonl", ["em", "f2"]), "f2'.*known: em, f1"),
        (lambda: loracle.score("p.jsonl", 3), r"^metrics: found 3 \(int\); expected texts"),
        (lambda: loracle.score("p.jsonl", columns={"predicted": "x"}), "expected prediction=KEY"),
    ],
)
def test_an_argument_of_another_kind_is_named_with_what_was_found_and_what_is_expected(
    call: Callable[[], object], message: str
) -> None:
    with pytest.raises(loracle.errors.UserError, match=message):
        call()


def test_data_is_a_path_an_entry_or_any_iterable_of_them(data: Path) -> None:
    entry = {"path": data / "b.jsonl", "name": "mine"}
    found = loracle.check(each for each in (data / "a.jsonl", entry))
    assert [report.name for report in found.reports] == ["a", "mine"]


def test_metrics_are_one_text_or_several(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"prediction": "x", "answers": ["x"]}\n')
    assert loracle.score(tmp_path / "p.jsonl", "em").means == {"em": 1.0}
    assert list(loracle.score(tmp_path / "p.jsonl", "f1, em").means) == ["f1", "em"]


@pytest.fixture
def examples(
    data: Path, model: Path, run: loracle.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that has what the examples of the docstrings name."""
    for theirs, ours in (("clean", "a"), ("noisy", "b"), ("test", "test")):
        shutil.copy(data / f"{ours}.jsonl", tmp_path / f"{theirs}.jsonl")
    for name in ("demo", "before", "after"):
        shutil.copytree(run.folder, tmp_path / "runs" / name)
    shutil.copytree(model, tmp_path / "Qwen" / "Qwen2.5-0.5B-Instruct")
    (tmp_path / "predictions.jsonl").write_text('{"prediction": "x", "answers": ["x"]}\n')
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("examples")
@pytest.mark.parametrize("name", sorted(set(PUBLIC) - {"__version__"}))
def test_the_example_of_a_public_name_runs(name: str) -> None:
    text = inspect.getdoc(getattr(loracle, name)) or ""
    found = re.search(r"^Example:\n((?:    .*\n|\n)+)", text + "\n", re.M)
    assert found, f"loracle.{name} has no example"
    exec(textwrap.dedent(found[1]), {"loracle": loracle})


def test_sections_are_laid_over_a_plan_file_key_by_key(data: Path, tmp_path: Path) -> None:
    from loracle.plan import load_plan

    plan = tmp_path / "plan.yaml"
    plan.write_text(
        f"candidates: [{data}/a.jsonl]\nevaluation: [{data}/test.jsonl]\n"
        "training: {epochs: 3, batch_size: 4}\nlora: {r: 4}\n"
    )
    loaded = load_plan(
        plan,
        settings={"training": {"epochs": 1}, "seeds": [0, 1]},
        overrides=["training.batch_size=2"],
    )
    assert (loaded.training.epochs, loaded.training.batch_size) == (1, 2)
    assert (loaded.seeds, [entry.name for entry in loaded.candidates]) == ([0, 1], ["a"])
