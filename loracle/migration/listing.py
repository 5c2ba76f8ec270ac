"""What `loracle init` prints: the account of a migration, as lines."""

from __future__ import annotations

import shlex

from loracle.migration.initial import Written
from loracle.text import counted


def listing(done: Written) -> list[str]:
    """The account: what was kept, changed, not supported, not needed, and what to do next."""
    lines = []
    if done.theirs is not None and done.draft is not None:
        lines.append(f"{done.theirs.path}: a training file of {done.theirs.tool}")
        kept = [
            f"{item.theirs} → {item.ours} = {item.value}" + (f" ({item.note})" if item.note else "")
            for item in done.draft.kept
        ]
        changed = [f"{item.theirs} → {item.ours}: {item.why}" for item in done.draft.changed]
        lines += _block("Kept (theirs → ours = value)", kept)
        lines += _block("Changed", changed)
        lines += _block(
            "Not supported, or not found",
            [f"{item.theirs}: {item.advice}" for item in done.draft.not_supported],
        )
        if done.draft.not_needed:
            lines += ["", f"Not needed: {', '.join(done.draft.not_needed)}"]
        lines.append("")
    return [*lines, *_ending(done)]


def _block(title: str, items: list[str]) -> list[str]:
    return ["", title, *(f"  {item}" for item in items or ["nothing"])]


def _ending(done: Written) -> list[str]:
    if not done.num_candidates:
        return [
            f"{done.path} written. It has no data yet: list your training files under candidates, "
            "or name them: loracle init FIRST.jsonl SECOND.jsonl",
        ]
    candidates = counted(done.num_candidates, "candidate")
    return [
        f"{done.path} written: {candidates}, measured on {done.measured_on}.",
        f"Next: loracle check --plan {shlex.quote(str(done.path))}",
        f"      loracle run --plan {shlex.quote(str(done.path))}",
    ]
