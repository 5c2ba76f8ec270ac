"""Download the original system's model, Qwen2.5-7B-Instruct-1M (15 GB), into a folder.

    python training/download_qwen.py [--hub huggingface|modelscope] [--mirror URL] [--folder FOLDER]
                                     [--model ORG/NAME] [--revision REVISION]

Run again, it resumes: complete files are kept. Every file's sha256 is checked against the hub's and
against SHA256SUMS in the folder, which the first run writes (`sha256sum -c SHA256SUMS` checks it
too); a damaged file is downloaded again. HF_ENDPOINT (--mirror sets it), HF_TOKEN,
MODELSCOPE_ENDPOINT and MODELSCOPE_API_TOKEN are honoured. Exit codes: 0 the model is there, 2 it
cannot be had, with the reason, 130 interrupted.
"""

# ruff: noqa: T201

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
# Run by its path, python looks for modules in training/ and not above it.
sys.path.insert(0, str(REPOSITORY))

from loracle.data.hubs import fetch_model  # noqa: E402
from loracle.data.hubs.repository import is_offline  # noqa: E402
from loracle.errors import ModelError, UserError  # noqa: E402
from loracle.files import sha256, write_atomically  # noqa: E402
from loracle.plan.locations import HubFiles, HubLocation  # noqa: E402
from loracle.text import size  # noqa: E402

MODEL = "Qwen/Qwen2.5-7B-Instruct-1M"
SUMS = "SHA256SUMS"
_MIRROR_VARIABLES = {"huggingface": "HF_ENDPOINT", "modelscope": "MODELSCOPE_ENDPOINT"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Download, and say where the model is; returns the exit code."""
    options = _parsed(arguments)
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("loracle").setLevel(logging.INFO)
    if options.mirror:
        # Read by the hubs' libraries when they are first imported, below.
        os.environ[_MIRROR_VARIABLES[options.hub]] = options.mirror
    folder = options.folder or Path("models") / options.model.rpartition("/")[2]
    location = HubLocation(options.hub, options.model, revision=options.revision)
    try:
        fetched = fetch_whole(location, folder)
    except UserError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; run the same command again to resume", file=sys.stderr)
        return 130
    print(
        f"{options.model}@{fetched.commit}: {len(fetched.files)} files, "
        f"{size(fetched.size_bytes)}, in {folder}"
    )
    print(f"use it: loracle run a.jsonl b.jsonl --eval test.jsonl --model {folder.absolute()}")
    return 0


def fetch_whole(location: HubLocation, folder: Path) -> HubFiles:
    """Download, check every file, and download damaged ones once more.

    Raises:
        UserError: it cannot be had, or a file is damaged again.
    """
    fetched = fetch_model(location, into=folder)
    sums = _sums(fetched, folder)
    if damaged := _damaged(location, fetched, folder, sums):
        for name in damaged:
            print(f"{folder / name} is damaged; downloading it again", file=sys.stderr)
            (folder / name).unlink()
        fetched = fetch_model(location, commit=fetched.commit, into=folder)
        sums = _sums(fetched, folder)
        if damaged := _damaged(location, fetched, folder, sums):
            raise ModelError(
                f"{folder}: {', '.join(damaged)} have another sha256 than the hub says, twice; "
                "remove the folder and try again, or use the other hub"
            )
    lines = [f"# {location.repository}@{fetched.commit}"]
    lines += [f"{digest}  {name}" for name, digest in sums.items()]
    write_atomically(folder / SUMS, "".join(f"{line}\n" for line in lines).encode())
    return fetched


def _sums(fetched: HubFiles, folder: Path) -> dict[str, str]:
    return {file.name: sha256(folder / file.name) for file in fetched.files}


def _damaged(
    location: HubLocation, fetched: HubFiles, folder: Path, sums: dict[str, str]
) -> list[str]:
    expected = {**_recorded(folder, fetched.commit), **_of_hub(location, fetched.commit)}
    return [name for name, digest in sums.items() if expected.get(name, digest) != digest]


def _recorded(folder: Path, commit: str) -> dict[str, str]:
    """What an earlier run wrote of the same commit."""
    path = folder / SUMS
    # Whatever it has become: a file that cannot be read says nothing, and is written again.
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    first, *lines = text.splitlines() or [""]
    if not first.endswith(f"@{commit}"):
        return {}
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def _of_hub(location: HubLocation, commit: str) -> dict[str, str]:
    """The hub's hashes of large files. ModelScope's library checks its own while it downloads."""
    if location.hub != "huggingface" or is_offline():
        return {}
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        entries = HfApi().list_repo_tree(location.repository, revision=commit, recursive=True)
        large = {entry.path: getattr(entry, "lfs", None) for entry in entries}
        return {path: lfs.sha256 for path, lfs in large.items() if lfs is not None}
    except (HfHubHTTPError, OSError) as error:
        print(f"the hub's hashes cannot be had ({error}); sizes were checked", file=sys.stderr)
        return {}


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=f"Download {MODEL} into a folder.")
    parser.add_argument("--hub", choices=("huggingface", "modelscope"), default="huggingface")
    parser.add_argument("--mirror", help="another address of the hub, as https://hf-mirror.com")
    parser.add_argument("--folder", type=Path, help="default: models/ and the model's name")
    parser.add_argument("--model", default=MODEL, help=f"another model's id; default: {MODEL}")
    parser.add_argument("--revision", help="branch, tag or commit; default: the hub's own")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
