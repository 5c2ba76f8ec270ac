"""Which files of a repository belong to which configuration and split, by the rules of `datasets`.

    data/train-00000-of-00002.parquet   split train, by its name
    README.md                           configurations with their files, in its head:
        configs: [{config_name: en, data_files: [{split: train, path: en/train.jsonl}]}]

The rules are the library's own, run on a folder with the repository's cards and empty files with
its names. So they need no network, work for any hub, and no data is fetched to find out which data
to fetch.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import yaml

from loracle.data.hubs.huggingface import quiet
from loracle.data.hubs.repository import Repository, listed
from loracle.errors import UserError
from loracle.plan import nearest


class SplitFiles(NamedTuple):
    """The files of one split, as paths in the repository."""

    config: str
    split: str
    paths: list[str]


def find_split(
    repository: Repository,
    paths: Iterable[str],
    cards: Mapping[str, bytes],
    *,
    config: str | None,
    split: str | None,
    default_split: str | None,
) -> SplitFiles:
    """The files of a split.

    cards: the content of the repository's cards, by path. config: None is the default one.
    split: None is the only one, or else `default_split` where that exists.

    Raises DataError if there is no such configuration or split, or several to choose from.
    """
    found, splits = find_splits(repository, paths, cards, config=config)
    chosen = split
    if chosen is None:
        chosen = default_split if default_split in splits else None
        chosen = next(iter(splits)) if len(splits) == 1 else chosen
    if chosen is None:
        raise repository.error(
            f"has the splits {listed(list(splits))}, and none was chosen; set split, for example "
            f"--set evaluation.0.split={next(reversed(splits))}"
        )
    if chosen not in splits:
        near = nearest(chosen, splits)
        hint = f"; did you mean {near}?" if near else ""
        of = f" of configuration {found}" if found != "default" else ""
        raise repository.error(f"has no split {chosen}{of}; it has {listed(list(splits))}{hint}")
    return SplitFiles(found, chosen, splits[chosen])


def find_splits(
    repository: Repository,
    paths: Iterable[str],
    cards: Mapping[str, bytes],
    *,
    config: str | None,
) -> tuple[str, dict[str, list[str]]]:
    """The configuration's name, and its files by split. Raises DataError as find_split does."""
    names = list(paths)
    with tempfile.TemporaryDirectory(prefix="loracle-layout-") as scratch:
        folder = Path(scratch).resolve() / repository.id.rpartition("/")[2]
        for name in names:
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(cards.get(name, b""))
        try:
            with quiet():
                chosen = _config(repository, folder, config)
                splits = _splits(folder, chosen, Path(scratch) / "cache")
        except UserError:
            raise
        # The cards are written by hand, so any mistake in them reaches the library's code.
        except (
            OSError,
            RuntimeError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            yaml.YAMLError,
            zipfile.BadZipFile,
        ) as error:
            reason = str(error).replace(str(folder), repository.address) or type(error).__name__
            raise repository.error(_not_understood(repository, names, reason)) from error
    return chosen, splits


def _config(repository: Repository, folder: Path, config: str | None) -> str:
    import datasets

    known = datasets.get_dataset_config_names(str(folder))
    chosen = config or datasets.get_dataset_default_config_name(str(folder))
    if chosen is None:
        raise repository.error(
            f"has several configurations; name one, such as {repository.address}:{known[0]}: "
            f"{listed(known)}"
        )
    if chosen not in known:
        near = nearest(chosen, known)
        hint = f"; did you mean {repository.address}:{near}?" if near else ""
        raise repository.error(f"has no configuration {chosen}; it has {listed(known)}{hint}")
    return chosen


def _splits(folder: Path, config: str, cache: Path) -> dict[str, list[str]]:
    import datasets

    builder = datasets.load_dataset_builder(str(folder), name=config, cache_dir=str(cache))
    files = builder.config.data_files or {}
    return {
        str(split): [Path(path).relative_to(folder).as_posix() for path in found]
        for split, found in files.items()
    }


def _not_understood(repository: Repository, names: list[str], reason: str) -> str:
    script = f"{repository.id.rpartition('/')[2]}.py"
    if script in names and repository.hub == "huggingface":
        return (
            f"is produced by a script, {script}, which Loracle does not run; use the hub's own "
            f"conversion, {repository.address}@refs/convert/parquet"
        )
    return (
        "its files have no layout that the `datasets` library recognizes "
        f"({' '.join(reason.split())[:200]}); name them, as in {repository.address}/FILE, from: "
        f"{listed(names)}"
    )
