"""Which files a dataset's location stands for.

data/train.jsonl                  a file
data/                             a folder of files, in order of their names, and below it
saved/                            a dataset of the datasets library, by save_to_disk
llama_factory/dataset_info.json#name   an entry of LLaMA-Factory's registry
hf://org/name, ms://org/name      a dataset of a hub: resolved to files before it is read
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import NamedTuple

from loracle.data.faults import show
from loracle.data.hubs import fetch_dataset, shown
from loracle.data.reading import containers
from loracle.data.reading.json_object import read_json_object
from loracle.data.reading.llama_factory import registry_entry
from loracle.data.reading.options import ReadOptions
from loracle.errors import DataError
from loracle.plan import data_name, nearest
from loracle.plan.locations import BadLocation, is_hub_location, parse_location

_SAVED, _SAVED_SPLITS = "state.json", "dataset_dict.json"
# Files that describe data, in folders of hubs and of the datasets library.
_DESCRIBING = frozenset(
    {"dataset_info.json", "dataset_infos.json", _SAVED, _SAVED_SPLITS, "metadata.json"}
)
_SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}


class Source(NamedTuple):
    """A location, resolved.

    kind: what it is as a whole, shown before what its files are; "" for a single file.
    ignored: files in its folder that are not data.
    registry: the file that says how it is read, if there is one.
    shown_folder: the folder above its files, and what stands for it where they are named:
        ("/cache/.../", "org/name@commit:") for a hub's.
    """

    location: str
    kind: str
    files: tuple[Path, ...]
    options: ReadOptions
    ignored: tuple[Path, ...] = ()
    registry: Path | None = None
    shown_folder: tuple[str, str] | None = None

    def shown(self, text: str) -> str:
        """A message, or a file's name, as users know the files."""
        return text if self.shown_folder is None else text.replace(*self.shown_folder)

    @property
    def stem(self) -> str:
        """The name that ids are made of where rows have none."""
        return data_name(self.location)


def resolve(location: str | Path, options: ReadOptions) -> Source:
    """Find the files of a location.

    Raises DataError if there is nothing to read, or more than one split and none is named.
    """
    location = os.fspath(location)
    if is_hub_location(location):
        return _of_hub(location, options)
    path = Path(location)
    if problem := _link_problem(path):
        raise DataError(problem)
    base, _, entry = location.rpartition("#")
    if base and not _exists(path) and Path(base).is_file():
        return _registered(location, Path(base), entry, options)
    if not _is_folder(path):
        return Source(location, "", (path,), options)
    if (path / _SAVED_SPLITS).is_file():
        return _saved_split(location, path, options)
    if (path / _SAVED).is_file():
        return Source(location, "saved dataset", _saved_files(path), options)
    return _folder(location, path, options)


def _of_hub(address: str, options: ReadOptions) -> Source:
    try:
        location = parse_location(address)
    except BadLocation as error:
        raise DataError(str(error)) from error
    assert location is not None, "it names a hub"
    fetched = fetch_dataset(location, split=options.split)
    where = shown(fetched)
    split = "" if fetched.split is None else f", split {fetched.split}"
    return Source(
        address,
        f"{where}{split}",
        tuple(file.path for file in fetched.files),
        options,
        shown_folder=(f"{fetched.folder}{os.sep}", f"{where}:"),
    )


def _registered(location: str, registry: Path, name: str, options: ReadOptions) -> Source:
    entry = registry_entry(registry, name, options)
    source = resolve(entry.location, entry.options)
    return source._replace(
        location=location, kind=f"dataset_info {source.kind}".strip(), registry=registry
    )


def _saved_split(location: str, folder: Path, options: ReadOptions) -> Source:
    description = read_json_object(folder / _SAVED_SPLITS, fix="; save the dataset again")
    splits = description.get("splits")
    if not isinstance(splits, list) or not all(isinstance(name, str) for name in splits):
        raise DataError(f"{folder / _SAVED_SPLITS}: found no list of splits; save it again")
    split = _choose_split(location, list(splits), options)
    files = _saved_files(folder / split)
    return Source(location, f"saved dataset, split {split}", files, options)


def _saved_files(folder: Path) -> tuple[Path, ...]:
    """The Arrow files of a saved dataset, as its state lists them."""
    listed = read_json_object(folder / _SAVED, fix="; save the dataset again").get("_data_files")
    names = (
        [item.get("filename") for item in listed or () if isinstance(item, dict)]
        if (isinstance(listed, list))
        else []
    )
    files = tuple(folder / name for name in names if isinstance(name, str))
    if not files or len(files) != len(names):
        raise DataError(f"{folder / _SAVED}: found no list of data files; save the dataset again")
    return files


def _folder(location: str, folder: Path, options: ReadOptions) -> Source:
    files: list[Path] = []
    ignored: list[Path] = []
    for path in _files_below(folder):
        if problem := _link_problem(path):
            raise DataError(problem)
        is_data = (
            containers.has_known_ending(path) and path.name not in _DESCRIBING and not path.is_dir()
        )
        (files if is_data else ignored).append(path)
    if not files:
        found = ", ".join(show(path.name) for path in ignored[:5]) or "no files"
        endings = " ".join((*containers.TEXT_ENDINGS, *containers.TABLE_ENDINGS))
        raise DataError(f"{folder} has no data file (found {found}); expected one of {endings}")
    by_split: dict[str, list[Path]] = {}
    for path in files:
        by_split.setdefault(_split_of(path.relative_to(folder)), []).append(path)
    kind = "folder"
    if len(by_split) > 1 or options.split is not None:
        split = _choose_split(location, list(by_split), options)
        files, kind = by_split[split], f"folder, split {split}"
    return Source(location, kind, tuple(files), options, tuple(ignored))


def _files_below(folder: Path) -> list[Path]:
    """Everything in and below a folder, in order of the paths, without hidden files. Linked folders
    are named and not gone into: they may lead round."""
    found: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        found += [Path(place) / name for name in (*names, *links) if not name.startswith(".")]
    return sorted(found)


def _split_of(path: Path) -> str:
    """The split that a file's name, or a folder's, says; "all" where none does."""
    for part in reversed(path.parts):
        for word in re.split(r"[^a-z]+", part.lower()):
            if word in _SPLIT_WORDS:
                return _SPLIT_WORDS[word]
    return "all"


def _choose_split(location: str, splits: list[str], options: ReadOptions) -> str:
    names = ", ".join(splits)
    if options.split is None:
        if len(splits) == 1:
            return splits[0]
        raise DataError(
            f"{location} has several splits ({names}); name the one to read, split: {splits[0]}"
        )
    if options.split not in splits:
        near = nearest(options.split, splits)
        hint = f"did you mean {near}?" if near else f"it has {names}"
        raise DataError(f"{location} has no split {show(options.split)}; {hint}")
    return options.split


def _link_problem(path: Path) -> str | None:
    """Why a path leads nowhere, as a symbolic link may, or None."""
    try:
        if not path.is_symlink() or path.exists():
            return None
        path.resolve(strict=True)
    except RuntimeError:
        what = "leads back to itself"
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOENT):
            return f"{path} cannot be reached: {error.strerror}"
        loops = error.errno == errno.ELOOP
        what = (
            "leads back to itself" if loops else f"leads to {path.readlink()}, which does not exist"
        )
    else:
        return None
    return f"{path} is a symbolic link that {what}; name the file itself"


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def deciding_files(location: str | Path, options: ReadOptions) -> tuple[Path, ...]:
    """Every file that decides what is read, in order. Raises DataError as `resolve` does."""
    source = resolve(location, options)
    return source.files if source.registry is None else (source.registry, *source.files)
