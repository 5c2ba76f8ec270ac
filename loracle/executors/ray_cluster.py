"""A connection to Ray: to a cluster that runs, or to one of this machine for the time of a run.

A cluster of our own listens on 127.0.0.1 alone, has no dashboard, sends no usage statistics, asks
for a token that only this run knows, and is gone with its files when the run ends, however it ends.
It starts, and ends, while the run does other work: in a thread, which has to live as long as the
cluster, since Linux ends Ray's processes together with the thread that started them.
"""

from __future__ import annotations

import gc
import logging
import os
import secrets
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from loracle.errors import MissingExtraError, PlanError
from loracle.executors.placement import RAY_EXTRA, Found, Placement
from loracle.run_folder.environment import num_cpus

# Nothing of ours travels through the object store; less than this Ray refuses.
_OBJECT_STORE_BYTES = 80_000_000
# A socket's path has at most 107 bytes, of which Ray takes 75.
_LONGEST_FOLDER = 30
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray would end processes when the machine's memory is nearly full, whoever filled it.
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE": "1",
}


class Resources(NamedTuple):
    """What every node of a cluster has, added up; and each node's GPUs and processors."""

    num_gpus: int
    num_cpus: int
    gpus_on_nodes: tuple[int, ...] = ()
    cpus_on_nodes: tuple[int, ...] = ()

    def found(self, device: str) -> Found:
        """What a run finds there. device: model.device of the plan."""
        on_gpus = device == "cuda" or (device == "auto" and self.num_gpus > 0)
        on_nodes = self.gpus_on_nodes if on_gpus else self.cpus_on_nodes
        kind = "cuda" if on_gpus else "cpu"
        return Found(kind, self.num_gpus, self.num_cpus, tuple(filter(None, on_nodes)) or None)


def require_ray() -> None:
    """Raises MissingExtraError if Ray is not installed."""
    if not has_ray():
        raise MissingExtraError(f"ray.address needs Ray; run: {RAY_EXTRA}")


def has_ray() -> bool:
    """Whether Ray is installed; does not import it."""
    import importlib.util

    return importlib.util.find_spec("ray") is not None


class OwnCluster:
    """A cluster of this machine that starts in the background."""

    def __init__(self, placement: Placement) -> None:
        """placement: the largest that the run may want."""
        self._placement = placement
        self._settled, self._ending = threading.Event(), threading.Event()
        self._ray: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._live, name="loracle-ray")
        self._thread.start()

    def ray(self) -> Any:
        """The ray module, connected. Waits for the start; raises what it failed with."""
        self._settled.wait()
        if self._error is not None:
            raise self._error
        return self._ray

    def begin_to_end(self) -> None:
        """Let it end while other work is done."""
        self._ending.set()

    def close(self) -> None:
        """End it, and wait until nothing of it is left."""
        self._ending.set()
        self._thread.join()

    def _live(self) -> None:
        try:
            with _own_cluster(self._placement) as ray:
                self._ray = ray
                self._settled.set()
                self._ending.wait()
        except BaseException as error:  # noqa: BLE001
            # Whoever asks for the cluster gets it.
            self._error = error
        finally:
            self._settled.set()


