"""Intervals by resampling, against scipy and a slow loop."""

import numpy as np
import pytest
from scipy import stats

from itda_core.evaluation.intervals import auroc_interval, resampled_interval


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


@pytest.mark.parametrize("found", [0.0, 0.2, 0.5, 0.83, 0.975, 1.0])
@pytest.mark.parametrize(("uses", "others"), [(20, 20), (3, 20), (1, 1), (400, 30)])
def test_the_interval_of_an_auroc_ends_where_newcombe_says(found, uses, others):
    """Every θ of a fine grid that is at most 1.96 errors away, by the formula as it is printed."""

    def error(theta):
        q1, q2 = theta / (2 - theta), 2 * theta**2 / (1 + theta)
        star = (uses + others) / 2 - 1  # Newcombe's method 5 in place of either count
        return np.sqrt(
            (theta * (1 - theta) + star * (q1 - theta**2) + star * (q2 - theta**2))
            / (uses * others)
        )

    grid = np.linspace(0, 1, 20_001)
    inside = grid[np.abs(grid - found) <= 1.959964 * error(grid)]
    low, high = auroc_interval(np.array([found]), np.array([uses]), np.array([others]))
    assert low[0] == pytest.approx(inside.min(), abs=2e-4)
    assert high[0] == pytest.approx(inside.max(), abs=2e-4)


def test_the_interval_of_an_auroc_holds_the_truth_as_often_as_it_says():
    """Two normal distributions 1.5 apart, 20 drawn of each: θ = Φ(1.5 / √2)."""
    draw = np.random.default_rng(0)
    near, far = draw.normal(1.5, 1, (2_000, 20)), draw.normal(0, 1, (2_000, 20))
    found = (near[:, :, None] > far[:, None, :]).mean((1, 2))
    low, high = auroc_interval(found, np.full(2_000, 20), np.full(2_000, 20))
    truth = stats.norm.cdf(1.5 / np.sqrt(2))
    assert 0.93 < ((low <= truth) & (truth <= high)).mean() < 0.98


def test_no_uses_have_no_interval():
    low, high = auroc_interval(np.array([np.nan]), np.array([0]), np.array([20]))
    assert np.isnan(low).all()
    assert np.isnan(high).all()
