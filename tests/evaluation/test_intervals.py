"""Intervals by resampling, against scipy and a slow loop."""

import numpy as np
import pytest
from scipy import stats

from itda_core.evaluation.intervals import resampled_interval


def mean(drawn):
    return drawn.mean(1)


def difference(one, other):
    return one.mean(1) - other.mean(1)


def test_the_interval_of_a_mean_is_that_of_scipy():
    values = np.random.default_rng(1).exponential(size=60)
    interval = resampled_interval(mean, values, resamples=20_000)
    by_scipy = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert interval == pytest.approx((by_scipy.low, by_scipy.high), abs=0.01)


def test_groups_are_drawn_by_themselves():
    draw = np.random.default_rng(3)
    groups = draw.normal(1, 1, 40), draw.normal(0, 2, 90)
    interval = resampled_interval(difference, *groups, resamples=20_000)
    by_scipy = stats.bootstrap(
        groups,
        lambda one, other: one.mean() - other.mean(),
        n_resamples=20_000,
        method="percentile",
        vectorized=False,
        rng=np.random.default_rng(4),
    ).confidence_interval
    assert interval == pytest.approx((by_scipy.low, by_scipy.high), abs=0.03)


def test_whole_rows_are_drawn():
    rows = np.array([[1, 10], [2, 20], [3, 30]])
    assert resampled_interval(lambda drawn: (drawn[:, :, 1] / drawn[:, :, 0]).mean(1), rows) == (
        10,
        10,
    )


def test_the_same_values_have_the_same_interval_and_one_value_has_no_width():
    values = np.random.default_rng(5).random(9)
    assert resampled_interval(mean, values) == resampled_interval(mean, values.copy())
    assert resampled_interval(mean, np.array([0.25])) == (0.25, 0.25)
