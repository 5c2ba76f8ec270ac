"""Download everything in a plan that is on a hub, or a list of addresses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Literal, NamedTuple

from loracle.data.hubs import fetch_all_splits, fetch_dataset, fetch_model, model_location
from loracle.errors import PlanError, UserError
from loracle.plan import EMBEDDED, EntryKey, ModelPlan, Plan, load_plan
from loracle.plan.locations import (
    BadLocation,
    HubFiles,
    is_hub_location,
    parse_location,
)
from loracle.plan.root import FILE_SECTIONS
from loracle.text import counted, size

# The split a candidate is trained on if a dataset has several and the plan names none. An
# evaluation has no such default: test and validation are both common, and differ.
CANDIDATE_SPLIT = "train"

_PLAN_ENDINGS = (".yaml", ".yml")


class Fetched(NamedTuple):
    """What a plan takes from hubs, without what is already on this machine.

    data: by section and position. model: None if it is not from a hub.
    """

    data: Mapping[EntryKey, HubFiles]
    model: HubFiles | None

    def pinned(self, plan: Plan) -> Plan:
        """The plan with its hub datasets at their commits, so that reading them again gives the
        same data without asking the hub."""
        changed = {
            section: [
                entry.model_copy(update=_pinned(entry.path, files))
                if (files := self.data.get(EntryKey(section, position)))
                else entry
                for position, entry in enumerate(getattr(plan, section))
            ]
            for section in FILE_SECTIONS
        }
        return plan.model_copy(update=changed)

    @property
    def everything(self) -> list[HubFiles]:
        return [*self.data.values(), *([self.model] if self.model else [])]


def fetch_plan(
    plan: Plan,
    data_commits: Mapping[EntryKey, str] = MappingProxyType({}),
    model_commit: str | None = None,
    *,
    with_model: bool = True,
) -> Fetched:
    """Fetch the datasets and the model of a plan that are on a hub.

    data_commits, model_commit: commits that an earlier run recorded, to read the same again.
    with_model: False if the model is in memory already.

    Raises UserError with the problems of all of them; the model comes last, and is not fetched if
    a dataset has a problem.
    """
    data: dict[EntryKey, HubFiles] = {}
    problems: list[str] = []
    for key, path, split, default_split in _entries(plan):
        location = parse_location(path)
        if location is None:
            continue
        try:
            data[key] = fetch_dataset(
                location, split=split, default_split=default_split, commit=data_commits.get(key)
            )
        except UserError as error:
            problems += [f"{key.section}.{key.position}: {problem}" for problem in error.problems]
    if problems:
        raise UserError(problems)
    return Fetched(data, fetch_plan_model(plan.model, model_commit) if with_model else None)


def fetch_targets(
    targets: Sequence[str], *, hub: Literal["auto", "huggingface", "modelscope"] = "auto"
) -> Iterator[HubFiles]:
    """Fetch what each target names: a plan file, a dataset (`hf://org/name`, all its splits), or a
    model's id (`org/name`).

    Yields each one as it arrives. Raises UserError at the end, with all problems.
    """
    problems: list[str] = []
    for target in targets:
        try:
            yield from _fetch_target(target, hub)
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)


def _pinned(path: str, files: HubFiles) -> dict[str, str | None]:
    location = parse_location(path)
    assert location is not None, "only a hub's dataset was fetched"
    return {"path": replace(location, revision=files.commit).address, "split": files.split}


def _entries(plan: Plan) -> Iterator[tuple[EntryKey, str, str | None, str | None]]:
    for index, candidate in enumerate(plan.candidates):
        key = EntryKey("candidates", index)
        yield key, candidate.path, candidate.split, CANDIDATE_SPLIT
    for index, evaluation in enumerate(plan.evaluation):
        yield EntryKey("evaluation", index), evaluation.path, evaluation.split, None


def fetch_plan_model(
    settings: ModelPlan, commit: str | None, *, with_weights: bool = True
) -> HubFiles | None:
    """The files of a plan's model, at a commit that an earlier run recorded; None if it is already
    on this machine. Raises UserError."""
    if settings.name == EMBEDDED:
        return None
    location = model_location(settings.name, settings.hub, settings.revision)
    if location is None:
        return None
    return fetch_model(
        location, commit=commit, with_code=settings.trust_remote_code, with_weights=with_weights
    )


def _fetch_target(
    target: str, hub: Literal["auto", "huggingface", "modelscope"]
) -> Iterator[HubFiles]:
    if target.endswith(_PLAN_ENDINGS) and not is_hub_location(target):
        yield from fetch_plan(load_plan(target)).everything
        return
    try:
        dataset = parse_location(target)
    except BadLocation as error:
        raise PlanError(str(error)) from error
    if dataset is not None:
        yield fetch_all_splits(dataset)
        return
    name, _, revision = target.partition("@")
    model = model_location(name, hub, revision or None)
    if model is None:
        raise PlanError(
            f"{target} is on this machine; name a plan (.yaml), a dataset (hf://org/name or "
            "ms://org/name) or a model's id (org/name)"
        )
    yield fetch_model(model)


def fetched_line(files: HubFiles) -> str:
    """What was fetched, in one line, with the commit, so that a plan can pin it."""
    count = counted(len(files.files), "file")
    return f"{files.repository}@{files.commit}  {count}, {size(files.size_bytes)}  {files.folder}"
