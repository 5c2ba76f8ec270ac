"""What the replicas of a training send one another: one flat buffer of gradients, one of weights.

Replica 0 has the optimizer. Every step begins with its weights, so that all have the same ones,
and ends with the sum of all gradients at it. torch.distributed does both: gloo between processors,
NCCL between GPUs. The replicas are on one machine and meet in a file; gloo's connections are bound
to the loopback address.

The groups are made here, not with `init_process_group`: a process has one group of that kind, and
it may be the caller's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import reduce
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed
from torch import Tensor, nn

# Its types leave out the classes of groups.
dist: Any = torch.distributed

Transport = Literal["gloo", "nccl"]

_LOOPBACK = "127.0.0.1"
_CONNECT_SECONDS = 60.0
_POLL_SECONDS = 2e-4
_ROOT = 0


def transport_for(devices: Sequence[torch.device]) -> Transport:
    """NCCL where every replica has a GPU of its own, else gloo."""
    own = len(set(devices)) == len(devices) and all(device.type == "cuda" for device in devices)
    return "nccl" if own and dist.is_nccl_available() else "gloo"


class Exchange:
    """The connection of one replica with the others.

    patience_seconds: how long the slowest of the others may keep this one waiting.
    """

    def __init__(
        self,
        meeting_file: Path,
        rank: int,
        num_replicas: int,
        transport: Transport,
        patience_seconds: float,
    ) -> None:
        store = dist.FileStore(str(meeting_file), num_replicas)
        self._transport = transport
        self.patience_seconds = patience_seconds
        if transport == "nccl":
            # Whoever has set another interface knows why.
            os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
            options = dist.ProcessGroupNCCL.Options()
            options._timeout = timedelta(seconds=patience_seconds)
            self._group = dist.ProcessGroupNCCL(store, rank, num_replicas, options)
            return
        options = dist.ProcessGroupGloo._Options()
        options._devices = [dist.ProcessGroupGloo.create_device(hostname=_LOOPBACK)]
        options._timeout = timedelta(seconds=_CONNECT_SECONDS)
        options._threads = 1
        self._group = dist.ProcessGroupGloo(store, rank, num_replicas, options)
        self._group._set_default_timeout(timedelta(seconds=patience_seconds))

    def sum_at_first(self, flat: Tensor, still_waiting: Callable[[], None]) -> None:
        """Add up everyone's buffer, in place, at replica 0. Elsewhere it is undefined after.

        still_waiting: called again and again meanwhile; it may raise.
        """
        options = dist.ReduceOptions()
        options.rootRank = _ROOT
        self._exchanged(flat, lambda on: self._group.reduce([on], options), still_waiting)

    def copy_from_first(self, flat: Tensor, still_waiting: Callable[[], None]) -> None:
        """Overwrite everyone's buffer with replica 0's."""
        options = dist.BroadcastOptions()
        options.rootRank = _ROOT
        self._exchanged(flat, lambda on: self._group.broadcast([on], options), still_waiting)

    def close(self) -> None:
        """End the connections. No replica waits for another one."""
        abort = getattr(self._group, "abort", None)
        if abort is not None:
            abort()
        del self._group

    def _exchanged(
        self, flat: Tensor, start: Callable[[Tensor], Any], still_waiting: Callable[[], None]
    ) -> None:
        staged = flat.cpu() if self._transport == "gloo" else flat
        work = start(staged)
        # Waiting in one piece would leave signals and the death of a replica unheard.
        until = time.monotonic() + self.patience_seconds
        while not work.is_completed():
            still_waiting()
            if time.monotonic() > until:
                raise RuntimeError(f"no answer for {self.patience_seconds:.0f} seconds")
            time.sleep(_POLL_SECONDS)
        work.wait()
        if staged is not flat:
            flat.copy_(staged)


class FlatAdapter:
    """An adapter's gradients and weights as one buffer each."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self._parameters = list(parameters.values())
        self._sizes = [parameter.numel() for parameter in self._parameters]
        self._dtype = reduce(torch.promote_types, {p.dtype for p in self._parameters})
        self._device = self._parameters[0].device

    def gradients(self) -> Tensor:
        """All gradients, and for each parameter whether it has one, as 1 or 0."""
        flat = self._empty(sum(self._sizes) + len(self._sizes))
        *parts, present = torch.split(flat, [*self._sizes, len(self._sizes)])
        for number, (part, parameter) in enumerate(zip(parts, self._parameters, strict=True)):
            present[number] = float(parameter.grad is not None)
            if parameter.grad is None:
                part.zero_()
            else:
                part.copy_(parameter.grad.flatten())
        return flat

    def set_gradients(self, flat: Tensor) -> None:
        """Take the gradients back. A parameter that no replica had one for gets none."""
        *parts, present = torch.split(flat, [*self._sizes, len(self._sizes)])
        for part, parameter, number in zip(parts, self._parameters, present.tolist(), strict=True):
            gradient = part.view_as(parameter).to(parameter.dtype, copy=True)
            parameter.grad = gradient.to(parameter.device) if number else None

    def weights(self) -> Tensor:
        """All weights."""
        flat = self._empty(sum(self._sizes))
        for part, parameter in zip(torch.split(flat, self._sizes), self._parameters, strict=True):
            part.copy_(parameter.detach().flatten())
        return flat

    def set_weights(self, flat: Tensor) -> None:
        """Take weights over from another replica."""
        with torch.no_grad():
            for part, parameter in zip(
                torch.split(flat, self._sizes), self._parameters, strict=True
            ):
                parameter.copy_(part.view_as(parameter))

    def _empty(self, size: int) -> Tensor:
        return torch.empty(size, dtype=self._dtype, device=self._device)
