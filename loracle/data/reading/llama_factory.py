"""LLaMA-Factory's registry of datasets, dataset_info.json:

    {"my_data": {"file_name": "my_data.json",
                 "formatting": "sharegpt",
                 "columns": {"messages": "conversations", "tools": "tools"},
                 "tags": {"role_tag": "from", "content_tag": "value", "user_tag": "human"},
                 "num_samples": 1000}}

Source: LLaMA-Factory's data/README.md, which lists the keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from loracle.data.faults import kind_of, listed, named, show
from loracle.data.reading.chat_rows import FUNCTION_CALL
from loracle.data.reading.json_object import read_json_object
from loracle.data.reading.options import ReadOptions, TurnKeys
from loracle.errors import DataError
from loracle.plan import FormatName, nearest

_FORMATS: dict[str, FormatName] = {
    "alpaca": "alpaca",
    "sharegpt": "sharegpt",
    "openai": "messages",
}
_FIELDS: dict[str, dict[str, str]] = {
    "alpaca": {
        "prompt": "instruction",
        "query": "input",
        "response": "output",
        "history": "history",
        "system": "system",
        "tools": "tools",
    },
    "sharegpt": {"messages": "conversations", "system": "system", "tools": "tools"},
    "openai": {"messages": "messages", "system": "system", "tools": "tools"},
}
_OPENAI_TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "observation_tag": "tool",
    "system_tag": "system",
}
_ROLE_TAGS = {
    "user_tag": "user",
    "assistant_tag": "assistant",
    "observation_tag": "tool",
    "function_tag": FUNCTION_CALL,
    "system_tag": "system",
}
_HUBS = {"hf_hub_url": "hf://", "ms_hub_url": "ms://"}
_KNOWN = frozenset(
    {"file_name", "formatting", "columns", "tags", "split", "num_samples", "ranking", "subset"}
) | set(_HUBS)


class RegistryEntry(NamedTuple):
    """Where an entry's data lies, and how it is read."""

    location: str
    options: ReadOptions


def registry_entry(registry: Path, name: str, options: ReadOptions) -> RegistryEntry:
    """An entry; what the user decided (`options`) goes before what it says.

    Raises DataError where it is missing, or says what Loracle cannot follow.
    """
    entries = read_json_object(registry, of=" of datasets")
    if name not in entries:
        near = nearest(name, entries)
        hint = (
            f"did you mean {named(near)}?" if near else f"it has {listed(map(named, entries), 8)}"
        )
        raise DataError(f"{registry} has no dataset {show(name)}; {hint}")
    entry = entries[name]
    where = f"{registry}#{named(name)}"
    if not isinstance(entry, dict):
        raise DataError(f"{where} is {kind_of(entry)}; expected an object")
    problems = _problems(entry)
    if problems:
        raise DataError([f"{where}: {problem}" for problem in problems])
    formatting = entry.get("formatting", "alpaca")
    return RegistryEntry(
        _location(registry, entry, where),
        replace(
            options,
            format=options.format or _FORMATS[formatting],
            columns={**_columns(entry, formatting), **options.columns},
            split=options.split or entry.get("split"),
            limit=options.limit or entry.get("num_samples"),
            turn_keys=_turn_keys(entry.get("tags") or {}),
        ),
    )


def _problems(entry: Mapping[str, object]) -> list[str]:
    problems = []
    if entry.get("ranking"):
        problems.append("ranking is true: pairs of a chosen and a rejected answer cannot be used")
    formatting = entry.get("formatting", "alpaca")
    if not isinstance(formatting, str) or formatting not in _FORMATS:
        problems.append(f"formatting is {show(formatting)}; expected {' or '.join(_FORMATS)}")
        return problems
    columns = entry.get("columns") or {}
    tags = entry.get("tags") or {}
    for key, value, known in (
        ("columns", columns, _FIELDS[formatting]),
        ("tags", tags, {"role_tag": "", "content_tag": "", **_ROLE_TAGS}),
    ):
        if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
            problems.append(f"{key} is {kind_of(value)}; expected an object of texts")
            continue
        problems += [
            f"{key}.{named(name)} is not supported; known here: {', '.join(known)}"
            for name in value
            if name not in known
        ]
    if formatting == "openai" and isinstance(tags, dict):
        problems += [
            f"tags.{name} is {show(value)}, but formatting openai uses {_OPENAI_TAGS[name]!r}"
            for name, value in tags.items()
            if name in _OPENAI_TAGS and value != _OPENAI_TAGS[name]
        ]
    problems += [
        f"{named(key)} is not supported; remove it, or give the data's own path"
        for key in entry
        if key not in _KNOWN
    ]
    samples = entry.get("num_samples")
    if samples is not None and (not isinstance(samples, int) or samples < 1):
        problems.append(f"num_samples is {show(samples)}; expected a whole number above 0")
    for key in ("split", "subset", "file_name", *_HUBS):
        if entry.get(key) is not None and not isinstance(entry[key], str):
            problems.append(f"{key} is {kind_of(entry[key])}; expected text")
    return problems


def _location(registry: Path, entry: Mapping[str, object], where: str) -> str:
    for key, scheme in _HUBS.items():
        if entry.get(key):
            config = f":{entry['subset']}" if entry.get("subset") else ""
            return f"{scheme}{entry[key]}{config}"
    if not entry.get("file_name"):
        raise DataError(
            f"{where}: found no file_name; add it, relative to the folder of {registry.name}"
        )
    return str(registry.parent / str(entry["file_name"]))


def _columns(entry: Mapping[str, object], formatting: str) -> dict[str, str]:
    columns = entry.get("columns")
    named = columns if isinstance(columns, dict) else {}
    return {_FIELDS[formatting][key]: str(column) for key, column in named.items()}


def _turn_keys(tags: object) -> TurnKeys:
    assert isinstance(tags, dict), "checked before"
    return TurnKeys(
        role=tags.get("role_tag", "from"),
        content=tags.get("content_tag", "value"),
        roles={tags[key]: role for key, role in _ROLE_TAGS.items() if key in tags},
    )
