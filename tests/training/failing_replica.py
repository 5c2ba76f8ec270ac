"""A replica that fails as the variable REPLICA_FAULT says; otherwise as any other."""

from __future__ import annotations

import os

import torch

from loracle.training import loop, replica

forest_loss = loop.forest_loss


def short_of_memory(base, micro_batch):
    if micro_batch.num_nodes > 120:
        raise torch.OutOfMemoryError("CUDA out of memory")
    return forest_loss(base, micro_batch)


def never_enough_memory(base, micro_batch):
    raise torch.OutOfMemoryError("CUDA out of memory")


def broken(base, micro_batch):
    raise RuntimeError("shapes do not match")


FAULTS = {"short": short_of_memory, "never": never_enough_memory, "broken": broken}

if __name__ == "__main__":
    loop.forest_loss = FAULTS[os.environ["REPLICA_FAULT"]]
    replica.main()
