"""A trained candidate as others use it, with a card that says what it is.

    peft     the adapter, as peft loads it
    merged   base and adapter in one, safetensors; llama.cpp's converter reads this folder too
    ollama   the same with a Modelfile

A merged model is read back from its files and asked: its greedy answers must equal the adapter's.
"""

from __future__ import annotations

import gc
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

from loracle.errors import ModelError, RunFolderError, UserError
from loracle.plan import ModelPlan
from loracle.report.model_card import model_card
from loracle.report.record import RunRecord, TrialRecord, Turn, read_run

Form = Literal["peft", "merged", "ollama"]

NUM_CHECKED_QUESTIONS = 16
_DTYPES = ("float32", "bfloat16", "float16")
_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")

_USE_PEFT = """```python
from peft import AutoPeftModelForCausalLM
model = AutoPeftModelForCausalLM.from_pretrained("THIS_FOLDER")
```"""
_USE_MERGED = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained("THIS_FOLDER")
tokenizer = AutoTokenizer.from_pretrained("THIS_FOLDER")
```

For llama.cpp: `python convert_hf_to_gguf.py THIS_FOLDER`."""
_USE_OLLAMA = "`ollama create NAME -f THIS_FOLDER/Modelfile`, then `ollama run NAME`."


def export_winner(root: Path, name: str, form: Form, out: Path, *, dtype: str | None = None) -> str:
    """Write a trial of the run to the new folder `out`; returns what was checked, in words.

    name: a candidate (its first finished seed), or NAME--sSEED. dtype: of a merged model; None: the
    base's in the run.

    Raises:
        RunFolderError: no such trial, or its files are not as it left them.
        UserError: `out` exists, or `dtype` is unknown.
        ModelError: a merged model answers otherwise than the adapter.
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
    """The trial of that name, finished and whole. Raises RunFolderError where there is none."""
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
        found = "the adapter's files are those that the run vouches for"
        how_to_use = _USE_PEFT
    else:
        found = _write_merged(record, trial, folder, dtype)
        how_to_use = _USE_MERGED
    if form == "ollama":
        (folder / "Modelfile").write_text(_modelfile(record), encoding="utf-8")
        how_to_use = _USE_OLLAMA
    card = model_card(record, trial, form, f"{how_to_use}\n\nChecked: {found}.")
    (folder / "README.md").write_text(card, encoding="utf-8")
    return found


def _modelfile(record: RunRecord) -> str:
    generation = record.plan["generation"]
    return (
        "# Ollama imports safetensors of the architectures it knows; else convert to GGUF first.\n"
        "FROM .\n"
        "PARAMETER temperature 0\n"
        f"PARAMETER num_predict {generation['max_new_tokens']}\n"
        f"PARAMETER repeat_penalty {generation['repetition_penalty']}\n"
    )


def _write_merged(record: RunRecord, trial: TrialRecord, folder: Path, dtype: str | None) -> str:
    from loracle import adapter
    from loracle.model import load_base, load_tokenizer
    from loracle.workbench import model_source

    assert record.results is not None
    settings = ModelPlan.model_validate(record.plan["model"])
    source = model_source(settings)
    dtype = dtype or record.results["model"]["dtype"]
    tokenizer = load_tokenizer(source, settings.revision, settings.trust_remote_code)

    def load(place: str, revision: str | None) -> Any:
        return load_base(
            settings.name,
            place,
            tokenizer,
            revision=revision,
            dtype=dtype,
            trust_remote_code=settings.trust_remote_code,
        )

    base = load(source, settings.revision)
    prompts = _sample_prompts(record, base, settings)
    adapted = adapter.load(base.model, trial.folder.adapter)
    expected = _greedy_answers(record, base, adapted, prompts)
    merged = adapted.merge_and_unload()
    merged.save_pretrained(str(folder), safe_serialization=True)
    tokenizer.save_pretrained(str(folder))
    del base, adapted, merged
    gc.collect()
    read_back = load(str(folder), None)
    _require_equal(expected, _greedy_answers(record, read_back, None, prompts), dtype)
    return (
        f"read back in {dtype}, the merged model gives the adapter's greedy answer to each of "
        f"{len(prompts)} evaluation questions"
    )


def _require_equal(expected: Sequence[Any], found: Sequence[Any], dtype: str) -> None:
    num_other = sum(a != b for a, b in zip(expected, found, strict=True))
    if num_other:
        raise ModelError(
            f"merged in {dtype}, the model answers {num_other} of {len(expected)} questions "
            "otherwise than the adapter: rounding; merge with --dtype float32, or use --to peft"
        )


def _sample_prompts(record: RunRecord, base: Any, settings: ModelPlan) -> list[Sequence[int]]:
    from loracle.data.conversation import Conversation, Example, Message, Role
    from loracle.data.rendering import Renderer

    questions = record.questions(record.evaluations[0])
    if not questions.prompts:
        raise RunFolderError(
            f"a merged model cannot be checked without evaluation questions: {questions.missing}"
        )
    renderer = Renderer(
        base.tokenizer, base.end_token_ids, template_kwargs=settings.chat_template_kwargs
    )

    def example(identifier: str, turns: Sequence[Turn]) -> Example:
        asked = (Message(cast("Role", turn.role), turn.content) for turn in turns)
        # Every conversation ends with a reply; the prompt is what stands before it.
        conversation = Conversation((*asked, Message("assistant", "-")))
        return Example(identifier, conversation, ("-",), identifier, 1)

    chosen = list(questions.prompts.items())[:NUM_CHECKED_QUESTIONS]
    examples = [example(identifier, turns) for identifier, turns in chosen]
    rendered = renderer.prompts(examples, record.plan["generation"]["max_new_tokens"])
    return [prompt.token_ids for prompt in rendered]


def _greedy_answers(
    record: RunRecord, base: Any, adapted: Any | None, prompts: Sequence[Sequence[int]]
) -> list[tuple[int, ...]]:
    from loracle.generation import generate
    from loracle.questions import GenerationSettings, Question

    assert record.results is not None
    generation = record.plan["generation"]
    settings = GenerationSettings(
        max_new_tokens=generation["max_new_tokens"],
        repetition_penalty=generation["repetition_penalty"],
        prompt_lookup=False,
        answer_nll=False,
        # One by one: batches of another shape may round nearly equal tokens otherwise.
        batch_size=1,
        budget_tokens=4096,
    )
    questions = [Question(prompt) for prompt in prompts]
    forest = record.results["model"]["batching"] == "forest"
    batches = generate(base, adapted, questions, settings, forest=forest)
    return [answer.token_ids for batch in batches for answer in batch]
