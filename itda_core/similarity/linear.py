"""Measures of likeness that are linear algebra: CKA, CCA, Procrustes, regression.

Each compares two matrices of activations of the same tokens, [n_tokens, d_a] and [n_tokens, d_b].
What needs doing once for a matrix is in a `…_form`, so that many matrices are compared quickly.
"""

from dataclasses import dataclass

import torch

_RANK = 1e-5
"""Singular values below this share of the largest one count as zero"""
_RIDGE = 1e-4
"""Of the regression: added to each squared scale, as a share of their mean"""
SVCCA_VARIANCE = 0.99
_NO_HSIC = 1e-12
"""Of activations with mean square 1, what is rounding"""


def centred(x: torch.Tensor) -> torch.Tensor:
    """The rows without their mean, [n_tokens, d_model] float32, times a power of two that brings
    the largest entry of x to about 1, so that no square over- or underflows."""
    x = x.float()
    x = x * 2.0 ** -max(int(torch.frexp(x.abs().max()).exponent), -100)
    # in float32 the mean of equal numbers can differ from them, and constants would leave noise
    return x - x.mean(0, dtype=torch.float64).float()


# CKA


@dataclass(frozen=True)
class CkaForm:
    """Centred rows, of which X Xᵀ has Frobenius norm 1."""

    rows: torch.Tensor


def cka_form(x: torch.Tensor) -> CkaForm:
    x = centred(x)
    scale = (x.T @ x).norm().sqrt()
    return CkaForm(x / scale)


def cka(a: CkaForm, b: CkaForm) -> float:
    """Linear CKA, ‖XᵀY‖² / (‖XᵀX‖ ‖YᵀY‖) of centred X and Y, in [0, 1] (Kornblith et al. 2019,
    equation 4). 1 where one is a rotated and scaled copy of the other; biased upward when there
    are few tokens for the dimensions. NaN for constant activations."""
    return float((a.rows.T @ b.rows).square().sum().clamp(max=1))


@dataclass(frozen=True)
class UnbiasedCkaForm:
    """What the unbiased estimate needs of K = X Xᵀ with zeros on its diagonal."""

    rows: torch.Tensor
    """[n_tokens, d_model]"""
    diagonal: torch.Tensor
    """[n_tokens] float64: K_ii before it was zeroed"""
    sums: torch.Tensor
    """[n_tokens] float64: the row sums of K"""
    self_hsic: float
    """HSIC of the matrix with itself"""


def unbiased_cka_form(x: torch.Tensor) -> UnbiasedCkaForm:
    x = centred(x)
    x = x / x.norm() * len(x) ** 0.5
    exact = x.double()
    diagonal = exact.square().sum(1)
    sums = exact @ exact.sum(0) - diagonal
    form = UnbiasedCkaForm(x, diagonal, sums, 0.0)
    return UnbiasedCkaForm(x, diagonal, sums, _hsic(form, form))


def unbiased_cka(a: UnbiasedCkaForm, b: UnbiasedCkaForm) -> float:
    """CKA from the unbiased estimate of HSIC (Song et al. 2012, equation 5; Nguyen et al. 2021).
    At most 1, about 0 for unrelated activations however few the tokens, and below it by chance.
    It needs 4 tokens. NaN for constant activations, and where a single token differs."""
    if not (a.self_hsic > _NO_HSIC and b.self_hsic > _NO_HSIC):
        return float("nan")
    return min(_hsic(a, b) / (a.self_hsic * b.self_hsic) ** 0.5, 1.0)


def _hsic(a: UnbiasedCkaForm, b: UnbiasedCkaForm) -> float:
    n = len(a.rows)
    # in float64: beside one massive activation the difference is millions of times smaller
    products = a.rows.double().T @ b.rows.double()
    trace = products.square().sum() - (a.diagonal * b.diagonal).sum()
    together = a.sums.sum() * b.sums.sum() / ((n - 1) * (n - 2))
    return float((trace + together - 2 * (a.sums @ b.sums) / (n - 2)) / (n * (n - 3)))


# CCA


