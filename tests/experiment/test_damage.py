"""Every file of a finished run, damaged: never silently other numbers; the next run mends it."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from loracle.decision.evidence import read_evidence
from loracle.decision.judge import judge, judgement_record
from loracle.errors import TrialError, UserError
from loracle.experiment import learning
from loracle.experiment.resuming import resume
from loracle.export.candidate import export_winner
from loracle.export.parquet import export_predictions
from loracle.files import read_json
from loracle.report.page import write_report
from loracle.report.status import run_status
from loracle.run_folder.trial_folder import TrialFolder
from loracle.run_folder.verifying import verify_run
from loracle.run_folder.views import QuietView
from tests.small_run import World, make_world, numbers

# Not what any command takes numbers from: made again by `report`, or for people and live pages.
UNGUARDED = ("report.html", "events.jsonl", "pipeline.log", "training.log", "evaluation.log")
KINDS = ("truncated", "emptied", "bit flipped")
SAMPLE = (
    ("forecast.json", "truncated"),
    ("plan.json", "bit flipped"),
    ("plan.json", "emptied"),
    ("MANIFEST.json", "bit flipped"),
    ("MANIFEST.json", "truncated"),
    ("results.json", "bit flipped"),
    ("check.json", "truncated"),
    ("environment.json", "bit flipped"),
    ("inputs.json", "bit flipped"),
    ("questions/test.jsonl", "bit flipped"),
    ("base/predictions/test.jsonl", "bit flipped"),
    ("base/DONE", "emptied"),
    ("trials/a--s0/DONE", "bit flipped"),
    ("trials/a--s0/scores/test.jsonl", "bit flipped"),
    ("trials/a--s0/steps.jsonl", "truncated"),
    ("trials/b--s0/trial.json", "bit flipped"),
    ("trials/b--s0/adapter/adapter_model.safetensors", "bit flipped"),
    ("trials/b--s0/adapter/adapter_config.json", "emptied"),
    ("events.jsonl", "bit flipped"),
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = make_world(tmp_path_factory.mktemp("damage") / "world")
    world.start()
    return world


def all_damages(root: Path) -> list[tuple[str, str]]:
    names = [str(p.relative_to(root)) for p in sorted(root.rglob("*")) if p.is_file()]
    return [(name, kind) for name in names for kind in KINDS if name != ".lock"]


def damage(path: Path, kind: str) -> None:
    content = bytearray(path.read_bytes())
    if kind == "bit flipped":
        place = random.Random(path.name).randrange(8 * len(content))
        content[place // 8] ^= 1 << place % 8
    path.write_bytes({"emptied": b"", "truncated": content[: len(content) // 2]}.get(kind, content))


def report_text(root: Path) -> str:
    return write_report(root).read_text(encoding="utf-8")


def decision(root: Path) -> Any:
    return judgement_record(judge(read_evidence(root)))


def exported_rows(root: Path) -> Any:
    path = root.with_name("rows.parquet")
    export_predictions(root, path)
    return parquet.read_table(path).to_pylist()


def exported_adapters(root: Path) -> Any:
    folders = [root.with_name(f"adapter-{name}") for name in "ab"]
    for name, folder in zip("ab", folders, strict=True):
        shutil.rmtree(folder, ignore_errors=True)
        export_winner(root, name, "peft", folder)
    return {str(path): path.read_bytes() for folder in folders for path in folder.iterdir()}


READERS: dict[str, Callable[[Path], Any]] = {
    "report": report_text,
    "decide": decision,
    "export rows": exported_rows,
    "export adapters": exported_adapters,
}


@pytest.fixture(scope="module")
def whole(world: World) -> dict[str, Any]:
    """What every reader makes of the run as it is."""
    return {name: read(world.run) for name, read in READERS.items()}


def read_or_refused(read: Callable[[Path], Any], run: Path) -> tuple[Any, str | None]:
    try:
        return read(run), None
    except UserError as error:
        return None, str(error)


def check_readers(world: World, whole: dict[str, Any], name: str, kind: str) -> int:
    """Every reader names the damage or gives what it gave; how many of them refused."""
    path = world.run / name
    kept = path.read_bytes()
    num_refused = 0
    damage(path, kind)
    try:
        for reader, read in READERS.items():
            if (reader, name) == ("report", "report.html"):
                continue
            found, refusal = read_or_refused(read, world.run)
            if refusal is None:
                assert found == whole[reader], (reader, name, kind)
            else:
                num_refused += 1
                assert Path(name).name in refusal or "DONE" in refusal, (reader, refusal)
        if name not in ("plan.json", "MANIFEST.json"):
            run_status(world.run)
        problems = verify_run(world.run).problems
        assert bool(problems) == (name not in UNGUARDED), problems
        assert all(Path(name).name in problem for problem in problems[:1])
    finally:
        path.write_bytes(kept)
        (world.run / "report.html").write_text(whole["report"], encoding="utf-8")
    return num_refused


@pytest.mark.parametrize(("name", "kind"), SAMPLE)
def test_no_reader_gives_other_numbers_from_a_damaged_file(
    world: World, whole: dict[str, Any], name: str, kind: str
) -> None:
    num_refused = check_readers(world, whole, name, kind)
    assert num_refused > 0 or name in (*UNGUARDED, "inputs.json")


@pytest.mark.slow  # some minutes: every file, every damage, every reader
def test_no_reader_gives_other_numbers_from_any_damaged_file(
    world: World, whole: dict[str, Any]
) -> None:
    for name, kind in all_damages(world.run):
        check_readers(world, whole, name, kind)


def check_mending(world: World, run: Path, name: str, kind: str) -> None:
    """The command that made the run mends the damage; then the numbers are what they were."""
    expected = numbers(read_json(world.run / "results.json"))
    shutil.rmtree(run, ignore_errors=True)
    copy = world.copied(run)
    damage(copy.run / name, kind)
    assert numbers(copy.start()) == expected
    assert verify_run(copy.run).problems == []
    assert learned_and_answered(copy.run) == learned_and_answered(world.run)


def learned_and_answered(run: Path) -> dict[str, bytes]:
    """The files of adapters, predictions and scores: an untrained model's scores are all zero."""
    folders = ("adapter", "predictions", "scores")
    paths = [path for path in run.rglob("*") if path.parent.name in folders and path.is_file()]
    return {str(path.relative_to(run)): path.read_bytes() for path in paths}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("MANIFEST.json", "bit flipped"),
        ("forecast.json", "truncated"),
        ("plan.json", "bit flipped"),
        ("environment.json", "emptied"),
        ("trials/a--s0/scores/test.jsonl", "bit flipped"),
    ],
)
def test_the_same_command_mends_what_was_damaged(
    world: World, tmp_path: Path, name: str, kind: str
) -> None:
    check_mending(world, tmp_path / "copy", name, kind)


