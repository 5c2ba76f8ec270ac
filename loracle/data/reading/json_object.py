"""JSON files that describe data: a registry of datasets, the state of a saved one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from loracle.data.faults import kind_of
from loracle.errors import DataError


def read_json_object(path: Path, *, of: str = "", fix: str = "") -> Mapping[str, object]:
    """The object that a JSON file holds.

    Args:
        path: the file.
        of: what the object holds, for the message: " of datasets".
        fix: what to do about a damaged file, for the message: "; save the dataset again".

    Raises:
        DataError: it cannot be read, is no JSON, or holds something else.
    """
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({error}){fix}") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} holds {kind_of(value)}; expected an object{of}")
    return value
