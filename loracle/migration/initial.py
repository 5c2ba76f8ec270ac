"""The steps of `loracle init`: files or another tool's training file -> a plan with comments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from loracle.errors import PlanError
from loracle.migration import axolotl, llama_factory, ms_swift
from loracle.migration.draft import Draft, written
from loracle.migration.places import Places
from loracle.migration.plan_file import plan_text
from loracle.migration.rules import SHARE_HELD_OUT
from loracle.migration.source import TheirFile, read_their_file
from loracle.plan import Plan, data_name, file_problem
from loracle.plan.foreign import Tool
from loracle.plan.locations import is_hub_location
from loracle.plan.problems import problems_of
from loracle.plan.root import FILE_SECTIONS

_MIGRATIONS: Mapping[Tool, Callable[[TheirFile, Places], Draft]] = {
    Tool.LLAMA_FACTORY: llama_factory.migrate,
    Tool.AXOLOTL: axolotl.migrate,
    Tool.MS_SWIFT: ms_swift.migrate,
}


@dataclass(frozen=True)
class Written:
    """A plan that was written.

    measured_on: in words. theirs, draft: the file it was made from, and the account of the
    migration.
    """

    path: Path
    num_candidates: int
    measured_on: str
    theirs: TheirFile | None = None
    draft: Draft | None = None


def init_plan(
    candidates: Sequence[str] = (),
    evaluations: Sequence[str] = (),
    *,
    source: Path | None = None,
    out: Path = Path("plan.yaml"),
) -> Written:
    """Write a plan for the files, or from another tool's training file, or an empty one.

    Files that are named take the place of those that the training file names.

    Raises PlanError if a file is not there, the training file cannot be read, or there is a plan
    already.
    """
    problems = [problem for name in (*candidates, *evaluations) if (problem := _missing(name))]
    if out.exists():
        problems.append(f"{out} already exists; name another with --out, or remove it")
    if problems:
        raise PlanError(problems)
    places = Places(source.parent if source else Path(), out.parent)
    theirs = read_their_file(source) if source is not None else None
    draft = Draft({}) if theirs is None else _MIGRATIONS[theirs.tool](theirs, places)
    if theirs is not None:
        _list_unread(draft, theirs)
    _name_files(draft, "candidates", candidates, places)
    _name_files(draft, "evaluation", evaluations, places)
    if not draft.tree.get("evaluation"):
        draft.tree.setdefault("holdout", SHARE_HELD_OUT)
    _name_repeated(draft)
    _validate(draft.tree, source)
    _write(out, plan_text(draft.tree, _head(out, source, theirs, draft)))
    return Written(
        out,
        len(draft.tree.get("candidates", [])),
        _measured_on(draft.tree),
        theirs,
        None if theirs is None else draft,
    )


def _list_unread(draft: Draft, theirs: TheirFile) -> None:
    """List the parts of a script that could not be read."""
    for other in theirs.others:
        draft.refuse(other, "the script's first training command was read; this one was not")
    if theirs.command:
        for key, value in theirs.settings.items():
            if "$" in str(value):
                advice = "the script does not set this variable; correct the value in the plan"
                draft.refuse(written(key, value), advice)


def _missing(name: str) -> str | None:
    """Why there is no data at a location named by the user, or None."""
    if is_hub_location(name) or Path(name).exists():
        return None
    return file_problem(name.rpartition("#")[0] or name)


def _name_files(draft: Draft, section: str, names: Sequence[str], places: Places) -> None:
    """Put files that the user named into the plan."""
    if not names:
        return
    replaced = [entry["path"] for entry in draft.tree.get(section, [])]
    if section == "evaluation" and draft.withdraw("holdout"):
        replaced.append("held-out rows")
    if replaced:
        theirs = f"their {section} ({', '.join(replaced)})"
        reason = "the files on the command line replace them"
        draft.note_change(theirs, ", ".join(names), reason)
    paths = [name if is_hub_location(name) else places.in_plan(name) for name in names]
    draft.put(section, [{"path": path} for path in paths])


def _name_repeated(draft: Draft) -> None:
    """Give a name to a dataset that is listed again with another limit or split."""
    for section in FILE_SECTIONS:
        times: Counter[str] = Counter()
        for entry in draft.tree.get(section, []):
            path = entry["path"]
            times[path] += 1
            if times[path] > 1:
                entry["name"] = f"{data_name(path)}-{times[path]}"
                draft.note_change(path, f"name: {entry['name']}", "it is listed more than once")


def _validate(tree: Mapping[str, Any], source: Path | None) -> None:
    """Refuse to write what `load_plan` would reject. An empty plan is left for the user to fill
    in."""
    candidates = tree.get("candidates") or ["first.jsonl"]
    try:
        Plan.model_validate({**tree, "candidates": candidates})
    except ValidationError as error:
        where = f"{source}: " if source is not None else ""
        raise PlanError([f"{where}{problem}" for problem in problems_of(error)]) from error


def _head(out: Path, source: Path | None, theirs: TheirFile | None, draft: Draft) -> list[str]:
    lines = ["A plan for Loracle: which of these datasets should I fine-tune on?"]
    if theirs is not None:
        lines.append(f"Made by loracle init from {source}, a training file of {theirs.tool}.")
        lines += [f"Not supported: {item.theirs}" for item in draft.not_supported]
    return [
        *lines,
        f"Check the data: loracle check --plan {out}. Run it: loracle run --plan {out}.",
    ]


def _measured_on(tree: Mapping[str, Any]) -> str:
    if tree.get("evaluation"):
        return ", ".join(str(entry["path"]) for entry in tree["evaluation"])
    return f"{tree['holdout']:.0%} of their rows, held out"


def _write(out: Path, text: str) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise PlanError(f"{out} cannot be written: {error.strerror}") from error
