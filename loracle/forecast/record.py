"""The forecast, as plain data, and forecast.json, which keeps it next to the measured values.

    {"version": 1, "plan_fingerprint": "9f...",
     "forecast": {"machine": "...", "candidates": [{"name": "clean", "num_steps": 12, ...}], ...},
     "measured": {"peak_memory_bytes": 2100000000, "seconds": 300.0}}

"measured" is there once a run has finished. Starts without torch: reports read it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from loracle.errors import RunFolderError
from loracle.files import read_json, write_json

FORECAST_NAME = "forecast.json"
_VERSION = 1


@dataclass(frozen=True)
class CandidateForecast:
    """One training of one candidate, and the answers of its adapter to all evaluation sets."""

    name: str
    num_steps: int
    tokens_read: int
    tokens_computed: int
    training_seconds: float
    answering_seconds: float
    training_bytes: int
    """Peak memory of training."""


@dataclass(frozen=True)
class Alternative:
    """Another setting of the base and of its training, on the same card.

    training_bytes: peak memory of a full micro-batch. training_seconds: of all trainings together,
    on all devices; None: it does not fit.
    """

    quantization: str
    gradient_checkpointing: bool
    micro_batch_tokens: int
    training_bytes: int
    training_seconds: float | None
    is_planned: bool


@dataclass(frozen=True)
class Forecast:
    """What an experiment will take on one machine.

    num_runs_each: seeds. seconds: of everything, trainings on all devices counted.
    trial_bytes_on_disk: adapter, checkpoint and predictions of one trial.
    price: of all hours, in the unit that the price of an hour was given in; None: none was given.
    """

    machine: str
    device_type: str
    num_devices: int
    is_here: bool
    memory_bytes: int
    model: str
    num_parameters: int
    dtype: str
    quantization: str
    num_runs_each: int
    candidates: tuple[CandidateForecast, ...]
    base_answering_seconds: float
    tokens_read: int
    tokens_computed: int
    seconds: float
    training_parts: Mapping[str, int]
    """Of the candidate whose training takes the most memory, in bytes by kind."""
    process_bytes: int
    answering_bytes: int
    disk_bytes: int
    free_disk_bytes: int | None
    micro_batch_tokens: int
    gradient_checkpointing: bool
    largest_micro_batch_tokens: int
    largest_answering_batch: int
    longest_row: int
    fits: bool
    advice: tuple[str, ...]
    notes: tuple[str, ...]
    price: float | None = None
    answering_batch: int | None = None
    """The questions answered together."""
    num_replicas: int = 1
    """Processes that share a training, on a device each."""
    alternatives: tuple[Alternative, ...] = ()
    """Other settings, of a GPU; none for a CPU, where each would have to be measured."""
    price_per_hour: float | None = None
    """Of one device."""

    @property
    def training_bytes(self) -> int:
        """Peak memory of the training that takes the most."""
        return max(candidate.training_bytes for candidate in self.candidates)

    @property
    def peak_bytes(self) -> int:
        """Peak memory of the whole experiment."""
        return max(self.training_bytes, self.answering_bytes)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "training_bytes": self.training_bytes}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Forecast:
        fields = {key: value for key, value in values.items() if key != "training_bytes"}
        candidates = tuple(CandidateForecast(**one) for one in fields["candidates"])
        lists = {key: tuple(fields[key]) for key in ("advice", "notes")}
        others = tuple(Alternative(**one) for one in fields.get("alternatives", ()))
        return cls(**{**fields, **lists, "candidates": candidates, "alternatives": others})


@dataclass(frozen=True)
class Measured:
    """What a finished run took."""

    peak_memory_bytes: int
    seconds: float


@dataclass(frozen=True)
class ForecastRecord:
    """forecast.json."""

    plan_fingerprint: str
    forecast: Forecast
    measured: Measured | None = None

    def with_measured(self, peak_memory_bytes: int, seconds: float) -> ForecastRecord:
        """What this start took added to earlier ones: the highest peak, the total time."""
        before = self.measured or Measured(0, 0.0)
        peak = max(before.peak_memory_bytes, peak_memory_bytes)
        return replace(self, measured=Measured(peak, before.seconds + seconds))


def write_forecast(
    run: Path, record: ForecastRecord, write: Callable[[Path, Any], None] = write_json
) -> None:
    """Write RUN/forecast.json. write: how the run's folder writes its files."""
    measured = asdict(record.measured) if record.measured else None
    write(
        run / FORECAST_NAME,
        {
            "version": _VERSION,
            "plan_fingerprint": record.plan_fingerprint,
            "forecast": record.forecast.to_dict(),
            "measured": measured,
        },
    )


def read_forecast(run: Path) -> ForecastRecord | None:
    """RUN/forecast.json; None if there is none that this version can read."""
    try:
        found = read_json(run / FORECAST_NAME)
        if found["version"] != _VERSION:
            return None
        measured = Measured(**found["measured"]) if found["measured"] else None
        forecast = Forecast.from_dict(found["forecast"])
        return ForecastRecord(found["plan_fingerprint"], forecast, measured)
    except (RunFolderError, OSError, KeyError, TypeError, ValueError):
        return None
