"""Whether a model's forest equals its separate sequences, tested on load: logits and gradients.

The probe is a few random sequences that share prefixes. Its reference is the model's own
forward, one sequence at a time; the gradients are those of the embedded tokens, which every layer
takes part in.

Shape suffixes: N packed tokens, E hidden size, L sequence length, V vocabulary.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from loracle.forest.attention.backends import BLOCKWISE, block_tokens_of
from loracle.forest.attention.interface import (
    ATTENTION_NAME,
    KeysValues,
    attention_implementation,
)
from loracle.forest.attention.rows import RowAttention
from loracle.forest.trie import Forest, Sequences, build_forest
from loracle.model.base import BaseModel, forest_hidden_states
from loracle.model.head import output_head
from loracle.model.max_length import head_size_of
from loracle.model.placement import num_offloaded

# Accepted relative differences. If branches see each other, or a model has memory outside
# attention, logits are off by more than 0.1 and gradients by about 1; rounding stays well below
# these. Quantised weights do not widen them: their products run in the model's own precision, token
# by token (quantization.py).
SELF_TEST_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 6e-2, torch.float16: 2e-2}
_PART_TOKENS = 12
"""The probe's trunk has as many, and so have its longest branches."""
_GRADIENT_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 3e-1, torch.float16: 6e-2}


@dataclass(frozen=True)
class SelfTest:
    """Whether the forest equals separate sequences, and the evidence.

    notes: what the model's config requests but this run does differently, in words.
    replaced: attention that would have come first, and what is wrong with it, in words.
    """

    passed: bool
    detail: str
    notes: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()


class _Run(NamedTuple):
    """The results of one run of the model. gradient: None if layers are offloaded."""

    logits: Tensor
    gradient: Tensor | None


