"""A run with Qwen3's chat template: its reasoning is kept on disk and not scored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import tiny
from tests.cli.test_cli import loracle
from tests.data.rendering.test_templates import TEMPLATES, tokenizer

QUESTIONS = ["Who won?", "Who lost?", "Where?", "When?"]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("qwen3")
    qwen = tokenizer("qwen3")
    qwen.chat_template = (TEMPLATES / "qwen3.jinja").read_text(encoding="utf-8")
    ends = {"eos_token_id": qwen.eos_token_id, "pad_token_id": qwen.eos_token_id}
    tiny.model("qwen3", vocab_size=len(qwen), **ends).save_pretrained(folder)
    qwen.save_pretrained(folder)
    return folder


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [{"question": question, "answer": "ab"} for question in QUESTIONS]
    for name in ("a", "test"):
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def run(model_folder, monkeypatch, *settings: str) -> int:
    common = ["training.max_steps=60", "training.learning_rate=0.01", "lora.r=16", *settings]
    arguments = [part for setting in common for part in ("--set", setting)]
    command = ["run", "a.jsonl", "--eval", "test.jsonl", "--model", model_folder, "--out", "run"]
    return loracle(*command, *arguments, monkeypatch=monkeypatch)


def test_the_empty_block_that_the_template_teaches_is_kept_and_not_scored(
    model_folder, data, monkeypatch, capsys
):
    assert run(model_folder, monkeypatch, "generation.max_new_tokens=12") == 0
    path = data / "run/trials/a--s0/predictions/test.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert {row["prediction"] for row in rows} == {"<think>\n\n</think>\n\nab"}
    assert {answer for row in rows for answer in row["answers"]} == {"ab"}
    trial = json.loads((data / "run/trials/a--s0/trial.json").read_text())
    assert trial["scores"]["test"] == {"em": 1, "f1": 1}
    assert trial["reading"]["test"] == {
        "num_with_reasoning": 4,
        "num_unfinished_reasoning": 0,
        "num_unreadable": {},
    }


def test_the_likelihood_of_a_learned_answer_is_that_after_the_empty_block(
    model_folder, data, monkeypatch, capsys
):
    settings = ("generation.max_new_tokens=12", "generation.answer_nll=true")
    assert run(model_folder, monkeypatch, *settings) == 0
    trial = json.loads((data / "run/trials/a--s0/trial.json").read_text())
    base = json.loads((data / "run/base/trial.json").read_text())
    # The block was learned with the answer: without it the answer has 8.7 nats, with it 2.6.
    assert trial["scores"]["test"]["answer_nll"] < 4 < 10 < base["scores"]["test"]["answer_nll"]
    ((proposed, accepted),) = trial["drafts"]["test"].values()
    assert accepted == proposed > 0


def test_reasoning_that_eats_the_token_limit_is_counted_and_told(
    model_folder, data, monkeypatch, capsys
):
    assert run(model_folder, monkeypatch, "generation.max_new_tokens=2") == 0
    trial = json.loads((data / "run/trials/a--s0/trial.json").read_text())
    assert trial["scores"]["test"] == {"em": 0, "f1": 0}
    assert trial["reading"]["test"]["num_unfinished_reasoning"] == 4
    shown = " ".join(capsys.readouterr().err.split())
    assert "4 of 4 predictions were cut while the model was still reasoning" in shown
