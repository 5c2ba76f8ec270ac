"""The plan: what an experiment does, checked as a whole before anything expensive starts.

A plan file; everything but `candidates` and `evaluation` has a default:

    model: Qwen/Qwen2.5-0.5B-Instruct
    candidates: [data/a.jsonl, {path: data/b.jsonl, name: short-answers, limit: 2000}]
    evaluation: [data/test.jsonl]
    training: {epochs: 2, learning_rate: 1e-3}

The way of a plan: `load_plan` (file, flags, --set) -> Plan -> `freeze` (with the hashes of its
files) -> `fingerprint` and `difference`, which say whether a run folder holds the same plan.
Each field is documented once, under the field; the same text is its JSON Schema description.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StrictBool,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from loracle.errors import DataError, PlanError

# Strict: without it `batch_size: yes` would be read as 1 and `epochs: "3"` as a number.
Count = Annotated[int, Field(strict=True, gt=0)]
Positive = Annotated[float, Field(strict=True, gt=0)]
NonNegative = Annotated[float, Field(strict=True, ge=0)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
ShareBelowOne = Annotated[float, Field(strict=True, ge=0, lt=1)]
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**32)]
Text = Annotated[str, Field(min_length=1)]

BASE_NAME = "base"
"""The untrained model's row in every result; no candidate may be called so."""

MAX_NAME_CHARACTERS = 100
# File systems count bytes: 255 for one name, and a trial's folder adds the seed to it.
MAX_NAME_BYTES = 200


class Section(BaseModel):
    """A part of the plan: frozen, and without a key that it does not know."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class ModelPlan(Section):
    """The base model, frozen for all trials."""

    name: Text = "embedded"
    """A folder, a model id of the hub, or `embedded`: the small model that comes with Loracle."""
    revision: Text | None = None
    """Branch, tag or commit on the hub. None: the hub's default branch."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the weights. auto: bfloat16 where the processor has it, else float32."""
    trust_remote_code: StrictBool = False
    """Whether code that comes with the model may run on this machine."""
    chat_template_kwargs: dict[str, JsonValue] = {}
    """Further arguments of the chat template, as `enable_thinking: false`."""


class DataFilePlan(Section):
    """A data file under a name."""

    path: Text
    """The JSON or JSONL file. In a plan file: relative to the plan file's folder."""
    name: str = Field(default_factory=lambda values: Path(values["path"]).stem)
    """The name in folders and results. None: the file's stem, with its folder where stems clash."""
    limit: Count | None = None
    """How many rows to read, from the first. None: all."""

    @model_validator(mode="before")
    @classmethod
    def _no_name_is_a_name_to_derive(cls, values: object) -> object:
        if isinstance(values, Mapping) and values.get("name", "") is None:
            return {key: value for key, value in values.items() if key != "name"}
        return values


class CandidatePlan(DataFilePlan):
    """One training dataset under comparison."""


class EvaluationPlan(DataFilePlan):
    """One evaluation dataset and what is measured on it."""

    metrics: Annotated[list[Text], Field(min_length=1)] = ["em", "f1"]
    """Names of metrics, each computed for every prediction."""


class LoraPlan(Section):
    """The adapter. Any further field of peft.LoraConfig is passed through to it."""

    model_config = ConfigDict(extra="allow")

    r: Count = 8
    """Rank of the update matrices."""
    alpha: Count = 16
    """Numerator of the update's scale, which is alpha / r (`lora_alpha` in peft)."""
    dropout: ShareBelowOne = 0.05
    """Share of the adapter's inputs that is zeroed while it trains (`lora_dropout` in peft)."""
    target_modules: Text | Annotated[list[Text], Field(min_length=1)] = "all-linear"
    """Layers that get an adapter: `all-linear`, a regular expression, or a list of names."""


