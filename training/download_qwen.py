"""Download the original system's model, Qwen2.5-7B-Instruct-1M (15 GB), into a folder.

    python training/download_qwen.py [--hub huggingface|modelscope] [--folder FOLDER]

Stopped and started again it goes on: files that are complete are kept. HF_ENDPOINT, HF_TOKEN,
MODELSCOPE_ENDPOINT and MODELSCOPE_API_TOKEN are honoured. Exit codes: 0 the model is there, 2 it
cannot be had, with the reason, 130 interrupted.
"""

# ruff: noqa: T201

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
# Run by its path, python looks for modules in training/ and not above it.
sys.path.insert(0, str(REPOSITORY))

from loracle.data.hubs import fetch_model  # noqa: E402
from loracle.errors import UserError  # noqa: E402
from loracle.plan.locations import HubLocation  # noqa: E402
from loracle.text import size  # noqa: E402

MODEL = "Qwen/Qwen2.5-7B-Instruct-1M"


def main(arguments: Sequence[str] | None = None) -> int:
    """Download, and say where the model is; returns the exit code."""
    options = _parsed(arguments)
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("loracle").setLevel(logging.INFO)
    folder = options.folder or Path("models") / options.model.rpartition("/")[2]
    location = HubLocation(options.hub, options.model, revision=options.revision)
    try:
        fetched = fetch_model(location, into=folder)
    except UserError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on", file=sys.stderr)
        return 130
    print(
        f"{options.model}@{fetched.commit}: {len(fetched.files)} files, "
        f"{size(fetched.size_bytes)}, in {folder}"
    )
    print(f"use it: loracle run a.jsonl b.jsonl --eval test.jsonl --model {folder.absolute()}")
    return 0


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=f"Download {MODEL} into a folder.")
    parser.add_argument("--hub", choices=("huggingface", "modelscope"), default="huggingface")
    parser.add_argument("--folder", type=Path, help="default: models/ and the model's name")
    parser.add_argument("--model", default=MODEL, help=f"another model's id; default: {MODEL}")
    parser.add_argument("--revision", help="branch, tag or commit; default: the hub's own")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