@dataclass(frozen=True)
class Basis:
    """Orthonormal directions of a matrix in the space of tokens."""

    vectors: torch.Tensor
    """[n_tokens, ≤ d_model]"""


def cca_form(x: torch.Tensor, variance: float = 1.0) -> Basis:
    """variance: the share of the variance whose directions are kept, in (0, 1]."""
    x = centred(x)
    if not float(x.abs().max()) > 0:
        return Basis(x[:, :0])
    vectors, scales, _ = torch.linalg.svd(x, full_matrices=False)
    counts = scales > _RANK * scales[0]
    if variance < 1:
        shares = scales.double().square().cumsum(0) / scales.double().square().sum()
        counts &= torch.arange(len(scales), device=x.device) <= (shares < variance).sum()
    return Basis(vectors[:, counts])


def svcca_form(x: torch.Tensor) -> Basis:
    return cca_form(x, SVCCA_VARIANCE)


def mean_cca(a: Basis, b: Basis) -> float:
    """Mean canonical correlation, in [0, 1]: the mean of the singular values of UxᵀUy, U the
    orthonormal bases (Björck & Golub 1973), over as many as the smaller basis has. With the bases
    of 99 % of the variance this is SVCCA (Raghu et al. 2017). The same for every invertible linear
    map of either side. NaN for constant activations; 1 where there are fewer tokens than
    dimensions."""
    if not min(a.vectors.shape[1], b.vectors.shape[1]):
        return float("nan")
    return float(torch.linalg.svdvals(a.vectors.T @ b.vectors).clamp(max=1).mean())


# Procrustes


def procrustes_form(x: torch.Tensor) -> torch.Tensor:
    x = centred(x)
    return x / x.norm()


def procrustes(a: torch.Tensor, b: torch.Tensor) -> float:
    """Orthogonal Procrustes similarity ‖XᵀY‖_* of centred X and Y of Frobenius norm 1, in [0, 1]:
    1 − d²/2 with d the distance after the best rotation (Schönemann 1966; Ding et al. 2021). The
    narrower side is filled with zeros, which changes nothing. NaN for constant activations."""
    product = a.T @ b
    if not bool(torch.isfinite(product).all()):
        return float("nan")
    return float(torch.linalg.svdvals(product).sum().clamp(max=1))


# Regression


@dataclass(frozen=True)
class RegressionForm:
    """The rows in two halves: fitted on the even ones, judged on the odd ones."""

    mean: torch.Tensor
    """[d_model], of the fitted half"""
    fitted: torch.Tensor
    """[n_fitted, d_model], without the mean"""
    factor: torch.Tensor
    """[d_model, d_model] float64: the Cholesky factor of fittedᵀ fitted and the ridge"""
    judged: torch.Tensor
    """[n_judged, d_model]"""


def regression_form(x: torch.Tensor) -> RegressionForm:
    x = centred(x)
    fitted, judged = x[::2], x[1::2]
    mean = fitted.mean(0)
    fitted = fitted - mean
    # in float64: in float32 one large direction makes the factor fail
    products = fitted.double().T @ fitted.double()
    ridge = _RIDGE * products.diagonal().mean().clamp(min=1e-30)
    products.diagonal().add_(ridge)
    factor = torch.linalg.cholesky(products)
    return RegressionForm(mean, fitted, factor, judged)


def regression_r2(a: RegressionForm, b: RegressionForm) -> float:
    """Held-out R² of predicting Y from X by least squares with an intercept: 1 − Σ‖y − ŷ‖² /
    Σ‖y − ȳ‖², sums over the odd rows, fitted on the even ones (with a ridge of 10⁻⁴ of the mean
    squared scale, so that dependent columns do no harm). At most 1, below 0 where the mean would
    predict better; not symmetric. About 0 for constant predictors, NaN for constant targets."""
    weights = torch.cholesky_solve(a.fitted.double().T @ b.fitted.double(), a.factor)
    predicted = (a.judged - a.mean).double() @ weights + b.mean
    targets = b.judged.double()
    lost = (targets - predicted).square().sum()
    spread = (targets - targets.mean(0)).square().sum()
    return float(1 - lost / spread) if spread > 0 else float("nan")
