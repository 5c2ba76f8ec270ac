"""Which tests run: `slow` ones with --slow, `gpu` ones if there is a CUDA device."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes says how busy the machine is, and nothing about the code.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

# Two processes with two threads each make each other five times slower (OpenMP's barriers), so
# each of pytest-xdist's workers, and whatever it starts, computes with one. Read by torch's import.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Without a card, Triton's kernels are interpreted on the CPU. Read by triton's import.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")


# With tests of half a minute and more: one of them at the end is waited for by one worker alone.
LONG = (
    "test_real_model.py",
    "test_replicas.py",
    "test_description.py",
    "test_attention_choice.py",
    "test_triton_rows.py",
    "test_kills.py",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long tests first; skip what cannot or should not run here, with the reason."""
    # Stable: all others keep their order, which is the same in all workers.
    items.sort(key=lambda item: item.path.name not in LONG)
    if not config.getoption("--slow"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="slow: run with --slow"))
    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    if gpu_items and not _has_cuda():
        for item in gpu_items:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def pytest_collection_finish(session: pytest.Session) -> None:
    """What was imported stays for good: no collection of garbage has to look at it again."""
    gc.collect()
    gc.freeze()


def _has_cuda() -> bool:
    # Here and not above: most test runs need no torch at all.
    import torch

    return torch.cuda.is_available()


@pytest.fixture(scope="session", autouse=True)
def _one_renderer() -> Iterator[None]:
    """One process draws the charts of all reports: its start costs more than a report."""
    # Here and not above: most test modules draw nothing.
    from loracle.report.drawing import drawing

    with drawing():
        yield


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Names of tests are the same in every process: packed bytes may hold the time."""
    return argname if isinstance(val, bytes) else None
