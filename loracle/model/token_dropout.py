"""LoRA's dropout as a function of (seed, step, token, layer), however a step is split.

A token's key is a hash of the seed, the step and the tokens from the start of its sequence up to
it. A prefix that several sequences share therefore has one mask, whether the forest computes it
once, a smaller budget computes it in several rows, or padded batches compute it in each sequence.
With each layer's number the key starts a splitmix64 stream (Steele et al. 2014), from which the
places of the token's zeroed features are drawn:

    how many hits   Poisson, mean -log(1 - p) * I, by its inverse distribution
    where           uniform over the I features, two hits a word of 64 bits

A feature is then hit a Poisson number of times, independently of the others, and missed with
probability 1 - p exactly. That draws p random numbers a value instead of one.

Shape suffixes: N tokens, I input features, K hits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from loracle.forest.attention.uploading import on_device
from loracle.forest.trie import IntArray, TokenArray
from loracle.native import KERNEL_TYPES, Draws, kernels

KeyArray = npt.NDArray[np.uint64]
"""One key per token, shape (N,)."""

# splitmix64: the distance between states, and the two multipliers of its output.
_GAMMA = 0x9E3779B97F4A7C15
_MULTIPLIER_1, _MULTIPLIER_2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_WORD = 1 << 64
_HALF_BITS = np.uint64(32)


def token_keys(token_ids: TokenArray, depths: IntArray, step_seed: int) -> KeyArray:
    """The key of every token of packed tries or sequences, in depth-first order.

    depths: each token's place on its path; 0 begins another row or sequence.
    step_seed: differs from step to step, and from seed to seed.
    """
    # A sum over the path of one hash for each (place, token): equal for equal prefixes alone.
    places = (depths.astype(np.uint64) << _HALF_BITS) | token_ids.astype(np.uint64)
    totals = np.cumsum(_mixed(places))
    first = np.empty(len(depths), np.bool_)
    first[:1] = True
    np.not_equal(depths[1:], depths[:-1] + 1, out=first[1:])
    starts = np.flatnonzero(first)
    before = np.concatenate(([np.uint64(0)], totals[:-1]))[starts]
    lengths = np.diff(np.append(starts, len(depths)))
    prefixes = totals - np.repeat(before, lengths)
    # A chunk that leaves its row's path in the middle continues from the sum there.
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        if depth := int(depths[start]):
            parent = start - 1 - int(np.argmax(depths[:start][::-1] == depth - 1))
            prefixes[start : start + length] += prefixes[parent]
    return _mixed(prefixes + np.uint64(step_seed % _WORD))


class TokenKeys:
    """The keys of the current tokens, copied to a device once for all layers."""

    def __init__(self, keys_N: KeyArray) -> None:
        self.keys_N = keys_N
        self._copies: dict[torch.device, Tensor] = {}

    def on(self, device: torch.device) -> Tensor:
        """The keys as signed words: (N,)."""
        if device not in self._copies:
            self._copies[device] = on_device(self.keys_N.view(np.int64), device)
        return self._copies[device]


class Drop:
    """What one layer zeroes in a pass, on the CPU: drawn again by the kernel, or kept as places.

    draws: what the kernels draw from; None if there are none.
    """

    def __init__(
        self, keys_N: KeyArray, number: int, num_features: int, p: float, dtype: torch.dtype
    ) -> None:
        self.draws: Draws | None = None
        self._kernels = kernels() if dtype in KERNEL_TYPES else None
        if self._kernels is not None:
            distribution = _poisson_distribution(num_features, p)
            self.draws = Draws(keys_N, number * _GAMMA % _WORD, distribution)
        else:
            places_K = dropped_places(keys_N, number, num_features, p)
            self._places_K = torch.from_numpy(places_K)

    def copied(self, x_NI: Tensor) -> Tensor:
        """x with its dropped values zero."""
        return self._dropped(x_NI.contiguous(), in_place=False)

    def in_place(self, x_NI: Tensor) -> Tensor:
        """The same, written over x, which must be contiguous."""
        return self._dropped(x_NI, in_place=True)

    def _dropped(self, x_NI: Tensor, *, in_place: bool) -> Tensor:
        if self._kernels is not None and self.draws is not None:
            return self._kernels.drop(x_NI, self.draws, in_place=in_place)
        y_NI = x_NI if in_place else x_NI.clone()
        y_NI.view(-1).index_fill_(0, self._places_K, 0.0)
        return y_NI


class TokenDropout(nn.Dropout):
    """In place of nn.Dropout in a LoRA layer. `number` is the layer's, among all of the adapter.

    Without keys, or where a layer gets another number of tokens than there are keys (a router's
    selection), keys are drawn from torch's generator.
    """

    def __init__(self, p: float, number: int) -> None:
        super().__init__(p)
        self.number = number
        self.keys: TokenKeys | None = None

    def dropped_places(self, num_tokens: int, num_features: int) -> Tensor:
        """Flat places in (N, I) to set to zero, some of them twice, on the CPU: (K,)."""
        keys_N = self._keys(num_tokens).keys_N
        return torch.from_numpy(dropped_places(keys_N, self.number, num_features, self.p))

    def drop(self, num_tokens: int, num_features: int, dtype: torch.dtype) -> Drop:
        """What this layer zeroes in the pass under way, on the CPU, of values of this type."""
        return Drop(self._keys(num_tokens).keys_N, self.number, num_features, self.p, dtype)

    def forward(self, input: Tensor) -> Tensor:
        """The input, scaled by 1 / (1 - p), with the dropped values zero."""
        if not self.training or not self.p:
            return input
        num_features = input.shape[-1]
        num_tokens = input.numel() // num_features
        if input.device.type == "cpu":
            places_K = self.dropped_places(num_tokens, num_features)
        else:
            keys_N = self._keys(num_tokens).on(input.device)
            places_K = dropped_places_on_device(keys_N, self.number, num_features, self.p)
        # One extra value: places that are not hits go there.
        mask = input.new_full((input.numel() + 1,), 1.0 / (1.0 - self.p))
        mask.index_fill_(0, places_K, 0.0)
        return input * mask[:-1].view_as(input)

    def _keys(self, num_tokens: int) -> TokenKeys:
        if self.keys is None or len(self.keys.keys_N) != num_tokens:
            return TokenKeys(torch.randint(1 << 62, (num_tokens,)).numpy().view(np.uint64))
        return self.keys


def use_token_dropout(adapted: Any) -> None:
    """Replace the dropout of every LoRA layer of a peft model by TokenDropout."""
    number = 0
    for module in adapted.modules():
        dropouts = getattr(module, "lora_dropout", None)
        if not isinstance(dropouts, nn.ModuleDict):
            continue
        for name, dropout in dropouts.items():
            number += 1
            if type(dropout) is nn.Dropout:
                dropouts[name] = TokenDropout(dropout.p, number).train(dropout.training)


def token_dropouts(adapted: Any) -> list[TokenDropout]:
    """The adapter's dropout modules."""
    return [module for module in adapted.modules() if isinstance(module, TokenDropout)]


