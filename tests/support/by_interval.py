"""Pairs of latents in the order of what their correlations may be: a second way to have it."""

from collections.abc import Sequence

import numpy as np
import pandas as pd


def by_interval(rows: Sequence[dict], side: int = 1, prefix: str = "") -> list[int]:
    """A's latents that have a correlation, by one end of its 95 % interval, Fisher's z over the
    tokens that either uses. side: 1 for the upper ends upwards, −1 for the lower ends downwards;
    prefix: of the names of the numbers."""
    table = pd.DataFrame(rows).dropna(subset=f"{prefix}correlation")
    a, b, both = (table[f"{prefix}uses_{name}"].to_numpy(float) for name in ("a", "b", "both"))
    with np.errstate(divide="ignore", invalid="ignore"):
        half = np.where(a + b - both > 3, 1.96 / np.sqrt(a + b - both - 3), 99.0)
    correlation = table[f"{prefix}correlation"]
    end = np.arctanh(correlation.clip(-0.999999, 0.999999)) * side + half
    table = table.assign(end=end, signed=correlation * side)
    return table.sort_values(["end", "signed", "latent_a"])["latent_a"].tolist()
