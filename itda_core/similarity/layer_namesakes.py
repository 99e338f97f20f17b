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
from itda_core.similarity.correlations import coefficient_matrix
from itda_core.similarity.linear import centred
from itda_core.similarity.namesakes import Namesakes, compare_namesakes
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
    return _float(_compared(a, b).best.value)


def namesake_correlation(a: SpreadCodes, b: SpreadCodes) -> float:
    """Median correlation of the coefficients of latents with the same source, in [−1, 1]. NaN for
    constant activations."""
    return _float(_compared(a, b).median.value)


def _compared(a: SpreadCodes, b: SpreadCodes) -> Namesakes:
    rows = min(a.coefficients.shape[0], b.coefficients.shape[0])  # none where one is constant
    pairs = np.stack([np.arange(a.coefficients.shape[1])] * 2, 1)
    kept = (one.coefficients.tocsr()[:rows].tocsc() for one in (a, b))
    return compare_namesakes(*kept, pairs, np.zeros(rows, np.int64))


def _float(value: float | None) -> float:
    return float("nan") if value is None else value
