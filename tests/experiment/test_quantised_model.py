"""Training, resuming and answering on a base in int8 and nf4: a tiny one, and the embedded model.

What quantisation leaves exact: the forest against separate sequences differs by the rounding of
the products' own precision (float32: 1e-5 of a gradient, no answer), as it does on whole weights.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from loracle.forest.ordering import Ordering
from loracle.generation.generate import generate
from loracle.generation.types import Question
from loracle.model import adapter
from loracle.model.base import BaseModel, base_fingerprint, load_base, load_tokenizer, wrap_base
from loracle.model.embedded import embedded_model_folder
from loracle.model.loaded_form import LoadedForm
from loracle.training.micro_batches import take
from tests import tiny
from tests.command import loracle
from tests.experiment.test_real_model import (
    SETTINGS as REAL_SETTINGS,
)
from tests.experiment.test_real_model import (
    XQUAD,
    batch_of,
    one_at_a_time,
    questions_of,
    rendered,
)
from tests.generation.test_generate import SETTINGS, by_transformers, prompts
from tests.training.test_checkpoint import Training
from tests.training.test_loop import attached, awake, gradient_of, one_by_one, relative_error, rows

KINDS = ["int8", "nf4"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = {"hidden_size": 64, "intermediate_size": 128, "tie_word_embeddings": False}
    return tiny.save_model(tmp_path_factory.mktemp("model"), **sizes)


def tiny_base(folder: Path, kind: str) -> BaseModel:
    base = load_base("tiny", str(folder), tiny.tokenizer(), LoadedForm("float32", kind))
    # Several end tokens, so that some answers of a random model end early.
    ends = [tiny.tokenizer().eos_token_id, *range(10, 98, 16)]
    base.model.generation_config.eos_token_id = ends
    return wrap_base(base.name, base.model, base.tokenizer)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("budget", [130, 100_000])
def test_the_forest_gradient_equals_that_of_separate_sequences(folder, kind, budget):
    base, data = tiny_base(folder, kind), rows()
    adapted = awake(attached(base))
    order = Ordering(tuple(data.groups.tolist()), 12, 0, True)
    batch = take(data.sequences, order.batch(0))
    expected = one_by_one(base, adapted, batch)
    for forest in (True, False):
        found = gradient_of(base, adapted, batch, budget=budget, forest=forest)
        assert relative_error(found, expected) <= 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_answers_equal_those_of_generate_and_drafts_change_none(folder, kind):
    base = tiny_base(folder, kind)
    adapted = awake(attached(base))
    asked = prompts(base)[::4]
    expected = [by_transformers(base, ids) for ids in asked]
    for drafts in ([()] * len(asked), [answer.token_ids for answer in expected]):
        questions = [
            Question(ids, drafts={"x": [draft]} if draft else {})
            for ids, draft in zip(asked, drafts, strict=True)
        ]
        batches = generate(base, adapted, questions, SETTINGS)
        assert [answer for batch in batches for answer in batch] == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_killed_on_a_quantised_base_resumes_to_the_same_adapter(folder, kind, tmp_path):
    whole, killed = Training(tmp_path / "whole"), Training(tmp_path / "killed")
    whole.base, killed.base = tiny_base(folder, kind), tiny_base(folder, kind)
    before = base_fingerprint(whole.base.model)
    expected = whole.run()
    killed.killed_after(3)
    # Another process loads and packs the weights again.
    killed.base = tiny_base(folder, kind)
    assert killed.run() == expected
    assert base_fingerprint(whole.base.model) == base_fingerprint(killed.base.model) == before


def test_the_base_alone_in_another_precision_is_compared_with_a_run(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [json.dumps({"question": f"what is {i}", "answer": f"the {i}"}) for i in range(4)]
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(rows), encoding="utf-8")
    common = [data, "--eval", data, "--model", folder, "--set", "model.dtype=float32"]
    short = ["--set", "training.max_steps=1", "--set", "generation.max_new_tokens=3"]
    packed, whole = tmp_path / "packed", tmp_path / "whole"
    quantised = ["--set", "model.quantization=nf4"]
    assert loracle("run", *common, *short, *quantised, "--out", packed) == 0
    assert loracle("run", *common, *short, "--out", whole, "--base-only") == 0
    results = json.loads((whole / "results.json").read_text())
    assert [(row["candidate"], row["status"]) for row in results["rows"]] == [
        ("base", "done"),
        ("rows", "failed"),
    ]
    assert "it has not run yet" in results["rows"][1]["reason"]
    capsys.readouterr()
    assert loracle("compare", whole, packed, "--json") == 0
    compared = json.loads(capsys.readouterr().out)
    assert [{pair["a"], pair["b"]} for pair in compared["comparisons"]] == [{"A: base", "B: base"}]
    assert compared["plan_changes"] == ['model.quantization: "none" → "nf4"']
    page = (packed / "report.html").read_text(encoding="utf-8")
    assert "weights in nf4, products in float32" in page
    # What was left alone is trained when it is wanted.
    assert loracle("resume", whole) == 0


NUM_ROWS = 100


def run_on_xquad(folder: Path, kind: str) -> dict[str, Any]:
    """Train on 100 rows and ask 100 questions; results.json."""
    if not XQUAD.exists():
        pytest.skip("XQuAD lies outside the project, and is not here")
    plan = {
        "model": {"name": "embedded", "quantization": kind, "dtype": "float32"},
        "candidates": [{"path": str(XQUAD / "candidates/clean.json"), "limit": NUM_ROWS}],
        "evaluation": [{"path": str(XQUAD / "eval.json"), "limit": NUM_ROWS}],
        "training": {"max_steps": 4, "batch_size": 32, "learning_rate": 5e-4},
        "generation": {"max_new_tokens": 12},
    }
    path = folder / f"{kind}.json"
    path.write_text(json.dumps(plan))
    assert loracle("run", "--plan", path, "--out", folder / kind) == 0
    results: dict[str, Any] = json.loads((folder / kind / "results.json").read_text())
    return results


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    return f1_of(run_on_xquad(tmp_path_factory.mktemp("whole"), "none"))


def f1_of(results: dict[str, Any]) -> dict[str, float]:
    return {
        row["candidate"]: next(iter(row["scores"].values()))["f1"]["mean"]
        for row in results["rows"]
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_embedded_model_learns_and_scores_as_it_does_on_whole_weights(kind, tmp_path, whole):
    results = run_on_xquad(tmp_path, kind)
    found = f1_of(results)
    print(kind, found, whole)  # noqa: T201
    assert results["model"]["quantization"] == kind
    assert results["model"]["batching"] == "forest"
    # Two standard errors of the mean of 100 f1 scores, whose standard deviation is about 0.4.
    for row, f1 in found.items():
        assert f1 == pytest.approx(whole[row], abs=0.08), row


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_forest_and_separate_sequences_agree_on_the_embedded_model(kind):
    folder = str(embedded_model_folder())
    tokenizer = load_tokenizer(folder, None, False)
    base = load_base("embedded", folder, tokenizer, LoadedForm("float32", kind))
    adapted = awake(attached(base))
    batch = batch_of(rendered(base, XQUAD / "candidates" / "clean.json"), grouped=True)
    found = gradient_of(base, adapted, batch, budget=500, forest=True)
    assert relative_error(found, one_by_one(base, adapted, batch)) <= 1e-5
    adapter.detach(adapted)
    asked = questions_of(base, XQUAD / "eval.json")[-6:]
    batches = generate(base, None, [Question(ids) for ids in asked], REAL_SETTINGS)
    found_answers = [answer for batch in batches for answer in batch]
    assert found_answers == one_at_a_time(base, asked, 1.0)