def run_self_test(base: BaseModel) -> SelfTest:
    """Compare the forest's logits and gradients, by the base's attention, with those of separate
    sequences.

    With offloaded layers nothing can be trained, so only logits are compared.
    """
    config = base.model.config.get_text_config()
    notes = tuple(_notes(config))
    head_size = head_size_of(config)
    # Longer than a block, a trunk has blocks that are seen whole, and branches skip one another.
    repeats = -(-block_tokens_of(base.attention, head_size, base.dtype) // _PART_TOKENS)
    try:
        errors = _probe_errors(base, _probe(int(config.vocab_size), repeats))
    except (RuntimeError, TypeError, ValueError, AttributeError, NotImplementedError) as problem:
        return SelfTest(False, f"the model cannot run a prefix forest: {problem}", notes)
    accepted = {
        "logits": SELF_TEST_TOLERANCE.get(base.dtype, 1e-3),
        "gradients": _GRADIENT_TOLERANCE.get(base.dtype, 1e-3),
    }
    passed = all(error <= accepted[what] for what, error in errors.items())
    verb = "equal" if passed else "do NOT equal"
    differences = " and ".join(f"{error:.1e}" for error in errors.values())
    by = f"; attention by {base.attention}" if base.attention in BLOCKWISE else ""
    bounds = " and ".join(f"{accepted[what]:.0e}" for what in errors)
    return SelfTest(
        passed,
        f"forest {' and '.join(errors)} {verb} those of separate sequences on a probe (relative "
        f"difference {differences}, accepted {bounds}){by}",
        notes,
    )


def _notes(config: Any) -> Iterator[str]:
    dual_chunks = getattr(config, "dual_chunk_attention_config", None)
    if dual_chunks:
        chunk = dual_chunks.get("chunk_size", 0) - dual_chunks.get("local_size", 0)
        yield (
            "the model's config asks for dual chunk attention, which transformers does not have; "
            f"up to {chunk:,} tokens, plain attention is the same; beyond that, it is not what "
            "the model was made for"
        )
    for rope in _rotary_settings(config):
        if rope.get("rope_type") in ("longrope", "dynamic"):
            length = (
                rope.get("original_max_position_embeddings")
                or getattr(config, "original_max_position_embeddings", None)
                or config.max_position_embeddings
            )
            yield (
                f"its rotary positions ({rope['rope_type']}) are others in a batch with a row of "
                f"more than {length:,} tokens, for every row of it: keep rows below that "
                "(training.max_length), or losses and answers depend on what shares a batch"
            )


def _rotary_settings(config: Any) -> Iterator[dict[str, Any]]:
    """The config's rotary settings, one for every kind of layer if those differ."""
    found = getattr(config, "rope_parameters", None) or {}
    for settings in (found, *found.values()):
        if isinstance(settings, dict) and "rope_type" in settings:
            yield settings


def _probe(vocabulary_size: int, repeats: int = 1) -> list[list[int]]:
    """A trunk with eight branches, two of which share a beginning; and another sequence.

    A branch says four tokens three times: whoever sees it by mistake answers otherwise.
    repeats: how many times as long all of it is.
    """
    generator = np.random.default_rng(0)

    def draw(num_tokens: int) -> list[int]:
        return [int(t) for t in generator.integers(0, vocabulary_size, repeats * num_tokens)]

    trunk, branch = draw(12), draw(5)
    branches = [draw(4) * 3 for _ in range(6)] + [branch + draw(6), branch + draw(3)]
    return [*(trunk + branch for branch in branches), trunk, draw(9)]


def _probe_errors(base: BaseModel, probe: list[list[int]]) -> dict[str, float]:
    """The relative differences of logits and gradients, by name."""
    if getattr(base.model.config.get_text_config(), "attention_chunk_size", None):
        raise RuntimeError("its attention is split into chunks")
    forest = build_forest(Sequences.of(probe), max_row_tokens=1 << 30, attention_cost=0.0)
    paths = [
        torch.from_numpy(forest.ancestors(int(node))).to(base.device) for node in forest.last_nodes
    ]
    found = _forest_run(base, forest, paths, probe)
    expected = [_separate_run(base, ids) for ids in probe]
    errors = {"logits": _logits_error(found.logits, [run.logits for run in expected], paths)}
    if found.gradient is not None:
        gradients = [run.gradient for run in expected if run.gradient is not None]
        errors["gradients"] = _gradient_error(found.gradient, gradients, paths)
    return errors


def _logits_error(found_NV: Tensor, expected: list[Tensor], paths: list[Tensor]) -> float:
    difference = reference = 0.0
    for logits_LV, path in zip(expected, paths, strict=True):
        difference += float((found_NV[path] - logits_LV).square().sum())
        reference += float(logits_LV.square().sum())
    return math.sqrt(difference / reference)


def _gradient_error(found_NE: Tensor, expected: list[Tensor], paths: list[Tensor]) -> float:
    """The larger of two medians, over the shared tokens and over the others.

    In half precision the first tokens, which all others attend to, have by far the largest
    gradients and the largest rounding: a norm over all tokens would show nothing else.
    """
    expected_NE, num_paths_N = torch.zeros_like(found_NE), torch.zeros_like(found_NE[:, 0])
    for gradient_LE, path in zip(expected, paths, strict=True):
        expected_NE[path] += gradient_LE
        num_paths_N[path] += 1
    error_N = (found_NE - expected_NE).norm(dim=1) / expected_NE.norm(dim=1)
    shared, own = error_N[num_paths_N > 1], error_N[num_paths_N == 1]
    return max(float(shared.median()), float(own.median()))


def _separate_run(base: BaseModel, ids: list[int]) -> _Run:
    """A sequence by the model's own forward: logits (L, V), gradient (L, E)."""

    def run() -> Tensor:
        token_ids = torch.tensor([ids], device=base.device)
        logits: Tensor = base.model(token_ids, use_cache=False).logits[0].float()
        return logits

    return _with_gradient(base, run, lambda logits_LV: _loss(logits_LV, ids))


def _forest_run(
    base: BaseModel, forest: Forest, paths: list[Tensor], probe: list[list[int]]
) -> _Run:
    """The packed nodes: logits (N, V), gradient (N, E)."""
    kept: dict[int, KeysValues] = {}

    def run() -> Tensor:
        context = RowAttention.of(forest, base.device, kept, base.attention)
        # Asked for by name, as training does, so that the last layer is tested as it runs there.
        nodes = np.arange(forest.num_nodes)
        hidden = forest_hidden_states(base.model, forest, context, nodes)
        logits: Tensor = output_head(base.model)(hidden).float().to(base.device)
        return logits

    def loss(logits_NV: Tensor) -> Tensor:
        losses = [_loss(logits_NV[path], ids) for path, ids in zip(paths, probe, strict=True)]
        return torch.stack(losses).sum()

    with attention_implementation(base.model, ATTENTION_NAME):
        found = _with_gradient(base, run, loss)
    num_layers = base.model.config.get_text_config().num_hidden_layers
    if len(kept) != num_layers:
        raise RuntimeError(_other_memory(base.model.config.get_text_config(), len(kept)))
    if any(isinstance(module, nn.Conv1d) for module in base.model.get_decoder().modules()):
        # In half precision its part in a short probe may be smaller than the rounding.
        raise RuntimeError("beside attention, its layers have convolutions over tokens")
    return found


def _other_memory(config: Any, num_attending: int) -> str:
    """The message about layers with a memory other than the registered attention."""
    kinds = Counter(
        getattr(config, "layer_types", None) or getattr(config, "block_types", None) or ()
    )
    others = [kind for kind in kinds if "attention" not in kind or kind.startswith("linear")]
    named = f" ({', '.join(others)})" if others else ""
    num_others = config.num_hidden_layers - num_attending
    return (
        f"{num_others} of its {config.num_hidden_layers} layers do not use the registered "
        f"attention{named}"
    )


def _loss(logits_LV: Tensor, ids: list[int]) -> Tensor:
    """Cross entropy of every next token; the last one is to be the first again."""
    targets = torch.tensor([*ids[1:], ids[0]], device=logits_LV.device)
    return nn.functional.cross_entropy(logits_LV, targets, reduction="sum")


def _with_gradient(
    base: BaseModel, run: Callable[[], Tensor], loss: Callable[[Tensor], Tensor]
) -> _Run:
    """The logits of a run, and the gradient of its loss with respect to the embedded tokens."""
    if num_offloaded(base.model):
        with torch.no_grad():
            return _Run(run(), None)
    with torch.enable_grad(), _embedded_tokens(base.model) as embedded:
        logits = run()
        (gradient,) = torch.autograd.grad(loss(logits), embedded)
    return _Run(logits.detach(), gradient[0].float())


@contextmanager
def _embedded_tokens(model: Any) -> Iterator[list[Tensor]]:
    """Collects what the embeddings give, (1, L, E), as tensors that ask for a gradient."""
    seen: list[Tensor] = []

    def keep(module: nn.Module, arguments: Any, output: Tensor) -> Tensor:
        seen.append(output.detach().requires_grad_())
        return seen[-1]

    handle = model.get_input_embeddings().register_forward_hook(keep)
    try:
        yield seen
    finally:
        handle.remove()
