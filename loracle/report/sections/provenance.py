"""Settings, versions, hashes, and the command that repeats the run."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from loracle.report.run_record import RunRecord
from loracle.report.sections.words import Said

_SECTIONS: tuple[tuple[str, Said], ...] = (
    ("model", ("Model", "模型")),
    ("lora", ("LoRA", "LoRA")),
    ("training", ("Training", "训练")),
    ("generation", ("Generation", "生成")),
    ("decision", ("Decision rule", "决策规则")),
)
# What appears elsewhere on the page, or has no section of its own.
_SHOWN_ELSEWHERE = frozenset({"candidates", "evaluation"})


def settings(record: RunRecord) -> dict[str, Any]:
    """The frozen plan by section, what it ran on, and every hash on record."""
    return {
        "commands": _commands(record),
        "groups": [*_plan_groups(record.plan), *_environment_groups(record)],
        "hashes": list(_hashes(record)),
    }


def _commands(record: RunRecord) -> list[str]:
    """Each command once: a stopped run is resumed with the same command."""
    return list(dict.fromkeys(shlex.join(entry["command"]) for entry in record.environment))


def _plan_groups(plan: Mapping[str, Any]) -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    known = dict(_SECTIONS)
    for key, value in plan.items():
        if key in _SHOWN_ELSEWHERE or not isinstance(value, Mapping):
            continue
        english, chinese = known.get(key, (key, key))
        yield english, chinese, [(name, _shown(setting)) for name, setting in value.items()]
    others = [
        (key, _shown(value))
        for key, value in plan.items()
        if key not in _SHOWN_ELSEWHERE and not isinstance(value, Mapping)
    ]
    others += [
        (f"evaluation.{entry['name']}.metrics", _shown(entry["metrics"]))
        for entry in plan["evaluation"]
    ]
    yield "Other", "其他", others


def _environment_groups(record: RunRecord) -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    if record.results is not None:
        facts = {k: v for k, v in record.results["model"].items() if k != "base_fingerprint"}
        yield "Base model as loaded", "加载后的基座模型", [(k, _shown(v)) for k, v in facts.items()]
    if not record.environment:
        return
    last = record.environment[-1]
    machine = [(key, _shown(last.get(key))) for key in ("time", "python", "platform", "num_cpus")]
    yield "Machine", "机器", machine
    packages = [(name, _shown(version)) for name, version in last["packages"].items()]
    yield "Versions", "版本", packages


def _hashes(record: RunRecord) -> Iterator[tuple[str, str]]:
    if record.results is not None:
        yield "plan", record.results["plan_fingerprint"]
        yield "base", record.results["model"]["base_fingerprint"]
    for entry in (*record.plan["candidates"], *record.plan["evaluation"]):
        if entry.get("sha256"):
            yield f"{entry['name']} · {entry['path'].rpartition('/')[2]}", entry["sha256"]
    for trial in record.finished_trials():
        if trained := trial.training:
            yield f"{trial.label} · adapter", trained.adapter_fingerprint


def _shown(value: object) -> str:
    """A setting as short YAML."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ", ".join(map(_shown, value)) if value else "[]"
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {_shown(v)}" for k, v in value.items()) if value else "{}"
    if isinstance(value, int):
        return f"{value:,}" if value >= 100_000 else str(value)
    return str(value)