class TrainingPlan(Section):
    """How every candidate is trained."""

    epochs: Positive = 3.0
    """Passes over the candidate's rows; fractions are allowed. Decides the length of a training
    only where neither max_steps nor max_tokens is set."""
    max_steps: Count | None = None
    """Length in optimizer steps, in place of epochs. None: not used."""
    max_tokens: Count | None = None
    """Length in tokens read (shared prefixes counted for each row), in place of epochs, so that
    candidates of unequal size are compared at equal cost. None: not used."""
    batch_size: Count = 64
    """Examples in one optimizer step, however they are cut to fit into memory."""
    learning_rate: Positive = 1e-4
    """The highest learning rate, reached after the warm-up."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """The learning rate after the warm-up: falls to 0 in a line or a half cosine, or stays."""
    warmup_ratio: Share = 0.03
    """Share of the steps over which the learning rate rises from 0."""
    weight_decay: NonNegative = 0.0
    """AdamW's decoupled weight decay."""
    adam_beta1: ShareBelowOne = 0.9
    """AdamW's decay of the mean of gradients."""
    adam_beta2: ShareBelowOne = 0.999
    """AdamW's decay of the mean of squared gradients."""
    adam_epsilon: Positive = 1e-8
    """AdamW's term against division by zero."""
    max_grad_norm: Positive | None = 0.3
    """Gradients of a greater norm are scaled down to it. None: no clipping."""
    order: Literal["grouped", "shuffled"] = "grouped"
    """grouped: examples with a shared prefix meet in one batch, groups shuffled; shuffled: plain
    shuffling of examples, which leaves little to share."""
    batching: Literal["auto", "forest", "padded"] = "auto"
    """forest: shared prefixes are computed once; padded: plain padded batches; auto: forest where
    the model passes the self-test, else padded."""
    micro_batch_tokens: Count | Literal["auto"] = "auto"
    """Tokens computed at once. Decides memory and speed, never the result. auto: chosen for the
    machine, and halved where memory runs out."""
    gradient_checkpointing: StrictBool = False
    """Compute activations again in the backward pass: slower, with less memory."""
    train_on: Literal["assistant", "last"] = "assistant"
    """Which turns carry loss: every assistant turn, or the last one alone."""
    max_length: Count | None = None
    """Longest allowed row in tokens. None: what the model can take."""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.max_steps is not None and self.max_tokens is not None:
            _refuse(
                f"training.max_tokens: found {self.max_tokens} beside training.max_steps: "
                f"{self.max_steps}; expected at most one of the two"
            )
        return self


class GenerationPlan(Section):
    """How evaluation questions are answered, by the base model and by every adapter."""

    max_new_tokens: Count = 40
    """Longest answer in tokens."""
    repetition_penalty: Positive = 1.0
    """Scores of tokens already seen are divided by it (multiplied where negative). 1: none."""
    do_sample: StrictBool = False
    """Draw tokens at random in place of the likeliest one; goes without drafts."""
    temperature: Positive = 1.0
    """Divides the logits before sampling. Needs do_sample."""
    top_p: Annotated[float, Field(strict=True, gt=0, le=1)] = 1.0
    """Sample from the likeliest tokens that hold this share of probability. Needs do_sample."""
    top_k: Count | None = None
    """Sample from this many likeliest tokens. None: from all. Needs do_sample."""
    num_beams: Count = 1
    """Beams of beam search, which goes without drafts. 1: no beam search."""
    early_stopping: StrictBool = False
    """Beam search ends when num_beams answers are complete. Needs num_beams above 1."""
    seed: Seed = 0
    """Seed of sampling. Needs do_sample."""
    drafts: StrictBool = True
    """Verify reference answers and answers of earlier trials in the prompt's pass. Saves steps and
    never changes an answer; used by greedy decoding only."""
    prompt_lookup: StrictBool = True
    """Take further drafts from the prompt's own text; used by greedy decoding only."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the evaluation. auto: the model's. float32 leaves no near-ties to rounding."""
    batch_size: Count = 64
    """Prompts answered together; the same for every candidate."""
    answer_nll: StrictBool = False
    """Also measure the negative log-likelihood of the best reference, in nats an answer."""

    @model_validator(mode="after")
    def _nothing_without_effect(self) -> Self:
        problems = []
        if not self.do_sample:
            sampling = ("temperature", "top_p", "top_k", "seed")
            problems += self._without_effect(sampling, "do_sample is true")
        if self.num_beams == 1:
            problems += self._without_effect(["early_stopping"], "num_beams is above 1")
        _refuse(*problems)
        return self

    def _without_effect(self, names: Iterable[str], condition: str) -> list[str]:
        return [
            f"generation.{name}: found {_show(getattr(self, name))}, which has no effect unless "
            f"{condition}; change one of the two"
            for name in names
            if getattr(self, name) != type(self).model_fields[name].default
        ]


