"""Which files of a model's repository are needed to load it; the others stay on the hub.

Repositories often hold the same weights in several formats, and checkpoints of other programs.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from loracle.data.hubs.repository import Repository, listed

# Never a pickle (.bin, .pt): loading one may run arbitrary code.
_WEIGHTS = ("model*.safetensors",)
_SETTINGS = frozenset({".json", ".jinja", ".model", ".txt", ".tiktoken"})
_TEMPLATE_FOLDER = "additional_chat_templates"
_OTHER_WEIGHTS = frozenset({".gguf", ".bin", ".pth", ".pt", ".onnx", ".h5", ".safetensors"})


def model_paths(
    repository: Repository, paths: Iterable[str], *, with_code: bool, with_weights: bool = True
) -> list[str]:
    """The files to fetch. Raises ModelError if there are no weights that can be loaded."""
    names = sorted(paths)
    weights = next(
        (found for pattern in _WEIGHTS if (found := [n for n in names if _fits(n, pattern)])), None
    )
    if weights is None:
        others = [name for name in names if PurePosixPath(name).suffix in _OTHER_WEIGHTS]
        raise repository.error(
            f"has no weights in a format that transformers loads ({' or '.join(_WEIGHTS)}), but "
            f"{listed(others)}; choose a repository with safetensors files"
        )
    settings = [name for name in names if _is_setting(name, with_code)]
    return weights + settings if with_weights else settings


def _fits(name: str, pattern: str) -> bool:
    return "/" not in name and fnmatchcase(name, pattern)


def _is_setting(name: str, with_code: bool) -> bool:
    path = PurePosixPath(name)
    if path.suffix == ".py":
        return with_code
    in_place = len(path.parts) == 1 or path.parts[0] == _TEMPLATE_FOLDER
    return in_place and path.suffix in _SETTINGS
