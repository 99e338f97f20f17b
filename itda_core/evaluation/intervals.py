"""How sure a number is: percentile intervals by resampling (Efron & Tibshirani 1993, ch. 13)."""

from collections.abc import Callable

import numpy as np

RESAMPLES = 1_000
_PERCENTILES = (0.025, 0.975)
_SEED = 0


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
