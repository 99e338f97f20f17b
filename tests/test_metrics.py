"""Each measure against a case worked by hand or another library."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score

from itda_core.metrics import ReconstructionSums, ce_loss_score, fvu


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
    same = torch.ones(5, 3)
    assert math.isnan(fvu(same, same))


# The model loses 3 nats a token, zeroing the activations 8.
@pytest.mark.parametrize(("spliced", "score"), [(3.0, 1.0), (8.0, 0.0), (4.0, 0.8), (9.0, -0.2)])
def test_ce_loss_score_worked_by_hand(spliced, score):
    assert ce_loss_score(model=3.0, zeroed=8.0, spliced=spliced) == pytest.approx(score)
