"""Names that a data path stands for."""

from __future__ import annotations

from pathlib import Path

COMPRESSION_ENDINGS = (".gz", ".zst")


def data_name(location: str) -> str:
    """A short name for what lies at a location: the entry's of a registry (`FILE.json#name`), the
    folder's, or the file's without its endings."""
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
