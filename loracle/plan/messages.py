"""Parts of messages: a value as written, the nearest known name, why a file is missing."""

from __future__ import annotations

import codecs
import difflib
import json
from collections.abc import Iterable
from pathlib import Path

from pydantic_core import PydanticCustomError

OWN_ERROR = "plan"
"""The type of the errors that `refuse` raises, as pydantic lists them."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name closest to what was written, ignoring case, or the only one that it
    shortens, such as `evaluation` for `eval`; else None."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1)
    begun = [full for full in by_lower if len(name) > 2 and full.startswith(name.lower())]
    close = close or (begun if len(begun) == 1 else [])
    return by_lower[close[0]] if close else None


def file_problem(path: str | Path) -> str | None:
    """Why there is no file to read at the path, with the nearest name in its folder, or None."""
    path = Path(path)
    try:
        if path.is_file():
            return None
        if path.is_dir():
            return f"{path} is a folder; name a file in it"
        if path.exists():
            return f"{path} is not a regular file; write its content to a file and name that"
        if not path.parent.is_dir():
            return f"there is no file {path}: its folder {path.parent} does not exist"
        # Compared by stem: a shared ending would already make two names similar.
        by_stem = {entry.stem: entry.name for entry in path.parent.iterdir()}
        near = by_stem.get(nearest(path.stem, by_stem) or "")
    except OSError as error:
        return f"{path} cannot be reached: {error.strerror}"
    hint = f"did you mean {path.parent / near}?" if near else "check the path"
    return f"there is no file {path}; {hint}"


def is_text_encoding(name: str) -> bool:
    """Whether the name is a text encoding known to Python: codecs also has others, such as hex."""
    try:
        codecs.lookup(name)
        "a".encode(name)
    except (LookupError, ValueError):
        return False
    return True


def refuse(*problems: str) -> None:
    """Raise the problems inside a validator, as separate complete messages."""
    if problems:
        context = {"text": "; ".join(problems), "problems": list(problems)}
        raise PydanticCustomError(OWN_ERROR, "{text}", context)


def show(value: object) -> str:
    """A value as written in a plan file, cut to a readable length."""
    plain = value is None or isinstance(value, str | bool | int | float)
    text = json.dumps(value, ensure_ascii=False) if plain else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def drafts_by_name(value: object) -> object:
    """YAML reads `off` as false."""
    return {True: "all", False: "off"}[value] if isinstance(value, bool) else value
