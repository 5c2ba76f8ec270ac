"""Records as pandas frames if pandas is installed, else as lists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import pandas

Records: TypeAlias = "pandas.DataFrame | list[dict[str, Any]]"
"""A frame, or without pandas a list of dicts: one for each row."""


def frame(records: Iterable[Mapping[str, Any]]) -> Records:
    """The records as a frame; without pandas, as a list."""
    rows = [dict(record) for record in records]
    try:
        import pandas
    except ImportError:
        return rows
    return pandas.DataFrame(rows)
