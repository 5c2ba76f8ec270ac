"""Where datasets lie, taken out of what is kept of a check and put in again when it is shown.

    old/a.jsonl:3: no answer  --neutral-->  <0>:3: no answer  --shown-->  new/a.jsonl:3: no answer

The name of a file stays: ids are made of it. Only the folder may differ.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import Any

from loracle.plan.locations import is_hub_location

_NAMES_PLACES = frozenset({"path", "file", "message", "detail", "description"})
"""The fields of a check's record that say where something lies; others hold the rows' own text."""
_MARK = "\ue000"


class Places:
    """The paths of a check's datasets, in their order."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths
        # The longer first: one may be the beginning of another.
        order = sorted(range(len(paths)), key=lambda place: -len(paths[place]))
        self._patterns = [
            (re.compile(rf"(?<![\w./\\-]){re.escape(paths[place])}(?![\w-])"), _token(place))
            for place in order
            if _can_be_told(paths[place])
        ]

    @property
    def names(self) -> list[str]:
        """The parts of the paths that change what a check says."""
        return [PurePath(path).name if _can_be_told(path) else path for path in self._paths]

    def neutral(self, text: str) -> str:
        """A text with every dataset's path as its number."""
        for pattern, token in self._patterns:
            text = pattern.sub(token, text)
        return text

    def shown(self, text: str) -> str:
        """A text with the paths again."""
        if _MARK in text:
            for place, path in enumerate(self._paths):
                text = text.replace(_token(place), path)
        return text

    def neutral_record(self, record: Any) -> Any:
        """A check's JSON form without its paths."""
        return _replaced(record, self.neutral)

    def shown_record(self, record: Any) -> Any:
        """That with the paths again."""
        return _replaced(record, self.shown)


def _token(place: int) -> str:
    return f"{_MARK}{place}{_MARK}"


def _can_be_told(path: str) -> bool:
    """Whether a path cannot be taken for a word: it has a folder or an ending."""
    is_path = "/" in path.strip("/") or "\\" in path or "." in path.strip("./")
    return is_path and not is_hub_location(path) and _MARK not in path


def _replaced(value: Any, rename: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {
            key: rename(item)
            if key in _NAMES_PLACES and isinstance(item, str)
            else _replaced(item, rename)
            for key, item in value.items()
        }
    return [_replaced(item, rename) for item in value] if isinstance(value, list | tuple) else value
