"""The state of the model's files when a run started, so that no resumed run mixes two models.

    RUN/inputs.json   {"version": 1, "model": {"tokenizer.json": {"num_bytes": 812,
                       "mtime_ns": 17.., "sampled": "ab..", "sha256": "cd.."}, ...}}

A large file with the same size, time and sampled blocks is assumed to be the same; if only its
time differs, its whole content decides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from loracle.files import json_object_at, sha256
from loracle.safety.storage_errors import reading

INPUTS_VERSION = 1

_MODEL_ENDINGS = frozenset(
    {".json", ".jinja", ".safetensors", ".model", ".txt", ".tiktoken", ".py", ".gguf"}
)
_TEMPLATES = "additional_chat_templates"
# Up to this size a file is read completely every time; above it, only if its time has changed.
_ALWAYS_WHOLE_BYTES = 64 << 20
_BLOCK_BYTES = 64 << 10
_NUM_BLOCKS = 64

Facts = dict[str, dict[str, Any]]
"""By file name: its size, time and hashes."""


def model_facts(folder: Path, known: Mapping[str, Mapping[str, Any]] | None = None) -> Facts:
    """The facts of all files of a model's folder that loading it may read.

    known: earlier facts; the hash of an unchanged large file is taken from them.
    """
    known = known or {}
    return {
        path.relative_to(folder).as_posix(): _facts(
            path, known.get(path.relative_to(folder).as_posix())
        )
        for path in _model_paths(folder)
    }


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The differences between two sets of facts, a line for each file."""
    lines = []
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if old is None:
            lines.append(f"{name} ({_kind(name)}) is new")
        elif new is None:
            lines.append(f"{name} ({_kind(name)}) is gone")
        elif old["sha256"] != new["sha256"]:
            hashes = f"sha256 {old['sha256'][:12]} → {new['sha256'][:12]}"
            lines.append(f"{name} ({_kind(name)}) has changed: {hashes}")
    return lines


def _model_paths(folder: Path) -> list[Path]:
    paths = {*folder.iterdir(), *(folder / _TEMPLATES).glob("*"), *_shards(folder)}
    return sorted(
        path
        for path in paths
        if path.suffix in _MODEL_ENDINGS and not path.name.startswith(".") and path.is_file()
    )


def _shards(folder: Path) -> Iterator[Path]:
    """The files that an index of weights names: some lie in folders of their own."""
    for index in folder.glob("*.index.json"):
        named = json_object_at(index).get("weight_map")
        names = {str(name) for name in named.values()} if isinstance(named, dict) else set()
        # A path of the whole machine is not one of the model's files.
        yield from (folder / name for name in names if not Path(name).is_absolute())


def _facts(path: Path, known: Mapping[str, Any] | None) -> dict[str, Any]:
    with reading(path):
        status = path.stat()
        facts = {
            "num_bytes": status.st_size,
            "mtime_ns": status.st_mtime_ns,
            "sampled": _sampled_sha256(path, status.st_size),
        }
    same = known is not None and all(known.get(key) == value for key, value in facts.items())
    if known is not None and same and status.st_size > _ALWAYS_WHOLE_BYTES:
        return {**facts, "sha256": known["sha256"]}
    return {**facts, "sha256": sha256(path)}


def _sampled_sha256(path: Path, num_bytes: int) -> str:
    """The hash of blocks spread evenly over the file, including the first and the last."""
    last = max(0, num_bytes - _BLOCK_BYTES)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for start in sorted({last * block // (_NUM_BLOCKS - 1) for block in range(_NUM_BLOCKS)}):
            file.seek(start)
            digest.update(file.read(_BLOCK_BYTES))
    return digest.hexdigest()


def _kind(name: str) -> str:
    if name.endswith((".safetensors", ".gguf", "index.json")):
        return "weights"
    if name.endswith(".jinja") or "template" in name:
        return "chat template"
    if name.endswith(".py"):
        return "code"
    if name in ("config.json", "generation_config.json"):
        return "config"
    return "tokenizer"
