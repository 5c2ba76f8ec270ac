"""The names derived from data paths."""

from __future__ import annotations

from pathlib import Path

from loracle.plan.locations import BadLocation, is_hub_location, parse_location

COMPRESSION_ENDINGS = (".gz", ".zst")


def data_name(location: str) -> str:
    """A short name for what lies at a location: the entry's of a registry (`FILE.json#name`), the
    folder's, the file's without its endings, or the name of a hub's dataset."""
    if is_hub_location(location):
        return _hub_name(location)
    base, _, entry = location.rpartition("#")
    if base and entry and "/" not in entry:
        return entry
    path = Path(location)
    if not path.name or path.name == "..":
        path = path.resolve()
    name = path.name
    for ending in COMPRESSION_ENDINGS:
        name = name.removesuffix(ending)
    return Path(name).stem


def _hub_name(location: str) -> str:
    try:
        found = parse_location(location)
    except BadLocation:
        # The entry is rejected for its location; the name is never shown.
        return "dataset"
    assert found is not None, "it has a scheme"
    return found.name
