"""The longest row allowed, by stubs of what memory is free."""

from __future__ import annotations

from pathlib import Path

import pytest

from loracle.data_check import datasets as intake
from loracle.model.max_length import SPARE_SHARE, LengthLimit, ModelShape, length_limit, shape_of
from loracle.model.memory import FreeMemory, free_memory, host_memory
from loracle.plan import ModelPlan, TrainingPlan
from tests import tiny

# SmolLM2-135M in bfloat16.
SMALL = ModelShape(134_515_008, 305_280, 10_176, 30, 9, 576, 49_152, 2, "cpu")
# What a step over one row took beyond the weights on a CPU, GB by tokens (docs/log.md).
MEASURED_GIGABYTES = {512: 0.62, 1024: 1.56, 2048: 2.17, 4096: 4.78}


def free(gigabytes: float) -> FreeMemory:
    return FreeMemory(int(gigabytes * 1e9), "memory")


@pytest.mark.parametrize("num_tokens", MEASURED_GIGABYTES)
def test_the_estimate_is_above_what_a_step_took_and_not_far(num_tokens: int) -> None:
    estimate = SMALL.step_bytes(num_tokens, gradient_checkpointing=False) - SMALL.weight_bytes
    measured = MEASURED_GIGABYTES[num_tokens] * 1e9
    assert 1.05 * measured < estimate < 2.0 * measured


def test_memory_that_is_enough_leaves_the_models_own_limit() -> None:
    assert length_limit(8192, SMALL, free(30)) == (8192, "the model's own limit")


def test_memory_that_binds_lowers_the_limit_and_says_why() -> None:
    limit = length_limit(8192, SMALL, free(3))
    assert limit.reason == (
        "what 3.0 GB of free memory allow in one training step; the model takes 8,192"
    )
    assert limit.tokens is not None
    assert limit.tokens < 2048
    # The longest multiple that fits: one more would not.
    usable = (1 - SPARE_SHARE) * 3e9
    assert SMALL.step_bytes(limit.tokens, gradient_checkpointing=False) <= usable
    assert SMALL.step_bytes(limit.tokens + 64, gradient_checkpointing=False) > usable


def test_less_memory_never_allows_a_longer_row() -> None:
    found = [length_limit(8192, SMALL, free(gb)).tokens for gb in (20, 10, 5, 2, 1)]
    assert found == sorted(found, reverse=True)
    assert found[0] == 8192


def test_memory_bounds_a_model_that_declares_no_limit() -> None:
    limit = length_limit(None, SMALL, free(3))
    assert limit.tokens == length_limit(8192, SMALL, free(3)).tokens
    assert limit.reason.endswith("; the model declares none")


def test_gradient_checkpointing_allows_longer_rows() -> None:
    plain = length_limit(10**6, SMALL, free(3)).tokens
    checkpointed = length_limit(10**6, SMALL, free(3), gradient_checkpointing=True).tokens
    assert plain is not None
    assert checkpointed is not None
    assert checkpointed > 2 * plain


def test_weights_that_do_not_fit_leave_the_limit_and_are_named() -> None:
    limit = length_limit(8192, SMALL, free(0.2))
    assert limit.tokens == 8192
    assert "its weights need 0.3 GB, more than 0.2 GB of free memory allow" in limit.reason


def test_what_is_not_known_decides_nothing() -> None:
    assert length_limit(8192, None, free(0.1)).tokens == 8192
    assert length_limit(8192, SMALL, None).tokens == 8192
    assert length_limit(None, None, None) == (None, "the model declares none")


def test_the_shape_is_the_models() -> None:
    model = tiny.model()
    shape = shape_of(model.config, 4, "cpu")
    assert shape is not None
    assert shape.num_parameters == sum(p.numel() for p in model.parameters())
    assert shape.num_layers == model.config.num_hidden_layers
    assert shape.vocabulary_size == model.config.vocab_size
    layer = [m for m in model.model.layers[0].modules() if hasattr(m, "in_features")]
    assert shape.layer_width == sum(m.in_features + m.out_features for m in layer)
    assert shape.width == shape.num_layers * shape.layer_width


def test_the_renderer_takes_the_limit_of_the_plan_then_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = ModelPlan(name=str(tiny.save_model(tmp_path)), dtype="float32")
    shape = shape_of(tiny.model().config, 4, "cpu")
    assert shape is not None
    needed = shape.step_bytes(512, gradient_checkpointing=False)
    stub = FreeMemory(int(needed / (1 - SPARE_SHARE)) + 1, "memory")
    monkeypatch.setattr(intake, "free_memory", lambda device_type: stub)
    renderer = intake.load_renderer(plan, TrainingPlan(gradient_checkpointing=False))
    assert renderer.max_length == 512
    assert "allow in one training step; the model takes 2,048" in renderer.max_length_reason
    with_checkpointing = intake.load_renderer(plan, TrainingPlan())
    assert with_checkpointing.max_length > 512
    said = intake.load_renderer(plan, TrainingPlan(max_length=900))
    assert (said.max_length, said.max_length_reason) == (900, "training.max_length")
    settled = intake.load_renderer(plan, TrainingPlan(), settled=LengthLimit(77, "before"))
    assert (settled.max_length, settled.max_length_reason) == (77, "before")


def machine(folder: Path, available_kb: int, cgroup: str, files: dict[str, str]) -> FreeMemory:
    proc, groups = folder / "proc", folder / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable:   {available_kb} kB\n")
    (proc / "self/cgroup").write_text(cgroup)
    for name, text in files.items():
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(text)
    found = host_memory(proc, groups)
    assert found is not None
    return found


def test_without_a_container_the_machine_says_what_is_free(tmp_path: Path) -> None:
    assert machine(tmp_path, 1000, "0::/\n", {}) == (1_024_000, "memory")


def test_a_control_group_of_version_2_bounds_it_and_its_page_cache_is_free(tmp_path: Path) -> None:
    files = {
        "a/b/memory.max": "max\n",
        "a/b/memory.current": "70\n",
        "a/memory.max": "1000\n",
        "a/memory.current": "700\n",
        "a/memory.stat": "anon 500\ninactive_file 150\nactive_file 9\n",
    }
    found = machine(tmp_path, 1000, "0::/a/b\n", files)
    assert found == (450, "memory within the container's limit")


def test_a_control_group_of_version_1_bounds_it(tmp_path: Path) -> None:
    files = {
        "memory/memory.limit_in_bytes": "2000\n",
        "memory/memory.usage_in_bytes": "1500\n",
        "memory/memory.stat": "inactive_file 7\ntotal_inactive_file 100\n",
    }
    # The path as it is outside of the container; its own files are at the root.
    found = machine(tmp_path, 1000, "5:cpu:/x\n4:memory:/docker/f00\n0::/\n", files)
    assert found.num_bytes == 600


def test_version_1s_number_for_no_limit_is_none(tmp_path: Path) -> None:
    files = {
        "memory/memory.limit_in_bytes": "9223372036854771712\n",
        "memory/memory.usage_in_bytes": "1500\n",
    }
    assert machine(tmp_path, 1000, "4:memory:/\n", files).place == "memory"


def test_this_machine_has_memory() -> None:
    found = free_memory("cpu")
    assert found is not None
    assert 0 < found.num_bytes < 1 << 50
