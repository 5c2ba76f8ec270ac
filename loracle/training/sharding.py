"""A frozen base whose decoder layers are cut into shards, one on each device of a training.

    shard --all-gather--> whole layer --forward or backward--> shard

torch's FSDP2 (`fully_shard`) puts a layer together before it is computed and drops the others'
parts after that. Only frozen weights are sharded: the adapter is whole on every device, and its
gradients are added up as without shards (exchange.py). Embeddings and head stay whole, too.

To gather a layer, all processes must compute it at the same time, so every process takes as many
passes in a step as the one with the most micro-batches: the others add passes of weight 0.

The process that trains also answers, with the whole base. Its layers are sharded for the time of a
training; their whole weights wait in main memory.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed._composable_state import _module_state_mapping
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from loracle.errors import ModelError
from loracle.training.exchange import Transport

# Its types leave out the groups.
dist: Any = torch.distributed

_INTERFACE_VARIABLE = {"gloo": "GLOO_SOCKET_IFNAME", "nccl": "NCCL_SOCKET_IFNAME"}
_LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


class ShardGroup:
    """The processes that a base is sharded among: torch's default group in every one.

    Raises ModelError if the process has such a group already.
    """

    def __init__(
        self,
        meeting_file: Path,
        rank: int,
        num_replicas: int,
        transport: Transport,
        device: torch.device,
        patience_seconds: float,
    ) -> None:
        if dist.is_initialized():
            raise ModelError(
                "training.shard_base: true, but this program has a torch.distributed process "
                "group of its own, and a process has one only; set it to false, or run "
                "`loracle run` as a program"
            )
        self._device, self._transport = device, transport
        with _on_loopback(transport):
            dist.init_process_group(
                transport,
                store=dist.FileStore(str(meeting_file), num_replicas),
                rank=rank,
                world_size=num_replicas,
                timeout=timedelta(seconds=patience_seconds),
            )
        self.mesh = DeviceMesh.from_group(dist.group.WORLD, device.type)

    def most(self, num_passes: int) -> int:
        """The largest number of passes that any process needs for this step."""
        number = torch.tensor([num_passes], device=self._device)
        dist.all_reduce(number, op=dist.ReduceOp.MAX)
        return int(number)

    def close(self) -> None:
        """End the connections, also to processes that are gone."""
        if not dist.is_initialized():
            return
        if self._transport == "nccl":
            dist.distributed_c10d._abort_process_group()
        else:
            dist.destroy_process_group()


@contextmanager
def _on_loopback(transport: Transport) -> Iterator[None]:
    """Bind connections to this machine alone. Whoever has set another interface knows why."""
    name = _INTERFACE_VARIABLE[transport]
    if name in os.environ:
        yield
        return
    os.environ[name] = _LOOPBACK
    try:
        yield
    finally:
        del os.environ[name]


class _Whole(NamedTuple):
    """A frozen weight as it was before it was sharded."""

    module: nn.Module
    name: str
    parameter: nn.Parameter
    device: torch.device


class ShardedLayers:
    """The decoder layers of a base, as shards.

    keep_whole: the whole weights wait in main memory, so that `restore` can put them back.
    """

    def __init__(self, model: Any, group: ShardGroup, *, keep_whole: bool) -> None:
        decoder = model.get_decoder()
        layers = getattr(decoder, "layers", None)
        if not isinstance(layers, nn.ModuleList):
            raise ModelError(
                f"training.shard_base: true, but {type(decoder).__name__} has no list of decoder "
                "layers that could be sharded; set it to false"
            )
        self._modules: list[nn.Module] = [*layers, decoder]
        self._attributes = [set(vars(module)) for module in self._modules]
        self._wholes: list[_Whole] = []
        try:
            for layer in layers:
                frozen = list(_frozen(layer))
                _shard(layer, group)
                for whole in frozen if keep_whole else ():
                    whole.parameter.data = whole.parameter.data.cpu()
                    self._wholes.append(whole)
            # The root of all layers: it has no shards of its own, and lets gathering run ahead.
            _shard(decoder, group, ignored=set(decoder.parameters()))
        except BaseException:
            self.restore()
            raise

    @property
    def num_bytes(self) -> int:
        """What this process' shards take on its device."""
        return sum(
            shard.numel() * shard.element_size()
            for module in self._modules
            for shard in _local_shards(module)
        )

    def restore(self) -> None:
        """Make the layers what they were, also if the other processes are gone."""
        for whole in self._wholes:
            whole.parameter.data = whole.parameter.data.to(whole.device)
            setattr(whole.module, whole.name, whole.parameter)
        for module, attributes in zip(self._modules, self._attributes, strict=True):
            if isinstance(module, FSDPModule):
                _undo(module, attributes)
        self._wholes = []


@contextmanager
def sharded(model: Any, group: ShardGroup | None) -> Iterator[None]:
    """Inside, the layers of the base are shards; None leaves them whole."""
    if group is None:
        yield
        return
    layers = ShardedLayers(model, group, keep_whole=True)
    try:
        with warnings.catch_warnings():
            # The decoder's output may be a view. Nothing changes it in place.
            warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
            yield
    finally:
        layers.restore()


def is_connection_error(error: RuntimeError) -> bool:
    """Whether gathering failed, and not what was computed."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def _frozen(layer: nn.Module) -> Iterator[_Whole]:
    for module in layer.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                yield _Whole(module, name, parameter, parameter.device)


def _shard(module: nn.Module, group: ShardGroup, ignored: set[nn.Parameter] | None = None) -> None:
    trained = {parameter for parameter in module.parameters() if parameter.requires_grad}
    fully_shard(
        module, mesh=group.mesh, reshard_after_forward=True, ignored_params=ignored or trained
    )


def _local_shards(module: nn.Module) -> Iterator[Tensor]:
    own: Any = module
    if isinstance(module, FSDPModule):
        for parameters in own._get_fsdp_state()._fsdp_param_groups:
            for parameter in parameters.fsdp_params:
                yield parameter._sharded_param_data


def _undo(module: Any, attributes: set[str]) -> None:
    """Take `fully_shard` off a module: torch has no function for it."""
    state = module._get_fsdp_state()
    handles = [state._pre_forward_hook_handle, state._post_forward_hook_handle]
    for parameters in state._fsdp_param_groups:
        handles += [each._post_load_hook_handle for each in parameters.fsdp_params]
    for handle in handles:
        handle.remove()
    module.__class__ = type(module).__mro__[FSDPModule._orig_cls_mro_index]
    for name in set(vars(module)) - attributes:
        del vars(module)[name]
    _module_state_mapping.pop(module, None)