class DecisionPlan(Section):
    """The rule that ranks the candidates, stated before the run."""

    metric: Text = "f1"
    """The metric that ranks; every evaluation must compute it."""


class Plan(Section):
    """Everything that decides the results of an experiment."""

    model: ModelPlan = Field(default_factory=ModelPlan)
    """The base model. A bare string is its name."""
    candidates: list[CandidatePlan] = Field(default=[], validate_default=True)
    """The training datasets to compare, at least one. A bare string is a path."""
    evaluation: list[EvaluationPlan] = Field(default=[], validate_default=True)
    """The datasets to measure on, at least one. A bare string is a path."""
    lora: LoraPlan = Field(default_factory=LoraPlan)
    """The adapter."""
    training: TrainingPlan = Field(default_factory=TrainingPlan)
    """How every candidate is trained."""
    generation: GenerationPlan = Field(default_factory=GenerationPlan)
    """How evaluation questions are answered."""
    seeds: Annotated[list[Seed], Field(min_length=1)] = [0]
    """Each candidate is trained once for each seed."""
    decision: DecisionPlan = Field(default_factory=DecisionPlan, validate_default=True)
    """The rule that ranks the candidates."""

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, values: object) -> object:
        return _written_out(values) if isinstance(values, Mapping) else values

    @field_validator("candidates")
    @classmethod
    def _check_candidates(cls, candidates: list[CandidatePlan]) -> list[CandidatePlan]:
        named = _named(candidates)
        problems = _name_problems("candidates", named)
        problems += [
            f"candidates.{index}.name: {entry.path} is called {BASE_NAME!r}, which is the "
            "untrained model's row; give it another name"
            for index, entry in enumerate(named)
            if entry.name.casefold() == BASE_NAME
        ]
        if not candidates:
            problems.append("candidates: found none; name at least one training file")
        _refuse(*problems)
        return named

    @field_validator("evaluation")
    @classmethod
    def _check_evaluation(cls, evaluation: list[EvaluationPlan]) -> list[EvaluationPlan]:
        named = _named(evaluation)
        problems = _name_problems("evaluation", named)
        problems += [
            f"evaluation.{index}.metrics: found {_show(metric)} twice; name it once"
            for index, entry in enumerate(named)
            for metric in _repeated(entry.metrics)
        ]
        if not evaluation:
            problems.append("evaluation: found none; pass --eval FILE, or list it in the plan")
        _refuse(*problems)
        return named

    @field_validator("seeds")
    @classmethod
    def _check_seeds(cls, seeds: list[int]) -> list[int]:
        _refuse(*(f"seeds: found {seed} twice; name it once" for seed in _repeated(seeds)))
        return seeds

    @field_validator("decision")
    @classmethod
    def _check_decision(cls, decision: DecisionPlan, info: ValidationInfo) -> DecisionPlan:
        evaluation: list[EvaluationPlan] = info.data.get("evaluation", [])
        _refuse(
            *(
                f"decision.metric: found {_show(decision.metric)}, which {entry.name} does not "
                f"compute (evaluation.{index}.metrics: {', '.join(entry.metrics)}); add it there "
                "or decide by another metric"
                for index, entry in enumerate(evaluation)
                if decision.metric not in entry.metrics
            )
        )
        return decision


DataFile = TypeVar("DataFile", CandidatePlan, EvaluationPlan)
Item = TypeVar("Item", str, int)
FILE_SECTIONS = ("candidates", "evaluation")


