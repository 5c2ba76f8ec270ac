"""A run at a URL that is killed, and whose local copy is lost, resumes from the URL: same bytes."""

from __future__ import annotations

import random
import shutil
import signal
from pathlib import Path

import pytest

import loracle
from loracle.errors import PlanError, UserError
from loracle.files import UNFINISHED_PREFIX
from loracle.run_folder.local_copies import LocalCopy
from tests.experiment.test_kills import Children, Ended, cache_with_kernels, made, results_of
from tests.small_run import SETTINGS, make_world

# The copy is made so often that every kill finds something new.
OFTEN_SECONDS = 0.05


def killed_and_resumed(
    children: Children,
    cache: Path,
    name: str,
    num_kills: int,
) -> Path:
    """A run at file://.../NAME that is killed again and again, each time with its copy here lost.

    Returns the folder that the URL names.
    """
    there = children.folder / name
    url, generator = f"file://{there}", random.Random(name)
    for _ in range(num_kills):
        delay = generator.uniform(0.5, 5.0)
        ended = children.run(url, signal.SIGKILL, delay=delay, log=name, beat_seconds=OFTEN_SECONDS)
        assert ended in (Ended(-9, False), Ended(0, False)), children.shown(name)
        shutil.rmtree(cache, ignore_errors=True)
    ended = children.run(url, log=name, beat_seconds=OFTEN_SECONDS)
    assert ended == Ended(0, False), children.shown(name)
    assert "Traceback" not in children.shown(name)
    return there


@pytest.fixture
def cache(children: Children) -> Path:
    """Where the children keep their copies."""
    return children.cache / "remote-runs"


def require_same(there: Path, cache: Path, expected: dict[str, object]) -> None:
    """Both the URL's folder and the copy here hold what an undisturbed run makes."""
    copy = LocalCopy.of(f"file://{there}").root
    for root in (there, cache / copy.parent.name / copy.name):
        found = made(root)
        assert found.keys() == expected.keys()
        assert [name for name in found if found[name] != expected[name]] == []
        assert not list(root.rglob("checkpoint"))
    assert not list(there.rglob(f"{UNFINISHED_PREFIX}*"))
    assert not (there / ".loracle-lock.json").exists()


@pytest.mark.long
def test_a_run_at_a_url_survives_kills_and_the_loss_of_its_copy(children, cache, undisturbed):
    there = killed_and_resumed(children, cache, "there", 3)
    require_same(there, cache, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_any_kill_of_a_run_at_a_url_loses_nothing(children, cache, undisturbed, seed):
    there = killed_and_resumed(children, cache, f"there-{seed}", 1 + seed % 3)
    require_same(there, cache, undisturbed)


def test_every_command_reads_a_run_at_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LORACLE_CACHE", str(cache_with_kernels(tmp_path / "cache")))
    world = make_world(tmp_path / "world")
    url = "memory://runs/every-command"
    data = [world.root / "a.jsonl", world.root / "b.jsonl"]
    run = loracle.run(
        *(data, world.root / "test.jsonl"), model=world.model, out=url, overrides=SETTINGS,
        progress="quiet",
    )  # fmt: skip
    shutil.rmtree(tmp_path / "cache" / "remote-runs")
    again = loracle.open_run(url)
    assert results_of(again.folder) == results_of(run.folder) or again.folder == run.folder
    assert loracle.decide(url).record == loracle.decide(again).record
    assert loracle.compare(url, url) is not None
    assert loracle.resume(url, progress="quiet").was_finished
    (again.folder / "report.html").unlink()
    assert again.write_report().is_file()


def test_a_cluster_is_refused_with_a_run_at_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LORACLE_CACHE", str(cache_with_kernels(tmp_path / "cache")))
    world = make_world(tmp_path / "world")
    with pytest.raises(PlanError, match=r"memory://runs/cluster: .* one machine.*node1:6379"):
        loracle.run(
            [world.root / "a.jsonl"], world.root / "test.jsonl", model=world.model,
            out="memory://runs/cluster", progress="quiet", ray={"address": "node1:6379"},
        )  # fmt: skip


def test_a_url_without_a_run_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LORACLE_CACHE", str(cache_with_kernels(tmp_path / "cache")))
    for command in (loracle.resume, loracle.open_run, loracle.decide):
        with pytest.raises(UserError, match=r"memory://runs/nothing is not a run folder"):
            command("memory://runs/nothing")
