"""Ingredients of a finished run that lie less in the open, each changed in turn: each is named."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from loracle.errors import UserError
from loracle.experiment.resuming import resume
from loracle.run_folder.views import QuietView
from tests.small_run import World, make_world


def cut_into_shards(model: Path) -> None:
    """The weights in two files, of which the index says one lies in a folder of its own."""
    whole = model / "model.safetensors"
    tensors = load_file(whole)
    names = sorted(tensors)
    shards = {"a.safetensors": names[::2], "parts/b.safetensors": names[1::2]}
    (model / "parts").mkdir()
    for shard, own in shards.items():
        save_file({name: tensors[name] for name in own}, model / shard, {"format": "pt"})
    weight_map = {name: shard for shard, own in shards.items() for name in own}
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    whole.unlink()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("more") / "world"
    world = make_world(root, num_layers=1)
    cut_into_shards(root / "model")
    # The data as a link, and as a folder of files.
    (root / "first.jsonl").write_bytes((root / "a.jsonl").read_bytes())
    (root / "second.jsonl").write_bytes((root / "b.jsonl").read_bytes())
    (root / "a.jsonl").unlink()
    (root / "a.jsonl").symlink_to("first.jsonl")
    world.start()
    return world


@pytest.fixture
def world(finished: World, tmp_path: Path) -> Iterator[World]:
    """The finished run; the model's files and the link are put back afterwards."""
    kept = {p: p.read_bytes() for p in (finished.root / "model").rglob("*") if p.is_file()}
    yield finished._replace(run=finished.copied(tmp_path / "run").run)
    for path in (finished.root / "model").rglob("*"):
        if path.is_file() and path not in kept:
            path.unlink()
    for path, content in kept.items():
        path.write_bytes(content)
    (finished.root / "a.jsonl").unlink()
    (finished.root / "a.jsonl").symlink_to("first.jsonl")


def changed_last_byte(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def changed_index(path: Path) -> None:
    index = json.loads(path.read_text())
    index["metadata"]["total_size"] = 2
    path.write_text(json.dumps(index))


CHANGES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "a shard": (
        "model/a.safetensors",
        changed_last_byte,
        r"a\.safetensors \(weights\) has changed",
    ),
    "a shard in a folder": (
        "model/parts/b.safetensors",
        changed_last_byte,
        r"parts/b\.safetensors \(weights\) has changed",
    ),
    "the index": (
        "model/model.safetensors.index.json",
        changed_index,
        r"index\.json \(weights\) has changed",
    ),
    "added tokens": (
        "model/added_tokens.json",
        lambda path: path.write_text('{"<new>": 5}'),
        r"added_tokens\.json \(tokenizer\) is new",
    ),
    "generation config": (
        "model/generation_config.json",
        lambda path: path.write_text('{"eos_token_id": 5}'),
        r"generation_config\.json \(config\) has changed",
    ),
    "another template": (
        "model/additional_chat_templates/tool_use.jinja",
        lambda path: (path.parent.mkdir(exist_ok=True), path.write_text("{{ messages }}")),
        r"tool_use\.jinja \(chat template\) is new",
    ),
}


@pytest.mark.parametrize("ingredient", CHANGES)
def test_a_hidden_ingredient_is_named_and_the_run_is_not_mixed(
    world: World, ingredient: str
) -> None:
    name, change, message = CHANGES[ingredient]
    before = (world.run / "results.json").read_bytes()
    change(world.root / name)
    for again in (world.start, lambda: resume(world.run, QuietView())):
        with pytest.raises(UserError, match=message):
            again()
    assert (world.run / "results.json").read_bytes() == before


def test_a_link_that_points_elsewhere_is_other_data_and_the_run_keeps_the_file_it_read(
    world: World,
) -> None:
    link = world.root / "a.jsonl"
    link.unlink()
    link.symlink_to("second.jsonl")
    with pytest.raises(UserError, match=r"candidates\.0\.sha256: "):
        world.start()
    assert resume(world.run, QuietView()).was_finished