def _written_out(values: Mapping[str, Any]) -> dict[str, Any]:
    """The plan with its short forms written out: bare strings, one entry, empty sections."""
    full = {key: value for key, value in values.items() if value is not None}
    if isinstance(full.get("model"), str):
        full["model"] = {"name": full["model"]}
    for key in FILE_SECTIONS:
        entries = full.get(key, [])
        if isinstance(entries, str | os.PathLike | Mapping):
            entries = [entries]
        if isinstance(entries, Sequence):
            entries = [
                {"path": os.fspath(entry)} if isinstance(entry, str | os.PathLike) else entry
                for entry in entries
            ]
        full[key] = entries
    return full


def _named(entries: list[DataFile]) -> list[DataFile]:
    """The entries, with `folder-stem` in place of derived names that clash."""
    times = Counter(entry.name.casefold() for entry in entries)
    return [
        entry.model_copy(update={"name": _folder_and_stem(entry.path)})
        if times[entry.name.casefold()] > 1 and "name" not in entry.model_fields_set
        else entry
        for entry in entries
    ]


def _folder_and_stem(path: str) -> str:
    folder, stem = Path(path).parent, Path(path).stem
    name = folder.resolve().name if folder.name == ".." else folder.name
    return f"{name}-{stem}" if name else stem


def _name_problems(section: str, entries: Sequence[DataFilePlan]) -> list[str]:
    """What is wrong with the names: each is a file's name, and two never share one."""
    problems = []
    first: dict[str, DataFilePlan] = {}
    for index, entry in enumerate(entries):
        if fault := _name_fault(entry.name):
            problems.append(
                f"{section}.{index}.name: found {_show(entry.name)} for {entry.path}, which "
                f"{fault}; give it a name of its own, {{path: ..., name: ...}}"
            )
        # Folders whose names differ by case alone are one folder on some systems.
        other = first.setdefault(entry.name.casefold(), entry)
        if other is not entry:
            problems.append(
                f"{section}.{index}.name: {_show(entry.name)} is the name of both {other.path} "
                f"and {entry.path}; give one of them another name"
            )
    return problems


def _name_fault(name: str) -> str | None:
    """Why a name cannot be a folder's name, or None."""
    if name != name.strip() or name in ("", ".", ".."):
        return "is empty, a dot, or has spaces around it"
    if "/" in name or "\\" in name:
        return "has a slash in it"
    if not name.isprintable():
        return "has a character that cannot be shown"
    if len(name) > MAX_NAME_CHARACTERS or len(name.encode()) > MAX_NAME_BYTES:
        return f"is longer than {MAX_NAME_CHARACTERS} characters or {MAX_NAME_BYTES} bytes"
    return None


def _repeated(items: Iterable[Item]) -> list[Item]:
    return [item for item, times in Counter(items).items() if times > 1]


def load_plan(
    path: str | Path | None = None,
    *,
    candidates: Sequence[str | Path] = (),
    evaluations: Sequence[str | Path] = (),
    model: str | None = None,
    overrides: Sequence[str] = (),
) -> Plan:
    """Read a plan file and lay the command line over it.

    Candidates and evaluations of the command line replace the file's whole list where any are
    given; `model` replaces the file's model name; overrides ("training.epochs=2",
    "candidates.0.name=short") come last, their values read as YAML. Relative paths in the plan
    file start at its folder, those of the command line at the current folder.

    Raises PlanError with all problems that can be seen together.
    """
    tree = {} if path is None else _read_plan_file(Path(path))
    problems: list[str] = []
    if candidates:
        tree["candidates"] = list(candidates)
    if evaluations:
        tree["evaluation"] = list(evaluations)
    if model is not None:
        problems += _foreign_model_settings(tree, model, overrides)
        tree = _with_value(_written_out(tree), ["model", "name"], model)
    tree, override_problems = _overridden(_written_out(tree), overrides)
    problems += override_problems
    try:
        plan = Plan.model_validate(tree)
    except ValidationError as error:
        problems += _problems(error)
    if problems:
        raise PlanError(problems)
    return plan