@contextmanager
def keyed(dropouts: list[TokenDropout], keys_N: KeyArray) -> Iterator[None]:
    """Give the layers the keys of the tokens that go through them: forward and backward.

    The backward needs them, too, where it computes a checkpointed layer again.
    """
    keys = TokenKeys(keys_N)
    for dropout in dropouts:
        dropout.keys = keys
    try:
        yield
    finally:
        for dropout in dropouts:
            dropout.keys = None


def dropped_places(
    keys_N: KeyArray, number: int, num_features: int, p: float
) -> npt.NDArray[np.int64]:
    """Flat places in (N, I) that are hit in layer `number`: (K,), token by token."""
    layer_keys_N = _mixed(keys_N + np.uint64(number * _GAMMA % _WORD))
    uniform_N = (layer_keys_N >> np.uint64(11)).astype(np.float64) * 2.0**-53
    num_hits_N = np.searchsorted(_poisson_distribution(num_features, p), uniform_N, side="right")
    num_words_N = (num_hits_N + 1) >> 1
    ends = np.cumsum(num_words_N)
    starts = (ends - num_words_N).astype(np.uint64)
    gamma = np.uint64(_GAMMA)
    states = np.repeat(layer_keys_N + gamma - starts * gamma, num_words_N)
    states += np.arange(len(states), dtype=np.uint64) * gamma
    halves = _mix_in_place(states).view(np.uint32)
    places_K = np.multiply(halves, np.uint64(num_features), dtype=np.uint64)
    places_K >>= _HALF_BITS
    flat_K = places_K.view(np.int64)
    flat_K += np.repeat(np.arange(len(layer_keys_N)) * num_features, 2 * num_words_N)
    # The second half of a last word that is one too many repeats the first.
    last = 2 * ends[(num_hits_N & 1).astype(np.bool_)] - 1
    flat_K[last] = flat_K[last - 1]
    return flat_K


