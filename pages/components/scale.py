"""Which coefficient a colour or an axis ends at."""

import numpy as np

_FEW, _TIMES, _MANY = 3, 5, 20


def usual_largest(coefficients: np.ndarray) -> float:
    """The largest |coefficient|, without the few that tower over all others: at most three of
    twenty or more, each five times as large as the largest of the others. A token of massive
    activation (Sun et al. 2024) would leave nothing of a latent's other uses to be seen.
    coefficients: [n]; 0 of none."""
    sizes = np.sort(np.abs(np.asarray(coefficients, np.float64)))[::-1]
    if len(sizes) >= _MANY:
        for few in range(_FEW, 0, -1):
            if sizes[few - 1] > _TIMES * sizes[few]:
                return float(sizes[few])
    return float(sizes[0]) if len(sizes) else 0.0
