"""The table of measures, and matrices of them."""

import re

import numpy as np
import pytest
import torch

from itda_core.errors import ComparisonError
from itda_core.similarity.measures import MEASURES, MIN_TOKENS, measure_matrix, prepare
from tests.support.alike import noise, related, turned

NAMES = list(MEASURES)
SYMMETRIC = [name for name in NAMES if name != "regression"]


def layers():
    a, b = related(n_tokens=100)
    return [a, b, torch.cat([a[:, :3], b[:, :2]], 1)]


def pairwise(name, rows, columns):
    measure = MEASURES[name]
    return [
        [measure.compare(measure.prepare(a), measure.prepare(b)) for b in columns] for a in rows
    ]


def test_every_measure_is_listed_by_its_own_name_and_explained():
    for name, measure in MEASURES.items():
        assert measure.name == name
        assert measure.low < measure.high
        assert measure.title and measure.explanation.endswith(".")


@pytest.mark.parametrize("name", NAMES)
def test_a_matrix_equals_calls_pair_by_pair(name):
    found = measure_matrix(name, layers())
    np.testing.assert_allclose(found, pairwise(name, layers(), layers()), atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_rows_and_columns_may_be_different_layers(name):
    rows, columns = layers()[:1], layers()[1:]
    found = measure_matrix(name, rows, columns)
    assert found.shape == (1, 2)
    np.testing.assert_allclose(found, pairwise(name, rows, columns), atol=1e-6)


@pytest.mark.parametrize("name", SYMMETRIC)
def test_a_square_matrix_is_symmetric(name):
    assert MEASURES[name].is_symmetric
    found = measure_matrix(name, layers())
    assert np.array_equal(found, found.T)


def test_regression_is_from_row_to_column():
    wide = noise(100, 6, 0)
    found = measure_matrix("regression", [wide, wide[:, :2]])
    assert not MEASURES["regression"].is_symmetric
    assert found[0, 1] > 0.99 > 0.5 > found[1, 0]


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_is_like_itself_and_its_rotated_copy(name):
    a = layers()[0]
    np.testing.assert_allclose(measure_matrix(name, [a, turned(a)]), 1, atol=2e-3)


@pytest.mark.parametrize("name", NAMES)
def test_the_activations_are_left_as_they_were(name):
    before, given = layers(), layers()
    measure_matrix(name, given)
    assert all(torch.equal(x, y) for x, y in zip(before, given, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_a_dead_layer_has_no_value_and_spoils_no_other(name):
    a, b, _ = layers()
    found = measure_matrix(name, [a, torch.full((100, 4), 0.1), b])
    assert np.isnan(found[[0, 2], 1]).all()
    alone = measure_matrix(name, [a, b])
    np.testing.assert_allclose(found[np.ix_([0, 2], [0, 2])], alone, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_the_fewest_tokens_allowed_give_a_value(name):
    x = noise(MIN_TOKENS, 4, 0)
    assert np.isfinite(measure_matrix(name, [x, noise(MIN_TOKENS, 60, 1)])).all()


# What can't be compared


def refused(message, name="cka", **matrices):
    with pytest.raises(ComparisonError, match=re.escape(message)) as caught:
        measure_matrix(name, **matrices)
    assert str(caught.value).endswith(".")


def test_too_few_tokens_are_refused():
    refused("19 tokens are too few to compare by: take 20 or more.", rows=[noise(19, 4, 0)])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", NAMES)
def test_numbers_that_are_not_finite_are_refused(name, value):
    broken = noise(30, 4, 0)
    broken[3, 1] = value
    refused("not finite numbers", name, rows=[noise(30, 4, 1)], columns=[broken])


def test_numbers_too_large_for_single_precision_are_refused():
    refused("not finite numbers", rows=[noise(30, 4, 0).double() * 1e200])


def test_different_numbers_of_tokens_are_refused():
    refused("different numbers of tokens", rows=[noise(30, 4, 0), noise(31, 4, 0)])
    refused("different numbers of tokens", rows=[noise(30, 4, 0)], columns=[noise(31, 4, 0)])


def test_an_unknown_measure_is_refused_with_those_there_are():
    with pytest.raises(ComparisonError, match=r"no measure 'cosine'.*source_resemblance.*cka"):
        prepare("cosine", noise(30, 4, 0))


@pytest.mark.parametrize("shape", [(30,), (30, 0), (30, 4, 2)])
def test_anything_but_a_matrix_is_refused(shape):
    with pytest.raises(ComparisonError, match="give \\[n_tokens, d_model\\]"):
        prepare("cka", torch.zeros(shape))
