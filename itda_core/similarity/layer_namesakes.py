"""Layers compared by latents with the same sources: those of a dictionary that is moved to both.

The sources are evenly spread tokens of those compared, so that two layers need no dictionary that
was trained on them: what stands at the sources are the atoms in either.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csc_array
from torch.nn.functional import normalize

from itda_core.pursuit.orthogonal import orthogonal_matching_pursuit
from itda_core.similarity.correlations import CodedTokens, coefficient_matrix
from itda_core.similarity.linear import centred
from itda_core.similarity.namesakes import compare_namesakes
from itda_core.similarity.tokenwise import spread_rows

SOURCES = 256
TERMS = 2


@dataclass(frozen=True, eq=False)
class SpreadCodes:
    """The other tokens written by the source tokens."""

    coefficients: csc_array
    """[n_tokens − n_sources, n_sources] float64; of constant activations, no tokens"""


def namesakes_form(x: torch.Tensor, sources: int = SOURCES, terms: int = TERMS) -> SpreadCodes:
    """sources: how many rows, evenly spread, are atoms once the mean is taken off, at most half of
    all; terms: of orthogonal pursuit, for each of the other rows."""
    x = centred(x)
    numbers = spread_rows(len(x), min(sources, len(x) // 2))
    others = np.setdiff1d(np.arange(len(x)), numbers.numpy())
    if not bool(x.any()):
        return SpreadCodes(csc_array((0, len(numbers))))
    atoms = normalize(x[numbers.to(x.device)], dim=1)
    rest = x[torch.from_numpy(others).to(x.device)]
    codes = orthogonal_matching_pursuit(rest, atoms, min(terms, len(atoms)))
    return SpreadCodes(coefficient_matrix(codes, len(atoms)))


def best_partners(a: SpreadCodes, b: SpreadCodes) -> float:
    """Share of sources whose latent in one layer correlates with its namesake in the other more
    than with any other latent there, in [0, 1], mean of both ways. NaN for constant activations."""
    left, right = _same_tokens(a, b)
    one_prompt = np.zeros(left.shape[0], np.int64)  # so that no interval is looked for
    value = compare_namesakes(left, right, _pairs(a), one_prompt).best.value
    return float("nan") if value is None else value


def namesake_correlation(a: SpreadCodes, b: SpreadCodes) -> float:
    """Median correlation of the coefficients of latents with the same source, in [−1, 1]. NaN for
    constant activations. No other latents are looked at."""
    [own] = CodedTokens(*_same_tokens(a, b)).of_pairs(_pairs(a))
    known = own[~np.isnan(own)]
    return float(np.median(known)) if len(known) else float("nan")


def _pairs(a: SpreadCodes) -> np.ndarray:
    """[n_sources, 2] int64: every source with itself."""
    return np.stack([np.arange(a.coefficients.shape[1])] * 2, 1)


def _same_tokens(a: SpreadCodes, b: SpreadCodes) -> tuple[csc_array, csc_array]:
    """The coefficients of both; of no tokens where one is constant."""
    rows = min(a.coefficients.shape[0], b.coefficients.shape[0])
    left, right = (one.coefficients.tocsr()[:rows].tocsc() for one in (a, b))
    return left, right
