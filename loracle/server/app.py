"""The pages and the event stream, for one user with a browser on this machine.

    /TOKEN/                    the runs of the folder, or the one run
    /TOKEN/run/NAME/           its report, live
    /TOKEN/run/NAME/events     its state as server-sent events, whenever it changes

Read-only: every route answers only GET and only reads files. A path without the token is not
found. Only the names 127.0.0.1 and localhost are accepted as Host, so that a foreign page cannot
reach it through its own name (DNS rebinding). A folder's runs are listed again for every request.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from threading import Lock
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from loracle.errors import UserError
from loracle.report.page import Page, build_page, build_runs_page, decision_of
from loracle.report.run_record import read_run
from loracle.run_folder.folder import RunFolder
from loracle.server.following import Follower

_ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
_KEEP_ALIVE_SECONDS = 15.0


def create_app(root: Path, token: str, *, poll_seconds: float = 0.5) -> Starlette:
    """The application for a run folder, or a folder of run folders.

    poll_seconds: how often files are checked while somebody watches.
    """
    site = _Site(root, token, poll_seconds)
    base = f"/{token}"
    return Starlette(
        routes=[
            Route(f"{base}/", site.overview),
            Route(f"{base}/run/{{name}}/", site.run),
            Route(f"{base}/run/{{name}}/events", site.events),
        ],
        middleware=[
            Middleware(_SecurityHeaders),
            Middleware(TrustedHostMiddleware, allowed_hosts=_ALLOWED_HOSTS, www_redirect=False),
        ],
    )


def run_folders(root: Path) -> dict[str, Path]:
    """The runs under a folder by name, or the folder itself if it is one."""
    if RunFolder(root).plan.is_file():
        return {root.resolve().name: root}
    return {
        path.name: path
        for path in sorted(root.iterdir())
        if path.is_dir() and RunFolder(path).plan.is_file()
    }


class _Site:
    def __init__(self, root: Path, token: str, poll_seconds: float) -> None:
        self._root = root
        self._token = token
        self._poll_seconds = poll_seconds
        self._views: dict[str, _RunView] = {}

    def _view(self, request: Request) -> _RunView:
        name = request.path_params["name"]
        path = run_folders(self._root).get(name)
        if path is None:
            raise HTTPException(404)
        return self._views.setdefault(name, _RunView(path))

    async def overview(self, request: Request) -> Response:
        folders = await run_in_threadpool(run_folders, self._root)
        if RunFolder(self._root).plan.is_file():
            (name,) = folders
            return RedirectResponse(request.url_for("run", name=name).path)
        rows = []
        for name, path in folders.items():
            view = self._views.setdefault(name, _RunView(path))
            state = await run_in_threadpool(view.state)
            decision = await run_in_threadpool(decision_of, path)
            rows.append(
                {"name": name, "state": state, "decision": decision, "path": f"run/{name}/"}
            )
        page = await run_in_threadpool(build_runs_page, self._root.resolve().name, rows)
        return _page(page)

    async def run(self, request: Request) -> Response:
        view = await run_in_threadpool(self._view, request)
        try:
            return _page(await run_in_threadpool(view.page))
        except UserError as error:
            return Response(f"{error}\n", status_code=500, media_type="text/plain")

    async def events(self, request: Request) -> Response:
        view = await run_in_threadpool(self._view, request)
        return StreamingResponse(
            self._stream(view),
            media_type="text/event-stream",
            headers={"X-Accel-Buffering": "no"},
        )

    async def _stream(self, view: _RunView) -> AsyncIterator[bytes]:
        """The state at once, then whenever it changes. A new connection starts the same way, so
        nothing has to be resent after an interruption."""
        sent = ""
        quiet_seconds = 0.0
        while True:
            state = json.dumps(await run_in_threadpool(view.state), ensure_ascii=True)
            if state != sent:
                sent, quiet_seconds = state, 0.0
                yield f"event: state\ndata: {state}\n\n".encode("ascii")
            elif quiet_seconds >= _KEEP_ALIVE_SECONDS:
                quiet_seconds = 0.0
                yield b": still here\n\n"
            await asyncio.sleep(self._poll_seconds)
            quiet_seconds += self._poll_seconds


class _RunView:
    """One run: its follower, and its page, rebuilt only when its files have changed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.follower = Follower(RunFolder(root).events)
        self._lock = Lock()
        self._page: Page | None = None
        self._page_version = ""

    def state(self) -> dict[str, Any]:
        """The state, with the version of the report that belongs to it."""
        return self._followed() | {"report": self.version()}

    def _followed(self) -> dict[str, Any]:
        """The state from the events, or `interrupted` if the process that wrote them is gone."""
        state = self.follower.read()
        if state["status"] == "running" and RunFolder(self.root).in_use() is False:
            # Its last events may have arrived in between.
            state = self.follower.read()
            if state["status"] == "running":
                state["status"] = "interrupted"
        return state

    def version(self) -> str:
        """Changes when the report changes: a trial has finished, or the results were written."""
        folder = RunFolder(self.root)
        paths = [folder.plan, folder.results, *sorted(self.root.glob("trials/*/DONE"))]
        paths.append(folder.base.done)
        return "-".join(_stamp(path) for path in paths)

    def page(self) -> Page:
        """Raises UserError if the run's files cannot be read."""
        version = self.version()
        with self._lock:
            if self._page is None or version != self._page_version:
                record = read_run(self.root, unfinished=True)
                self._page = build_page(record, live_version=version)
                self._page_version = version
            return self._page


def _stamp(path: Path) -> str:
    try:
        status = path.stat()
    except FileNotFoundError:
        return "0"
    return f"{status.st_mtime_ns:x}.{status.st_size:x}"


def _page(page: Page) -> Response:
    return HTMLResponse(
        page.text.encode("utf-8", "xmlcharrefreplace"),
        headers={"Content-Security-Policy": f"{page.policy}; frame-ancestors 'none'"},
    )


class _SecurityHeaders:
    """Adds headers to every response that keep it from being framed, sniffed, cached or read
    elsewhere."""

    _HEADERS: Mapping[str, str] = {
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-store",
    }

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._HEADERS.items():
                    headers[name] = value
                headers.setdefault("Content-Security-Policy", "default-src 'none'")
            await send(message)

        await self._app(scope, receive, send_with_headers)


def new_token() -> str:
    """A path that nobody can guess: 192 random bits."""
    return secrets.token_urlsafe(24)
