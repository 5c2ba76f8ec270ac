"""A plan with everything that decides its results: every default, and the hash of every data
file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic import ValidationError

from loracle.errors import DataError, PlanError
from loracle.files import sha256
from loracle.plan.data_sections import CandidatePlan, DataFilePlan, EvaluationPlan
from loracle.plan.locations import HubFiles
from loracle.plan.messages import file_problem, show
from loracle.plan.problems import problems_of
from loracle.plan.root import FILE_SECTIONS, Plan
from loracle.plan.sections import ModelPlan

# Sections that do not affect results.
_FOLLOWERS = frozenset({"devices", "ray", "trackers"})
# Keys of other sections that do not affect results.
_WITHOUT_EFFECT = {"training": frozenset({"checkpoint_every", "data_parallel", "shard_base"})}
# A file's location does not affect results; its content (sha256) and its name do.
_LOCATION_KEYS = frozenset({"path", "size_bytes", "hub", "commit", "config", "split", "files"})
SHOWN_HASH_CHARACTERS = 12
_ABSENT = object()


class EntryKey(NamedTuple):
    """A data file of the plan: its section (`candidates` or `evaluation`) and its position there,
    from 0."""

    section: str
    position: int


class HeldOutFile(NamedTuple):
    """The held-out rows, as the run folder keeps them. path: within the run folder."""

    path: str
    sha256: str
    size_bytes: int


def _own_file(entry: DataFilePlan) -> Sequence[Path]:
    return [Path(entry.path)]


def freeze(
    plan: Plan,
    files_of: Callable[[DataFilePlan], Sequence[Path]] = _own_file,
    fetched: Mapping[EntryKey, HubFiles] = MappingProxyType({}),
    model_commit: str | None = None,
    held_out: HeldOutFile | None = None,
    metric_modules: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """The plan with every default, as JSON values, and with each dataset's hash and size.

    Every entry of `candidates` and `evaluation` gets `sha256` (hex), `size_bytes` and an absolute
    `path`. A hub's dataset keeps its path, and gets `hub`, the `commit` (hash) that its revision
    resolved to, `config`, `split` and the `files` used. A hub's model gets its `commit`.

    files_of: the files that decide what is read for an entry, which may be a folder.
    fetched: where the files of hub entries are.
    held_out: the evaluation set that is split off, if there is one; it becomes the entry of
        `evaluation`. An unused holdout has no effect and is left out.
    metric_modules: by metric, the hash of the user's module; left out if there is none.

    Raises DataError with all files that cannot be read.
    """
    frozen = plan.model_dump(mode="json")
    if model_commit is not None:
        frozen["model"]["commit"] = model_commit
    if metric_modules:
        frozen["metric_modules"] = dict(metric_modules)
    problems: list[str] = []
    for section in FILE_SECTIONS:
        for index, entry in enumerate(getattr(plan, section)):
            files = fetched.get(EntryKey(section, index))
            try:
                if files is not None:
                    frozen[section][index] |= _hub_facts(files)
                    continue
                frozen[section][index] |= {
                    "path": str(Path(entry.path).resolve()),
                    **_facts(files_of(entry)),
                }
            except DataError as error:
                problems += [f"{section}.{index}.path: {problem}" for problem in error.problems]
    if problems:
        raise DataError(problems)
    if plan.held_out is None:
        del frozen["holdout"]
    else:
        assert held_out is not None, "the holdout is split off before the plan is frozen"
        (asked,) = plan.asked
        frozen["evaluation"] = [
            {
                **held_out._asdict(),
                "name": asked.name,
                "limit": None,
                "metrics": list(asked.metrics),
            }
        ]
    return frozen


def plan_of(frozen: Mapping[str, Any]) -> Plan:
    """The plan that was frozen; freezing it again with the same data gives the same result."""
    tree = {key: value for key, value in frozen.items() if key in Plan.model_fields}
    for section in FILE_SECTIONS:
        entry_type = CandidatePlan if section == "candidates" else EvaluationPlan
        tree[section] = [
            {key: value for key, value in entry.items() if key in entry_type.model_fields}
            for entry in frozen[section]
        ]
    tree["model"] = {
        key: value for key, value in frozen["model"].items() if key in ModelPlan.model_fields
    }
    if tree.get("holdout") is not None:
        # The held-out rows are the plan's own evaluation set.
        tree["evaluation"] = []
    try:
        return Plan.model_validate(tree)
    except ValidationError as error:
        raise PlanError([f"plan.json: {problem}" for problem in problems_of(error)]) from error


def recorded_commits(
    frozen: Mapping[str, Any], plan: Plan
) -> tuple[dict[EntryKey, str], str | None]:
    """The commits in a frozen plan for this plan's hub entries and hub model. What was fetched
    once is read again, even if its branch has moved since."""
    commits = {}
    for section in FILE_SECTIONS:
        # The path contains the revision, so one path is one commit.
        known = {entry["path"]: entry.get("commit") for entry in frozen.get(section, [])}
        for position, entry in enumerate(getattr(plan, section)):
            if commit := known.get(entry.path):
                commits[EntryKey(section, position)] = commit
    model = frozen.get("model", {})
    asked = plan.model.model_dump(mode="json")
    same = all(model.get(key) == asked[key] for key in ("name", "hub", "revision"))
    return commits, model.get("commit") if same else None


def _hub_facts(files: HubFiles) -> dict[str, Any]:
    return {
        "hub": files.hub,
        "commit": files.commit,
        "config": files.config,
        "split": files.split,
        "files": [file.name for file in files.files],
        **_facts([file.path for file in files.files]),
    }


def _facts(paths: Sequence[Path]) -> dict[str, Any]:
    """Hash and size of a file; for several files, the hash of their names and hashes, in order."""
    hashes, size_bytes = [], 0
    for path in paths:
        if problem := file_problem(path):
            raise DataError(problem)
        try:
            hashes.append(sha256(path))
            size_bytes += path.stat().st_size
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if len(hashes) == 1:
        return {"sha256": hashes[0], "size_bytes": size_bytes}
    listing = "".join(
        f"{digest}  {path.name}\n" for digest, path in zip(hashes, paths, strict=True)
    )
    digest = hashlib.sha256(listing.encode("utf-8", "surrogateescape")).hexdigest()
    return {"sha256": digest, "size_bytes": size_bytes}


def fingerprint(frozen: Mapping[str, Any]) -> str:
    """The sha256 (hex) of everything that decides the results: moving a file or changing a tracker
    does not change it."""
    return hashlib.sha256(_canonical(_deciding(frozen)).encode("ascii")).hexdigest()


def difference(frozen_a: Mapping[str, Any], frozen_b: Mapping[str, Any]) -> list[str]:
    """What differs between two frozen plans, as lines: "training.epochs: 2 → 3".

    Empty exactly when the fingerprints are equal.
    """
    return _differences("", _deciding(frozen_a), _deciding(frozen_b))


def _deciding(frozen: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in frozen.items() if key not in _FOLLOWERS}
    for section in FILE_SECTIONS:
        kept[section] = [
            {key: value for key, value in entry.items() if key not in _LOCATION_KEYS}
            for entry in frozen.get(section, [])
        ]
    for section, names in _WITHOUT_EFFECT.items():
        values = frozen.get(section, {})
        kept[section] = {key: value for key, value in values.items() if key not in names}
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
    # JSON distinguishes 1, 1.0 and true, and so does the fingerprint; == does not.
    if old is not _ABSENT and new is not _ABSENT and _canonical(old) == _canonical(new):
        return []
    length = SHOWN_HASH_CHARACTERS if place.endswith(".sha256") else None
    return [f"{place}: {_brief(old, length)} → {_brief(new, length)}"]


def _brief(value: Any, length: int | None) -> str:
    if value is _ABSENT:
        return "(missing)"
    if isinstance(value, dict) and "name" in value:
        return str(value["name"])
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return str(value)[:length] if length else show(value)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
