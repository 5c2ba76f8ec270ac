"""What every metric requires of its references."""

from __future__ import annotations

from collections.abc import Sequence

from loracle.errors import DataError


def check_references(references: Sequence[str]) -> None:
    """Reject an empty list, and a single text instead of a list."""
    assert not isinstance(references, str), "references must be a list of texts, not one text"
    if not references:
        raise DataError("there is no reference answer to score against; give at least one")
