"""Each measure against a case worked by hand or another library."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score

from itda_core.activations.massive import massive
from itda_core.evaluation.losses import ce_loss_score
from itda_core.evaluation.metrics import (
    ReconstructionSums,
    SparsitySums,
    cosines,
    density_histogram,
    fvu,
    norm_ratios,
)
from itda_core.pursuit.matching import Codes


def random_pair(n_tokens=500, d_model=20, noise=0.5, seed=0):
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(n_tokens, d_model)) * draw.uniform(0.1, 5, size=d_model) + 3
    return torch.tensor(x), torch.tensor(x + noise * draw.normal(size=x.shape))


def test_fvu_worked_by_hand():
    # The mean is (2, 1) and each row lies (1, 1) from it: Σ‖x − x̄‖² = 2 + 2. The errors: 1 + 1.
    x = torch.tensor([[1.0, 0.0], [3.0, 2.0]])
    xhat = torch.tensor([[1.0, 1.0], [2.0, 2.0]])
    assert fvu(x, xhat) == pytest.approx(2 / 4)
    assert fvu(x, x) == 0
    assert fvu(x, x.mean(0).expand(2, 2)) == pytest.approx(1)


@pytest.mark.parametrize("noise", [0.01, 0.5, 10])
def test_fvu_is_what_scikit_learn_leaves_unexplained(noise):
    x, xhat = random_pair(noise=noise)
    explained = r2_score(x.numpy(), xhat.numpy(), multioutput="variance_weighted")
    assert fvu(x, xhat) == pytest.approx(1 - explained, rel=1e-9)


def test_sums_over_batches_equal_one_batch():
    x, xhat = random_pair()
    sums = ReconstructionSums()
    for first, last in ((0, 1), (1, 200), (200, 200), (200, 500)):
        sums.add(x[first:last], xhat[first:last])
    assert sums.tokens == 500
    assert sums.fvu == pytest.approx(fvu(x, xhat), rel=1e-12)
    assert sums.explained_variance == pytest.approx(1 - fvu(x, xhat), rel=1e-12)
    assert sums.cosine == pytest.approx(float(cosines(x, xhat).mean()), rel=1e-12)
    assert sums.norm_ratio == pytest.approx(float(norm_ratios(x, xhat).mean()), rel=1e-12)


def test_fvu_of_float32_far_from_the_origin_loses_no_digits():
    """A large common mean makes the variance a small difference of large numbers."""
    x, xhat = random_pair(noise=0.5)
    far, far_hat = (x + 1_000).float(), (xhat + 1_000).float()
    direct = (far.double() - far_hat.double()).square().sum() / (
        (far.double() - far.double().mean(0)).square().sum()
    )
    assert fvu(far, far_hat) == pytest.approx(float(direct), rel=1e-6)


def test_fvu_without_variance_is_not_a_number():
    assert math.isnan(ReconstructionSums().fvu)
    assert math.isnan(ReconstructionSums().cosine)
    assert math.isnan(ReconstructionSums().norm_ratio)
    same = torch.ones(5, 3)
    assert math.isnan(fvu(same, same))


def test_cosine_and_norm_ratio_worked_by_hand():
    # (3, 4) has norm 5; along (1, 0) its cosine is 3/5. A zero vector has no direction.
    x = torch.tensor([[3.0, 4.0], [3.0, 4.0], [0.0, 2.0], [0.0, 0.0]])
    xhat = torch.tensor([[1.0, 0.0], [6.0, 8.0], [0.0, 0.0], [0.0, 1.0]])
    assert cosines(x, xhat).tolist() == pytest.approx([0.6, 1, 0, 0])
    assert norm_ratios(x, xhat).tolist() == pytest.approx([0.2, 2, 0, 1])


def test_the_cosine_of_tiny_and_of_huge_vectors_is_that_of_their_directions():
    x, xhat = random_pair()
    for scale in (1e-9, 1e12):
        torch.testing.assert_close(cosines(scale * x, xhat), cosines(x, xhat))


def test_explained_variance_is_that_of_saelens():
    calculator = pytest.importorskip("sae_lens.evals").ExplainedVarianceCalculator()
    x, xhat = random_pair()
    sums = ReconstructionSums()
    for first in range(0, 500, 100):
        part = slice(first, first + 100)
        sums.add(x[part], xhat[part])
        calculator.add_batch(sae_output=xhat[part], hidden_acts=x[part])
    assert sums.explained_variance == pytest.approx(calculator.compute(), rel=1e-6)


def test_massive_activations_are_ten_times_longer_than_the_median():
    norms = torch.tensor([1.0, 2.0, 19.9, 20.0, 20.1, 500.0])
    assert massive(norms, 2.0).tolist() == [False, False, False, False, True, True]


# Token 1 takes latent 2 twice, token 2 an exact match and then rounding, token 3 is zero.
CODES = Codes(
    torch.tensor([[0, 1, 2], [2, 1, 2], [3, 0, 0], [0, 0, 0]]),
    torch.tensor([[5.0, -1.0, 0.5], [4.0, 3.0, -1.0], [7.0, 6e-5, 0.0], [0.0, 0.0, 0.0]]),
)


def test_terms_and_latents_are_counted_without_rounding():
    assert SparsitySums.of(6).unused_share == 1
    assert math.isnan(SparsitySums.of(6).mean_l0)
    sums = SparsitySums.of(6)
    sums.add(Codes(CODES.latents[:2], CODES.coefficients[:2]))
    sums.add(Codes(CODES.latents[2:], CODES.coefficients[2:]))
    assert sums.tokens == 4
    assert sums.mean_l0 == (3 + 3 + 1 + 0) / 4
    assert sums.mean_latents == (3 + 2 + 1 + 0) / 4
    assert sums.densities.tolist() == [1 / 4, 2 / 4, 2 / 4, 1 / 4, 0, 0]
    assert sums.unused_share == 2 / 6


def test_densities_fall_into_bins_of_a_quarter_of_a_decade():
    densities = torch.tensor([0.0, 0.001, 0.0017, 0.01, 0.099, 0.1, 1.0], dtype=torch.float64)
    bins = density_histogram(densities, tokens=1_000)
    assert [(found["from"], found["to"]) for found in bins] == [
        (-3 + number / 4, -3 + (number + 1) / 4) for number in range(12)
    ]
    assert [found["latents"] for found in bins] == [2, 0, 0, 0, 1, 0, 0, 1, 1, 0, 0, 1]
    assert [found["latents"] for found in density_histogram(densities[:1], tokens=1)] == [0]


# The model loses 3 nats a token, zeroing the activations 8.
@pytest.mark.parametrize(("spliced", "score"), [(3.0, 1.0), (8.0, 0.0), (4.0, 0.8), (9.0, -0.2)])
def test_ce_loss_score_worked_by_hand(spliced, score):
    assert ce_loss_score(model=3.0, zeroed=8.0, spliced=spliced) == pytest.approx(score)


def test_there_is_no_ce_loss_score_where_zeroing_costs_nothing():
    assert math.isnan(ce_loss_score(model=3.0, zeroed=3.0, spliced=3.1))


def test_the_sums_do_not_depend_on_how_many_threads_share_them():
    """More tokens than torch gives to one thread."""
    x, xhat = torch.randn(2, 2_048, 96, generator=torch.Generator().manual_seed(3))
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(fvu(x, xhat))
    finally:
        torch.set_num_threads(before)
    assert found == [found[0]] * 3
    # By numpy in float64, whose order of summation is another.
    a, b = x.double().numpy(), xhat.double().numpy()
    assert found[0] == pytest.approx(((a - b) ** 2).sum() / ((a - a.mean(0)) ** 2).sum(), rel=1e-12)