class _PlanLoader(yaml.SafeLoader):
    """YAML that reads 1e-3 as a number (YAML 1.1 calls it text) and refuses a key given twice."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        assert node is not None
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key.value} appears twice in one mapping; keep one",
                    problem_mark=key.start_mark,
                )
            seen.add((key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key))
        return node


_PlanLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+\Z"),
    list("-+.0123456789"),
)


def _read_plan_file(path: Path) -> dict[str, Any]:
    """The file's tree, short forms written out, paths seen from the current folder."""
    if problem := file_problem(path):
        raise PlanError(problem)
    try:
        tree = _parse_yaml(path.read_text(encoding="utf-8-sig"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    if not isinstance(tree, dict | None):
        raise PlanError(f"{path}:1: found {_show(tree)}; expected keys, as `candidates: [a.jsonl]`")
    return _from_folder(_written_out(tree or {}), path.parent)


def _parse_yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_PlanLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        context = f" ({error.context})" if error.context else ""
        raise PlanError(f"{where}:{line}: not YAML: {error.problem}{context}") from error
    # ValueError: a date or a number in a form that Python refuses, as 2024-13-01.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise PlanError(f"{where}: not YAML: {str(error).strip()}") from error


def _from_folder(tree: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The tree with its data paths seen from the current folder."""

    def moved(entry: Any) -> Any:
        if isinstance(entry, dict) and isinstance(entry.get("path"), str) and entry["path"]:
            # Path.expanduser raises where ~name is no user; os.path leaves such a name alone.
            path = os.path.expanduser(entry["path"])  # noqa: PTH111
            return {**entry, "path": str(folder / path)}
        return entry

    lists = {key: tree[key] for key in FILE_SECTIONS if isinstance(tree.get(key), list)}
    return tree | {key: [moved(entry) for entry in entries] for key, entries in lists.items()}


def _foreign_model_settings(
    tree: Mapping[str, Any], model: str, overrides: Sequence[str]
) -> list[str]:
    """What the file says of its own model and must not reach another one unasked."""
    section = tree.get("model")
    if not isinstance(section, Mapping) or section.get("name", "embedded") == model:
        return []
    decided = {override.partition("=")[0].strip() for override in overrides}
    return [
        f"model.{name}: found {_show(section[name])}, which the plan says of "
        f"{section.get('name', 'embedded')}, not of {model}; repeat it for {model} with "
        f"--set model.{name}=..."
        for name in ("revision", "trust_remote_code")
        if section.get(name) and f"model.{name}" not in decided
    ]


def _overridden(tree: dict[str, Any], overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The tree with every `key.path=value` laid over it, and the problems of those that cannot."""
    problems: list[str] = []
    keys = [override.partition("=")[0].strip() for override in overrides]
    problems += [f"--set {key}: found twice; set it once" for key in _repeated(keys)]
    for key, override in zip(keys, overrides, strict=True):
        try:
            if "=" not in override or not all(key.split(".")):
                raise PlanError(f"--set {override}: expected key.path=value")
            value = _parse_yaml(override.partition("=")[2], f"--set {override}")
            tree = _written_out(_with_value(tree, key.split("."), value))
        except PlanError as error:
            problems += error.problems
    return tree, problems


def _with_value(tree: Any, keys: Sequence[str], value: Any, above: str = "") -> Any:
    """A copy of the tree with the value at the keys; list items are named by their index."""
    if not keys:
        return value
    head, rest = keys[0], keys[1:]
    place = f"{above}.{head}" if above else head
    if isinstance(tree, list):
        if head not in map(str, range(len(tree))):
            have = f"0 to {len(tree) - 1}" if tree else "no items yet"
            raise PlanError(f"--set {place}: no such item of {above}, which has {have}")
        changed = _with_value(tree[int(head)], rest, value, place)
        return [changed if str(index) == head else item for index, item in enumerate(tree)]
    if tree is not None and not isinstance(tree, Mapping):
        raise PlanError(f"--set {place}: {above} is {_show(tree)} and has no key below it")
    below = {} if tree is None else tree
    return {**below, head: _with_value(below.get(head), rest, value, place)}


_SECTION_MODELS: Mapping[str, type[Section]] = {
    "": Plan,
    "model": ModelPlan,
    "candidates": CandidatePlan,
    "evaluation": EvaluationPlan,
    "lora": LoraPlan,
    "training": TrainingPlan,
    "generation": GenerationPlan,
    "decision": DecisionPlan,
}
_KEYS = {key for section in _SECTION_MODELS.values() for key in section.model_fields}

# What pydantic's error types mean in words; {names} are filled from the error's context.
_EXPECTED = {
    "missing": "a value",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text (in quotes where it looks like a number)",
    "string_too_short": "text that is not empty",
    "list_type": "a list",
    "too_short": "at least one entry",
    "dict_type": "a mapping",
    "model_type": "a mapping of settings",
    "literal_error": "{expected}",
    "invalid_key": "keys that are text",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
}


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name closest to what was written, upper and lower case alike, or None."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[close[0]] if close else None


def file_problem(path: str | Path) -> str | None:
    """Why there is no file to read at the path, with the nearest name beside it, or None."""
    path = Path(path)
    try:
        if path.is_file():
            return None
        if path.is_dir():
            return f"{path} is a folder; name a file in it"
        if path.exists():
            return f"{path} is not a regular file; write its content to a file and name that"
        if not path.parent.is_dir():
            return f"there is no file {path}: its folder {path.parent} does not exist"
        near = nearest(path.name, (entry.name for entry in path.parent.iterdir()))
    except OSError as error:
        return f"{path} cannot be reached: {error.strerror}"
    hint = f"did you mean {path.parent / near}?" if near else "check the path"
    return f"there is no file {path}; {hint}"


def _refuse(*problems: str) -> None:
    """Raise the problems inside a validator: whole messages, kept one by one."""
    if problems:
        context = {"text": "; ".join(problems), "problems": list(problems)}
        raise PydanticCustomError("plan", "{text}", context)


def _problems(error: ValidationError) -> list[str]:
    """Every problem once, in the plan's order, the branches of a union joined by `or`."""
    problems: list[str] = []
    found: dict[str, tuple[Any, list[str]]] = {}
    for detail in error.errors(include_url=False):
        if detail["type"] == "plan":
            problems += detail["ctx"]["problems"]
        elif detail["type"] == "extra_forbidden":
            problems.append(_unknown_key(detail["loc"]))
        elif detail["type"] == "missing":
            problems.append(f"{_key_path(detail['loc'])}: missing; expected a value")
        # A name cannot be derived from a path that is wrong: the path's own problem says it.
        elif detail["type"] != "default_factory_not_called":
            key = _key_path(detail["loc"])
            found.setdefault(key, (detail["input"], []))[1].append(_expectation(detail))
    problems += [
        f"{key}: found {_show(value)}; expected {' or '.join(expected)}"
        for key, (value, expected) in found.items()
        # An item's own problem says more than "this list is no text", the union's other branch.
        if not any(deeper.startswith(f"{key}.") for deeper in found)
    ]
    return problems


def _expectation(detail: ErrorDetails) -> str:
    template = _EXPECTED.get(detail["type"])
    return (
        template.format(**detail.get("ctx", {}))
        if template
        else f"something else ({detail['msg']})"
    )


def _key_path(location: Sequence[str | int]) -> str:
    """The key path of an error; pydantic adds the names of a union's branches, left out here."""
    known = [str(part) for part in location if isinstance(part, int) or part in _KEYS]
    return ".".join(known) or ".".join(map(str, location)) or "plan"


def _unknown_key(location: Sequence[str | int]) -> str:
    """The message for a key that its section does not know."""
    name = str(location[-1])
    prefix = "".join(f"{part}." for part in location[:-1])
    fields = list(_SECTION_MODELS[str(location[0]) if prefix else ""].model_fields)
    if near := nearest(name, fields):
        return f"unknown key {prefix}{name}; did you mean {prefix}{near}?"
    if elsewhere := nearest(name, _KEYS - set(FILE_SECTIONS)):
        paths = [
            f"{section}.{elsewhere}" if section else elsewhere
            for section, model in _SECTION_MODELS.items()
            if elsewhere in model.model_fields and section not in FILE_SECTIONS
        ]
        if paths:
            return f"unknown key {prefix}{name}; did you mean {' or '.join(paths)}?"
    return f"unknown key {prefix}{name}; known here: {', '.join(fields)}"


def _show(value: object) -> str:
    """A value as a plan file would write it, cut to a readable length."""
    plain = value is None or isinstance(value, str | bool | int | float)
    text = json.dumps(value, ensure_ascii=False) if plain else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


# Where a file lies does not decide a result; its content (sha256) and its name do.
_LOCATION_KEYS = frozenset({"path", "size_bytes"})
SHOWN_HASH_CHARACTERS = 12
_ABSENT = object()


def freeze(plan: Plan) -> dict[str, Any]:
    """The plan with every default, as JSON values, and with each data file's hash and size.

    Every entry of `candidates` and `evaluation` gets `sha256` (hex), `size_bytes` and an absolute
    `path`. Raises DataError with all files that cannot be read.
    """
    frozen = plan.model_dump(mode="json")
    problems: list[str] = []
    for section in FILE_SECTIONS:
        for index, entry in enumerate(frozen[section]):
            problem = file_problem(entry["path"])
            try:
                entry |= {} if problem else _file_facts(entry["path"])
            except OSError as error:
                problem = f"{entry['path']} cannot be read: {error.strerror}"
            if problem:
                problems.append(f"{section}.{index}.path: {problem}")
    if problems:
        raise DataError(problems)
    return frozen


def _file_facts(path: str) -> dict[str, Any]:
    with Path(path).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size_bytes = file.tell()
    return {"path": str(Path(path).resolve()), "sha256": digest, "size_bytes": size_bytes}


def fingerprint(frozen: Mapping[str, Any]) -> str:
    """The sha256 (hex) of all that decides the results: a moved file does not change it."""
    return hashlib.sha256(_canonical(_without_locations(frozen)).encode("ascii")).hexdigest()


def difference(frozen_a: Mapping[str, Any], frozen_b: Mapping[str, Any]) -> list[str]:
    """What differs between two frozen plans, as lines: "training.epochs: 2 → 3".

    Empty exactly where the fingerprints are equal.
    """
    return _differences("", _without_locations(frozen_a), _without_locations(frozen_b))


def _without_locations(frozen: Mapping[str, Any]) -> dict[str, Any]:
    kept = dict(frozen)
    for section in FILE_SECTIONS:
        kept[section] = [
            {key: value for key, value in entry.items() if key not in _LOCATION_KEYS}
            for entry in frozen.get(section, [])
        ]
    return kept


def _differences(place: str, old: Any, new: Any) -> list[str]:
    if isinstance(old, list) and isinstance(new, list) and place in FILE_SECTIONS:
        old, new = dict(enumerate(old)), dict(enumerate(new))
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        return [
            line
            for key in keys
            for line in _differences(
                f"{place}.{key}" if place else str(key),
                old.get(key, _ABSENT),
                new.get(key, _ABSENT),
            )
        ]
    # JSON tells 1 from 1.0 and from true, and so does the fingerprint; == does not.
    if old is not _ABSENT and new is not _ABSENT and _canonical(old) == _canonical(new):
        return []
    length = SHOWN_HASH_CHARACTERS if place.endswith(".sha256") else None
    return [f"{place}: {_brief(old, length)} → {_brief(new, length)}"]


def _brief(value: Any, length: int | None) -> str:
    if value is _ABSENT:
        return "(not there)"
    if isinstance(value, dict) and "name" in value:
        return str(value["name"])
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return str(value)[:length] if length else _show(value)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