@pytest.mark.slow  # some minutes: the run is resumed after every damage to every file
def test_the_same_command_mends_any_damage(world: World, tmp_path: Path) -> None:
    for name, kind in all_damages(world.run):
        check_mending(world, tmp_path / "copy", name, kind)


def test_the_message_names_the_command_that_makes_the_trial_again(
    world: World, tmp_path: Path
) -> None:
    copy = world.copied(tmp_path / "copy")
    damage(copy.run / "trials/b--s0/scores/test.jsonl", "bit flipped")
    with pytest.raises(UserError, match=rf"loracle resume {copy.run} --candidate b`"):
        read_evidence(copy.run)
    expected = numbers(read_json(world.run / "results.json"))
    found = resume(copy.run, QuietView(), candidate="b")
    assert not found.was_finished
    assert numbers(dict(found.results)) == expected
    assert resume(copy.run, QuietView()).was_finished


@pytest.fixture(scope="module")
def failed_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A run of which b failed after its last step."""
    world = make_world(tmp_path_factory.mktemp("failed") / "world")
    save = learning.adapter.save

    def failing(adapted: Any, folder: Path, facts: Any) -> None:
        if folder.parent.name == "b--s0":
            raise TrialError("the adapter is not as it should be")
        save(adapted, folder, facts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning.adapter, "save", failing)
        assert world.start()["num_failed"] == 1
    return world


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["FAILED.json", "steps.jsonl", "attempt.json"])
def test_what_a_failed_trial_left_is_guarded_like_what_a_finished_one_left(
    failed_world: World, tmp_path: Path, name: str, kind: str
) -> None:
    assert verify_run(failed_world.run).problems == []
    assert verify_run(failed_world.run).unfinished == []
    copy = failed_world.copied(tmp_path / "copy")
    damage(copy.run / "trials" / "b--s0" / name, kind)
    (problem,) = verify_run(copy.run).problems
    assert f"b--s0/{name}" in problem
    assert f"`loracle resume {copy.run} --candidate b` to repeat it" in problem
    status = run_status(copy.run).trials[-1]
    assert status.state == "damaged"
    assert name in status.detail
    if name != "attempt.json":  # which no report reads
        with pytest.raises(UserError, match=name):
            write_report(copy.run)


def test_a_failed_trial_that_is_damaged_is_made_again_from_its_beginning(
    failed_world: World, tmp_path: Path, world: World
) -> None:
    copy = failed_world.copied(tmp_path / "copy")
    steps = copy.run / "trials" / "b--s0" / "steps.jsonl"
    steps.write_bytes(steps.read_bytes().replace(b'"loss": ', b'"loss": 1', 1))
    found = resume(copy.run, QuietView())
    assert not found.was_finished
    whole = read_json(world.run / "results.json")
    assert numbers(found.results["rows"]) == numbers(whole["rows"])
    assert verify_run(copy.run).problems == []


def test_a_failure_of_an_earlier_version_is_read_without_its_files(tmp_path: Path) -> None:
    trial = TrialFolder(tmp_path / "b--s0")
    trial.root.mkdir()
    trial.failed.write_text('{"time": "2026-01-01T00:00:00", "reason": "step 3: loss nan"}')
    assert trial.failure() == "step 3: loss nan"
    assert trial.failed_and_whole()
