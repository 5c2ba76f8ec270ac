"""What every metric asks of its references."""

from __future__ import annotations

from collections.abc import Sequence

from loracle.errors import DataError


def check_references(references: Sequence[str]) -> None:
    """Refuse an empty list, and one text in place of a list."""
    assert not isinstance(references, str), "references are a list of texts, not one text"
    if not references:
        raise DataError("there is no reference answer to score against; give at least one")
