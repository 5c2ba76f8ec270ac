"""Base and adapter merged into one model, and the proof that it answers as the adapter does.

The merge is computed in float32, on the weights of the base as the run had them. Rounding the sum
to the base's own precision may change answers, so both are tested, in float32 arithmetic, and if
they differ the weights are saved in float32:

    base (the run's precision) -> float32 -> + adapter -> saved -> loaded -> asked the same

An adapter that was trained on quantised weights is merged into the unquantised ones, which it
never saw. This is reported, with how many answers differ from those on the run's own base.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from loracle.data.conversation import Conversation, Example, Message, Role
from loracle.data.rendering.renderer import Renderer
from loracle.errors import ModelError, RunFolderError
from loracle.generation.generate import generate
from loracle.generation.types import GenerationSettings, Question
from loracle.model import adapter
from loracle.model.base import (
    BaseModel,
    base_fingerprint,
    load_base,
    load_tokenizer,
    wrap_base,
)
from loracle.model.loaded_form import LoadedForm
from loracle.model.quantization import NONE
from loracle.model.source import model_source
from loracle.plan import ModelPlan
from loracle.report.run_record import RunRecord, TrialRecord, Turn
from loracle.text import counted

NUM_CHECKED_QUESTIONS = 16
_FLOAT32 = "float32"

Answers = list[tuple[int, ...]]


@dataclass(frozen=True)
class Merged:
    """What was written."""

    dtype: str
    """Precision of the saved weights."""
    source: Path
    """The folder of the base."""
    found: str
    """What was checked, in words."""


def write_merged(record: RunRecord, trial: TrialRecord, folder: Path, dtype: str | None) -> Merged:
    """Merge a trial's adapter into its base, save both as one model, load it and test it.

    dtype: of the saved weights; None: the base's in the run if that changes no checked answer,
    else float32.

    Raises:
        ModelError: the base is not the run's, the merged model answers differently even in
            float32, or there is not enough memory.
        RunFolderError: the run has no questions.
    """
    base = _Base.of(record)
    with _memory_in_words():
        packed = _packed_answers(record, base, trial) if base.quantization != NONE else None
        prompts, expected = _adapter_answers(record, base, trial)
        tried: list[tuple[str, int]] = []
        for saved in dict.fromkeys([dtype] if dtype else [base.dtype, _FLOAT32]):
            _save(base, trial, folder, saved)
            found = _greedy_answers(record, base.read_back(folder), None, prompts)
            tried.append((saved, sum(a != b for a, b in zip(expected, found, strict=True))))
            if tried[-1][1] == 0:
                break
    said = _in_words(tried, len(prompts), asked_for=dtype)
    if packed is not None:
        said += f"; {_unquantised_in_words(base.quantization, packed, expected)}"
    return Merged(tried[-1][0], base.folder, said)


def _packed_answers(record: RunRecord, base: _Base, trial: TrialRecord) -> Answers:
    """The adapter's answers on the quantised base, as in the run."""
    loaded = base.load_packed()
    with adapter.loaded(loaded.model, trial.folder.adapter) as adapted:
        return _greedy_answers(record, loaded, adapted, _sample_prompts(record, loaded))


def _unquantised_in_words(quantization: str, packed: Answers, expected: Answers) -> str:
    num_other = sum(a != b for a, b in zip(packed, expected, strict=True))
    return (
        f"it is merged into the unquantised base, although the run trained and scored it on "
        f"{quantization} weights: {num_other} of {len(packed)} greedy answers differ from those "
        "on the quantised base"
    )


def _adapter_answers(
    record: RunRecord, base: _Base, trial: TrialRecord
) -> tuple[list[Sequence[int]], Answers]:
    loaded, adapted = base.adapted(trial)
    prompts = _sample_prompts(record, loaded)
    return prompts, _greedy_answers(record, loaded, adapted, prompts)


def _in_words(tried: Sequence[tuple[str, int]], num_questions: int, asked_for: str | None) -> str:
    """What the attempts (precision, changed answers) say about the last one."""
    dtype, num_other = tried[-1]
    if num_other and dtype == _FLOAT32:
        raise ModelError(
            f"merged in float32, the model answers {num_other:,} of "
            f"{counted(num_questions, 'question')} "
            "differently from the adapter; use --to peft"
        )
    if num_other:
        return (
            f"saved in {asked_for} as requested: rounding the merged weights changes {num_other} "
            f"of {num_questions} greedy answers of the adapter; without --dtype none changes"
        )
    reason = "".join(
        f", because rounding the merged weights to {rounded} changes {num_changed} of "
        f"{num_questions} answers"
        for rounded, num_changed in tried[:-1]
    )
    return (
        f"saved in {dtype}{reason}; after loading, it gives the adapter's greedy answer to each of "
        f"{num_questions} evaluation questions (both computed in float32)"
    )


