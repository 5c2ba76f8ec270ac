"""The plan while it is built from another tool's settings, and what happened to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from loracle.plan.messages import show


class Kept(NamedTuple):
    """A setting that means the same in the plan. note: a further remark, or ""."""

    theirs: str
    ours: str
    value: str
    note: str = ""


class Changed(NamedTuple):
    """A setting that the plan has in another form. theirs: as written."""

    theirs: str
    ours: str
    why: str


class NotSupported(NamedTuple):
    """A setting that the plan cannot express. advice: what to do."""

    theirs: str
    advice: str


@dataclass
class Draft:
    """A plan's tree, and the account of how it was made.

    settings: theirs; each is taken once, and those left at the end are listed.
    tree: the plan so far, sections and their keys.
    """

    settings: Mapping[str, Any]
    tree: dict[str, Any] = field(default_factory=dict)
    kept: list[Kept] = field(default_factory=list)
    changed: list[Changed] = field(default_factory=list)
    not_supported: list[NotSupported] = field(default_factory=list)
    not_needed: list[str] = field(default_factory=list)
    _taken: set[str] = field(default_factory=set)

    def take(self, key: str) -> Any:
        """Their value, None if it is not set; the key counts as handled."""
        self._taken.add(key)
        return self.settings.get(key)

    def remaining(self) -> dict[str, Any]:
        """The settings that were not taken."""
        return {key: value for key, value in self.settings.items() if key not in self._taken}

    def put(self, ours: str, value: Any) -> None:
        """Set a key of the plan, "training.epochs"."""
        section, _, key = ours.partition(".")
        if key:
            self.tree.setdefault(section, {})[key] = value
        else:
            self.tree[section] = value

    def keep(self, theirs: str, ours: str, value: Any, note: str = "") -> None:
        """Set a key of the plan to the value of one of their settings."""
        self.put(ours, value)
        self.kept.append(Kept(theirs, ours, show(value), note))

    def keep_entry(self, theirs: str, section: str, entry: Mapping[str, Any]) -> None:
        """Add a data file to a section of the plan."""
        entries = self.tree.setdefault(section, [])
        entries.append(dict(entry))
        details = [f"{key}: {show(value)}" for key, value in entry.items() if key != "path"]
        place = f"{section}.{len(entries) - 1}"
        self.kept.append(Kept(theirs, place, str(entry["path"]), ", ".join(details)))

    def keep_as(self, theirs: str, where: str, value: object) -> None:
        """List a setting that other lines of the account already cover."""
        self.kept.append(Kept(theirs, where, show(value)))

    def change(self, theirs: str, ours: str, value: Any, why: str) -> None:
        """Set a key of the plan to the nearest equivalent of one of their settings."""
        self.put(ours, value)
        self.changed.append(Changed(theirs, f"{ours} = {show(value)}", why))

    def note_change(self, theirs: str, ours: str, why: str) -> None:
        """List a change that sets no key of its own."""
        self.changed.append(Changed(theirs, ours, why))

    def withdraw(self, ours: str) -> bool:
        """Remove a key from the plan, and its lines from the account.

        Returns whether one of their settings was kept in it.
        """
        self.tree.pop(ours, None)
        was_kept = any(item.ours == ours for item in self.kept)
        self.kept = [item for item in self.kept if item.ours != ours]
        self.changed = [item for item in self.changed if item.ours.partition(" ")[0] != ours]
        return was_kept

    def refuse(self, theirs: str, advice: str) -> None:
        """List a setting that cannot be carried over."""
        self.not_supported.append(NotSupported(theirs, advice))

    def skip(self, keys: Iterable[str]) -> None:
        """Take settings that do not affect the result, if present."""
        for key in keys:
            if key in self.settings and key not in self._taken:
                self._taken.add(key)
                self.not_needed.append(key)


def written(key: str, value: object) -> str:
    """A setting as written in their file."""
    return f"{key}: {show(value)}" if not isinstance(value, str) else f"{key}: {value}"
