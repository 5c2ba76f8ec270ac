"""Checkpoints of a training under way: written so that a kill at any moment leaves a valid one.

    TRIAL/checkpoint/step-00000120/
      adapter.safetensors · optimizer.safetensors
      state.json   step, seconds, budget, whose training it is, versions, size and sha256 for each

A checkpoint is written under another name, put on disk, renamed, read again and compared with its
hashes; only then are older ones removed. Nothing random is in it: batches depend on the seed and
the epoch, dropout on the seed and the step.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from loracle.errors import RunFolderError, StorageError
from loracle.files import UNFINISHED_PREFIX, read_json, sha256, sync_folder
from loracle.run_folder import signals
from loracle.safety.storage_errors import writing

VERSION = 1

_STEP_PREFIX = "step-"
_ADAPTER, _OPTIMIZER, _STATE = "adapter.safetensors", "optimizer.safetensors", "state.json"


@dataclass(frozen=True)
class Progress:
    """How far a training has come. budget_tokens: what memory allowed so far; seconds: spent."""

    step: int
    budget_tokens: int
    seconds: float


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read: tensors on the CPU. optimizer: as "PARAMETER/KEY"."""

    progress: Progress
    adapter: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]

    def restore(
        self, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
    ) -> None:
        """Put the weights and the optimizer's state back.

        Raises:
            RunFolderError: it holds other parameters than these.
        """
        if self.adapter.keys() != parameters.keys():
            raise RunFolderError("the checkpoint holds an adapter of another form")
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(self.adapter[name])
        for place, tensor in self.optimizer.items():
            name, _, key = place.rpartition("/")
            parameter = parameters[name]
            if tensor.dim() == 0 and tensor.dtype == torch.int64:
                # bitsandbytes counts its steps without a tensor.
                optimizer.state[parameter][key] = int(tensor)
                continue
            # A fused optimizer counts its steps on the device, others on the CPU.
            stays = tensor.dim() == 0 and not optimizer.defaults.get("fused")
            optimizer.state[parameter][key] = tensor if stays else tensor.to(parameter.device)


@dataclass(frozen=True)
class _Content:
    """What a checkpoint is made of."""

    progress: Progress
    parameters: Mapping[str, nn.Parameter]
    optimizer: torch.optim.Optimizer

    def adapter(self) -> dict[str, Tensor]:
        return {name: parameter.detach() for name, parameter in self.parameters.items()}

    def moments(self) -> dict[str, Tensor]:
        """The optimizer's state, as "PARAMETER/KEY"."""
        return {
            f"{name}/{key}": _as_tensor(value)
            for name, parameter in self.parameters.items()
            for key, value in self.optimizer.state.get(parameter, {}).items()
        }


def _as_tensor(value: Tensor | int) -> Tensor:
    """A number of the optimizer's state, or a tensor that shares no memory with another one's."""
    if isinstance(value, int):
        return torch.tensor(value)
    # bitsandbytes gives all weights one table of 256 numbers.
    return value.clone() if value.shape == (256,) else value


