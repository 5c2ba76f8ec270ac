"""Reports and exports of a run that a tiny model has really made."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
import torch
from safetensors.torch import load_file, save_file

from loracle.export import merge as merging
from tests import tiny
from tests.command import loracle

SETTINGS = [
    "training.epochs=1",
    "training.batch_size=8",
    "generation.max_new_tokens=6",
    "model.dtype=bfloat16",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one candidate."""
    return make_run(tmp_path_factory.mktemp("work"), SETTINGS)


def make_run(folder: Path, changes: list[str], **sizes: int) -> Path:
    model = tiny.save_model(folder / "model", **sizes)
    examples = tiny.passage_examples(3, 4)
    for name, chosen in (("a", examples), ("test", examples[4:])):
        rows = [
            {"messages": [{"role": m.role, "content": m.content} for m in e.conversation.messages]}
            for e in chosen
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = [part for item in changes for part in ("--set", item)]
    files = [folder / "a.jsonl", "--eval", folder / "test.jsonl"]
    assert loracle("run", *files, "--model", model, "--out", folder / "run", *settings) == 0
    return folder / "run"


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
    printed = capsys.readouterr().out
    assert (
        "saved in float32; after loading, it gives the adapter's greedy answer to each of 8"
        in printed
    )
    merged, base = load_file(out / "model.safetensors"), load_file(_model(run))
    # The run's base is the file's rounded to bfloat16.
    changed = [n for n, weight in merged.items() if not weight.equal(base[n].bfloat16().float())]
    assert changed
    assert all("_proj" in name for name in changed)
    assert "FROM .\n" in (out / "Modelfile").read_text()
    assert (out / "tokenizer.json").is_file()
    assert len({path.stat().st_mode for path in out.iterdir()}) == 1


def _model(run: Path) -> Path:
    return run.parent / "model" / "model.safetensors"


@pytest.fixture
def rounding_changes_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A merged model whose weights are those of bfloat16 answers one question otherwise."""
    answers = merging._greedy_answers

    def found(record: Any, base: Any, adapted: Any, prompts: Any) -> Any:
        found = answers(record, base, adapted, prompts)
        weight = base.model.model.layers[0].self_attn.q_proj.weight
        is_rounded = adapted is None and weight.equal(weight.bfloat16().float())
        return [(*found[0], 7), *found[1:]] if is_rounded else found

    monkeypatch.setattr(merging, "_greedy_answers", found)


@pytest.mark.usefixtures("rounding_changes_an_answer")
def test_where_rounding_changes_an_answer_the_weights_are_saved_in_float32(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert loracle("export", run, "a", "--to", "merged", "--out", tmp_path / "out") == 0
    expected = (
        "saved in float32, because rounding the merged weights to bfloat16 changes 1 of 8 answers; "
        "after loading, it gives the adapter's greedy answer to each of 8 evaluation questions"
    )
    assert expected in capsys.readouterr().out
    assert expected in (tmp_path / "out" / "README.md").read_text()
    assert {w.dtype for w in load_file(tmp_path / "out" / "model.safetensors").values()} == {
        torch.float32
    }
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "float32"


@pytest.mark.usefixtures("rounding_changes_an_answer")
def test_a_precision_that_was_asked_for_is_kept_and_what_it_changes_is_said(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--to", "merged", "--dtype", "bfloat16", "--out", tmp_path / "out")
    assert loracle("export", run, "a", *asked) == 0
    assert (
        "saved in bfloat16 as requested: rounding the merged weights changes 1 of 8 greedy answers"
        in capsys.readouterr().out
    )
    assert {w.dtype for w in load_file(tmp_path / "out" / "model.safetensors").values()} == {
        torch.bfloat16
    }


def test_a_base_that_is_not_the_run_s_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = _model(run)
    kept = weights.read_bytes()
    changed = load_file(weights)
    changed["model.norm.weight"][0] += 1
    save_file(changed, weights, {"format": "pt"})
    try:
        assert loracle("export", run, "a", "--to", "merged", "--out", tmp_path / "out") == 2
    finally:
        weights.write_bytes(kept)
    assert "not the weights that the run used" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_gguf_ready_folder_has_what_the_converter_reads(run: Path, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf", reason="needs the extra embedded")
    out = tmp_path / "out"
    assert loracle("export", run, "a", "--to", "gguf-ready", "--out", out) == 0
    config = json.loads((out / "config.json").read_text())
    # Its converters: the class that `architectures` names, and every tensor by its name.
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"]
    known = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    names = load_file(out / "model.safetensors")
    assert [n for n in names if known.get_name(n, try_suffixes=(".weight",)) is None] == []
    vocabulary = gguf.SpecialVocab(out, load_merges=True)
    assert vocabulary.chat_template == tiny.CHAT_TEMPLATE
    assert vocabulary.special_token_ids["eos"] == 2
    assert (out / "generation_config.json").is_file()


def test_the_conversion_script_calls_llama_cpp_s_converter_at_the_weights_precision(
    run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "with space"
    arguments = ("--to", "gguf-ready", "--dtype", "float32", "--out", out)
    assert loracle("export", run, "a", *arguments) == 0
    # A converter that prints what it was told.
    converter = tmp_path / "llama.cpp" / "convert_hf_to_gguf.py"
    converter.parent.mkdir()
    converter.write_text("import json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    command = ["sh", str(out / "convert_to_gguf.sh")]
    done = subprocess.run([*command, converter.parent], capture_output=True, text=True, check=True)
    file = f"{out}/a-f32.gguf"
    assert json.loads(done.stdout) == [str(out), "--outtype", "f32", "--outfile", file]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "name the folder of llama.cpp" in refused.stderr


def test_a_sentencepiece_model_goes_with_a_gguf_ready_folder(run: Path, tmp_path: Path) -> None:
    source = _model(run).parent / "tokenizer.model"
    source.write_bytes(b"a sentencepiece model")
    try:
        assert loracle("export", run, "a", "--to", "gguf-ready", "--out", tmp_path / "out") == 0
    finally:
        source.unlink()
    assert (tmp_path / "out" / "tokenizer.model").read_bytes() == b"a sentencepiece model"


def test_a_merged_model_that_answers_otherwise_is_refused_and_leaves_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = merging._greedy_answers

    def with_one_other(record: Any, base: Any, adapted: Any, prompts: Any) -> Any:
        found = answers(record, base, adapted, prompts)
        return found if adapted is not None else [(*found[0], 7), *found[1:]]

    monkeypatch.setattr(merging, "_greedy_answers", with_one_other)
    merged = ("--to", "merged", "--dtype", "float32", "--out", tmp_path / "out")
    assert loracle("export", run, "a", *merged) == 2
    assert "answers 1 of 8 questions differently from the adapter" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_exists_an_unknown_name_and_no_wish_are_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, message in (
        (("a", "--out", tmp_path), "exists; name a new folder"),
        (("b", "--out", tmp_path / "out"), "has no candidate 'b'; it has: a"),
        (("a", "--dtype", "int4", "--out", tmp_path / "out"), "found 'int4', expected one of"),
        ((), "name either a candidate to export or a file"),
    ):
        assert loracle("export", run, *arguments) == 2
        assert message in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_a_winner_of_a_quantised_base_says_what_it_is_merged_into(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = {"hidden_size": 64, "intermediate_size": 128}
    run = make_run(tmp_path, [*SETTINGS, f"model.quantization={kind}"], **sizes)
    results = json.loads((run / "results.json").read_text())
    assert results["model"]["quantization"] == kind
    assert results["model"]["batching"] == "forest"
    assert kind in (run / "report.html").read_text()
    capsys.readouterr()
    assert loracle("export", run, "a", "--to", "merged", "--out", tmp_path / "out") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "it gives the adapter's greedy answer to each of 8" in printed
    assert (
        f"merged into the unquantised base, although the run trained and scored it on {kind}"
        in printed
    )
    assert "of 8 greedy answers differ from those on the quantised base" in printed
    merged = load_file(tmp_path / "out" / "model.safetensors")
    assert {weight.dtype for weight in merged.values()} <= {torch.bfloat16, torch.float32}
    assert f"| base weights | `{kind}` |" in (tmp_path / "out" / "README.md").read_text()
