"""How sure a number is: percentile intervals by resampling (Efron & Tibshirani 1993, ch. 13)."""

from collections.abc import Callable

import numpy as np

RESAMPLES = 1_000
_PERCENTILES = (0.025, 0.975)
_SEED = 0
_Z = 1.959964
_HALVINGS = 40


def resampled_interval(
    statistic: Callable[..., np.ndarray], *groups: np.ndarray, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """The 95 % interval of what `statistic` makes of `groups`; the same for the same groups.

    groups: [n, …] each; every resample draws n rows of each group by itself, with replacement.
    statistic: takes the drawn rows of all groups, [resamples, n, …] each, and gives [resamples].
    """
    draw = np.random.default_rng(_SEED)
    drawn = [group[draw.integers(len(group), size=(resamples, len(group)))] for group in groups]
    low, high = np.quantile(statistic(*drawn), _PERCENTILES)
    return float(low), float(high)


def auroc_interval(
    auroc: np.ndarray, uses: np.ndarray, others: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % interval of each AUROC from as many uses and others as were drawn; NaN where that is
    none. All [n].

    The values θ from which the AUROC is at most 1.96 standard errors away, as they are at θ (Hanley
    & McNeil 1982; Newcombe 2006, method 5): unlike the error at the AUROC itself that leaves room
    below 1 where nothing was told wrong.
    """
    low = _farthest(auroc, uses, others, np.zeros_like(auroc))
    return low, _farthest(auroc, uses, others, np.ones_like(auroc))


def _farthest(
    auroc: np.ndarray, uses: np.ndarray, others: np.ndarray, end: np.ndarray
) -> np.ndarray:
    """The θ between the AUROC and an end of its range that is 1.96 standard errors away."""
    inside, outside = auroc.copy(), end.copy()
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        error = _Z * np.sqrt(_auroc_variance(middle, uses, others))
        is_inside = np.abs(middle - auroc) <= error
        inside, outside = (
            np.where(is_inside, middle, inside),
            np.where(is_inside, outside, middle),
        )
    return np.where((uses > 0) & (others > 0), outside, np.nan)


def _auroc_variance(theta: np.ndarray, uses: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Of an AUROC whose true value is θ, with exponential ratings (Hanley & McNeil 1982)."""
    pairs = np.maximum(uses * others, 1)
    more = (uses + others) / 2 - 1
    ends = (1 - theta) / (2 - theta) + theta / (1 + theta)
    return theta * (1 - theta) * (1 + more * ends) / pairs
