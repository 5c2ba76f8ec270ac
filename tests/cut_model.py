"""The embedded model's first layers: real weights for what holds at any depth, at less work.

folder = cut_model.folder(tmp_path_factory)     a model folder, made once for all workers
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from filelock import FileLock

from loracle.model.embedded import embedded_model_folder

NUM_LAYERS = 4


def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the embedded model's folder with its first layers, embeddings and final norm."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    cut = root / "cut-model"
    with FileLock(root / "cut-model.lock"):
        if not cut.exists():
            _cut_into(cut)
    return cut


def _cut_into(cut: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    whole, unfinished = embedded_model_folder(), cut.with_name("cut-model-unfinished")
    unfinished.mkdir()
    with safe_open(whole / "model.safetensors", "pt") as weights:
        kept = {name: weights.get_tensor(name) for name in weights.keys() if _is_kept(name)}  # noqa: SIM118
    save_file(kept, unfinished / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((whole / "config.json").read_text())
    config["num_hidden_layers"] = NUM_LAYERS
    (unfinished / "config.json").write_text(json.dumps(config))
    others = ("generation_config", "tokenizer", "tokenizer_config")
    for name in (*(f"{other}.json" for other in others), "chat_template.jinja"):
        (unfinished / name).symlink_to(whole / name)
    unfinished.rename(cut)


def _is_kept(name: str) -> bool:
    """Whether a tensor belongs to the first layers, or to no layer."""
    _, is_of_layer, rest = name.partition(".layers.")
    return not is_of_layer or int(rest.partition(".")[0]) < NUM_LAYERS
