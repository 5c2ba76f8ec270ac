"""The Hugging Face hub, through huggingface_hub.

That library reads HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN, HF_HOME and HF_HUB_CACHE, retries, keeps
complete files, and shares its cache with transformers and datasets.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import cast

from loracle.data.hubs.repository import (
    CARDS,
    Hub,
    Repository,
    Snapshot,
    checked_paths,
    first_line,
    is_offline,
    listed,
    not_cached,
)
from loracle.errors import UserError


class HuggingFace(Hub):
    """The hub at HF_ENDPOINT, or huggingface.co."""

    def snapshot(self, repository: Repository, revision: str | None) -> Snapshot:
        """What the repository contains at a branch, tag or commit; see Hub."""
        from huggingface_hub import HfApi, get_cached_repo_tree, snapshot_download
        from huggingface_hub.errors import CachedRepoTreeNotFoundError

        with _own_errors(repository, revision):
            commit = (
                HfApi()
                .resolve_revision(
                    repository.id,
                    repo_type=repository.kind,
                    revision=revision,
                    local_files_only=is_offline(),
                )
                .resolved
            )
            with quiet():
                folder = Path(
                    snapshot_download(
                        repository.id,
                        repo_type=repository.kind,
                        revision=commit,
                        allow_patterns=list(CARDS),
                        local_files_only=is_offline(),
                    )
                )
        try:
            tree = get_cached_repo_tree(repository.id, repo_type=repository.kind, revision=commit)
            sizes = {file.path: file.size for file in tree}
        except CachedRepoTreeNotFoundError:
            # Offline, and fetched by a program that keeps no list: only what it fetched is
            # available.
            files = [path for path in folder.rglob("*") if path.is_file()]
            sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
        return Snapshot(commit, folder, checked_paths(repository, sizes))

    def _cache(self, repository: Repository) -> Path:
        from huggingface_hub import constants

        return Path(constants.HF_HUB_CACHE)

    def _fetch(
        self, repository: Repository, snapshot: Snapshot, missing: Sequence[str], into: Path | None
    ) -> Path:
        from huggingface_hub import snapshot_download

        everything = len(missing) == len(snapshot.sizes)
        with _own_errors(repository, snapshot.commit, missing):
            snapshot_download(
                repository.id,
                repo_type=repository.kind,
                revision=snapshot.commit,
                local_dir=into,
                allow_patterns=None if everything else [escape(path) for path in missing],
            )
        return into or snapshot.folder


@contextmanager
def _own_errors(
    repository: Repository, revision: str | None, files: Sequence[str] = ()
) -> Iterator[None]:
    """Turn the library's errors into the repository's, with what to do about them."""
    from huggingface_hub.errors import (
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RevisionResolutionError,
    )

    try:
        yield
    except HFValidationError as error:
        raise repository.error(f"is not a valid repository name ({first_line(error)})") from error
    except (RevisionResolutionError, LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        cause = error.__cause__
        raise _refusal(repository, revision, cause if cause else error, files) from error
    except (_http_error(), OSError) as error:
        raise _refusal(repository, revision, error, files) from error


def _refusal(
    repository: Repository, revision: str | None, error: BaseException, files: Sequence[str]
) -> UserError:
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        DisabledRepoError,
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if is_offline():
        what = listed(files) if files else f"revision {revision or constants.DEFAULT_REVISION}"
        return not_cached(repository, what, constants.HF_HUB_CACHE)
    if isinstance(error, RevisionNotFoundError):
        return repository.error(f"has no revision {revision}; it has {_revisions(repository)}")
    if isinstance(error, GatedRepoError):
        return repository.error(_gated(repository))
    if isinstance(error, RepositoryNotFoundError):
        return repository.error(_not_found(repository))
    if isinstance(error, DisabledRepoError):
        return repository.error("was disabled by Hugging Face; choose another")
    if isinstance(error, HfHubHTTPError):
        return repository.error(_answer(error.response.status_code, error.response.reason_phrase))
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS):
        return repository.error(
            f"cannot be stored in {constants.HF_HUB_CACHE} ({error.strerror}); make room, or set "
            "HF_HOME to another folder"
        )
    if files:
        return repository.error(
            f"the download of {listed(files)} was interrupted ({first_line(error)}); run the "
            "command again: complete files are kept"
        )
    return repository.error(
        f"{constants.ENDPOINT} cannot be reached ({first_line(error)}), and it is not in the "
        f"cache {constants.HF_HUB_CACHE}; check the network, name a mirror with HF_ENDPOINT, "
        "or use ModelScope (ms://, model.hub: modelscope)"
    )


def _not_found(repository: Repository) -> str:
    from huggingface_hub import get_token

    if get_token():
        return (
            f"Hugging Face has no {repository.kind} with this name that the current token may "
            "read; check the name, and the token's permissions"
        )
    return (
        f"Hugging Face has no public {repository.kind} with this name; check the name, or, if it "
        "is private, set HF_TOKEN or run `hf auth login`"
    )


def _gated(repository: Repository) -> str:
    from huggingface_hub import constants, get_token

    folder = "datasets/" if repository.kind == "dataset" else ""
    page = f"{constants.ENDPOINT}/{folder}{repository.id}"
    if get_token():
        return f"is gated, and the current token has no access; request access at {page}"
    return f"is gated; accept its conditions at {page}, then set HF_TOKEN or run `hf auth login`"


def _answer(status: int, reason: str) -> str:
    from huggingface_hub import get_token

    if status == 401:
        return "Hugging Face rejected the token; renew HF_TOKEN or run `hf auth login`"
    if status == 403 and get_token():
        return "the current token may not read it; give it read access to this repository"
    if status == 403:
        return "Hugging Face requires a token for this; set HF_TOKEN or run `hf auth login`"
    if status == 429:
        return "too many requests to Hugging Face from this machine; wait, or set HF_TOKEN"
    return f"Hugging Face answered {status} {reason}; try again later"


def _revisions(repository: Repository) -> str:
    """The existing branches and tags, or where to look them up."""
    from huggingface_hub import HfApi

    try:
        refs = HfApi().list_repo_refs(repository.id, repo_type=repository.kind)
    except (_http_error(), OSError):
        return "others, listed on its page"
    return listed([ref.name for ref in [*refs.branches, *refs.tags]])


def _http_error() -> type[Exception]:
    """The base class of its HTTP client's errors, whichever client its version uses."""
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    return cast("type[Exception]", HTTPError)


@contextmanager
def quiet() -> Iterator[None]:
    """For steps that read at most a few small files: hides the library's progress bars, which
    would flicker, and its warnings about absent files or cards, which are not faults. Errors are
    still raised."""
    from huggingface_hub.utils.logging import get_verbosity, set_verbosity
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    verbosity, no_bars = get_verbosity(), are_progress_bars_disabled()
    set_verbosity(logging.ERROR)
    if not no_bars:
        disable_progress_bars()
    try:
        yield
    finally:
        set_verbosity(verbosity)
        if not no_bars:
            enable_progress_bars()
