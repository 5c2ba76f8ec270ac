"""Twelve ingredients of a finished run, each changed in turn: each is noticed, and named."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from loracle.errors import UserError
from loracle.experiment.resuming import resume
from loracle.files import read_json
from loracle.metrics.custom import load_function
from loracle.run_folder import environment
from loracle.run_folder.views import QuietView
from tests.small_run import World, make_world, numbers

METRIC = (
    "def contains(prediction, references):\n"
    "    return float(any(text in prediction for text in references))\n"
)
OVERRIDES = ('evaluation.0.metrics=["em", "f1", "my_metrics:contains"]',)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("ingredients") / "world"
    world = make_world(root)
    (root / "my_metrics.py").write_text(METRIC)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(sys, "path", [str(root), *sys.path])
        world.start(*OVERRIDES)
        yield world
    sys.modules.pop("my_metrics", None)
    load_function.cache_clear()


@pytest.fixture
def world(finished: World, tmp_path: Path) -> Iterator[World]:
    """The finished run, whose files are put back afterwards."""
    kept = {p: p.read_bytes() for p in finished.root.rglob("*") if p.is_file()}
    yield finished._replace(run=finished.copied(tmp_path / "run").run)
    for path, content in kept.items():
        if path.read_bytes() != content:
            path.write_bytes(content)


def changed_text(old: str, new: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    return change


def changed_last_byte(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


REFUSED: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "weights": ("model/model.safetensors", changed_last_byte, r"model\.safetensors \(weights\)"),
    "tokenizer": (
        "model/tokenizer.json",
        changed_text("{", "{ "),
        r"tokenizer\.json \(tokenizer\) has changed: sha256 ",
    ),
    "template": (
        "model/chat_template.jinja",
        changed_text("{%", "{%-"),
        r"chat_template\.jinja \(chat template\) has changed",
    ),
    "config": (
        "model/config.json",
        changed_text('"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05'),
        r"config\.json \(config\) has changed",
    ),
    "data": ("a.jsonl", changed_text("red", "blue"), r"candidates\.0\.sha256: "),
    "evaluation": ("test.jsonl", changed_text("red", "blue"), r"evaluation\.0\.sha256: "),
    "custom metric": (
        "my_metrics.py",
        changed_text("any(", "all("),
        r"metric_modules\.my_metrics:contains: ",
    ),
}


@pytest.mark.parametrize("ingredient", REFUSED)
def test_a_changed_ingredient_is_named_and_the_run_is_not_mixed(
    world: World, ingredient: str
) -> None:
    name, change, message = REFUSED[ingredient]
    before = (world.run / "results.json").read_bytes()
    change(world.root / name)
    importlib.invalidate_caches()
    for again in (
        lambda: world.start(*OVERRIDES),
        lambda: resume(world.run, QuietView()),
    ):
        with pytest.raises(UserError, match=message):
            again()
    assert (world.run / "results.json").read_bytes() == before


def test_another_plan_is_refused_by_its_difference(world: World) -> None:
    with pytest.raises(UserError, match=r"training\.learning_rate: .* → 0\.5"):
        world.start(*OVERRIDES, "training.learning_rate=0.5")


@pytest.mark.parametrize(
    "name", ["adapter/adapter_model.safetensors", "predictions/test.jsonl", "scores/test.jsonl"]
)
def test_a_changed_file_of_a_trial_is_named_and_the_trial_made_again(
    world: World, name: str
) -> None:
    expected = numbers(read_json(world.run / "results.json"))
    changed_last_byte(world.run / "trials/a--s0" / name)
    assert numbers(dict(resume(world.run, QuietView()).results)) == expected
    assert f"a: {name} has changed since it was written" in warnings(world.run)


def test_another_library_version_is_named_with_its_consequence(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = environment._version
    monkeypatch.setattr(
        environment, "_version", lambda name: "9.9" if name == "torch" else before(name)
    )
    found = resume(world.run, QuietView())
    assert found.was_finished
    assert "→ 9.9" in found.notes[0]
    assert "may differ from earlier ones in their last digits" in found.notes[0]
    world.start(*OVERRIDES)
    assert "→ 9.9" in warnings(world.run)


def test_an_unchanged_run_that_is_finished_loads_no_model(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", refuse)
    found = resume(world.run, QuietView())
    assert found.was_finished
    assert found.results == read_json(world.run / "results.json")


def warnings(run: Path) -> str:
    rows = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return "\n".join(row["message"] for row in rows if row["event"] == "warning")