@dataclass(frozen=True)
class _Base:
    """The run's base, loaded once for every attempt, because merging changes it."""

    settings: ModelPlan
    folder: Path
    tokenizer: Any
    dtype: str
    quantization: str
    fingerprint: str

    @classmethod
    def of(cls, record: RunRecord) -> _Base:
        assert record.results is not None
        model = dict(record.plan["model"])
        commit = model.pop("commit", None)
        # A run with a model that its caller loaded has these; its name is then a folder, or
        # unknown.
        for key in ("fingerprint", "tokenizer_sha256"):
            model.pop(key, None)
        settings = ModelPlan.model_validate(model)
        folder = Path(model_source(settings, commit))
        return cls(
            settings=settings,
            folder=folder,
            tokenizer=load_tokenizer(str(folder), None, settings.trust_remote_code),
            dtype=record.results["model"]["dtype"],
            # Runs of earlier versions do not record it, and had unquantised weights.
            quantization=record.results["model"].get("quantization", NONE),
            fingerprint=record.results["model"]["base_fingerprint"],
        )

    def load(self) -> BaseModel:
        """The base in float32, with exactly the values it had in the run's precision."""
        base = self._load(self.folder, self.dtype)
        if self.quantization == NONE:
            self._require_same(base)
        return wrap_base(base.name, base.model.float(), self.tokenizer)

    def load_packed(self) -> BaseModel:
        """The base quantised as in the run; `load` then returns its unquantised weights."""
        if self.quantization not in ("int8", "nf4"):
            raise ModelError(
                f"{self.folder}: the run's base was quantised ({self.quantization}) in a way that "
                "cannot be repeated here; use --to peft"
            )
        base = self._load(self.folder, self.dtype, self.quantization)
        self._require_same(base)
        return base

    def _require_same(self, base: BaseModel) -> None:
        if base_fingerprint(base.model) == self.fingerprint:
            return
        other_packing = (
            ""
            if self.quantization == NONE
            else f", or were quantised ({self.quantization}) with other settings or on another "
            "device; use --to peft"
        )
        raise ModelError(
            f"{self.folder}: these are not the weights that the run used (their fingerprint "
            f"differs); an adapter fits only its own base{other_packing}"
        )

    def adapted(self, trial: TrialRecord) -> tuple[BaseModel, Any]:
        base = self.load()
        return base, adapter.load(base.model, trial.folder.adapter)

    def read_back(self, folder: Path) -> BaseModel:
        return self._load(folder, _FLOAT32)

    def _load(self, folder: Path, dtype: str, quantization: str = NONE) -> BaseModel:
        return load_base(
            self.settings.name,
            str(folder),
            self.tokenizer,
            LoadedForm(
                dtype,
                quantization,
                self.settings.device,
                trust_remote_code=self.settings.trust_remote_code,
            ),
        )


def _save(base: _Base, trial: TrialRecord, folder: Path, dtype: str) -> None:
    _, adapted = base.adapted(trial)
    merged = adapted.merge_and_unload().to(getattr(torch, dtype))
    merged.save_pretrained(str(folder), safe_serialization=True)
    base.tokenizer.save_pretrained(str(folder))
    _name_rope_theta(folder / "config.json")
    for weights in folder.glob("*.safetensors"):
        # safetensors makes files readable only by their owner; a server is often another user.
        weights.chmod((folder / "config.json").stat().st_mode)


def _name_rope_theta(path: Path) -> None:
    """Also write `rope_theta` where programs that do not read `rope_parameters` look for it: they
    would otherwise use a default, and answer nonsense."""
    config = json.loads(path.read_text(encoding="utf-8"))
    theta = (config.get("rope_parameters") or {}).get("rope_theta")
    if theta is not None and "rope_theta" not in config:
        config["rope_theta"] = theta
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


@contextmanager
def _memory_in_words() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ModelError(
            "the base in float32 does not fit in the GPU's memory; set CUDA_VISIBLE_DEVICES= to "
            "merge on the processor, or use --to peft"
        ) from error
    finally:
        gc.collect()


def _sample_prompts(record: RunRecord, base: BaseModel) -> list[Sequence[int]]:
    questions = record.questions(record.evaluations[0])
    if not questions.prompts:
        raise RunFolderError(
            f"a merged model cannot be checked without evaluation questions: {questions.missing}"
        )
    template_kwargs = record.plan["model"]["chat_template_kwargs"]
    renderer = Renderer(base.tokenizer, base.end_token_ids, template_kwargs=template_kwargs)

    def example(identifier: str, turns: Sequence[Turn]) -> Example:
        asked = (Message(cast("Role", turn.role), turn.content) for turn in turns)
        # Every conversation ends with a reply; the prompt is everything before it.
        conversation = Conversation((*asked, Message("assistant", "-")))
        return Example(identifier, conversation, ("-",), identifier, 1)

    chosen = list(questions.prompts.items())[:NUM_CHECKED_QUESTIONS]
    examples = [example(identifier, turns) for identifier, turns in chosen]
    rendered = renderer.prompts(examples, record.plan["generation"]["max_new_tokens"])
    return [prompt.token_ids for prompt in rendered]


def _greedy_answers(
    record: RunRecord, base: BaseModel, adapted: Any | None, prompts: Sequence[Sequence[int]]
) -> Answers:
    assert record.results is not None
    generation = record.plan["generation"]
    settings = GenerationSettings(
        max_new_tokens=generation["max_new_tokens"],
        repetition_penalty=generation["repetition_penalty"],
        prompt_lookup=False,
        answer_nll=False,
        # One by one: batches of another shape may round nearly equal tokens differently.
        batch_size=1,
        budget_tokens=4096,
    )
    questions = [Question(prompt) for prompt in prompts]
    forest = record.results["model"]["batching"] == "forest"
    batches = generate(base, adapted, questions, settings, forest=forest)
    return [answer.token_ids for batch in batches for answer in batch]
