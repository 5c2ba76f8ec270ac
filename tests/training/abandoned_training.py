"""A training with a replica and without end, to be killed: it prints the replica's process id."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from loracle.model.base import base_fingerprint, load_base
from loracle.model.loaded_form import LoadedForm
from loracle.training.loop import Following, StepRecord, train
from loracle.training.replicas import Replicas
from tests import tiny
from tests.training.test_loop import SETTINGS, attached, no_memory_event, rows

if __name__ == "__main__":
    folder = str(tiny.save_model(Path(sys.argv[1])))
    base = load_base("tiny", folder, tiny.tokenizer(), LoadedForm("float32", device="cpu"))
    replicas = Replicas(base, base_fingerprint(base.model), 2)

    def say(record: StepRecord) -> None:
        sys.stdout.write(f"{replicas.process_ids[0]}\n")
        sys.stdout.flush()

    following = Following(say, no_memory_event)
    endless = dataclasses.replace(SETTINGS, max_steps=1_000_000, learning_rate=1e-9)
    train(base, attached(base), rows(), endless, following, replicas)
