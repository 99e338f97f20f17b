"""Strong uses of a latent and filler, told apart by the signs of the coefficients.

What a pursuit adds only to fill up has either sign by chance, so the negative uses show how large
filler gets; what resembles the source is positive. The threshold is the smallest coefficient at and
above which there is at most one negative use as large for every ten positive ones: a false
discovery rate of a tenth with the negative uses as decoys (Elias & Gygi 2007; Barber & Candès
2015). docs/method.md has the rule and docs/experiments.md what it was compared with.
"""

from typing import NamedTuple

import numpy as np

from itda_core.runs.latent_scores import FEW, NONE, UNSIGNED

MIN_USES = 20
"""With fewer, a latent has no threshold"""
POSITIVE_FOR_EACH_NEGATIVE = 10
_ROUNDING = 1e-9
"""Of sums of squares, so that all of them hold a share of 1"""


class Thresholds(NamedTuple):
    """What tells the strong uses of each latent from filler."""

    threshold: np.ndarray
    """[n_latents] float32: a use with this coefficient is strong; inf where none can be told from
    filler, NaN where that is not known"""
    filler: np.ndarray
    """[n_latents] float64, the share of the uses from the threshold up that may be filler: negative
    uses as large, and one more, over the positive ones; in (0, 1], NaN where that is not known. The
    one more keeps few uses from looking sure."""
    why: np.ndarray
    """[n_latents] of str: FEW or UNSIGNED where the threshold is not known, NONE where no use is
    strong, else "" """


def strong_thresholds(latents: np.ndarray, coefficients: np.ndarray, n_latents: int) -> Thresholds:
    """The threshold of each latent. latents, coefficients: [n_uses], each use once, none 0."""
    counts = np.bincount(latents, minlength=n_latents)
    threshold, filler = np.full(n_latents, np.nan, np.float32), np.full(n_latents, np.nan)
    why = np.where(counts < MIN_USES, FEW, NONE).astype(object)
    if not (coefficients < 0).any():  # of an autoencoder, or too few
        why[:] = UNSIGNED if len(coefficients) else FEW
        return Thresholds(threshold, filler, why)
    cuts = lowest_cuts(
        latents, np.abs(coefficients), coefficients > 0, POSITIVE_FOR_EACH_NEGATIVE, n_latents
    )
    is_enough = counts >= MIN_USES
    found = ~np.isnan(cuts.cut) & is_enough
    threshold[is_enough], filler[is_enough] = np.inf, 1.0
    threshold[found] = cuts.cut[found]
    filler[found] = np.minimum(1.0, (1 + cuts.others[found]) / cuts.wanted[found])
    why[found] = ""
    return Thresholds(threshold, filler, why)


def is_strong(coefficients: np.ndarray, least: np.ndarray) -> np.ndarray:
    """Which uses are strong, [n_uses] bool. coefficients: of the uses, terms of one latent added
    up; least: the threshold of each one's latent, NaN where all uses count, as
    `runs.latent_scores.thresholds_of` gives them."""
    return ~(np.asarray(coefficients).astype(np.float32) < least)  # which thresholds are, too


def share_thresholds(
    latents: np.ndarray, coefficients: np.ndarray, share: float, n_latents: int
) -> np.ndarray:
    """The largest coefficient of each latent from which up positive uses hold at least `share`, in
    (0, 1], of the squares of all its coefficients, [n_latents] float32; NaN where they hold less.

    What uses of an autoencoder, whose signs say nothing, are told by where they stand beside strong
    ones. latents, coefficients: as in `strong_thresholds`.
    """
    squares = coefficients.astype(np.float64) ** 2
    wanted = share * (1 - _ROUNDING) * np.bincount(latents, squares, n_latents)
    order = np.lexsort((-coefficients, latents))
    order = order[coefficients[order] > 0]
    owners, held = latents[order], np.cumsum(squares[order])
    starts = np.searchsorted(owners, np.arange(n_latents))
    held -= np.concatenate([[0.0], held])[starts][owners]
    places = np.flatnonzero(held >= wanted[owners])
    found, first = np.unique(owners[places], return_index=True)
    cuts = np.full(n_latents, np.nan, np.float32)
    cuts[found] = coefficients[order][places[first]]
    return cuts


class Cuts(NamedTuple):
    """The lowest cut of each latent above which what is wanted prevails."""

    cut: np.ndarray
    """[n_latents] float32, a size of a wanted use; NaN where there is none"""
    wanted: np.ndarray
    """[n_latents] int64, wanted uses at least as large, 0 without a cut"""
    others: np.ndarray
    """[n_latents] int64, the other ones"""


def lowest_cuts(
    latents: np.ndarray, sizes: np.ndarray, is_wanted: np.ndarray, for_each: int, n_latents: int
) -> Cuts:
    """The smallest size of a wanted use at and above which there are at least `for_each` wanted
    uses for each other one. latents, sizes (not negative), is_wanted: [n_uses]."""
    if (latents[1:] < latents[:-1]).any():
        order = np.argsort(latents, kind="stable")
        latents, sizes, is_wanted = latents[order], sizes[order], is_wanted[order]
    keys = _from_the_largest(sizes.astype(np.float32), is_wanted)
    starts = np.searchsorted(latents, np.arange(n_latents + 1, dtype=latents.dtype))
    cuts = Cuts(np.full(n_latents, np.nan, np.float32), *np.zeros((2, n_latents), np.int64))
    for latent in np.flatnonzero(np.diff(starts)):
        own = keys[starts[latent] : starts[latent + 1]]
        own.sort()
        wanted = (own & 1).astype(bool)
        counted = np.cumsum(wanted)  # int64
        others = np.arange(1, len(own) + 1) - counted
        places = np.flatnonzero(wanted & (for_each * others <= counted))
        if len(places):
            last = places[-1]
            cuts.cut[latent] = _size_of(own[last])
            cuts.wanted[latent], cuts.others[latent] = counted[last], others[last]
    return cuts


_LARGEST = np.uint32(0x7FFFFFFF)
"""As bits of a size: none is larger"""


def _from_the_largest(sizes: np.ndarray, is_wanted: np.ndarray) -> np.ndarray:
    """[n] uint32 that are in the order of sizes from the largest, then of uses that are not wanted,
    and hold both, so that a latent's are sorted where they lie, in the processor's cache, and
    nothing else has to be brought into their order. The bits of floats that are not negative are in
    the order of the floats."""
    return (_LARGEST - sizes.view(np.uint32)) << np.uint32(1) | is_wanted.astype(np.uint32)


def _size_of(key: np.uint32) -> np.float32:
    return (_LARGEST - (key >> np.uint32(1))).view(np.float32)
