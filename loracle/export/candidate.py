"""A trained candidate in a form others can use, with a model card.

    peft         the adapter, as peft loads it
    merged       base and adapter in one, safetensors
    gguf-ready   the same, with everything that llama.cpp's converter reads, and its command
    ollama       the same as merged with a Modelfile

A merged model is loaded from its files and tested: its greedy answers must equal the adapter's.
"""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path
from typing import Literal

from loracle.errors import ModelError, RunFolderError, UserError
from loracle.export.model_card import model_card
from loracle.report.run_record import RunRecord, TrialRecord, read_run

Form = Literal["peft", "merged", "gguf-ready", "ollama"]

_DTYPES = ("float32", "bfloat16", "float16")
_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")

# Not the files that transformers writes for a tokenizer, but those that its makers published,
# which llama.cpp's converter prefers if they exist.
_TOKENIZER_SOURCES = ("tokenizer.model", "vocab.json", "merges.txt", "added_tokens.json")
CONVERSION_NAME = "convert_to_gguf.sh"
# llama.cpp's name for the precision that leaves the weights unchanged.
_OUTTYPES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}

_USE_PEFT = """```python
from peft import AutoPeftModelForCausalLM
model = AutoPeftModelForCausalLM.from_pretrained("THIS_FOLDER")
```"""
_USE_MERGED = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained("THIS_FOLDER")
tokenizer = AutoTokenizer.from_pretrained("THIS_FOLDER")
```"""
_USE_GGUF = (
    f"`sh THIS_FOLDER/{CONVERSION_NAME} PATH_TO_LLAMA_CPP` creates the GGUF file with llama.cpp's "
    "own converter."
)
_USE_OLLAMA = "`ollama create NAME -f THIS_FOLDER/Modelfile`, then `ollama run NAME`."


def export_winner(root: Path, name: str, form: Form, out: Path, *, dtype: str | None = None) -> str:
    """Write a trial of the run to the new folder `out`; returns what was checked, in words.

    name: a candidate (its first finished seed), or NAME--sSEED. dtype: of a merged model's
    weights; None: the base's in the run if that changes no checked answer, else float32.

    Raises:
        RunFolderError: no such trial, or its files have changed.
        UserError: `out` exists, or `dtype` is unknown.
        ModelError: a merged model answers differently from the adapter.
    """
    record = read_run(root)
    trial = find_trial(record, name)
    if dtype not in (None, *_DTYPES):
        raise UserError(f"--dtype: found {dtype!r}, expected one of {', '.join(_DTYPES)}")
    if out.exists():
        raise UserError(f"{out} exists; name a new folder with --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(f".{out.name}.{secrets.token_hex(4)}")
    unfinished.mkdir()
    try:
        found = _write(record, trial, form, unfinished, dtype)
        unfinished.rename(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return found


def find_trial(record: RunRecord, name: str) -> TrialRecord:
    """The trial with that name, finished and intact. Raises RunFolderError if there is none."""
    trials = [trial for trial in record.trials if not trial.is_base]
    named = [t for t in trials if name in (t.candidate, f"{t.candidate}--s{t.seed}")]
    if not named:
        known = ", ".join(dict.fromkeys(trial.candidate for trial in trials))
        raise RunFolderError(f"{record.root} has no candidate {name!r}; it has: {known}")
    assert record.results is not None
    fingerprint = record.results["plan_fingerprint"]
    reasons = []
    for trial in named:
        reason = trial.folder.verify(fingerprint)
        if reason is None:
            return trial
        reasons.append(f"{trial.folder.root}: {reason}")
    raise RunFolderError(reasons)


def _write(
    record: RunRecord, trial: TrialRecord, form: Form, folder: Path, dtype: str | None
) -> str:
    if form == "peft":
        for name in _ADAPTER_FILES:
            shutil.copyfile(trial.folder.adapter / name, folder / name)
        found = "the adapter's files are unchanged since the run wrote them"
        how_to_use = _USE_PEFT
    else:
        from loracle.export.merge import write_merged

        merged = write_merged(record, trial, folder, dtype)
        found, how_to_use = merged.found, _USE_MERGED
        if form == "ollama":
            (folder / "Modelfile").write_text(_modelfile(record), encoding="utf-8")
            how_to_use = _USE_OLLAMA
        elif form == "gguf-ready":
            _complete_for_gguf(folder, merged.source)
            script = _conversion(trial.candidate, _OUTTYPES[merged.dtype])
            (folder / CONVERSION_NAME).write_text(script, encoding="utf-8")
            how_to_use = _USE_GGUF
    card = model_card(record, trial, form, f"{how_to_use}\n\nChecked: {found}.")
    (folder / "README.md").write_text(card, encoding="utf-8")
    return found


def _modelfile(record: RunRecord) -> str:
    generation = record.plan["generation"]
    return (
        "# Ollama imports safetensors for architectures it knows; else convert to GGUF first.\n"
        "FROM .\n"
        "PARAMETER temperature 0\n"
        f"PARAMETER num_predict {generation['max_new_tokens']}\n"
        f"PARAMETER repeat_penalty {generation['repetition_penalty']}\n"
    )


def _complete_for_gguf(folder: Path, source: Path) -> None:
    """Add files of the base that the converter reads but transformers does not save.

    Raises ModelError if it would find no vocabulary.
    """
    for name in _TOKENIZER_SOURCES:
        if (source / name).is_file() and not (folder / name).exists():
            shutil.copyfile(source / name, folder / name)
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        raise ModelError(
            "llama.cpp's converter needs a tokenizer.json or a tokenizer.model, but the base has "
            "neither; use --to merged"
        )


def _conversion(name: str, outtype: str) -> str:
    """The command that converts the folder, as a script that locates the folder.

    The file's name omits characters of the candidate's name that are special to a shell.
    """
    file = "".join(char if char.isalnum() or char in "-_." else "_" for char in name)
    return f"""#!/bin/sh
# Creates the GGUF file for this folder with llama.cpp's own converter, at the weights' precision.
#   git clone https://github.com/ggml-org/llama.cpp
#   pip install -r llama.cpp/requirements/requirements-convert_hf_to_gguf.txt
#   sh {CONVERSION_NAME} llama.cpp
# A smaller file: llama-quantize {file}-{outtype}.gguf {file}-q4.gguf Q4_K_M
set -eu
folder=$(dirname -- "$0")
exec python3 "${{1:?name the folder of llama.cpp}}/convert_hf_to_gguf.py" "$folder" \\
    --outtype {outtype} --outfile "$folder/{file}-{outtype}.gguf"
"""