class CheckpointFolder:
    """The checkpoints of one training.

    identity: whose training it is (fingerprints); a checkpoint of another one is not used.
    on_problem: told, in a sentence, of every checkpoint that cannot be used or written.
    """

    def __init__(
        self, root: Path, identity: Mapping[str, Any], on_problem: Callable[[str], None]
    ) -> None:
        self.root = root
        self._identity = dict(identity)
        self._on_problem = on_problem
        self.before_write: Callable[[], None] = lambda: None
        """Puts on disk what must not lag behind a checkpoint."""

    def newest(self) -> Checkpoint | None:
        """The newest one that is whole. Damaged ones are named to `on_problem` and passed over."""
        for folder in reversed(self._folders()):
            try:
                return self._read(folder)
            except RunFolderError as error:
                self._on_problem(f"{error}; it is not used")
        return None

    def write(
        self,
        progress: Progress,
        parameters: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Write one, check it, and remove the older ones.

        What a disk refuses ends no training: the checkpoint before stays, and `on_problem` is told
        which file, why, what to do, and what it means for a run that is stopping.
        """
        folder = self.root / f"{_STEP_PREFIX}{progress.step:08}"
        unfinished = self.root / f"{UNFINISHED_PREFIX}{secrets.token_hex(8)}"
        older = [path for path in self._folders() if path != folder]
        try:
            if not self._is_whole(folder):
                self.before_write()
                self._put(folder, unfinished, _Content(progress, parameters, optimizer))
                _verified_state(folder)
        except (StorageError, RunFolderError) as error:
            kept = older[-1].name if older else None
            self._on_problem(
                f"no checkpoint of step {progress.step}: {error}; {_consequence(kept)}"
            )
            return
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        for path in older:
            shutil.rmtree(path, ignore_errors=True)

    def remove(self) -> None:
        """Remove all of them: the training is finished, or starts over."""
        shutil.rmtree(self.root, ignore_errors=True)

    def _folders(self) -> list[Path]:
        """Oldest first."""
        return sorted(self.root.glob(f"{_STEP_PREFIX}*"))

    def _is_whole(self, folder: Path) -> bool:
        """Whether this training wrote it before: a step has one content."""
        try:
            return bool(_verified_state(folder)["identity"] == self._identity)
        except (RunFolderError, StorageError):
            return False

    def _put(self, folder: Path, unfinished: Path, content: _Content) -> None:
        """Write the files under another name, which then becomes the folder's."""
        with writing(folder):
            unfinished.mkdir(parents=True)
        state: dict[str, Any] = {
            "version": VERSION,
            **asdict(content.progress),
            "identity": self._identity,
            "versions": _versions(),
            "files": {},
        }
        for name, tensors in ((_ADAPTER, content.adapter()), (_OPTIMIZER, content.moments())):
            data = _bytes_of(tensors)
            _write_file(unfinished / name, data, folder / name)
            digest = hashlib.sha256(data).hexdigest()
            state["files"][name] = {"size_bytes": len(data), "sha256": digest}
        state["sha256"] = _digest(state)
        text = json.dumps(state, indent=2) + "\n"
        _write_file(unfinished / _STATE, text.encode(), folder / _STATE)
        with writing(folder):
            sync_folder(unfinished)
            if folder.exists():
                shutil.rmtree(folder)
            unfinished.rename(folder)
            sync_folder(self.root)

    def _read(self, folder: Path) -> Checkpoint:
        from safetensors.torch import load

        state = _verified_state(folder)
        if state["identity"] != self._identity:
            raise RunFolderError(f"{folder} belongs to another training")
        if state["versions"] != _versions():
            self._on_problem(
                f"{folder} was written with {_listed(state['versions'])}, this is "
                f"{_listed(_versions())}: the adapter may differ in its last digits"
            )
        # Not mapped from the files, which go when the next checkpoint is written.
        tensors = (load((folder / name).read_bytes()) for name in (_ADAPTER, _OPTIMIZER))
        progress = Progress(state["step"], state["budget_tokens"], state["seconds"])
        return Checkpoint(progress, *tensors)


def _bytes_of(tensors: Mapping[str, Tensor]) -> bytes:
    from safetensors.torch import save

    return bytes(save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}))


def _write_file(path: Path, data: bytes, final: Path) -> None:
    """Write a file and put it on disk. final: what an error calls it."""
    with writing(final, needed_bytes=len(data)), path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _consequence(kept: str | None) -> str:
    """What a checkpoint that is missing means. kept: the newest that there is."""
    resumed = f"from {kept}" if kept else "from the first step"
    if signals.asked_to_stop():
        return f"the run stops without it and will resume {resumed}"
    return f"training continues; if it is killed now, it resumes {resumed}"


def _verified_state(folder: Path) -> dict[str, Any]:
    """state.json, if it and the files it lists are as they were written; else RunFolderError."""
    state = read_json(folder / _STATE)
    if not isinstance(state, dict) or state.get("version") != VERSION:
        raise RunFolderError(f"{folder / _STATE} is not of version {VERSION}")
    if state.pop("sha256", None) != _digest(state):
        raise RunFolderError(f"{folder / _STATE} has changed since it was written")
    for name, facts in state["files"].items():
        path = folder / name
        if not path.is_file():
            raise RunFolderError(f"{path} is missing")
        if sha256(path) != facts["sha256"]:
            raise RunFolderError(f"{path} has changed since it was written")
    return state


def _digest(state: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def _versions() -> dict[str, str]:
    import peft
    import transformers

    import loracle

    modules = (loracle, torch, transformers, peft)
    return {module.__name__: str(module.__version__) for module in modules}


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
