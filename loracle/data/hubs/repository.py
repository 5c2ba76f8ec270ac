"""What both hubs have in common: a repository, its contents at a commit, and how to get them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from loracle.errors import DataError, ModelError, UserError
from loracle.plan.locations import SCHEMES, HubName
from loracle.text import first_few

NUM_SHOWN_NAMES = 10

# Files that say how a dataset's files belong together, if a repository has them.
CARDS = ("README.md", ".huggingface.yaml")


class Repository(NamedTuple):
    """A repository on a hub. `kind` also decides which errors are raised for it."""

    hub: HubName
    kind: Literal["dataset", "model"]
    id: str

    @property
    def address(self) -> str:
        """The repository as written in messages and in plans."""
        scheme = next(scheme for scheme, hub in SCHEMES.items() if hub == self.hub)
        return f"{scheme}://{self.id}"

    def error(self, text: str) -> UserError:
        """The error for what is wrong with this repository."""
        if self.kind == "dataset":
            return DataError(f"{self.address}: {text}")
        return ModelError(f"model {self.address}: {text}")


class Snapshot(NamedTuple):
    """A repository's contents at a commit. The folder may lack files, or may itself be missing.

    sizes: bytes of every file, by its path in the repository.
    """

    commit: str
    folder: Path
    sizes: Mapping[str, int]

    def missing(self, paths: Sequence[str], folder: Path | None = None) -> list[str]:
        """The paths whose files are not complete on this machine. folder: look there instead."""
        return [path for path in paths if not self._is_whole(path, folder or self.folder)]

    def _is_whole(self, path: str, folder: Path) -> bool:
        file = folder / path
        return file.is_file() and file.stat().st_size == self.sizes[path]


class Hub(ABC):
    """A hub, through its own library. Its methods raise the repository's error."""

    @abstractmethod
    def snapshot(self, repository: Repository, revision: str | None) -> Snapshot:
        """Resolve a branch, tag or commit (None: the default branch), and list its files.

        Offline, both come from the cache.
        """

    def download(
        self,
        repository: Repository,
        snapshot: Snapshot,
        paths: Sequence[str],
        into: Path | None = None,
    ) -> Path:
        """Fetch the missing files to this machine; returns the folder they are in:
        `into`, or the hub's cache."""
        folder = into or snapshot.folder
        missing = snapshot.missing(paths, folder)
        if not missing:
            return folder
        if is_offline():
            raise not_cached(repository, listed(missing), self._cache(repository))
        if into is not None:
            # The libraries download beside a file's place, and may take what lies there as whole.
            for path in missing:
                if (into / path).is_file():
                    (into / path).unlink()
        folder = self._fetch(repository, snapshot, missing, into)
        if missing := snapshot.missing(paths, folder):
            raise repository.error(
                f"{listed(missing)} did not arrive complete in {folder}; run the command again"
            )
        return folder

    @abstractmethod
    def _cache(self, repository: Repository) -> Path:
        """Where its library keeps files."""

    @abstractmethod
    def _fetch(
        self, repository: Repository, snapshot: Snapshot, missing: Sequence[str], into: Path | None
    ) -> Path:
        """Fetch these files; returns the folder they are in."""


def checked_paths(repository: Repository, paths: Mapping[str, int]) -> dict[str, int]:
    """The paths, checked to be inside the repository. Raises the repository's error otherwise."""
    for path in paths:
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts or not pure.parts:
            raise repository.error(
                f"its list of files names {path!r}, which is outside the repository"
            )
    return dict(paths)


def listed(names: Sequence[str]) -> str:
    """Names for a message: the first ones, and a count of the others."""
    return first_few(names, NUM_SHOWN_NAMES) or "none"


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE is set: one switch for both hubs, as ModelScope's library has none."""
    from huggingface_hub import is_offline_mode

    return is_offline_mode()


def not_cached(repository: Repository, what: str, cache: Path | str) -> UserError:
    """The error for something that was never fetched, in offline mode."""
    target = repository.address if repository.kind == "dataset" else repository.id
    hub = (
        " --hub modelscope"
        if repository.kind == "model" and repository.hub != "huggingface"
        else ""
    )
    return repository.error(
        f"offline (HF_HUB_OFFLINE is set), and the cache {cache} has no {what}; run `loracle "
        f"fetch {target}{hub}` once with network access"
    )


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".;:") if lines else type(error).__name__
