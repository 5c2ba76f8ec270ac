"""Checks of large data that were made before, kept in the cache folder: CACHE/checks/KEY.json.

The key is the hash of all that a check is made from: the content of every file, its name without
the folder that it lies in (places.py), how it is read, what sets are compared with it, and
Loracle's own source. What a set holds depends on the sets beside it (an instruction of one is one
in all), so that a check is kept as a whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import loracle
from loracle.data.accounting import Accounting, Lengths, RowNote
from loracle.data.audit import Extractiveness, Finding, Leak, Leakage, RowReference
from loracle.data.reading.dataset import MIN_STORED_BYTES, num_bytes_of
from loracle.data.reading.fields import FieldUse
from loracle.data.reading.locations import resolve
from loracle.data.reading.options import options_of
from loracle.data.sharing import Sharing
from loracle.data_check.places import Places
from loracle.data_check.result import CHECK_VERSION, Check, DatasetReport, Problem
from loracle.errors import LoracleError
from loracle.files import cache_folder, read_json, sha256, write_json
from loracle.plan import CandidatePlan, EvaluationPlan

FOLDER_NAME = "checks"
MAX_KEPT = 100
"""More are removed, the oldest first."""

Record = TypeVar("Record")


_MAX_HASHED_BYTES = 32 << 30
"""Reading more than this only to know it again is not worth it, and a file may have no end."""


@cache
def program_sha256() -> str:
    """The hash of Loracle's own source: another program may find something else."""
    root = Path(loracle.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def key_of(
    candidates: Sequence[CandidatePlan], evaluations: Sequence[EvaluationPlan]
) -> str | None:
    """The key of a check that counts characters; None if it is too small to be kept, too large to
    be hashed first, or cannot be made."""
    entries = [*candidates, *evaluations]
    places = Places([entry.path for entry in entries])
    try:
        sources = [resolve(entry.path, options_of(entry)) for entry in entries]
        if not MIN_STORED_BYTES <= sum(map(num_bytes_of, sources)) <= _MAX_HASHED_BYTES:
            return None
        parts = [
            {
                "kind": type(entry).__name__,
                "entry": {**entry.model_dump(mode="json"), "path": name},
                "files": [[places.neutral(str(path)), sha256(path)] for path in source.files],
                "registry": sha256(source.registry) if source.registry else None,
                "ignored": [places.neutral(str(path)) for path in source.ignored],
            }
            for entry, source, name in zip(entries, sources, places.names, strict=True)
        ]
    # The check itself says what is wrong.
    except LoracleError:
        return None
    made_from = [CHECK_VERSION, program_sha256(), parts]
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()


def kept_check(key: str, places: Places) -> Check | None:
    """The check that was kept under this key, of datasets that may lie elsewhere now; None if
    there is none that can be read."""
    path = cache_folder() / FOLDER_NAME / f"{key}.json"
    if not path.is_file():
        return None
    try:
        return check_of(places.shown_record(read_json(path)))
    # Damaged: it is made again.
    except (LoracleError, KeyError, TypeError, ValueError, AttributeError):
        return None


def keep(key: str, checked: Check, places: Places) -> None:
    """Keep a check. Where the cache cannot be written nothing is kept."""
    folder = cache_folder() / FOLDER_NAME
    with suppress(LoracleError, OSError, ValueError):
        write_json(folder / f"{key}.json", places.neutral_record(checked.to_dict()))
        kept = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
        for path in kept[:-MAX_KEPT]:
            path.unlink(missing_ok=True)


def check_of(record: Mapping[str, Any]) -> Check:
    """The check that gives this JSON form, without its rows."""
    return Check(
        [_report(one) for one in record["datasets"]],
        [_leakage(one) for one in record["leakage"]],
        max_length=record["max_length"],
        max_length_reason=record["max_length_reason"],
        overlong=record["overlong"],
        remarks=record["remarks"],
    )


def _report(record: Mapping[str, Any]) -> DatasetReport:
    extractiveness, sharing = record["extractiveness"], record["sharing"]
    return _made(
        DatasetReport,
        record,
        accounting=record["accounting"] and _accounting(record["accounting"]),
        sharing=sharing and _made(Sharing, sharing),
        extractiveness=extractiveness and _made(Extractiveness, extractiveness),
        findings=[
            _made(Finding, one, groups=tuple(map(_rows, one["groups"])))
            for one in record["findings"]
        ],
        problems=[_made(Problem, one) for one in record["problems"]],
        fields=tuple(FieldUse(**one) for one in record["fields"]),
    )


def _accounting(record: Mapping[str, Any]) -> Accounting:
    return _made(
        Accounting,
        record,
        dropped=tuple(_made(RowNote, note) for note in record["dropped"]),
        shortened=tuple(_made(RowNote, note) for note in record["shortened"]),
        lengths=_made(Lengths, record["lengths"]),
    )


def _leakage(record: Mapping[str, Any]) -> Leakage:
    return _made(
        Leakage,
        record,
        leaks=tuple(
            _made(Leak, one, train=_rows(one["train"]), evaluation=_rows(one["evaluation"]))
            for one in record["leaks"]
        ),
        leaked_ids=tuple(record["leaked_ids"]),
        clean_ids=tuple(record["clean_ids"]),
    )


def _rows(records: Sequence[Mapping[str, Any]]) -> tuple[RowReference, ...]:
    return tuple(_made(RowReference, row) for row in records)


def _made(kind: type[Record], record: Mapping[str, Any], **parts: Any) -> Record:
    """A dataclass of a record, which may have more; parts: fields that are records themselves."""
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: parts[name] if name in parts else record[name] for name in names})
