"""The paper's greedy threshold against a slow, plain implementation of its description."""

import numpy as np
import pytest
import torch

from itda_core.dictionary.growing import GrowingDictionary
from itda_core.selection.threshold import ThresholdSelection
from tests.support.reference import NEAR_TIE, slow_selection, unit_rows


def product_selection(batches, max_atoms, l0, threshold):
    """The same by the product; sources are the activations' numbers."""
    dictionary = GrowingDictionary(batches[0].shape[1], max_atoms)
    selection = ThresholdSelection(dictionary, l0, threshold)
    offers, start = [], 0
    for batch in batches:
        sources = [("prompt", start + row, 0, 1, "token", 0) for row in range(len(batch))]
        offers.append(selection.offer(torch.from_numpy(batch), sources))
        start += len(batch)
    return dictionary, offers


def assert_same_dictionary(batches, max_atoms, l0, threshold):
    chosen, expected, margin = slow_selection(batches, max_atoms, l0, threshold)
    assert margin > NEAR_TIE, "choose other data: rounding would decide this case"
    dictionary, offers = product_selection(batches, max_atoms, l0, threshold)
    assert [position for _, position, *_ in dictionary.sources] == chosen
    atoms = unit_rows(np.concatenate(batches)[chosen])
    np.testing.assert_allclose(dictionary.atoms.numpy(), atoms, atol=1e-6)
    assert [offer.added for offer in offers] == [added for added, _ in expected]
    for offer, (_, error) in zip(offers, expected, strict=True):
        assert (offer.mean_error is None) == (error is None)
        assert error is None or offer.mean_error == pytest.approx(error, abs=1e-3)
    return chosen, offers


def batches_of(x, sizes):
    """Consecutive batches of `x`; the last size is used until all is taken."""
    x, batches = np.ascontiguousarray(x, dtype=np.float32), []
    sizes = list(sizes)
    while len(x):
        size = sizes.pop(0) if len(sizes) > 1 else sizes[0]
        batches.append(x[:size])
        x = x[size:]
    return batches


def repeated_rows(n_tokens, n_distinct, d_model, seed):
    """Activations as frequent words give them: a few rows again and again, many rarely."""
    draw = np.random.default_rng(seed)
    pool = draw.normal(size=(n_distinct, d_model)) * draw.uniform(0.5, 5, size=(n_distinct, 1))
    share = 1 / np.arange(1, n_distinct + 1)
    return pool[draw.choice(n_distinct, size=n_tokens, p=share / share.sum())]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sizes", [[100], [7], [5, 40, 3, 60], [400]])
def test_the_dictionary_equals_the_slow_one_where_activations_repeat(seed, sizes):
    batches = batches_of(repeated_rows(400, 120, 12, seed), sizes)
    assert_same_dictionary(batches, max_atoms=90, l0=4, threshold=0.3)


def test_seeding_over_several_batches_takes_the_most_frequent_first_within_each():
    a, b, c, d = np.eye(4) * [[1], [2], [3], [4]]
    batches = batches_of([a, b, b, c, a, b], [3]) + batches_of([d, c, d, a], [4])
    # Batch 1: b twice, a once. Batch 2: c is new, a and b are known. Batch 3: d.
    chosen, offers = assert_same_dictionary(batches, max_atoms=9, l0=1, threshold=0.5)
    assert chosen == [1, 0, 3, 6]
    assert [offer.added for offer in offers] == [2, 1, 1]


def test_the_batch_that_completes_the_seeding_only_seeds():
    x = np.random.default_rng(0).normal(size=(60, 6))
    chosen, offers = assert_same_dictionary(batches_of(x, [4, 30, 26]), 60, 2, 0.1)
    assert [offer.mean_error is None for offer in offers] == [True, True, False]
    assert chosen[:6] == [0, 1, 2, 3, 4, 5]
    assert chosen[6] >= 34


def test_a_repeated_activation_above_the_threshold_becomes_an_atom_each_time():
    seeds, far = np.eye(2), np.array([1.0, 1.0])
    batches = batches_of([*seeds, far, far, far], [2, 2, 1])
    # One atom explains (1, 1) as (1, 0): an error of 2 - √2. From the next batch on it is known.
    chosen, _ = assert_same_dictionary(batches, max_atoms=9, l0=1, threshold=0.5)
    assert chosen == [0, 1, 2, 3]


def test_a_full_dictionary_takes_the_first_of_a_batch_and_then_no_more():
    x = np.random.default_rng(1).normal(size=(100, 6))
    chosen, offers = assert_same_dictionary(batches_of(x, [20]), 17, 2, 0.05)
    assert len(chosen) == 17
    assert 20 <= chosen[6] < chosen[-1] < 40
    assert [offer.added for offer in offers[2:]] == [0, 0, 0]


@pytest.mark.parametrize("max_atoms", [1, 5, 8])
def test_fewer_atoms_than_dimensions_are_all_seeds(max_atoms):
    x = repeated_rows(60, 30, 8, seed=2)
    chosen, _ = assert_same_dictionary(batches_of(x, [3, 20]), max_atoms, 2, 0.1)
    assert len(chosen) == max_atoms


@pytest.mark.parametrize(("threshold", "expected"), [(4.0, 6), (0.0, 50)])
def test_at_the_ends_of_the_threshold_none_or_all_are_taken(threshold, expected):
    batches = batches_of(np.random.default_rng(3).normal(size=(50, 6)), [6, 11])
    dictionary, _ = product_selection(batches, 50, 2, threshold)
    assert len(dictionary) == expected


def test_an_empty_batch_changes_nothing():
    x = np.random.default_rng(4).normal(size=(30, 4)).astype(np.float32)
    with_empty, _ = product_selection([x[:0], x[:10], x[:0], x[10:]], 20, 2, 0.1)
    without, _ = product_selection([x[:10], x[10:]], 20, 2, 0.1)
    assert [source[1] for source in with_empty.sources] == [source[1] for source in without.sources]


def first_clear_threshold(batches, max_atoms, l0, thresholds):
    """The first threshold that no error comes near."""
    for threshold in thresholds:
        if slow_selection(batches, max_atoms, l0, threshold)[2] > NEAR_TIE:
            return threshold
    raise AssertionError("no threshold is clear of every error")


def test_the_dictionary_of_a_tiny_model_equals_the_slow_one(tiny_model, tiny_texts):
    x = tiny_model.capture(tiny_model.tokenize(tiny_texts), [2])[2].numpy()[:1_500]
    batches = batches_of(x, [10, 150])
    threshold = first_clear_threshold(batches, 400, 4, np.arange(0.10, 0.2, 0.007))
    chosen, _ = assert_same_dictionary(batches, 400, 4, threshold)
    assert 100 < len(chosen) <= 400


def test_the_dictionary_of_a_real_model_equals_the_slow_one(smollm2_activations):
    batches = batches_of(smollm2_activations.numpy()[:2_000], [400, 200])
    threshold = first_clear_threshold(batches, 1_200, 12, np.arange(0.3, 0.4, 0.007))
    chosen, offers = assert_same_dictionary(batches, 1_200, 12, threshold)
    assert len(chosen) > 576 + 100
    assert sum(offer.mean_error is not None for offer in offers) >= 5
