"""The masks of dropout: how often, how independent, and the same however tokens are laid out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from loracle.forest.trie import Sequences, build_forest
from loracle.model.token_dropout import (
    TokenDropout,
    dropped_places_on_device,
    keyed,
    token_keys,
)

NUM_FEATURES = 96


def kept(keys: np.ndarray, p: float, number: int = 1, num_features: int = NUM_FEATURES):
    """Which values stay: bool (N, I)."""
    dropout = TokenDropout(p, number)
    with keyed([dropout], keys):
        places = dropout.dropped_places(len(keys), num_features).numpy()
    values = np.ones(len(keys) * num_features, np.bool_)
    values[places] = False
    return values.reshape(len(keys), num_features)


def line_of_tokens(num_tokens: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """One sequence: token ids and depths."""
    token_ids = np.random.default_rng(seed).integers(0, 1000, num_tokens).astype(np.int32)
    return token_ids, np.arange(num_tokens)


@pytest.mark.parametrize("p", [0.05, 0.3, 0.9])
def test_each_value_is_dropped_with_the_probability_asked_for(p):
    token_ids, depths = line_of_tokens(50)
    num_draws = 400
    dropped = sum(~kept(token_keys(token_ids, depths, step), p) for step in range(num_draws))
    share = dropped / num_draws
    standard_error = math.sqrt(p * (1 - p) / num_draws)
    assert abs(float(share.mean()) - p) < 5 * standard_error / math.sqrt(share.size)
    # As far apart as independent draws are: neither the same each time nor spread too evenly.
    assert float(share.std()) == pytest.approx(standard_error, rel=0.1)
    assert float(share.mean(axis=0).std()) == pytest.approx(
        standard_error / math.sqrt(len(token_ids)), rel=0.3
    )


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.flatten(), b.flatten())[0, 1])


@pytest.mark.parametrize("p", [0.05, 0.5])
def test_masks_of_layers_steps_positions_and_features_have_nothing_in_common(p):
    token_ids, depths = line_of_tokens(2000)
    keys = token_keys(token_ids, depths, 7)
    mask = kept(keys, p)
    bound = 5 / math.sqrt(mask.size)
    for number in (2, 3, 50):
        assert abs(correlation(mask, kept(keys, p, number))) < bound
    for step_seed in (6, 8, 7 + (1 << 40)):
        assert abs(correlation(mask, kept(token_keys(token_ids, depths, step_seed), p))) < bound
    assert abs(correlation(mask[1:], mask[:-1])) < bound
    assert abs(correlation(mask[:, 1:], mask[:, :-1])) < bound
    assert abs(correlation(mask[1:], kept(keys, p, 2)[:-1])) < bound


def test_the_number_of_dropped_values_of_a_token_varies_as_independent_ones_do():
    token_ids, depths = line_of_tokens(20_000)
    counts = (~kept(token_keys(token_ids, depths, 1), 0.1)).sum(axis=1)
    assert float(counts.var()) == pytest.approx(NUM_FEATURES * 0.1 * 0.9, rel=0.05)


def test_one_token_at_two_places_and_two_tokens_at_one_place_have_other_keys():
    token_ids = np.array([5, 5, 5, 5, 6, 5], np.int32)
    depths = np.array([0, 1, 2, 0, 1, 2])
    keys = token_keys(token_ids, depths, 0)
    assert keys[0] == keys[3]
    assert len(set(keys.tolist())) == 5


def random_sequences(seed: int) -> Sequences:
    """Sequences over three letters, so that many share beginnings and some are equal."""
    generator = np.random.default_rng(seed)
    return Sequences.of(
        [generator.integers(0, 3, generator.integers(1, 12)).tolist() for _ in range(40)]
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("max_row_tokens", [1, 30, 10_000])
def test_a_forest_has_the_keys_of_its_sequences(seed, max_row_tokens):
    sequences = random_sequences(seed)
    forest = build_forest(sequences, max_row_tokens=max_row_tokens, attention_cost=0.0)
    keys = token_keys(forest.token_ids, forest.depths, 3)
    for i in range(sequences.num_sequences):
        token_ids = sequences.token_ids[sequences.offsets[i] : sequences.offsets[i + 1]]
        path = forest.ancestors(int(forest.last_nodes[i]))
        expected = token_keys(token_ids, np.arange(len(token_ids)), 3)
        assert keys[path].tolist() == expected.tolist()


@pytest.mark.parametrize("p", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("num_features", [1, 24, 1536])
def test_on_a_device_the_same_values_are_dropped(p, num_features):
    token_ids, depths = line_of_tokens(300)
    keys = token_keys(token_ids, depths, 9)
    places = dropped_places_on_device(torch.from_numpy(keys.view(np.int64)), 4, num_features, p)
    mask = torch.ones(len(token_ids) * num_features + 1).index_fill_(0, places, 0.0)
    expected = kept(keys, p, 4, num_features)
    assert np.array_equal(mask[:-1].view(-1, num_features).numpy(), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("p", [0.05, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu_the_module_drops_what_it_drops_on_the_cpu(p, dtype):
    token_ids, depths = line_of_tokens(3000)
    dropout, keys = TokenDropout(p, 7), token_keys(token_ids, depths, 3)
    inputs = torch.randn(1, len(token_ids), 512, dtype=dtype)
    with keyed([dropout], keys):
        torch.testing.assert_close(dropout(inputs.cuda()).cpu(), dropout(inputs))


def test_the_module_scales_what_it_keeps_and_is_the_identity_in_evaluation():
    dropout = TokenDropout(0.25, 1)
    inputs = torch.randn(2, 5, NUM_FEATURES)
    token_ids, depths = line_of_tokens(10)
    keys = token_keys(token_ids, depths, 0)
    with keyed([dropout], keys):
        output = dropout(inputs)
    expected = torch.from_numpy(kept(keys, 0.25)).view_as(inputs)
    torch.testing.assert_close(output, inputs * expected / 0.75)
    assert dropout.eval()(inputs) is inputs


def test_a_layer_that_sees_a_selection_of_tokens_draws_from_torch():
    dropout = TokenDropout(0.5, 1)
    token_ids, depths = line_of_tokens(10)
    inputs = torch.ones(4, NUM_FEATURES)
    with keyed([dropout], token_keys(token_ids, depths, 0)):
        torch.manual_seed(1)
        first = dropout(inputs)
        torch.manual_seed(1)
        assert torch.equal(dropout(inputs), first)
        assert not torch.equal(dropout(inputs), first)


def test_gradients_flow_through_kept_values_alone():
    dropout = nn.Sequential(TokenDropout(0.5, 1))
    inputs = torch.randn(8, NUM_FEATURES, requires_grad=True)
    output = dropout(inputs)
    output.sum().backward()
    assert torch.equal(inputs.grad != 0, output != 0)
