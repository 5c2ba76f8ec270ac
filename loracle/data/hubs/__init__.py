"""Models and datasets of the Hugging Face hub and of ModelScope, as files on this machine.

    HubLocation --a Hub's snapshot--> Snapshot          commit, and the files there are
                --layouts, or a name--> paths           which of them are needed
                --a Hub's download--> HubFiles          where they lie, with the commit

No data is parsed here: that is left to the readers. With HF_HUB_OFFLINE set, everything
comes from the caches and no connection is opened.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from loracle.data.hubs.huggingface import HuggingFace
from loracle.data.hubs.layouts import find_split, find_splits
from loracle.data.hubs.modelscope import ModelScope
from loracle.data.hubs.repository import (
    CARDS,
    Hub,
    Repository,
    Snapshot,
    is_offline,
    listed,
)
from loracle.data.hubs.weights import model_paths
from loracle.errors import ModelError
from loracle.plan import EMBEDDED, nearest
from loracle.plan.locations import HubFiles, HubLocation, HubName, LocalFile, parse_model
from loracle.text import size

SHOWN_COMMIT_CHARACTERS = 12

_log = logging.getLogger("loracle.hubs")


def fetch_dataset(
    location: HubLocation,
    *,
    split: str | None = None,
    default_split: str | None = None,
    commit: str | None = None,
) -> HubFiles:
    """The files of one split of a hub's dataset.

    split: None takes the only one, or else `default_split` if there are several.
    commit: what to read instead of the location's revision, so that a later run reads the same
    data.

    Raises DataError (no such repository, revision, configuration, split or file; no access; no
    network and not cached), MissingExtraError.
    """
    hub, repository = _open(location, "dataset")
    snapshot = hub.snapshot(repository, commit or location.revision)
    config: str | None = None
    if location.pattern is not None:
        paths, split = _matching(repository, snapshot, location.pattern), None
    else:
        config, split, paths = find_split(
            repository,
            snapshot.sizes,
            _cards(hub, repository, snapshot),
            config=location.config,
            split=split,
            default_split=default_split,
        )
    return _fetched(hub, repository, snapshot, paths, config=config, split=split)


def fetch_all_splits(location: HubLocation) -> HubFiles:
    """The files of every split of a hub's dataset. Raises as fetch_dataset does."""
    hub, repository = _open(location, "dataset")
    snapshot = hub.snapshot(repository, location.revision)
    if location.pattern is not None:
        return fetch_dataset(location, commit=snapshot.commit)
    cards = _cards(hub, repository, snapshot)
    config, splits = find_splits(repository, snapshot.sizes, cards, config=location.config)
    paths = list(dict.fromkeys(path for found in splits.values() for path in found))
    return _fetched(hub, repository, snapshot, paths, config=config)


def fetch_model(
    location: HubLocation,
    *,
    commit: str | None = None,
    with_code: bool = False,
    with_weights: bool = True,
    into: Path | None = None,
) -> HubFiles:
    """What loading a model needs: weights, configuration, tokenizer, chat template.

    with_weights: False leaves the weights on the hub. with_code: also the program files that come
    with it. into: a folder to put the files in; None is the hub's cache. commit: as for
    fetch_dataset.

    Raises ModelError (as fetch_dataset's DataError, or the repository has no weights that can be
    loaded), MissingExtraError.
    """
    hub, repository = _open(location, "model")
    snapshot = hub.snapshot(repository, commit or location.revision)
    paths = model_paths(repository, snapshot.sizes, with_code=with_code, with_weights=with_weights)
    return _fetched(hub, repository, snapshot, paths, into=into)


def model_location(
    name: str, hub: Literal["auto", "huggingface", "modelscope"], revision: str | None
) -> HubLocation | None:
    """The hub's model that a plan names, or None if the name is a folder on this machine.

    Raises ModelError for a name that is nearly that of the embedded model: no hub is asked for it.
    """
    located = parse_model(name)
    if located is not None:
        return HubLocation(located.hub, located.repository, revision=located.revision or revision)
    if Path(name).is_absolute() or name.startswith((".", "~")) or Path(name).exists():
        return None
    if "/" not in name and nearest(name, [EMBEDDED]):
        raise ModelError(f"model {name}: there is no such folder; did you mean {EMBEDDED}?")
    where: HubName = "modelscope" if hub == "modelscope" else "huggingface"
    return HubLocation(where, name, revision=revision)


def shown(files: HubFiles) -> str:
    """The repository and its commit, as shown in messages."""
    return f"{files.repository}@{files.commit[:SHOWN_COMMIT_CHARACTERS]}"


def _open(location: HubLocation, kind: Literal["dataset", "model"]) -> tuple[Hub, Repository]:
    hub: Hub = ModelScope() if location.hub == "modelscope" else HuggingFace()
    return hub, Repository(location.hub, kind, location.repository)


def _matching(repository: Repository, snapshot: Snapshot, pattern: str) -> list[str]:
    """The files whose path equals or matches the pattern; a folder stands for everything in it."""
    paths = [path for path in snapshot.sizes if path == pattern]
    paths = paths or sorted(path for path in snapshot.sizes if fnmatchcase(path, pattern))
    folder = pattern.rstrip("/") + "/"
    paths = paths or sorted(path for path in snapshot.sizes if path.startswith(folder))
    if not paths:
        near = nearest(pattern, snapshot.sizes)
        hint = f"did you mean {near}?" if near else f"it has {listed(sorted(snapshot.sizes))}"
        raise repository.error(f"has no file {pattern}; {hint}")
    return paths


def _cards(hub: Hub, repository: Repository, snapshot: Snapshot) -> dict[str, bytes]:
    names = [name for name in CARDS if name in snapshot.sizes]
    folder = hub.download(repository, snapshot, names)
    return {name: (folder / name).read_bytes() for name in names}


def _fetched(
    hub: Hub,
    repository: Repository,
    snapshot: Snapshot,
    paths: Sequence[str],
    *,
    config: str | None = None,
    split: str | None = None,
    into: Path | None = None,
) -> HubFiles:
    missing = snapshot.missing(paths, into)
    if missing and not is_offline():
        size_bytes = sum(snapshot.sizes[path] for path in missing)
        if into is not None:
            _require_room(repository, into, size_bytes)
        _log.info(
            "fetching %s@%s: %s, %s",
            repository.address,
            snapshot.commit[:SHOWN_COMMIT_CHARACTERS],
            f"{len(missing)} files" if len(missing) > 1 else missing[0],
            size(size_bytes),
        )
    folder = hub.download(repository, snapshot, paths, into)
    files = [LocalFile(folder / path, path) for path in paths]
    return HubFiles(
        repository.hub, repository.id, snapshot.commit, folder, files, config=config, split=split
    )


def _require_room(repository: Repository, folder: Path, size_bytes: int) -> None:
    """Refuse immediately what would fill the disk hours later."""
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if (free_bytes := shutil.disk_usage(place).free) < size_bytes:
        raise repository.error(
            f"{size(size_bytes)} must be downloaded, but {folder} has only {size(free_bytes)} "
            f"free; free space, or choose another folder"
        )
