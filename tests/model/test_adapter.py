"""Adapters on disk: the same bytes each time, whole, and themselves when loaded again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from loracle.errors import TrialError
from loracle.files import UNFINISHED_PREFIX
from loracle.model import adapter
from loracle.model.base import BaseModel, base_fingerprint, wrap_base
from loracle.model.guards import (
    probe_logits,
    require_change,
    require_no_change,
    require_same_adapter,
)
from tests import tiny

REPOSITORY = Path(__file__).resolve().parents[2]
PROMPT = [5, 6, 7, 8, 9]
NAMES = ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj", "gate_proj"]

SAVING = """
import sys
# peft imports it if it is installed, which takes longer than the rest of this program.
sys.modules["bitsandbytes"] = None
from pathlib import Path
from loracle.model import adapter
from tests import tiny
config = adapter.lora_config({"r": 4, "target_modules": sys.argv[2].split(",")})
adapter.save(adapter.attach(tiny.model(), config, 0), Path(sys.argv[1]), {"of": "tests"})
"""


@pytest.fixture
def base() -> BaseModel:
    return wrap_base("llama", tiny.model(), tiny.tokenizer())


def attached(base: BaseModel, **options):
    config = adapter.lora_config({"r": 4, "target_modules": NAMES, **options})
    return adapter.attached(base.model, config, 0)


def moved(adapted) -> None:
    """Give the adapter an update that is not zero."""
    for name, parameter in adapter.trainable(adapted):
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.long
def test_one_adapter_is_the_same_bytes_in_every_process(tmp_path):
    # This process is the third: each has its own order of sets.
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(REPOSITORY)}
        command = [sys.executable, "-c", SAVING, str(tmp_path / seed), ",".join(NAMES)]
        subprocess.run(command, check=True, env=environment, cwd=REPOSITORY)
    config = adapter.lora_config({"r": 4, "target_modules": NAMES})
    adapter.save(adapter.attach(tiny.model(), config, 0), tmp_path / "3", {"of": "tests"})
    assert contents(tmp_path / "1") == contents(tmp_path / "2") == contents(tmp_path / "3")
    saved = json.loads((tmp_path / "1" / "adapter_config.json").read_text())
    assert saved["target_modules"] == sorted(NAMES)
    assert adapter.saved_facts(tmp_path / "1") == {"of": "tests"}


def test_saving_replaces_the_folder_as_a_whole_and_leaves_nothing_unfinished(base, tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "half").write_text("of an earlier adapter")
    with attached(base) as adapted:
        adapter.save(adapted, folder)
    assert "half" not in contents(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_a_save_that_fails_leaves_the_adapter_before_it(base, tmp_path, monkeypatch):
    folder = tmp_path / "adapter"
    with attached(base) as adapted:
        adapter.save(adapted, folder)
        before = contents(folder)
        moved(adapted)

        def broken(*arguments):
            raise OSError("disk")

        monkeypatch.setattr(adapter, "_sort_sets", broken)
        with pytest.raises(OSError, match="disk"):
            adapter.save(adapted, folder)
    assert contents(folder) == before
    assert not list(tmp_path.glob(f"{UNFINISHED_PREFIX}*"))


@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"use_rslora": True}])
def test_a_loaded_adapter_gives_the_logits_of_the_saved_one(base, tmp_path, options):
    untrained, before = probe_logits(base, None, PROMPT), base_fingerprint(base.model)
    with attached(base, **options) as adapted:
        require_no_change(untrained, probe_logits(base, adapted, PROMPT))
        moved(adapted)
        logits = probe_logits(base, adapted, PROMPT)
        require_change(untrained, logits)
        fingerprint = adapter.adapter_fingerprint(adapted)
        adapter.save(adapted, tmp_path / "adapter")
    with adapter.loaded(base.model, tmp_path / "adapter") as loaded:
        require_same_adapter(base, loaded, fingerprint, PROMPT, logits, tmp_path)
    assert base_fingerprint(base.model) == before


def test_biases_that_were_trained_are_put_back(tmp_path):
    base = wrap_base("qwen2", tiny.model("qwen2"), tiny.tokenizer())
    before = base_fingerprint(base.model)
    with attached(base, bias="all") as adapted:
        with torch.no_grad():
            for _, parameter in adapter.trainable(adapted):
                parameter.add_(0.1)
        fingerprint = adapter.adapter_fingerprint(adapted)
        logits = probe_logits(base, adapted, PROMPT)
        adapter.save(adapted, tmp_path / "adapter")
    assert base_fingerprint(base.model) == before
    with adapter.loaded(base.model, tmp_path / "adapter") as loaded:
        require_same_adapter(base, loaded, fingerprint, PROMPT, logits, tmp_path)
    assert base_fingerprint(base.model) == before


def test_a_fresh_adapter_that_changes_the_model_is_refused(base):
    untrained = probe_logits(base, None, PROMPT)
    with (
        attached(base, init_lora_weights=False) as adapted,
        pytest.raises(TrialError, match="before training"),
    ):
        require_no_change(untrained, probe_logits(base, adapted, PROMPT))


def test_a_trained_adapter_that_changes_nothing_is_refused(base):
    untrained = probe_logits(base, None, PROMPT)
    with attached(base) as adapted, pytest.raises(TrialError, match="changes no logit"):
        require_change(untrained, probe_logits(base, adapted, PROMPT))


def test_another_adapter_than_the_saved_one_is_refused(base, tmp_path):
    with attached(base) as adapted:
        fingerprint, logits = "0" * 64, probe_logits(base, adapted, PROMPT)
        adapter.save(adapted, tmp_path / "adapter")
    with adapter.loaded(base.model, tmp_path / "adapter") as loaded:
        with pytest.raises(TrialError, match="not those that were trained"):
            require_same_adapter(base, loaded, fingerprint, PROMPT, logits, tmp_path)
        found = adapter.adapter_fingerprint(loaded)
        with pytest.raises(TrialError, match="different logits"):
            require_same_adapter(base, loaded, found, PROMPT, logits + 1, tmp_path)
