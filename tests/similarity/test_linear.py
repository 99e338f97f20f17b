"""CKA, CCA, Procrustes and regression: against definitions written out and other libraries."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes, subspace_angles
from sklearn.cross_decomposition import CCA
from sklearn.linear_model import LinearRegression

from itda_core.similarity import linear
from tests.support.alike import centred64, mapped, noise, related, shuffled, turned


def cka(a, b):
    return linear.cka(linear.cka_form(a), linear.cka_form(b))


def unbiased_cka(a, b):
    return linear.unbiased_cka(linear.unbiased_cka_form(a), linear.unbiased_cka_form(b))


def mean_cca(a, b):
    return linear.mean_cca(linear.cca_form(a), linear.cca_form(b))


def svcca(a, b):
    return linear.mean_cca(linear.svcca_form(a), linear.svcca_form(b))


def procrustes(a, b):
    return linear.procrustes(linear.procrustes_form(a), linear.procrustes_form(b))


def r2(a, b):
    return linear.regression_r2(linear.regression_form(a), linear.regression_form(b))


ALL = [cka, unbiased_cka, mean_cca, svcca, procrustes, r2]
ROUNDING = 2e-5

# References


def gram_cka(a, b):
    """From n × n Gram matrices: HSIC is tr(K H L H)."""
    n = len(a)
    h = np.eye(n) - 1 / n
    k, m = (x.double().numpy() @ x.double().numpy().T for x in (a, b))

    def hsic(k, m):
        return np.trace(k @ h @ m @ h)

    return hsic(k, m) / math.sqrt(hsic(k, k) * hsic(m, m))


def u_statistic(a, b):
    """HSIC as the mean over four different tokens, its definition."""
    k, m = (x.double().numpy() @ x.double().numpy().T for x in (a, b))
    terms = [
        k[i, j] * m[i, j] + k[i, j] * m[q, r] - 2 * k[i, j] * m[i, q]
        for i, j, q, r in itertools.permutations(range(len(a)), 4)
    ]
    return sum(terms) / len(terms)


def least_squares_r2(a, b):
    a, b = a.double().numpy(), b.double().numpy()
    fit = LinearRegression().fit(a[::2], b[::2])
    lost = (b[1::2] - fit.predict(a[1::2])) ** 2
    return 1 - lost.sum() / ((b[1::2] - b[1::2].mean(0)) ** 2).sum()


# Values


def test_cka_is_that_of_the_gram_matrices():
    a, b = related()
    assert cka(a, b) == pytest.approx(gram_cka(a, b), abs=ROUNDING)


def test_unbiased_cka_is_the_u_statistic():
    a, b = related(n_tokens=9)
    expected = u_statistic(a, b) / math.sqrt(u_statistic(a, a) * u_statistic(b, b))
    assert unbiased_cka(a, b) == pytest.approx(expected, abs=ROUNDING)


def test_cka_of_four_corners_is_worked_by_hand():
    square = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    # XᵀX = 4 I and its norm 4√2; the first column's is 4; XᵀY = (4, 0): 16 / (4√2 · 4) = 1/√2
    assert cka(square, square[:, :1]) == pytest.approx(1 / math.sqrt(2), abs=ROUNDING)


def test_mean_cca_is_the_cosine_of_the_subspace_angles():
    a, b = related()
    expected = np.cos(subspace_angles(centred64(a), centred64(b))).mean()
    assert mean_cca(a, b) == pytest.approx(expected, abs=ROUNDING)


def test_mean_cca_is_that_of_sklearn():
    a, b = related(d_a=4, d_b=3)
    left, right = CCA(n_components=3, max_iter=5_000, tol=1e-10).fit_transform(a.numpy(), b.numpy())
    found = [np.corrcoef(left[:, i], right[:, i])[0, 1] for i in range(3)]
    assert mean_cca(a, b) == pytest.approx(np.mean(found), abs=1e-4)


def test_svcca_takes_the_fewest_directions_with_99_percent_of_the_variance():
    a, b = related()
    a, b = a * torch.tensor([1, 1, 1, 1, 1, 1, 0.01, 0.01]), b

    def reduced(x):
        u, s, _ = np.linalg.svd(centred64(x), full_matrices=False)
        share = np.cumsum(s**2) / np.sum(s**2)
        return u[:, : next(i for i, part in enumerate(share, 1) if part >= 0.99)]

    assert reduced(a).shape[1] < 8
    assert linear.svcca_form(a).vectors.shape == reduced(a).shape
    expected = np.cos(subspace_angles(reduced(a), reduced(b))).mean()
    assert svcca(a, b) == pytest.approx(expected, abs=ROUNDING)


def test_procrustes_is_one_less_half_the_squared_distance_after_the_best_rotation():
    a, b = related(d_a=6, d_b=6)
    x, y = (centred64(m) / np.linalg.norm(centred64(m)) for m in (a, b))
    rotation, _ = orthogonal_procrustes(x, y)
    distance = np.linalg.norm(x @ rotation - y)
    assert procrustes(a, b) == pytest.approx(1 - distance**2 / 2, abs=ROUNDING)


def test_procrustes_of_another_width_is_that_of_the_narrower_filled_with_zeros():
    a, b = related(d_a=8, d_b=6)
    filled = torch.cat([b, torch.zeros(len(b), 2)], 1)
    assert procrustes(a, b) == pytest.approx(procrustes(a, filled), abs=ROUNDING)


def test_regression_is_least_squares_on_even_rows_judged_on_odd_ones():
    a, b = related()
    assert r2(a, b) == pytest.approx(least_squares_r2(a, b), abs=1e-3)
    assert r2(b, a) == pytest.approx(least_squares_r2(b, a), abs=1e-3)


def test_regression_is_not_symmetric():
    a = noise(200, 6, 0)
    assert r2(a, a[:, :2]) > 0.99
    assert r2(a[:, :2], a) < 0.5


def test_regression_of_unrelated_activations_is_below_zero():
    assert r2(noise(100, 20, 0), noise(100, 20, 1)) < 0


# Invariances


@pytest.mark.parametrize("measure", ALL)
def test_rotation_scale_and_shift_change_nothing(measure):
    a, b = related()
    assert measure(turned(a), turned(b, 9)) == pytest.approx(measure(a, b), abs=1e-4)


@pytest.mark.parametrize("measure", ALL)
def test_a_rotated_scaled_and_shifted_copy_is_the_same(measure):
    a, _ = related()
    assert measure(a, turned(a)) == pytest.approx(1, abs=1e-3)
    assert measure(a, turned(a)) <= 1


def test_mean_cca_is_the_same_for_invertible_maps_of_either_side():
    a, b = related()
    assert mean_cca(mapped(a), mapped(b, 8)) == pytest.approx(mean_cca(a, b), abs=1e-4)


def test_regression_is_the_same_for_invertible_maps_of_the_predictors_only():
    a, b = related()
    assert r2(mapped(a), b) == pytest.approx(r2(a, b), abs=1e-3)
    assert abs(r2(a, mapped(b)) - r2(a, b)) > 0.01


@pytest.mark.parametrize("measure", [cka, unbiased_cka, procrustes])
def test_an_invertible_map_changes_what_depends_on_scale(measure):
    a, b = related()
    assert abs(measure(mapped(a), b) - measure(a, b)) > 0.003


def test_shuffled_tokens_have_no_unbiased_cka_and_some_biased():
    a = noise(60, 40, 0)
    values = [unbiased_cka(a, shuffled(a, seed)) for seed in range(40)]
    assert abs(np.mean(values)) < 0.02
    assert cka(a, shuffled(a)) > 0.2


@pytest.mark.parametrize("measure", [cka, unbiased_cka, mean_cca, svcca, procrustes])
def test_the_others_are_symmetric(measure):
    a, b = related()
    assert measure(a, b) == pytest.approx(measure(b, a), abs=ROUNDING)


# Degenerate activations


@pytest.mark.parametrize("measure", ALL)
@pytest.mark.parametrize("value", [0.0, 0.1, 1234.567])
def test_constant_activations_have_no_value(measure, value):
    a, _ = related()
    assert math.isnan(measure(a, torch.full((len(a), 5), value)))


def test_constant_predictors_predict_no_better_than_the_mean():
    _, b = related()
    assert -0.1 < r2(torch.full((len(b), 5), 0.1), b) <= 0


@pytest.mark.parametrize("measure", ALL)
def test_a_constant_column_changes_nothing(measure):
    a, b = related()
    wider = torch.cat([a, torch.full((len(a), 1), 0.1)], 1)
    assert measure(wider, b) == pytest.approx(measure(a, b), abs=1e-4)


@pytest.mark.parametrize("measure", [mean_cca, r2])
def test_a_repeated_column_changes_nothing(measure):
    a, b = related()
    assert measure(torch.cat([a, a[:, :2]], 1), b) == pytest.approx(measure(a, b), abs=1e-3)


@pytest.mark.parametrize("measure", ALL)
@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_tiny_and_huge_values_neither_vanish_nor_overflow(measure, scale):
    a, b = related()
    assert measure(a * scale, b * scale) == pytest.approx(measure(a, b), abs=ROUNDING)


@pytest.mark.parametrize("measure", ALL)
def test_half_precision_is_computed_in_single(measure):
    a, b = (x.half() for x in related())
    assert measure(a, b) == measure(a.float(), b.float())


@pytest.mark.parametrize("measure", ALL)
def test_fewer_tokens_than_dimensions_give_a_finite_value(measure):
    assert measure(noise(20, 50, 0), noise(20, 40, 1)) <= 1


def test_mean_cca_is_one_with_fewer_tokens_than_dimensions():
    assert mean_cca(noise(20, 50, 0), noise(20, 40, 1)) == pytest.approx(1, abs=ROUNDING)


@pytest.mark.parametrize("measure", ALL)
def test_repeated_tokens_give_a_finite_value(measure):
    a, b = (x[:10].repeat_interleave(4, 0) for x in related())
    assert 0 < measure(a, b) <= 1


def test_unbiased_cka_holds_beside_a_massive_activation():
    a, b = related(n_tokens=300)
    a[3], b[3] = a[3] * 2_000, b[3] * 2_000

    def exact(x, y):
        """Song et al. 2012, equation 5, on n × n matrices."""
        k, m = (centred64(z) @ centred64(z).T for z in (x, y))
        np.fill_diagonal(k, 0)
        np.fill_diagonal(m, 0)
        n = len(k)
        together = k.sum() * m.sum() / ((n - 1) * (n - 2))
        return np.trace(k @ m) + together - 2 / (n - 2) * (k @ m).sum()

    expected = exact(a, b) / math.sqrt(exact(a, a) * exact(b, b))
    assert unbiased_cka(a, b) == pytest.approx(expected, abs=1e-3)


def test_unbiased_cka_has_no_value_where_a_single_token_differs():
    a, b = related()
    alone = torch.zeros(len(a), 3)
    alone[5] = 1
    assert math.isnan(unbiased_cka(alone, b))


def test_regression_can_be_fitted_beside_one_huge_direction():
    x = noise(700, 300, 0)
    x[:, 0] *= 1e5
    assert r2(x, x) > 0.9


def test_the_unbiased_form_equals_the_gram_matrices_with_few_tokens():
    a, b = noise(6, 300, 0), noise(6, 300, 0)[:, :200]
    expected = u_statistic(a, b) / math.sqrt(u_statistic(a, a) * u_statistic(b, b))
    assert unbiased_cka(a, b) == pytest.approx(expected, abs=1e-4)
