"""The data checked, the base loaded and tested: what the trials of one process start from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from loracle.data_check.cached import check_run
from loracle.experiment.foreseeing import settled
from loracle.experiment.planned import Planned
from loracle.experiment.setup import (
    ExperimentSetup,
    ProcessesOfOne,
    Rendered,
    TrainingSet,
    load_model,
    prepare,
    rendered_sets,
)
from loracle.experiment.space import adapter_parameters
from loracle.model.base import BaseModel
from loracle.model.self_test import SelfTest
from loracle.run_folder.folder import RunFolder
from loracle.run_folder.reporter import Reporter


class Prepared(NamedTuple):
    """The base model, loaded and tested, and its training data. refusals: by candidate, why it
    must not be used for training."""

    setup: ExperimentSetup
    training_sets: dict[str, TrainingSet]
    self_test: SelfTest
    refusals: Mapping[str, str]

    @property
    def rendered(self) -> Rendered:
        return Rendered(self.training_sets, self.setup.evaluations, self.refusals)


@dataclass(frozen=True)
class BaseFacts:
    """The base as a process loaded it: what results say of it, and what must be the same in every
    process of a run."""

    name: str
    dtype: str
    quantization: str
    num_parameters: int
    num_adapter_parameters: int
    fingerprint: str
    device_type: str
    forest: bool
    """Whether shared prefixes are computed once; otherwise the batches are padded."""
    self_test: str
    """The self-test's result."""
    attention: str | None = None
    """What computes attention over the forest: spans, dense, triton or flex."""
    attention_replaced: tuple[str, ...] = ()
    """Attention that would have come first, and what was wrong with it, in words."""

    @classmethod
    def of(cls, prepared: Prepared) -> BaseFacts:
        setup = prepared.setup
        base = setup.base
        return cls(
            name=base.name,
            dtype=str(base.dtype).removeprefix("torch."),
            quantization=base.quantization,
            num_parameters=base.num_parameters,
            num_adapter_parameters=adapter_parameters(base.model, setup.lora_config),
            fingerprint=setup.base_fingerprint,
            device_type=base.device.type,
            forest=setup.training.forest,
            self_test=prepared.self_test.detail,
            attention=base.attention,
            attention_replaced=prepared.self_test.replaced,
        )

    def difference(self, other: BaseFacts) -> str | None:
        """Why a process with these facts cannot work beside one with the others; None: it can."""
        for field, what in _MUST_EQUAL.items():
            mine, theirs = getattr(self, field), getattr(other, field)
            if mine != theirs:
                return f"its {what} differs from the first worker's ({mine}, not {theirs})"
        return None


_MUST_EQUAL = {
    "device_type": "kind of device",
    "dtype": "precision (model.dtype: auto follows the processor)",
    "fingerprint": "base model",
    "forest": "result of the self-test",
    "attention": "attention over the forest",
}


def prepare_planned(
    planned: Planned,
    folder: RunFolder,
    report: Reporter,
    base: BaseModel | None,
    num_slots: int = 1,
    processes: ProcessesOfOne = ProcessesOfOne(),  # noqa: B008
) -> Prepared:
    """Check the data, load the model. Rows are lists only up to here: training gets them packed.

    num_slots: how many trials run at the same time. processes: that share a training.
    """
    data = planned.data
    ready = check_run(data, folder, report)
    rendered = rendered_sets(data.plan, ready)
    base = base or load_model(data.plan, data.model_folder)
    setup, self_test = prepare(
        data.plan, rendered, base, planned.lora, report, data.plan_fingerprint, processes
    )
    prepared = Prepared(setup, rendered.training_sets, self_test, ready.refusals)
    return with_settings(planned, prepared, folder, report, num_slots)


def with_settings(
    planned: Planned, prepared: Prepared, folder: RunFolder, report: Reporter, num_slots: int
) -> Prepared:
    """What was prepared, with the values of its `auto` settings: those of forecast.json, if the run
    has one."""
    setup = settled(
        planned.data.plan, prepared.setup, prepared.training_sets, folder, report, num_slots
    )
    return prepared._replace(setup=setup)


def reporting_to(prepared: Prepared, report: Reporter) -> Prepared:
    """The same, with its trials' events going elsewhere."""
    return prepared._replace(setup=dataclasses.replace(prepared.setup, reporter=report))
