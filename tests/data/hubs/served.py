"""Repositories as both stand-in hubs serve them, and what their servers have in common."""

from __future__ import annotations

import hashlib
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

TOKEN = "token-with-access"


@dataclass
class Repo:
    """A repository: files by commit, and what its branches and tags mean."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    private: bool = False
    changed: dict[str, dict[str, str]] = field(default_factory=dict)
    """By commit and path, the commit that changed the file last."""

    def commit(self, files: Mapping[str, bytes], branch: str) -> str:
        """Add a commit with these files to the branch; returns its hash."""
        text = repr((sorted(files.items()), len(self.commits)))
        new = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        old = self.branches.get(branch)
        before = self.commits.get(old or "", {})
        self.changed[new] = {
            path: self.changed[old][path] if old and before.get(path) == content else new
            for path, content in files.items()
        }
        self.commits[new] = dict(files)
        self.branches[branch] = new
        return new

    def resolve(self, revision: str) -> str | None:
        """The commit that a branch, tag or hash means."""
        known = {**self.tags, **self.branches, **{commit: commit for commit in self.commits}}
        return known.get(revision)


class Asked(NamedTuple):
    """A request that a server got."""

    method: str
    path: str
    authorization: str | None
    range: str | None


@dataclass
class State:
    """What a server serves, how it misbehaves, and what it was asked."""

    repos: dict[tuple[str, str], Repo] = field(default_factory=dict)
    """By kind ("dataset" or "model") and id."""
    moved: dict[str, str] = field(default_factory=dict)
    """Old ids of renamed repositories."""
    drops: dict[str, list[int]] = field(default_factory=dict)
    """By file name: after how many bytes each of the next responses breaks off."""
    failing: int | None = None
    """The status that every request is answered with, where set."""
    asked: list[Asked] = field(default_factory=list)

    def repo(self, kind: str, name: str) -> Repo:
        """The repository, made where it is not there."""
        return self.repos.setdefault((kind, name), Repo())

    def downloads(self) -> list[Asked]:
        return [
            asked for asked in self.asked if asked.method == "GET" and "/api/" not in asked.path
        ]


class Handler(BaseHTTPRequestHandler, ABC):
    """Answers GET and HEAD from a State; a hub's own rules are in `answer`."""

    protocol_version = "HTTP/1.1"
    state: State

    @abstractmethod
    def answer(self, path: str, query: dict[str, str]) -> None:
        """Send the response to a request."""

    def do_GET(self) -> None:
        """Note the request and answer it."""
        parts = urlsplit(self.path)
        headers = self.headers
        self.state.asked.append(
            Asked(self.command, self.path, headers["Authorization"], headers["Range"])
        )
        if self.state.failing is not None:
            self.send(self.state.failing, b"out of order")
            return
        self.answer(unquote(parts.path), dict(parse_qsl(parts.query)))

    do_HEAD = do_GET

    @property
    def token(self) -> str | None:
        """The token that came with the request."""
        return (self.headers["Authorization"] or "").removeprefix("Bearer ") or None

    def log_message(self, *_: object) -> None:
        """Say nothing: the requests are in the state."""

    def send(
        self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        """Send a whole response."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_json(self, value: Any, headers: Mapping[str, str] | None = None) -> None:
        """Send a value as JSON."""
        all_headers = {"Content-Type": "application/json", **(headers or {})}
        self.send(200, json.dumps(value).encode(), all_headers)

    def send_file(self, name: str, content: bytes, headers: Mapping[str, str]) -> None:
        """Send a file, or the part that a Range asks for; break off where the state says so."""
        start = 0
        status = 200
        all_headers = {"Accept-Ranges": "bytes", **headers}
        if wanted := self.headers["Range"]:
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            all_headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            status = 206
        rest = content[start:]
        drops = self.state.drops.get(name, [])
        if self.command == "HEAD" or not drops:
            self.send(status, rest, all_headers)
            return
        self.send_response(status)
        for key, value in {"Content-Length": str(len(rest)), **all_headers}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(rest[: drops.pop(0)])
        self.wfile.flush()
        self.close_connection = True


@contextmanager
def serving(handler: type[Handler]) -> Iterator[tuple[State, str]]:
    """A server on this machine alone; yields its state and its address."""
    state = State()
    bound = type("Bound", (handler,), {"state": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), bound)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield state, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
