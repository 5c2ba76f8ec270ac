"""The ModelScope hub, through modelscope_hub (the optional extra `modelscope`).

That library reads MODELSCOPE_ENDPOINT, MODELSCOPE_CACHE and MODELSCOPE_API_TOKEN, resumes
interrupted downloads, and checks each file against the sha256 in the listing. It does not record
which commit a branch pointed to, so that is added to its cache, in the layout of the Hugging Face
cache:

    MODELSCOPE_CACHE/datasets/org--name/refs/master              the commit it pointed to
                                        trees/COMMIT.json        {path: bytes}
                                        snapshots/COMMIT/...     the files
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from loracle.data.hubs.repository import (
    Hub,
    Repository,
    Snapshot,
    checked_paths,
    first_line,
    is_offline,
    listed,
    not_cached,
)
from loracle.errors import MissingExtraError, UserError
from loracle.files import sha256
from loracle.plan.locations import is_commit

DEFAULT_REVISION = "master"

_log = logging.getLogger("loracle.hubs")


class ModelScope(Hub):
    """The hub at MODELSCOPE_ENDPOINT, or modelscope.cn, or modelscope.ai."""

    def __init__(self) -> None:
        # It logs every listing and file with a timestamp; Loracle reports what is fetched.
        os.environ.setdefault("MODELSCOPE_LOG_LEVEL", "WARNING")
        try:
            import modelscope_hub
        except ImportError as error:
            raise MissingExtraError(
                "ModelScope needs its library; install it with: pip install 'loracle[modelscope]'"
            ) from error
        self._library = modelscope_hub
        # Its listing, by commit: the download needs the hashes in it.
        self._entries: dict[str, list[dict[str, Any]]] = {}

    def snapshot(self, repository: Repository, revision: str | None) -> Snapshot:
        """What the repository contains at a branch, tag or commit; see Hub."""
        wanted = revision or DEFAULT_REVISION
        if is_offline():
            if cached := self._cached(repository, wanted):
                return cached
            raise not_cached(repository, f"revision {wanted}", self._cache(repository))
        if is_commit(wanted) and (cached := self._cached(repository, wanted)):
            return cached
        try:
            return self._current(repository, wanted)
        except self._library.NetworkError as error:
            cached = self._cached(repository, wanted)
            if cached is None:
                raise self._refusal(repository, error, ()) from error
            _log.warning(
                "%s: ModelScope cannot be reached (%s); using commit %s, which was fetched before",
                repository.address,
                first_line(error),
                cached.commit,
            )
            return cached
        except (self._library.HubError, OSError) as error:
            raise self._refusal(repository, error, ()) from error

    def _fetch(
        self, repository: Repository, snapshot: Snapshot, missing: Sequence[str], into: Path | None
    ) -> Path:
        try:
            entries = self._entries.get(snapshot.commit)
            if entries is None:
                entries = self._listing(repository, snapshot.commit)
            folder = self._api(repository).download_repo(
                repository.id,
                repository.kind,
                revision=snapshot.commit,
                local_dir=into,
                file_list=[entry for entry in entries if entry["Path"] in set(missing)],
            )
        except self._library.FileDownloadError as error:
            cause = next(iter(error.failed_files.values()), error)
            failed = sorted(error.failed_files) or missing
            raise self._refusal(repository, cause, failed) from error
        except (self._library.HubError, OSError) as error:
            raise self._refusal(repository, error, missing) from error
        return Path(folder)

    def _current(self, repository: Repository, revision: str) -> Snapshot:
        """The hub's current snapshot, recorded in the cache for offline use."""
        entries = self._listing(repository, revision)
        if not entries:
            raise repository.error(self._no_files(repository, revision))
        commit = self._commit(repository, revision, entries)
        self._entries[commit] = entries
        sizes = checked_paths(repository, {entry["Path"]: entry["Size"] for entry in entries})
        cache = self._cache(repository)
        _write(cache / "trees" / f"{commit}.json", json.dumps(sizes, indent=1))
        if not is_commit(revision):
            _write(cache / "refs" / quote(revision, safe=""), commit)
            _link_from(cache / "snapshots" / revision, cache / "snapshots" / commit, entries)
        return Snapshot(commit, self._folder(repository, commit), sizes)

    def _listing(self, repository: Repository, revision: str) -> list[dict[str, Any]]:
        """The entries of all files, as returned by the hub; none if it has no such revision."""
        entries: list[dict[str, Any]] = self._api(repository).legacy.list_repo_files(
            repository.id, repository.kind, revision=revision, recursive=True
        )
        return [entry for entry in entries if entry.get("Type") != "tree"]

    def _commit(
        self, repository: Repository, revision: str, entries: Sequence[Mapping[str, Any]]
    ) -> str:
        """The commit that a branch or tag points to.

        The hub returns the last commit of every file, not of the branch. The newest of them has
        the same files as the branch unless a later commit only removed some, so its own listing is
        compared.
        """
        if is_commit(revision):
            return revision
        newest = max(entries, key=lambda entry: entry.get("CommittedDate") or 0)
        commit = str(newest.get("Revision") or "")
        if is_commit(commit) and _contents(self._listing(repository, commit)) == _contents(entries):
            return commit
        raise repository.error(
            f"ModelScope does not say which commit {revision} is; name the commit itself, "
            f"{repository.address}@COMMIT (model.revision for a model), from the repository's page"
        )

    def _cached(self, repository: Repository, revision: str) -> Snapshot | None:
        """The snapshot that was fetched before, if any."""
        cache = self._cache(repository)
        commit = revision
        if not is_commit(revision):
            reference = cache / "refs" / quote(revision, safe="")
            if not reference.is_file():
                return None
            commit = reference.read_text()
        tree = cache / "trees" / f"{commit}.json"
        if not tree.is_file():
            return None
        sizes = checked_paths(repository, json.loads(tree.read_text()))
        return Snapshot(commit, self._folder(repository, commit), sizes)

    def _folder(self, repository: Repository, commit: str) -> Path:
        """Where the library puts the files, or put them in its releases before 2026."""
        try:
            folder: Path = self._library.HubApi().download_repo(
                repository.id, repository.kind, revision=commit, local_files_only=True
            )
        except self._library.CacheNotFound:
            return self._cache(repository) / "snapshots" / commit
        return folder

    def _no_files(self, repository: Repository, revision: str) -> str:
        # The hub answers an unknown revision with an empty list.
        revisions = [
            str(found.get("Revision"))
            for found in self._api(repository).list_repo_revisions(repository.id, repository.kind)
        ]
        if revision in revisions:
            return f"holds no files at {revision}; choose another revision of {listed(revisions)}"
        return f"has no revision {revision}; it has {listed(revisions)}"

    def _api(self, repository: Repository) -> Any:
        """A client of the site that has the repository: MODELSCOPE_ENDPOINT, else .cn or .ai."""
        api = self._library.HubApi()
        endpoint = api.resolve_endpoint_for_read(repository.id, repo_type=repository.kind)
        return self._library.HubApi(endpoint=endpoint)

    def _cache(self, repository: Repository) -> Path:
        cache = Path(self._library.get_default_config().cache_dir)
        return cache / f"{repository.kind}s" / repository.id.replace("/", "--")

    def _refusal(
        self, repository: Repository, error: BaseException, files: Sequence[str]
    ) -> UserError:
        library = self._library
        endpoint = library.get_default_config().endpoint
        if isinstance(error, library.NotExistError):
            if files:
                return repository.error(f"no longer has {listed(files)}; run the command again")
            return repository.error(
                f"ModelScope has no public {repository.kind} with this name; check the name, or, "
                "if it is private, set MODELSCOPE_API_TOKEN"
            )
        if isinstance(error, library.AuthenticationError | library.PermissionDeniedError):
            page = f"{endpoint}/{repository.kind}s/{repository.id}"
            return repository.error(
                f"ModelScope denies access ({first_line(error)}); request access at {page}, then "
                "set MODELSCOPE_API_TOKEN or run `modelscope login`"
            )
        if files:
            return repository.error(
                f"the download of {listed(files)} was interrupted ({first_line(error)}); run the "
                "command again: it continues where it stopped"
            )
        if isinstance(error, library.APIError):
            return repository.error(f"ModelScope answered: {first_line(error)}; try again later")
        return repository.error(
            f"{endpoint} cannot be reached ({first_line(error)}); check the network and "
            "MODELSCOPE_ENDPOINT, or use Hugging Face (hf://, model.hub: huggingface)"
        )


def _contents(entries: Sequence[Mapping[str, Any]]) -> set[tuple[Any, ...]]:
    return {(entry["Path"], entry.get("Sha256"), entry["Size"]) for entry in entries}


def _write(path: Path, text: str) -> None:
    """Replace a small file atomically, because other processes read it too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(text)
    unfinished.replace(path)


def _link_from(branch: Path, folder: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    """Reuse what ModelScope's own tools fetched under the branch's name.

    Hard links cost nothing. Only files with the commit's own hash are taken.
    """
    for entry in entries:
        source, target = branch / entry["Path"], folder / entry["Path"]
        if target.exists() or not source.is_file() or source.stat().st_size != entry["Size"]:
            continue
        if sha256(source) != entry.get("Sha256"):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, target)
