"""What the histogram of coefficients draws: hand-worked cases."""

import numpy as np
import pytest

from pages.components.histogram.histogram import histogram_data


def test_every_coefficient_is_in_the_bin_of_its_size():
    drawn = histogram_data(np.float32([-2, -2, 0.5, 2]), None)
    assert (drawn["low"], drawn["high"]) == (-2.0, 2.0)  # bins of a tenth
    assert {bin: count for bin, count in enumerate(drawn["negative"]) if count} == {0: 2}
    assert {bin: count for bin, count in enumerate(drawn["positive"]) if count} == {25: 1, 39: 1}


@pytest.mark.parametrize("marked", [9.0, -4.0, 2.5])
def test_the_marked_coefficient_is_within_the_edges(marked):
    drawn = histogram_data(np.float32([1, 2, 3]), marked)
    assert (drawn["low"], drawn["high"]) == (min(1.0, marked), max(3.0, marked))
    assert sum(drawn["positive"]) == 3  # it is a line and no count


@pytest.mark.parametrize("value", [0.0, 1.0, -300.0])
def test_coefficients_that_hardly_differ_are_drawn(value):
    value = np.float32(value)
    for coefficients in ([value], [value, value], [value, np.nextafter(value, np.float32(2e3))]):
        drawn = histogram_data(np.array(coefficients, np.float32), None)
        assert drawn["low"] < drawn["high"]
        assert drawn["low"] <= value <= drawn["high"]
        nonzero = np.count_nonzero(coefficients)
        assert sum(drawn["positive"]) + sum(drawn["negative"]) == nonzero


def test_without_coefficients_there_are_bins_without_counts():
    drawn = histogram_data(np.zeros(0, np.float32), None)
    assert drawn["low"] < drawn["high"]
    assert sum(drawn["positive"]) == 0


def test_a_massive_activation_is_told_beside_the_axis():
    """One of 11,438 on a latent whose other uses lie between -44 and 20, as of SmolLM2's."""
    others = np.linspace(-44, 20, 65, dtype=np.float32)
    drawn = histogram_data(np.append(others, np.float32(11438.73)), None)
    assert (drawn["low"], drawn["high"]) == (-44.0, 20.0)
    assert sum(drawn["positive"]) + sum(drawn["negative"]) == np.count_nonzero(others)
    assert drawn["far"] == "and 1 token far out at +11,438.7"
    marked = histogram_data(np.append(others, np.float32(11438.73)), 11438.73)
    assert marked["high"] == pytest.approx(11438.73)
    assert marked["far"] == ""


def test_uses_that_are_strong_are_none_of_them_far_out():
    strong = np.concatenate([np.linspace(-5, 5, 60), [30.0, 100.0, 110.0, 120.0, 130.0]])
    assert histogram_data(strong.astype(np.float32), None)["far"] == ""
