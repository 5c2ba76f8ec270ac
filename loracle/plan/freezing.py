"""A plan with all that decides its results: every default, and the hash of every data file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loracle.errors import DataError
from loracle.plan.messages import file_problem, show
from loracle.plan.root import FILE_SECTIONS, Plan

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
    return str(value)[:length] if length else show(value)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
