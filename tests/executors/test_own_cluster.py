"""A cluster that starts in the background: what it gives, what it fails with, how it ends."""

from __future__ import annotations

import gc
import threading
from contextlib import contextmanager

import pytest

from loracle.executors import ray_cluster
from loracle.executors.placement import Placement
from loracle.executors.ray_cluster import OwnCluster

TWO = Placement(False, 2, 0, 1)


def starting(monkeypatch, *, go: threading.Event, problem: Exception | None = None) -> list[str]:
    """Put a stand-in in Ray's place, which starts when `go` is set; returns what happens to it."""
    happened: list[str] = []

    @contextmanager
    def cluster(placement):
        go.wait()
        if problem is not None:
            raise problem
        happened.append(f"started by {threading.current_thread().name}")
        yield "ray"
        happened.append(f"ended by {threading.current_thread().name}")

    monkeypatch.setattr(ray_cluster, "_own_cluster", cluster)
    return happened


def test_a_cluster_starts_while_its_run_does_something_else(monkeypatch):
    happened = starting(monkeypatch, go=(go := threading.Event()))
    cluster = OwnCluster(TWO)
    assert happened == []
    go.set()
    assert cluster.ray() == "ray"
    cluster.close()
    # By one thread: Linux ends Ray's processes with the thread that started them.
    assert happened == ["started by loracle-ray", "ended by loracle-ray"]


def test_nobody_collects_garbage_while_ray_ends():
    with ray_cluster._no_collection():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_what_a_cluster_fails_with_reaches_the_one_who_asks_for_it(monkeypatch):
    go = threading.Event()
    go.set()
    starting(monkeypatch, go=go, problem=RuntimeError("no port is free"))
    cluster = OwnCluster(TWO)
    with pytest.raises(RuntimeError, match="no port is free"):
        cluster.ray()
    cluster.close()


def test_a_cluster_that_nobody_asked_for_ends_without_a_word(monkeypatch):
    go = threading.Event()
    go.set()
    happened = starting(monkeypatch, go=go)
    OwnCluster(TWO).close()
    assert happened[-1] == "ended by loracle-ray"
