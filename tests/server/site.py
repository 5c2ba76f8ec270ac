"""A served folder in a thread of the test's own process."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import uvicorn

from loracle.files import read_json
from loracle.run_folder.folder import RunFolder
from loracle.server.app import create_app
from loracle.server.serving import _listen

TOKEN = "a-token-for-tests"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    text: str


class Site:
    """Where a folder is served."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.address = f"http://127.0.0.1:{port}/{TOKEN}/"

    def ask(self, path: str, method: str = "GET", host: str | None = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"Host": host or f"127.0.0.1:{self.port}"}
        connection.request(method, path, headers=headers)
        with contextlib.closing(connection):
            answer = connection.getresponse()
            text = answer.read().decode()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, text)

    def stream(self, path: str) -> Iterator[str]:
        """The data of a stream's messages, as they come."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", path)
        with contextlib.closing(connection):
            answer = connection.getresponse()
            while line := answer.readline():
                if line.startswith(b"data: "):
                    yield line.removeprefix(b"data: ").decode()


@contextlib.contextmanager
def served(root: Path) -> Iterator[Site]:
    """Serve a folder until the block ends."""
    with _listen(0) as listening:
        config = uvicorn.Config(
            create_app(root, TOKEN, poll_seconds=0.05),
            log_level="warning",
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield Site(listening.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()


def at_work(root: Path) -> RunFolder:
    """Hold a run folder as the process that works in it does, until the block ends."""
    record = read_json(root / "plan.json")
    return RunFolder.open(root, record["plan"], record["fingerprint"])
