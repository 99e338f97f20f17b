"""Scores of layer matching, by hand."""

import numpy as np
import pytest

from benchmarks.layer_matching.score import score


def matrices(one, other):
    """Two models: `one` compares the first with the second, `other` the second with the first."""
    values = np.full((2, 2, *np.shape(one)), 9.0)  # a model with itself must not count
    values[0, 1], values[1, 0] = one, other
    return values


def test_right_wrong_and_tied_matches_are_counted_by_hand():
    one = [[3, 1, 0], [0, 2, 1], [5, 0, 1]]  # right, right, two layers off
    other = [[1, 1, 0], [0, 0, 4], [0, 0, 7]]  # half right, one off, right
    found = score(matrices(one, other))
    assert found.share == pytest.approx((2 / 3 + 1.5 / 3) / 2)
    assert found.distance == pytest.approx((2 / 3 + 1.5 / 3) / 2)


def test_a_layer_without_values_is_wrong():
    found = score(matrices([[1, 0], [np.nan, np.nan]], [[1, 0], [0, 1]]))
    assert found.share == pytest.approx(0.75)


def test_the_interval_is_over_pairs_of_models():
    generator = np.random.default_rng(1)
    values = generator.normal(size=(5, 5, 4, 4)) + 1.2 * np.eye(4)
    right = [
        (values[a, b].argmax(1) == np.arange(4)).mean() / 2
        + (values[b, a].argmax(1) == np.arange(4)).mean() / 2
        for a in range(5)
        for b in range(a + 1, 5)
    ]
    found = score(values)
    deviation = np.std(right) / np.sqrt(len(right))
    assert found.share == pytest.approx(np.mean(right))
    assert found.low == pytest.approx(np.mean(right) - 1.96 * deviation, abs=0.03)
    assert found.high == pytest.approx(np.mean(right) + 1.96 * deviation, abs=0.03)
