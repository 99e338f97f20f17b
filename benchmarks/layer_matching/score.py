"""How often the best match of a layer is the right layer, and how sure that is."""

from dataclasses import dataclass

import numpy as np

from itda_core.evaluation.intervals import resampled_interval

_RESAMPLES = 2_000


@dataclass(frozen=True)
class Score:
    """Of one measure on one shape, over all ordered pairs of different models."""

    share: float
    """Share of layers whose best match is the right one; tied ones count in part"""
    low: float
    high: float
    """95 % bootstrap interval of `share` over unordered pairs of models"""
    distance: float
    """Mean number of layers between the best match and the right one"""


def score(values: np.ndarray) -> Score:
    """values: [models, models, layers, layers] float, larger for more alike; [a, b, i, j] compares
    layer i of model a with layer j of model b. A layer without any value counts as wrong."""
    models, layers = values.shape[0], values.shape[2]
    pairs = [(a, b) for a in range(models) for b in range(a + 1, models)]
    matches = np.array([[_match(values[a, b]), _match(values[b, a])] for a, b in pairs])
    right, distance = matches[:, :, 0].mean(1), matches[:, :, 1].mean(1)
    low, high = resampled_interval(lambda drawn: drawn.mean(1), right, resamples=_RESAMPLES)
    return Score(float(right.mean()), low, high, float(distance.mean() * layers))


def _match(values: np.ndarray) -> tuple[float, float]:
    """Share of rows matched right, and mean distance as a share of the layers."""
    layers = len(values)
    far = np.abs(np.arange(layers)[:, None] - np.arange(layers)) / layers
    usable = np.where(np.isnan(values), -np.inf, values)
    best = (usable == usable.max(1, keepdims=True)) & (usable > -np.inf)
    weights = best / np.maximum(best.sum(1, keepdims=True), 1)
    lost = 1 - weights.sum(1)  # rows without any value
    return float(np.diag(weights).mean()), float(((weights * far).sum(1) + lost).mean())
