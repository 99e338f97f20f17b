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
