"""The threshold between filler and strong uses: the rule, step by step, and where there is none."""

import numpy as np
import pytest

from itda_core.evaluation.strong_uses import (
    FEW,
    MIN_USES,
    NONE,
    UNSIGNED,
    share_thresholds,
    strong_thresholds,
)
from tests.support.slow_thresholds import slow_threshold


def thresholds(*coefficients):
    """Of some latents, each with its coefficients."""
    latents = np.repeat(np.arange(len(coefficients)), [len(of) for of in coefficients])
    return strong_thresholds(
        latents, np.concatenate(coefficients).astype(np.float32), len(coefficients)
    )


def test_a_hump_around_zero_and_one_far_to_the_right_part_between_them():
    """Filler lies between −10 and 10, as many of either sign; fifty uses lie between 40 and 60."""
    filler = np.concatenate([np.linspace(0.1, 10, 500), -np.linspace(0.1, 10, 500)])
    found = thresholds(np.concatenate([filler, np.linspace(40, 60, 50)]))
    # five of the negative ones are let in with fifty positive ones, and five positive of that size
    assert 9.8 < found.threshold[0] < 10
    assert found.filler[0] == pytest.approx(6 / 55, abs=0.02)
    assert found.why[0] == ""


def test_the_threshold_lets_in_one_negative_use_for_ten_positive_ones():
    """Uses 30, 29, … 11 are positive; −10 is the first negative one: 20 are enough for it and the
    next, but not for a third."""
    sizes = np.array([*range(11, 31), -10, 9, -8, 7, -6, 5])
    found = thresholds(sizes)
    assert found.threshold[0] == 7
    assert found.filler[0] == pytest.approx(3 / 22)


def test_of_uses_of_one_size_none_is_left_out():
    found = thresholds(np.array([5.0] * 19 + [-5.0] + [-1.0, 1.0] * 5))
    assert found.threshold[0] == 5
    assert found.filler[0] == pytest.approx(2 / 19)
    # with two of them there is one for less than ten
    assert thresholds(np.array([5.0] * 19 + [-5.0] * 2)).why[0] == NONE


@pytest.mark.parametrize("seed", range(6))
def test_the_threshold_is_that_of_the_rule_told_slowly(seed):
    draw = np.random.default_rng(seed)
    latents = []
    for _ in range(40):
        filler = draw.normal(0, draw.uniform(1, 4), draw.integers(0, 90))
        strong = draw.normal(draw.uniform(2, 20), 2, draw.integers(0, 30))
        values = np.concatenate([filler, strong]).round(1)  # with ties
        latents.append(draw.permutation(values[values != 0]))
    found = thresholds(*latents)
    for number, values in enumerate(latents):
        expected = slow_threshold(values.astype(np.float32).tolist())
        if expected is None:
            is_few = len(values) < MIN_USES
            assert found.why[number] == (FEW if is_few else NONE)
            none = [np.nan, np.nan] if is_few else [np.inf, 1.0]
            np.testing.assert_array_equal([found.threshold[number], found.filler[number]], none)
        else:
            assert found.threshold[number] == np.float32(expected[0])
            assert found.filler[number] == pytest.approx(expected[1])
            assert found.why[number] == ""


def test_uses_may_come_in_any_order():
    draw = np.random.default_rng(7)
    latents, coefficients = draw.integers(0, 30, 3_000), draw.normal(1, 3, 3_000).round(1)
    coefficients[coefficients == 0] = 0.1
    in_order = np.argsort(latents, kind="stable")
    found = strong_thresholds(latents, coefficients, 31)
    expected = strong_thresholds(latents[in_order], coefficients[in_order], 31)
    for one, other in zip(found[:2], expected[:2], strict=True):
        np.testing.assert_array_equal(one, other)
    assert found.why[30] == FEW
    assert (~np.isnan(found.threshold)).sum() > 20


def test_signs_by_chance_leave_next_to_nothing_strong():
    """Of 200 latents of nothing but filler, a use in forty at most is called strong."""
    draw = np.random.default_rng(3)
    latents = draw.normal(size=(200, 400))
    found = thresholds(*latents)
    strong = latents.astype(np.float32) >= found.threshold[:, None]
    assert strong.mean() < 1 / 40
    assert np.nanmedian(found.filler) > 0.2  # and it is said that they can't be trusted


def test_without_negative_coefficients_filler_can_not_be_told():
    found = thresholds(np.linspace(1, 9, 50), np.array([1.0]))
    assert np.isnan(found.threshold).all()
    assert found.why.tolist() == [UNSIGNED, UNSIGNED]


def test_no_use_at_all_is_too_few():
    found = strong_thresholds(np.zeros(0, np.int64), np.zeros(0, np.float32), 2)
    assert found.why.tolist() == [FEW, FEW]
    assert thresholds(np.array([-1.0] + [2.0] * (MIN_USES - 2))).why[0] == FEW
    assert thresholds(np.array([-1.0] + [2.0] * (MIN_USES - 1))).why[0] == ""


def test_a_share_is_held_by_the_largest_positive_uses():
    """Squares of latent 0: 16, 9, 4, 1 and 6.25 of a negative use, 36.25 in all; of latent 1 most
    is negative; latent 2 has no use; latent 3 has one."""
    latents = np.array([0, 0, 0, 0, 0, 1, 1, 3])
    coefficients = np.array([1, 4, -2.5, 2, 3, 1, -5, 7], np.float32)
    for share, expected in ((0.4, 4), (0.45, 3), (0.68, 3), (0.7, 2), (0.82, 1), (0.83, np.nan)):
        found = share_thresholds(latents, coefficients, share, 4)
        np.testing.assert_array_equal(found, [expected, np.nan, np.nan, 7])


def test_a_share_of_one_takes_all_uses_of_an_autoencoder():
    draw = np.random.default_rng(0)
    latents = draw.integers(0, 50, 5_000)
    coefficients = draw.exponential(size=5_000).astype(np.float32) + np.float32(0.01)
    found = share_thresholds(latents, coefficients, 1.0, 50)
    for latent in range(50):
        assert found[latent] == coefficients[latents == latent].min()
