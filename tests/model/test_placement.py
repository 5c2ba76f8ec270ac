"""Where a model's layers are: chosen devices, layers spread over several, offloaded weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from accelerate import cpu_offload, dispatch_model, infer_auto_device_map, init_empty_weights
from transformers import AutoConfig, AutoModelForCausalLM

from loracle.errors import ModelError
from loracle.forest.attention.branches import BranchAttention
from loracle.forest.attention.interface import KeysValues
from loracle.forest.attention.rows import RowAttention
from loracle.forest.trie import Sequences, build_forest
from loracle.generation.generate import generate
from loracle.generation.types import Question
from loracle.model.base import BaseModel, base_fingerprint, load_base, wrap_base
from loracle.model.loaded_form import LoadedForm
from loracle.model.placement import chosen_device, num_offloaded, require_trainable
from loracle.model.self_test import run_self_test
from loracle.plan import load_plan
from tests import tiny
from tests.generation.test_generate import SETTINGS, prompts, tiny_base

META = torch.device("meta")


def on_disk(base: BaseModel, folder: Path) -> BaseModel:
    """Layers 1 and 2 on disk, the rest in memory, as accelerate would spread a large model."""
    names = ("embed_tokens", "layers.0", "norm", "rotary_emb")
    places = {f"model.{name}": "cpu" for name in names} | {"lm_head": "cpu"}
    places |= {"model.layers.1": "disk", "model.layers.2": "disk"}
    dispatch_model(base.model, places, main_device="cpu", offload_dir=folder, force_hooks=True)
    return wrap_base(base.name, base.model, base.tokenizer)


def in_memory(base: BaseModel, folder: Path) -> BaseModel:
    """Every weight waits on the CPU."""
    cpu_offload(base.model, execution_device=torch.device("cpu"))
    return wrap_base(base.name, base.model, base.tokenizer)


OFFLOADS = [on_disk, in_memory]


@pytest.mark.parametrize("offload", OFFLOADS)
def test_an_offloaded_model_answers_as_one_in_memory(offload, tmp_path):
    questions = [Question(ids) for ids in prompts(tiny_base())]
    expected = [a for batch in generate(tiny_base(), None, questions, SETTINGS) for a in batch]
    base = offload(tiny_base(), tmp_path)
    assert num_offloaded(base.model)
    assert [a for batch in generate(base, None, questions, SETTINGS) for a in batch] == expected


@pytest.mark.parametrize("offload", OFFLOADS)
def test_an_offloaded_model_is_the_same_model(offload, tmp_path):
    expected = base_fingerprint(tiny_base().model)
    base = offload(tiny_base(), tmp_path)
    assert base_fingerprint(base.model) == expected
    assert base.device == torch.device("cpu")


@pytest.mark.parametrize("offload", OFFLOADS)
def test_the_self_test_of_an_offloaded_model_compares_logits_alone(offload, tmp_path):
    result = run_self_test(offload(tiny_base(), tmp_path))
    assert result.passed
    assert result.detail.startswith("forest logits equal")


def test_an_offloaded_model_is_not_trained(tmp_path):
    with pytest.raises(ModelError, match="can then answer but not train"):
        require_trainable(on_disk(tiny_base(), tmp_path).model)
    require_trainable(tiny_base().model)


def test_a_device_map_loads_the_same_model(tmp_path):
    folder = str(tiny.save_model(tmp_path))
    spread = load_base("m", folder, tiny.tokenizer(), LoadedForm("float32", device_map="auto"))
    whole = load_base("m", folder, tiny.tokenizer(), LoadedForm("float32"))
    assert base_fingerprint(spread.model) == base_fingerprint(whole.model)
    assert run_self_test(spread).passed


def test_a_model_larger_than_one_device_is_planned_over_two(tmp_path):
    """Planning reads shapes alone: no weight is made, and the devices need not be there."""
    config = AutoConfig.from_pretrained(tiny.save_model(tmp_path, tie_word_embeddings=False))
    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(config)
    layer = sum(p.numel() for p in model.model.layers[0].parameters()) * 4
    places = infer_auto_device_map(
        model,
        {0: 3 * layer, 1: 10 * layer, "cpu": 10 * layer},
        no_split_module_classes=model._no_split_modules,
    )
    assert set(places.values()) == {0, 1}
    assert all(name.count(".") <= 2 for name in places), "layers stay whole"


def test_the_attention_of_rows_follows_a_layer_to_its_device():
    forest = build_forest(Sequences.of([[1, 2, 3], [1, 2, 4], [5, 6]]), max_row_tokens=100)
    kept: dict[int, KeysValues] = {}
    context = RowAttention.of(forest, torch.device("cpu"), keep=kept)
    for layer, device in enumerate(["cpu", "meta", "cpu", "meta"]):
        q, k, v = (torch.randn(h, forest.num_nodes, 8, device=device) for h in (4, 2, 2))
        output = context.attend(layer, q, k, v, 0.3, 0)
        assert (output.device.type, tuple(output.shape)) == (device, (forest.num_nodes, 4, 8))
    assert [kept[layer].keys.device.type for layer in range(4)] == ["cpu", "meta", "cpu", "meta"]
    assert list(context._copies) == [META]


def test_the_attention_of_branches_follows_a_layer_to_its_device():
    def layer_on(device: str, length: int, rows: int) -> KeysValues:
        return KeysValues(*(torch.randn(rows, 2, length, 8, device=device) for _ in range(2)))

    context = BranchAttention(
        prefix=[layer_on("cpu", 5, 1), layer_on("meta", 5, 1)],
        branch=[layer_on("cpu", 4, 2), layer_on("meta", 4, 2)],
        path_SL=torch.ones(2, 5, dtype=torch.bool),
        row_S=torch.zeros(2, dtype=torch.long),
        slot_S=torch.arange(2),
        branch_lengths_S=torch.zeros(2, dtype=torch.long),
        num_new=1,
    )
    for layer, device in enumerate(["cpu", "meta"]):
        q, k, v = (torch.randn(h, 2, 8, device=device) for h in (4, 2, 2))
        output = context.attend(layer, q, k, v, 0.3, 0)
        assert (output.device.type, tuple(output.shape)) == (device, (2, 4, 8))


def test_a_device_that_is_not_there_is_said_in_words(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for device in ("cuda", "mps"):
        with pytest.raises(ModelError, match=f"model.device: {device}, but"):
            chosen_device(device)
    assert chosen_device("auto") == chosen_device("cpu") == torch.device("cpu")


def test_a_device_beside_a_device_map_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"model\.device: found cpu together with model\.device_map"
    ):
        load_plan(
            None,
            candidates=["a.jsonl"],
            evaluations=["b.jsonl"],
            overrides=["model.device=cpu", "model.device_map=auto"],
        )
