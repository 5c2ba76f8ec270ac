"""plan, run --dry-run, recommend, doctor, and what a run keeps of its forecast."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from loracle import cli
from loracle.experiment import foreseeing, planning
from loracle.forecast.machines import Machine
from loracle.forecast.record import read_forecast
from tests import tiny

SETTINGS = ["training.max_steps=3", "training.batch_size=4", "generation.max_new_tokens=4"]
FILES = ["a.jsonl", "b.jsonl", "--eval", "test.jsonl"]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    examples = tiny.passage_examples(3, 4)
    for name, chosen in (("a", examples), ("b", examples[:6]), ("test", examples[8:])):
        rows = [
            {"messages": [{"role": m.role, "content": m.content} for m in e.conversation.messages]}
            for e in chosen
        ]
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def loracle(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["loracle", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def settings(*more: str) -> list[str]:
    return [part for item in [*SETTINGS, *more] for part in ("--set", item)]


def test_a_plan_foresees_what_the_run_then_computes(model_folder, data, monkeypatch, capsys):
    asked = [*FILES, "--model", model_folder, *settings()]
    assert loracle(monkeypatch, "plan", *asked, "--json") == 0
    planned = json.loads(capsys.readouterr().out)
    assert sorted(path.name for path in data.iterdir()) == ["a.jsonl", "b.jsonl", "test.jsonl"]
    assert loracle(monkeypatch, "run", *asked, "--out", "run", "--json") == 0
    results = json.loads(capsys.readouterr().out)
    ran = {row["candidate"]: row for row in results["rows"]}
    for one in planned["candidates"]:
        row = ran[one["name"]]
        assert one["num_steps"] == row["num_steps"] == 3
        assert one["tokens_read"] == row["tokens_read"]
        assert one["tokens_computed"] == row["tokens_computed"]
    kept = read_forecast(data / "run")
    assert kept is not None
    assert kept.measured is not None
    assert kept.measured.peak_memory_bytes > 10**8
    assert [one.name for one in kept.forecast.candidates] == ["a", "b"]
    page = (data / "run/report.html").read_text()
    assert "Predicted and measured" in page
    assert "Peak memory" in page


def test_a_dry_run_says_the_same_and_starts_nothing(model_folder, data, monkeypatch, capsys):
    asked = [*FILES, "--model", model_folder, *settings()]
    assert loracle(monkeypatch, "run", *asked, "--out", "run", "--dry-run") == 0
    shown = capsys.readouterr().out
    assert "it fits" in shown
    assert "3 trials" not in shown
    assert "2 trials and the base" in shown
    assert not (data / "run").exists()


def test_what_does_not_fit_ends_with_exit_code_1_and_says_what_helps(
    model_folder, data, monkeypatch, capsys
):
    asked = [*FILES, "--model", model_folder, "--memory", "900MB", "--price", "2", *settings()]
    assert loracle(monkeypatch, "plan", *asked) == 1
    shown = capsys.readouterr().out
    assert "IT DOES NOT FIT" in shown
    assert "price: " in shown


def test_a_card_that_is_not_known_is_a_message(model_folder, data, monkeypatch, capsys):
    asked = [*FILES, "--model", model_folder, "--device", "rtx4091"]
    assert loracle(monkeypatch, "plan", *asked) == 2
    assert "did you mean rtx4090?" in capsys.readouterr().err
    asked = [*FILES, "--model", model_folder, "--device", "rtx4090", "--probe"]
    assert loracle(monkeypatch, "plan", *asked) == 2
    assert "--probe runs on this machine" in capsys.readouterr().err


def test_a_probe_runs_two_steps_and_decides_the_time(model_folder, data, monkeypatch, capsys):
    asked = [*FILES, "--model", model_folder, *settings()]
    monkeypatch.setattr(planning, "probed_flops", lambda *arguments: 1.0)
    assert loracle(monkeypatch, "plan", *asked, "--probe", "--json") == 0
    slow = json.loads(capsys.readouterr().out)
    monkeypatch.undo()
    monkeypatch.chdir(data)
    assert loracle(monkeypatch, "plan", *asked, "--probe", "--json") == 0
    probed = json.loads(capsys.readouterr().out)
    assert slow["candidates"][0]["training_seconds"] > 1e6
    assert 0 < probed["candidates"][0]["training_seconds"] < 1e3


def test_recommend_takes_one_model_and_one_dataset(model_folder, data, monkeypatch, capsys):
    assert loracle(monkeypatch, "recommend", model_folder, "a.jsonl", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in found["candidates"]] == ["a"]
    assert found["largest_answering_batch"] == 256
    assert found["largest_micro_batch_tokens"] >= found["longest_row"]


def test_a_card_s_settings_are_compared_in_tables_that_fit_a_terminal(
    model_folder, data, monkeypatch, capsys
):
    monkeypatch.setenv("COLUMNS", "80")
    asked = ["recommend", model_folder, "a.jsonl", "--memory", "24GB", "--price", "0.5"]
    assert loracle(monkeypatch, *asked, *settings()) == 0
    shown = capsys.readouterr().out
    tables = [line for line in shown.splitlines() if "  " in line.strip()]
    assert max(map(len, tables)) <= 80
    assert shown.count("planned ") >= 1
    assert "Settings compared" in shown
    assert all(f"\n{name} " in shown for name in ("none", "int8", "nf4"))
    assert "1 device for" in shown
    assert loracle(monkeypatch, *asked, *settings(), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["alternatives"]) == 6
    assert found["price_per_hour"] == 0.5


def test_cards_without_a_training_are_named_and_the_longest_trial_decides(
    model_folder, data, monkeypatch, capsys
):
    asked = ["plan", *FILES, "--model", model_folder, "--device", "h100", "--json"]
    one, four = (
        (
            loracle(monkeypatch, *asked, "--count", n, *settings()),
            json.loads(capsys.readouterr().out),
        )
        for n in (1, 4)
    )
    trials = [c["training_seconds"] + c["answering_seconds"] for c in four[1]["candidates"]]
    assert four[1]["seconds"] == pytest.approx(max(trials) + four[1]["base_answering_seconds"])
    assert one[1]["seconds"] > four[1]["seconds"]
    assert any("2 devices would have no training" in note for note in four[1]["notes"])


def test_auto_settings_are_chosen_by_memory_once_and_kept_when_a_run_resumes(
    model_folder, data, monkeypatch, capsys
):
    def with_memory(num_bytes: int) -> None:
        machine = Machine("here", "cpu", 1, num_bytes, 1e11, 1e10, is_here=True)
        monkeypatch.setattr(foreseeing, "this_machine", lambda *arguments: machine)

    asked = [*FILES, "--model", model_folder, "--out", "run"]
    asked += settings("training.gradient_checkpointing=auto")
    with_memory(4_000_000)
    assert loracle(monkeypatch, "run", *asked) == 0
    first = read_forecast(data / "run")
    assert first is not None
    assert first.forecast.micro_batch_tokens < 2048
    assert first.forecast.gradient_checkpointing
    adapter = data / "run/trials/b--s0/adapter/adapter_model.safetensors"
    before = adapter.read_bytes()
    (data / "run/trials/b--s0/DONE").unlink()
    (data / "run/trials/b--s0/training.json").unlink()
    with_memory(10**11)
    assert loracle(monkeypatch, "run", *asked) == 0
    again = read_forecast(data / "run")
    assert again is not None
    assert again.forecast == first.forecast
    assert adapter.read_bytes() == before


def test_the_doctor_prints_lines_or_json(monkeypatch, capsys):
    monkeypatch.setattr("loracle.doctor.hubs.is_offline", lambda: True)
    code = loracle(monkeypatch, "doctor", "--json")
    found = json.loads(capsys.readouterr().out)
    assert code == (1 if found["needs_attention"] else 0)
    assert {"hardware", "software", "extras", "hubs"} == {f["area"] for f in found["findings"]}
    loracle(monkeypatch, "doctor")
    assert "processor" in capsys.readouterr().out
