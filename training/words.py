"""Loracle's messages in the words of this interface."""

from __future__ import annotations

import re

# Settings as the plan calls them, and as a caller of these functions knows them.
_NAMES = {
    r"\btraining\.epochs\b": "training_args.num_train_epochs",
    r"\btraining\.schedule\b": "training_args.lr_scheduler_type",
    r"\btraining\.batch_size\b": "training_args.per_device_train_batch_size",
    r"(?<!\S)(--set )?training\.([a-z_]+)": r"training_args.\2",
    r"\bgeneration\.batch_size\b": "batch_size",
    r"(?<!\S)(--set )?generation\.([a-z_]+)": r"generation_kwargs.\2",
    r"\bmodel\.(quantization|device_map)\b": r"\1",
    r"(set )?model\.dtype( to)?": "load the model with dtype",
    r"an evaluation set, --eval FILE": "an evaluation file: (train, eval)",
    r" or seed \(--set holdout\.seed=1\)": "",
    r"choose another share, or name": "name",
    r"choose another folder with --out, or use the same plan": (
        "choose another file or output_dir, or give the same arguments"
    ),
    r"with --out\b": "(result_output_path, output_dir)",
}


def in_our_words(message: str) -> str:
    """A message of Loracle, with its settings under the names that they have here."""
    for pattern, name in _NAMES.items():
        message = re.sub(pattern, name, message)
    return message
