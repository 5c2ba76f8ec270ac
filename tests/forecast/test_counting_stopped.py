"""A signal while C++ calls Python waits: an exception raised there would abort the process."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from peft import LoraConfig

from loracle.forecast import counting
from loracle.run_folder import signals
from tests import tiny


@pytest.fixture
def handlers() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    signals.install()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "times", "code"), [(signal.SIGINT, 2, 130), (signal.SIGTERM, 1, 143)]
)
def test_signals_while_the_layers_are_counted_stop_the_process_after_the_count(
    number: int, times: int, code: int, handlers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = counting._kept_in_pass
    num_counted: list[int] = []

    def disturbed(*arguments: Any) -> int:
        for _ in range(times):
            os.kill(os.getpid(), number)
        num_counted.append(count(*arguments))
        return num_counted[-1]

    monkeypatch.setattr(counting, "_kept_in_pass", disturbed)
    config, lora = tiny.model().config, LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])
    with pytest.raises(signals.Stopped) as stopped:
        counting.counted_shape(config, lora, torch.float32, "cpu")
    assert (stopped.value.code, stopped.value.at_once) == (code, False)
    assert len(num_counted) == 2
    assert not signals.asked_to_stop()
