"""Serves until it is stopped. Bound to 127.0.0.1: other machines can connect only through SSH."""

from __future__ import annotations

import getpass
import importlib.util
import platform
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from loracle.errors import MissingExtraError, RunFolderError, UserError

HOST = "127.0.0.1"
DEFAULT_PORT = 8642
_PACKAGES = ("starlette", "uvicorn")


def serve(root: Path, port: int | None, announce: Callable[[str], None]) -> None:
    """Serve a run folder or a folder of runs; returns when the process is asked to stop.

    port: None means 8642, or a free port if that is taken.

    Raises:
        MissingExtraError: starlette or uvicorn is not installed.
        UserError: the folder has no run, or the port is taken.
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"loracle serve needs {' and '.join(missing)}; run: pip install 'loracle[serve]'"
        )
    import uvicorn

    from loracle.server.app import create_app, new_token, run_folders

    if not root.is_dir():
        raise RunFolderError(f"{root} is not a folder; name a run's folder, or a folder of runs")
    if not run_folders(root):
        raise RunFolderError(
            f"{root} is not a run folder and contains none: nothing in it has a plan.json"
        )
    token = new_token()
    with _listen(port) as listening:
        for line in address_lines(listening.getsockname()[1], token):
            announce(line)
        config = uvicorn.Config(
            create_app(root, token),
            log_level="warning",
            access_log=False,
            server_header=False,
            # Streams never end by themselves.
            timeout_graceful_shutdown=1,
        )
        # uvicorn passes the signal on to the previous handler.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _stop)
        uvicorn.Server(config).run(sockets=[listening])


def address_lines(port: int, token: str) -> list[str]:
    """The addresses to open, here and from another machine."""
    return [
        f"http://{HOST}:{port}/{token}/",
        f"From another machine: ssh -N -L {port}:{HOST}:{port} "
        f"{getpass.getuser()}@{platform.node()}, then open the same address there.",
    ]


def _listen(port: int | None) -> socket.socket:
    try:
        return socket.create_server((HOST, DEFAULT_PORT if port is None else port))
    except OSError as error:
        if port is None:
            return socket.create_server((HOST, 0))
        raise UserError(
            f"port {port} cannot be used ({error.strerror}); choose another with --port, or omit "
            "--port"
        ) from error


def _stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
