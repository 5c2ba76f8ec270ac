"""Where data is, as written in a plan: a path on this machine, or a dataset on a hub.

hf://org/name                        every file of a split, as found by the hub's own library
hf://org/name:config@revision        a configuration, at a branch, tag or commit
hf://org/name@v1.2/data/train.jsonl  files by name; * and ? are wildcards
ms://org/name                        the same on ModelScope
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple
from urllib.parse import quote, unquote

from loracle.plan.messages import show

HubName = Literal["huggingface", "modelscope"]
SCHEMES: dict[str, HubName] = {"hf": "huggingface", "ms": "modelscope"}

_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>.*)", re.DOTALL)
_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_DATASET = re.compile(
    # The prefix is that of the Hugging Face library's own addresses.
    rf"(?:datasets/)?(?P<repository>{_NAME}(?:/{_NAME})?)"
    r"(?::(?P<config>[^@/:]+))?"
    # Two kinds of revisions have slashes; in others they are written %2F.
    r"(?:@(?P<revision>refs/(?:pr/[0-9]+|convert/[\w.-]+)|[^@/]+))?"
    r"(?:/(?P<pattern>.+))?"
)
_MODEL = re.compile(rf"(?P<repository>{_NAME}(?:/{_NAME})?)(?:@(?P<revision>[^@]+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


class BadLocation(ValueError):
    """The text names a hub but is not a valid location on it; the message says what was
    expected."""


@dataclass(frozen=True, slots=True)
class HubLocation:
    """A repository on a hub.

    config: None is the dataset's default. revision: None is the hub's default branch.
    pattern: files by name, with * and ?; None if the dataset's layout decides.
    """

    hub: HubName
    repository: str
    config: str | None = None
    revision: str | None = None
    pattern: str | None = None

    @property
    def name(self) -> str:
        """The short name that results show: the repository's own, or the file's."""
        if self.pattern is not None and not set("*?[") & set(self.pattern):
            return PurePosixPath(self.pattern).stem
        own = self.repository.rpartition("/")[2]
        return f"{own}-{self.config}" if self.config is not None else own

    @property
    def address(self) -> str:
        """The location as a plan writes it."""
        scheme = next(scheme for scheme, hub in SCHEMES.items() if hub == self.hub)
        config = f":{self.config}" if self.config is not None else ""
        revision = f"@{quote(self.revision, safe='')}" if self.revision is not None else ""
        pattern = f"/{self.pattern}" if self.pattern is not None else ""
        return f"{scheme}://{self.repository}{config}{revision}{pattern}"

    @property
    def full_name(self) -> str:
        """The name preceded by its organisation."""
        organisation = self.repository.rpartition("/")[0]
        return f"{organisation}-{self.name}" if organisation else self.name


class LocalFile(NamedTuple):
    """A file on this machine. `name` is its display name, for example a path in its repository."""

    path: Path
    name: str


@dataclass(frozen=True, slots=True)
class HubFiles:
    """Files from a hub at one commit, on this machine.

    commit: the hash that the revision resolved to; the same hash means the same content.
    config, split: the resolved values; None if the files were named.
    """

    hub: HubName
    repository: str
    commit: str
    folder: Path
    files: Sequence[LocalFile]
    config: str | None = None
    split: str | None = None

    @property
    def size_bytes(self) -> int:
        return sum(file.path.stat().st_size for file in self.files)


def is_hub_location(path: str) -> bool:
    """Whether the path names something on a hub rather than a file."""
    return "://" in path


def parse_location(path: str) -> HubLocation | None:
    """The hub's dataset that the path names, or None if it is a path on this machine.

    Raises BadLocation if it has a scheme and cannot be parsed.
    """
    found = _matched(
        path, _DATASET, "//org/name, optionally followed by :config, @revision and /file"
    )
    if found is None:
        return None
    hub, match = found
    revision, pattern = match["revision"], match["pattern"]
    if pattern is not None and ".." in PurePosixPath(pattern).parts:
        raise BadLocation(f"found {show(path)}, which leaves the repository; remove the ..")
    return HubLocation(
        hub, match["repository"], match["config"], unquote(revision) if revision else None, pattern
    )


def parse_model(name: str) -> HubLocation | None:
    """The model that `hf://org/name` or `ms://org/name` names; None for other names.

    Raises BadLocation if it has a scheme and cannot be parsed.
    """
    scheme = name.partition("://")[0]
    found = _matched(name, _MODEL, f"//org/name or {scheme}://org/name@revision")
    if found is None:
        return None
    hub, match = found
    return HubLocation(hub, match["repository"], revision=match["revision"])


def is_commit(revision: str) -> bool:
    """Whether the revision is a full commit hash, which never changes its meaning."""
    return _COMMIT.fullmatch(revision) is not None


def _matched(
    path: str, pattern: re.Pattern[str], expected: str
) -> tuple[HubName, re.Match[str]] | None:
    """The hub and the parts after its scheme; None if there is no scheme.

    expected: what should follow the scheme's colon, for the message.
    """
    match = _SCHEME.fullmatch(path)
    if match is None:
        return None
    if match["scheme"] not in SCHEMES:
        known = " and ".join(f"{scheme}://" for scheme in SCHEMES)
        raise BadLocation(
            f"found {show(path)}; only {known} addresses are supported (such as hf://org/name): "
            "download other files and give their path"
        )
    parts = pattern.fullmatch(match["rest"])
    if parts is None:
        raise BadLocation(f"found {show(path)}; expected {match['scheme']}:{expected}")
    return SCHEMES[match["scheme"]], parts
