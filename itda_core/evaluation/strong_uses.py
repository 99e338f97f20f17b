"""Strong uses of a latent and filler, told apart by the signs of the coefficients.

What a pursuit adds only to fill up has either sign by chance, so the negative uses show how large
filler gets; what resembles the source is positive. The threshold is the smallest coefficient at and
above which there is at most one negative use as large for every ten positive ones: a false
discovery rate of a tenth with the negative uses as decoys (Elias & Gygi 2007; Barber & Candès
2015). docs/method.md has the rule and docs/experiments.md what it was compared with.
"""

from typing import NamedTuple

import numpy as np

MIN_USES = 20
"""With fewer, a latent has no threshold"""
POSITIVE_FOR_EACH_NEGATIVE = 10
FEW, UNSIGNED, NONE = "too few uses", "no negative coefficients", "the largest use is negative"


class Thresholds(NamedTuple):
    """What tells the strong uses of each latent from filler."""

    threshold: np.ndarray
    """[n_latents] float32, NaN where there is none: a use with this coefficient is strong"""
    filler: np.ndarray
    """[n_latents] float64, the share of the uses from the threshold up that may be filler: negative
    uses as large, and one more, over the positive ones; in (0, 1], NaN without a threshold. The one
    more keeps few uses from looking sure."""
    why: np.ndarray
    """[n_latents] of str: FEW, UNSIGNED or NONE where there is no threshold, else "" """


def strong_thresholds(latents: np.ndarray, coefficients: np.ndarray, n_latents: int) -> Thresholds:
    """The threshold of each latent. latents, coefficients: [n_uses], each use once, none 0."""
    counts = np.bincount(latents, minlength=n_latents)
    threshold, filler = np.full(n_latents, np.nan, np.float32), np.full(n_latents, np.nan)
    why = np.where(counts < MIN_USES, FEW, NONE).astype(object)
    if not (coefficients < 0).any():  # of an autoencoder, or too few
        why[:] = UNSIGNED if len(coefficients) else FEW
        return Thresholds(threshold, filler, why)
    sizes = np.abs(coefficients).astype(np.float32)
    order = np.argsort(_descending(latents, sizes, coefficients > 0))
    owners, is_positive = latents[order], coefficients[order] > 0
    starts = np.concatenate([[0], np.cumsum(counts)])[:-1]
    positive = np.cumsum(is_positive)
    positive -= np.concatenate([[0], positive])[starts][owners]
    negative = np.arange(1, len(order) + 1) - starts[owners] - positive
    holds = is_positive & (POSITIVE_FOR_EACH_NEGATIVE * negative <= positive)
    last = np.full(n_latents, -1)
    np.maximum.at(last, owners[holds], np.flatnonzero(holds))
    found = np.flatnonzero((last >= 0) & (counts >= MIN_USES))
    at = last[found]
    threshold[found] = sizes[order][at]
    filler[found] = np.minimum(1.0, (1 + negative[at]) / positive[at])
    why[found] = ""
    return Thresholds(threshold, filler, why)


def _descending(latents: np.ndarray, sizes: np.ndarray, is_positive: np.ndarray) -> np.ndarray:
    """[n] uint64 that are in the order of latents, then of sizes from the largest, then negative
    uses first: sorting one key takes a fifth of the time of three. The bits of floats that are not
    negative are in the order of the floats."""
    from_largest = np.uint64(0xFFFFFFFF) - sizes.view(np.uint32).astype(np.uint64)
    owners = latents.astype(np.uint64) << np.uint64(33)
    return owners | (from_largest << np.uint64(1)) | is_positive.astype(np.uint64)