def dropped_places_on_device(keys_N: Tensor, number: int, num_features: int, p: float) -> Tensor:
    """The same hits by torch's operations, without waiting for the device.

    Every token gets room for as many hits as any may have; what is none has the place N * I.
    """
    layer_keys_N = _mixed_on_device(keys_N + _signed(number * _GAMMA % _WORD))
    distribution = _distribution_on(layer_keys_N.device, num_features, p)
    uniform_N = _shifted(layer_keys_N, 11).to(torch.float64) * 2.0**-53
    num_hits_N = torch.searchsorted(distribution, uniform_N, right=True)
    num_words = (len(distribution) + 1) // 2
    order = torch.arange(1, num_words + 1, device=layer_keys_N.device)
    words = _mixed_on_device(layer_keys_N[:, None] + order * _signed(_GAMMA))
    halves = torch.stack([words & 0xFFFFFFFF, _shifted(words, 32)], dim=-1).flatten(1)
    num_tokens = len(layer_keys_N)
    rows_N = torch.arange(num_tokens, device=layer_keys_N.device) * num_features
    places = ((halves * num_features) >> 32) + rows_N[:, None]
    is_hit = torch.arange(2 * num_words, device=layer_keys_N.device) < num_hits_N[:, None]
    return torch.where(is_hit, places, num_tokens * num_features).flatten()


@lru_cache(maxsize=64)
def _distribution_on(device: torch.device, num_features: int, p: float) -> Tensor:
    """Kept there: no layer waits for its copy."""
    return torch.from_numpy(_poisson_distribution(num_features, p)).to(device)


@lru_cache(maxsize=64)
def _poisson_distribution(num_features: int, p: float) -> npt.NDArray[np.float64]:
    """P(hits <= k) for k = 0, 1, ..., as far as it can be told from 1."""
    mean = -math.log1p(-p) * num_features
    counts = np.arange(int(mean + 12 * math.sqrt(mean) + 40))
    logarithms = counts * math.log(mean) - mean - [math.lgamma(count + 1.0) for count in counts]
    distribution = np.cumsum(np.exp(logarithms))
    # No uniform number is above this one.
    return distribution[: np.searchsorted(distribution, 1.0 - 2.0**-53) + 1]


def _mixed(words: KeyArray) -> KeyArray:
    """splitmix64's output function, of every word."""
    return _mix_in_place(words.copy())


def _mix_in_place(words: KeyArray) -> KeyArray:
    words ^= words >> np.uint64(30)
    words *= np.uint64(_MULTIPLIER_1)
    words ^= words >> np.uint64(27)
    words *= np.uint64(_MULTIPLIER_2)
    words ^= words >> np.uint64(31)
    return words


def _mixed_on_device(words: Tensor) -> Tensor:
    for num_bits, multiplier in ((30, _MULTIPLIER_1), (27, _MULTIPLIER_2)):
        words = (words ^ _shifted(words, num_bits)) * _signed(multiplier)
    return words ^ _shifted(words, 31)


def _shifted(words: Tensor, num_bits: int) -> Tensor:
    """A shift to the right that fills up with zeros, as torch has none for signed words."""
    return (words >> num_bits) & ((1 << (64 - num_bits)) - 1)


def _signed(word: int) -> int:
    return word - _WORD if word >= _WORD // 2 else word
