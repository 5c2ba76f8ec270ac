"""The whole plan: its sections, its short forms, and the rules across sections."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from loracle.plan.data_sections import HOLDOUT, CandidatePlan, EvaluationPlan, HoldoutPlan
from loracle.plan.devices import RayPlan
from loracle.plan.messages import refuse, show
from loracle.plan.names import (
    BASE_NAME,
    location_problems,
    name_problems,
    repeated,
    with_distinct_names,
)
from loracle.plan.sections import (
    Count,
    DecisionPlan,
    GenerationPlan,
    LoraPlan,
    ModelPlan,
    Section,
    Seed,
    TrackerName,
    TrainingPlan,
)

FILE_SECTIONS = ("candidates", "evaluation")
"""The lists of data files."""


# Set in the validation context when nothing is measured, as for `loracle inspect`.
EVALUATION_OPTIONAL = "evaluation_optional"
# The same when nothing is trained.
CANDIDATES_OPTIONAL = "candidates_optional"


DeviceIndex = Annotated[int, Field(strict=True, ge=0)]


class Asked(NamedTuple):
    """An evaluation set's name, and what is measured on it."""

    name: str
    metrics: tuple[str, ...]


class Plan(Section):
    """Everything that decides the results of an experiment, and which trackers follow it."""

    model: ModelPlan = Field(default_factory=ModelPlan)
    """The base model. A bare string is its name."""
    candidates: list[CandidatePlan] = Field(default=[], validate_default=True)
    """The training datasets to compare, at least one. A bare string is a path."""
    holdout: HoldoutPlan | None = None
    """Rows of the candidates to measure on, if `evaluation` is empty. A bare number is the share.
    None: `evaluation` must name a dataset."""
    evaluation: list[EvaluationPlan] = Field(default=[], validate_default=True)
    """The datasets to measure on, at least one, or a `holdout`. A bare string is a path."""
    lora: LoraPlan = Field(default_factory=LoraPlan)
    """The adapter."""
    training: TrainingPlan = Field(default_factory=TrainingPlan)
    """How every candidate is trained."""
    generation: GenerationPlan = Field(default_factory=GenerationPlan)
    """How evaluation questions are answered."""
    seeds: Annotated[list[Seed], Field(min_length=1)] = Field(default=[0])
    """Each candidate is trained once for each seed."""
    decision: DecisionPlan = Field(default_factory=DecisionPlan, validate_default=True)
    """The rule that ranks the candidates."""
    devices: Literal["auto"] | Count | Annotated[list[DeviceIndex], Field(min_length=1)] = "auto"
    """On how many devices trials run at the same time: a number, or the numbers of this machine's
    GPUs, `[0, 2]`. auto: on all GPUs that are visible, on one device without GPUs. More than one
    needs `pip install 'loracle[ray]'`. Affects no result; may be changed when a run is resumed."""
    ray: RayPlan = Field(default_factory=RayPlan)
    """How several devices are used. Affects no result; may be changed when a run is resumed."""
    trackers: list[TrackerName] = Field(default=[])
    """Programs that follow the run: each needs the extra of its name. Affects no result; may be
    changed when a run is resumed. A bare string is one."""

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, values: object) -> object:
        return written_out(values) if isinstance(values, Mapping) else values

    @field_validator("candidates")
    @classmethod
    def _check_candidates(
        cls, candidates: list[CandidatePlan], info: ValidationInfo
    ) -> list[CandidatePlan]:
        refuse(*location_problems("candidates", candidates))
        named = with_distinct_names(candidates)
        problems = name_problems("candidates", named)
        problems += [
            f"candidates.{index}.name: {entry.path} is called {BASE_NAME!r}, which is the "
            "untrained model's row; give it another name"
            for index, entry in enumerate(named)
            if entry.name.casefold() == BASE_NAME
        ]
        if not candidates and CANDIDATES_OPTIONAL not in (info.context or ()):
            problems.append("candidates: found none; name at least one training file")
        refuse(*problems)
        return named

    @property
    def held_out(self) -> HoldoutPlan | None:
        """The holdout, if it is the evaluation set."""
        return None if self.evaluation else self.holdout

    @property
    def asked(self) -> list[Asked]:
        """Every evaluation set, including the one that is split off from the candidates."""
        if self.held_out is not None:
            return [Asked(HOLDOUT, tuple(self.held_out.metrics))]
        return [Asked(entry.name, tuple(entry.metrics)) for entry in self.evaluation]

    @field_validator("holdout")
    @classmethod
    def _check_holdout(cls, holdout: HoldoutPlan | None) -> HoldoutPlan | None:
        if holdout is not None:
            refuse(
                *(
                    f"holdout.metrics: found {show(metric)} twice; name it once"
                    for metric in repeated(holdout.metrics)
                )
            )
        return holdout

    @field_validator("evaluation")
    @classmethod
    def _check_evaluation(
        cls, evaluation: list[EvaluationPlan], info: ValidationInfo
    ) -> list[EvaluationPlan]:
        refuse(*location_problems("evaluation", evaluation))
        named = with_distinct_names(evaluation)
        problems = name_problems("evaluation", named)
        problems += [
            f"evaluation.{index}.metrics: found {show(metric)} twice; name it once"
            for index, entry in enumerate(named)
            for metric in repeated(entry.metrics)
        ]
        # A holdout with a problem is not in the data, but it is not missing either.
        held_out = info.data.get("holdout", ...) is not None
        if not evaluation and not held_out and EVALUATION_OPTIONAL not in (info.context or ()):
            problems.append(
                "evaluation: found none; pass --eval FILE, list it in the plan, or hold rows of "
                "the candidates out for it: --set holdout=0.1"
            )
        refuse(*problems)
        return named

    @field_validator("seeds")
    @classmethod
    def _check_seeds(cls, seeds: list[int]) -> list[int]:
        refuse(*(f"seeds: found {seed} twice; name it once" for seed in repeated(seeds)))
        return seeds

    @field_validator("devices")
    @classmethod
    def _check_devices(cls, devices: str | int | list[int]) -> str | int | list[int]:
        if isinstance(devices, list):
            refuse(*(f"devices: found {index} twice; name it once" for index in repeated(devices)))
        return devices

    @model_validator(mode="after")
    def _shardable_base(self) -> Self:
        if self.training.shard_base and self.training.data_parallel == 1:
            refuse(
                "training.shard_base: found true with training.data_parallel: 1, one device, which "
                "has nothing to share; set data_parallel to the number of devices, or remove it"
            )
        if self.training.shard_base and self.model.quantization != "none":
            refuse(
                "training.shard_base: found true together with model.quantization: "
                f"{self.model.quantization}, whose packed weights torch cannot shard; remove one "
                "of the two"
            )
        return self

    @model_validator(mode="after")
    def _spread_trials(self) -> Self:
        each, replicas = self.ray.devices_per_trial, self.training.data_parallel
        if each > 1 and self.model.device_map is None and replicas not in ("auto", each):
            refuse(
                f"ray.devices_per_trial: found {each} without model.device_map: auto and with "
                f"training.data_parallel: {replicas}, so that a trial's devices would not all "
                "work; set one of the two, or remove ray.devices_per_trial"
            )
        if isinstance(self.devices, list) and self.ray.address not in ("auto", "local"):
            refuse(
                f"devices: found {self.devices} beside ray.address: {self.ray.address}; a list "
                "names GPUs of this machine, so give a number"
            )
        return self

    @field_validator("trackers")
    @classmethod
    def _check_trackers(cls, trackers: list[TrackerName]) -> list[TrackerName]:
        refuse(*(f"trackers: found {name} twice; name it once" for name in repeated(trackers)))
        return trackers

    @field_validator("decision")
    @classmethod
    def _check_decision(cls, decision: DecisionPlan, info: ValidationInfo) -> DecisionPlan:
        evaluation: list[EvaluationPlan] = info.data.get("evaluation", [])
        sets = [(e.name, f"evaluation.{i}", e.metrics) for i, e in enumerate(evaluation)]
        holdout: HoldoutPlan | None = info.data.get("holdout")
        if holdout is not None and not evaluation:
            sets.append((f"the {HOLDOUT}", HOLDOUT, holdout.metrics))
        refuse(
            *(
                f"decision.metric: found {show(decision.metric)}, which {name} does not "
                f"compute ({key}.metrics: {', '.join(metrics)}); add it there, or choose another "
                "decision.metric"
                for name, key, metrics in sets
                if decision.metric not in metrics
            )
        )
        return decision


def written_out(values: Mapping[str, Any]) -> dict[str, Any]:
    """The plan with its short forms written out: bare strings and numbers, single entries, empty
    sections."""
    full = {key: value for key, value in values.items() if value is not None}
    if isinstance(full.get("model"), str):
        full["model"] = {"name": full["model"]}
    if isinstance(full.get("holdout"), int | float):
        full["holdout"] = {"share": full["holdout"]}
    if isinstance(full.get("trackers"), str):
        full["trackers"] = [full["trackers"]]
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
