"""Pearson correlations of every latent of A with every latent of B over the same tokens, a block at
a time, also without some of the tokens.

A coefficient of a latent is a number for each token, zero where the latent is not used. Codes are
sparse, so that all products of two dictionaries are one sparse product.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array, csc_array

from itda_core.evaluation.strong_uses import is_strong
from itda_core.pursuit.codes import Codes

_CONSTANT = 1e-12
"""A variance below this share of the mean square is rounding"""
_BLOCK_BYTES = 2**23
"""Of the correlations that are in memory together"""


def coefficient_matrix(codes: Codes, n_latents: int) -> csc_array:
    """Codes as [n_tokens, n_latents] float64, zeros left out. Terms of one latent are added up."""
    latents, coefficients = (part.cpu().numpy() for part in (codes.latents, codes.coefficients))
    tokens = np.repeat(np.arange(len(latents)), latents.shape[1])
    terms = coefficients.astype(np.float64).ravel(), (tokens, latents.ravel())
    matrix = coo_array(terms, shape=(len(latents), n_latents)).tocsc()  # which adds up
    matrix.eliminate_zeros()
    return matrix


def only_strong(coefficients: csc_array, thresholds: np.ndarray) -> csc_array:
    """The coefficients from each latent's threshold up, the others left out; all of a latent
    without one. coefficients: [n_tokens, n_latents]; thresholds: as
    `runs.latent_scores.thresholds_of` gives them."""
    latents = np.repeat(np.arange(coefficients.shape[1]), np.diff(coefficients.indptr))
    strong = coefficients.copy()
    strong.data = np.where(is_strong(strong.data, thresholds[latents]), strong.data, 0.0)
    strong.eliminate_zeros()
    return strong


@dataclass(frozen=True)
class Moments:
    """Sums of each latent's coefficients over some tokens."""

    count: int
    sums: np.ndarray
    """[n_latents] float64"""
    squares: np.ndarray

    @classmethod
    def of(cls, x: csc_array) -> "Moments":
        return cls(x.shape[0], np.asarray(x.sum(0)), np.asarray(x.multiply(x).sum(0)))

    def without(self, other: "Moments") -> "Moments":
        kept = self.count - other.count
        return Moments(kept, self.sums - other.sums, self.squares - other.squares)

    def inverse_scales(self) -> np.ndarray:
        """1 / √(Σ(x − x̄)²), NaN for what is the same on every token."""
        spread = self.squares - self.sums**2 / max(self.count, 1)
        varies = spread > _CONSTANT * self.squares
        return np.where(varies, 1 / np.sqrt(np.where(varies, spread, 1.0)), np.nan)


class Tokens:
    """What is needed beside products to have the correlations over some tokens."""

    def __init__(self, a: Moments, b: Moments):
        self.a, self.b = a, b
        self._scales = a.inverse_scales(), b.inverse_scales()

    def without(self, a: csc_array, b: csc_array) -> "Tokens":
        """Without the tokens whose coefficients these are."""
        return Tokens(self.a.without(Moments.of(a)), self.b.without(Moments.of(b)))

    def correlations(self, latents: np.ndarray, products: np.ndarray) -> np.ndarray:
        """[n, n_b] float64 of some latents of A with all of B; −inf where there is none.
        products: Σ x_a x_b over these tokens."""
        values = products - np.outer(self.a.sums[latents] / max(self.a.count, 1), self.b.sums)
        values *= self._scales[0][latents][:, None]
        values *= self._scales[1]
        values[np.isnan(values)] = -np.inf
        return values

    def of_pairs(self, pairs: np.ndarray, products: np.ndarray) -> np.ndarray:
        """[n_pairs] float64 of pairs of latents, [n_pairs, 2]; NaN where there is none."""
        i, j = pairs.T
        values = products - self.a.sums[i] * self.b.sums[j] / max(self.a.count, 1)
        return values * self._scales[0][i] * self._scales[1][j]


class CodedTokens:
    """The coefficients of two dictionaries on the same tokens: with all of these, and without each
    of some parts of them."""

    def __init__(self, a: csc_array, b: csc_array, parts: Sequence[slice] = ()):
        """a, b: [n_tokens, n_a] and [n_tokens, n_b]; parts: tokens that are left out in turn."""
        self.a, self.b = a, b
        rows = a.tocsr(), b.tocsr()
        self._parts = [tuple(one[part].tocsc() for one in rows) for part in parts]
        whole = Tokens(Moments.of(a), Moments.of(b))
        self.tokens = [whole, *(whole.without(*part) for part in self._parts)]
        """All, then those without each part"""

    def of_pairs(self, pairs: np.ndarray) -> np.ndarray:
        """[1 + n_parts, n_pairs] float64: the correlations of pairs of latents, [n_pairs, 2]; NaN
        where there is none."""
        whole, *parts = [_pair_products(*one, pairs) for one in [(self.a, self.b), *self._parts]]
        products = [whole, *(whole - part for part in parts)]
        both = zip(self.tokens, products, strict=True)
        return np.array([tokens.of_pairs(pairs, one) for tokens, one in both])

    def blocks(self) -> Iterator[tuple[np.ndarray, Iterator[np.ndarray]]]:
        """Some latents of A that are used, and their correlations with all of B, [n, n_b] float64:
        with all tokens, then without each part. −inf where there is none."""
        used = np.flatnonzero(np.diff(self.a.indptr))
        size = max(1, _BLOCK_BYTES // (8 * max(1, self.b.shape[1])))
        for first in range(0, len(used), size):
            latents = used[first : first + size]
            yield latents, self._correlations(latents)

    def _correlations(self, latents: np.ndarray) -> Iterator[np.ndarray]:
        whole = (self.a[:, latents].T @ self.b).toarray()
        yield self.tokens[0].correlations(latents, whole)
        for (a, b), tokens in zip(self._parts, self.tokens[1:], strict=True):
            yield tokens.correlations(latents, whole - (a[:, latents].T @ b).toarray())


def _pair_products(a: csc_array, b: csc_array, pairs: np.ndarray) -> np.ndarray:
    """[n_pairs] float64: Σ x_a x_b of each pair."""
    return np.asarray(a[:, pairs[:, 0]].multiply(b[:, pairs[:, 1]]).sum(0))