@contextmanager
def _own_cluster(placement: Placement) -> Iterator[Any]:
    """The ray module, connected to a cluster of this machine that ends with the context."""
    folder = Path(tempfile.mkdtemp(prefix="loracle-ray-", dir=_short_folder()))
    token = {"RAY_AUTH_TOKEN": _token()}
    visible = _visible_gpus(placement)
    with (
        _environment({**_ENVIRONMENT, **token, **visible}),
        _own_handlers() as put_back,
        _on_this_machine_alone(),
        _without_helpers(),
    ):
        import ray

        try:
            ray.init(
                address="local",
                num_cpus=max(num_cpus(), placement.num_slots * placement.cpus_per_slot),
                num_gpus=len(placement.gpus or ()),
                include_dashboard=False,
                configure_logging=False,
                log_to_driver=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                _temp_dir=str(folder),
            )
            put_back()
            yield ray
        finally:
            with _no_collection():
                ray.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _no_collection() -> Iterator[None]:
    """No thread collects garbage meanwhile: a reference of Ray that is let go of between the end of
    Ray's core and the moment when its Python side knows of it ends the process, with code 1 and
    without a word (core_worker_process.cc)."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextmanager
def joined_cluster(address: str) -> Iterator[Any]:
    """The ray module, connected to a cluster that runs.

    Raises PlanError if there is none at the address.
    """
    require_ray()
    with _environment({"RAY_USAGE_STATS_ENABLED": "0"}), _own_handlers() as put_back:
        import ray

        try:
            ray.init(address=address, configure_logging=False, log_to_driver=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            first_line = str(error).strip().splitlines()[0]
            raise PlanError(
                f"ray.address: no cluster can be joined at {address} ({first_line}); this machine "
                "must be part of it: `ray start --address=HOST:PORT`"
            ) from error
        put_back()
        try:
            yield ray
        finally:
            ray.shutdown()


def resources(ray: Any) -> Resources:
    """What the cluster has that is alive."""
    nodes: list[Mapping[str, float]] = [
        node["Resources"] for node in ray.nodes() if node.get("Alive")
    ]
    gpus, cpus = ([int(node.get(kind, 0)) for node in nodes] for kind in ("GPU", "CPU"))
    return Resources(sum(gpus), sum(cpus), tuple(gpus), tuple(cpus))


def _visible_gpus(placement: Placement) -> dict[str, str]:
    """For Ray's own start: of the GPUs that are visible here, those that were chosen. Workers get
    theirs from Ray."""
    if placement.gpus is None:
        return {}
    here = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = here.split(",") if here else [str(index) for index in range(max(placement.gpus) + 1)]
    return {"CUDA_VISIBLE_DEVICES": ",".join(names[index].strip() for index in placement.gpus)}


@contextmanager
def _on_this_machine_alone() -> Iterator[None]:
    """Keep a cluster to 127.0.0.1. Ray has a switch for that, named for other systems, which it
    reads when it is imported; a program may have imported it before."""
    name = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
    with _environment({name: "0", "RAY_AUTH_MODE": os.environ.get("RAY_AUTH_MODE")}):
        from ray._private import ray_constants as constants

        before = constants.ENABLE_RAY_CLUSTER
        constants.ENABLE_RAY_CLUSTER = False
        logger = logging.getLogger("ray")
        level = logger.level
        # Ray's advice on its token, which is made here.
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
            constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _without_helpers() -> Iterator[None]:
    """Start neither the process that sends logs to the driver nor the one that adds machines: the
    run uses neither, and both need a processor while the workers start. Ray has no switch."""
    from ray._private.node import Node

    with ExitStack() as stack:
        for name in ("start_log_monitor", "start_monitor"):
            if hasattr(Node, name):
                stack.callback(setattr, Node, name, getattr(Node, name))
                setattr(Node, name, lambda self: None)
        yield


@cache
def _token() -> str:
    """One for a process: Ray reads it once."""
    return secrets.token_hex(32)


def _short_folder() -> str | None:
    default = tempfile.gettempdir()
    if len(default) <= _LONGEST_FOLDER or not os.access("/tmp", os.W_OK):
        return None
    return "/tmp"


@contextmanager
def _environment(values: Mapping[str, str | None]) -> Iterator[None]:
    """Variables that Ray's processes inherit; None: not there. This process has its own back
    afterwards."""
    before = {name: os.environ.get(name) for name in values}
    _set(values)
    try:
        yield
    finally:
        _set(before)


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextmanager
def _own_handlers() -> Iterator[Any]:
    """Yields what puts this process's signal handlers back, which Ray replaces by its own."""
    import threading

    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def put_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    try:
        yield put_back
    finally:
        put_back()
