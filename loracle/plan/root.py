"""The whole plan: its sections, its short forms, and what must fit between the sections."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field, ValidationInfo, field_validator, model_validator

from loracle.plan.messages import refuse, show
from loracle.plan.names import (
    BASE_NAME,
    location_problems,
    name_problems,
    repeated,
    with_distinct_names,
)
from loracle.plan.sections import (
    CandidatePlan,
    DecisionPlan,
    EvaluationPlan,
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


class Plan(Section):
    """Everything that decides the results of an experiment, and which programs follow it."""

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
    seeds: Annotated[list[Seed], Field(min_length=1)] = Field(default=[0])
    """Each candidate is trained once for each seed."""
    decision: DecisionPlan = Field(default_factory=DecisionPlan, validate_default=True)
    """The rule that ranks the candidates."""
    trackers: list[TrackerName] = Field(default=[])
    """Programs that follow the run: each needs the extra of its name. Decides no result, and may
    change when a run goes on. A bare string is one."""

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, values: object) -> object:
        return written_out(values) if isinstance(values, Mapping) else values

    @field_validator("candidates")
    @classmethod
    def _check_candidates(cls, candidates: list[CandidatePlan]) -> list[CandidatePlan]:
        refuse(*location_problems("candidates", candidates))
        named = with_distinct_names(candidates)
        problems = name_problems("candidates", named)
        problems += [
            f"candidates.{index}.name: {entry.path} is called {BASE_NAME!r}, which is the "
            "untrained model's row; give it another name"
            for index, entry in enumerate(named)
            if entry.name.casefold() == BASE_NAME
        ]
        if not candidates:
            problems.append("candidates: found none; name at least one training file")
        refuse(*problems)
        return named

    @field_validator("evaluation")
    @classmethod
    def _check_evaluation(cls, evaluation: list[EvaluationPlan]) -> list[EvaluationPlan]:
        refuse(*location_problems("evaluation", evaluation))
        named = with_distinct_names(evaluation)
        problems = name_problems("evaluation", named)
        problems += [
            f"evaluation.{index}.metrics: found {show(metric)} twice; name it once"
            for index, entry in enumerate(named)
            for metric in repeated(entry.metrics)
        ]
        if not evaluation:
            problems.append("evaluation: found none; pass --eval FILE, or list it in the plan")
        refuse(*problems)
        return named

    @field_validator("seeds")
    @classmethod
    def _check_seeds(cls, seeds: list[int]) -> list[int]:
        refuse(*(f"seeds: found {seed} twice; name it once" for seed in repeated(seeds)))
        return seeds

    @field_validator("trackers")
    @classmethod
    def _check_trackers(cls, trackers: list[TrackerName]) -> list[TrackerName]:
        refuse(*(f"trackers: found {name} twice; name it once" for name in repeated(trackers)))
        return trackers

    @field_validator("decision")
    @classmethod
    def _check_decision(cls, decision: DecisionPlan, info: ValidationInfo) -> DecisionPlan:
        evaluation: list[EvaluationPlan] = info.data.get("evaluation", [])
        refuse(
            *(
                f"decision.metric: found {show(decision.metric)}, which {entry.name} does not "
                f"compute (evaluation.{index}.metrics: {', '.join(entry.metrics)}); add it there "
                "or decide by another metric"
                for index, entry in enumerate(evaluation)
                if decision.metric not in entry.metrics
            )
        )
        return decision


def written_out(values: Mapping[str, Any]) -> dict[str, Any]:
    """The plan with its short forms written out: bare strings, one entry, empty sections."""
    full = {key: value for key, value in values.items() if value is not None}
    if isinstance(full.get("model"), str):
        full["model"] = {"name": full["model"]}
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
