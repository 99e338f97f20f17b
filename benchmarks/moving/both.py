"""One dictionary for two models: the coverage over both, judged in both.

Tokens near the centres of a k-means of both models' directions, side by side, are the candidates.
In either model they decompose other tokens; those stay whose loss, as a share of that model's whole
loss, is largest in the sum of both.
"""

import numpy as np
import torch

from itda_core.activations.centre import centre_of
from itda_core.activations.massive import massive_rows
from itda_core.selection import coverage


def rows_for_both(
    one: torch.Tensor, other: torch.Tensor, n_atoms: int, l0: int, seed: int
) -> np.ndarray:
    """Rows that become atoms, [≤ n_atoms] int64 ascending.

    one, other: [n_tokens, d] float32 each, of the same tokens. Tokens of massive activations in
    either are not chosen.
    """
    usual = np.flatnonzero(~(massive_rows(one) | massive_rows(other)))
    sides = [_directions(x)[usual] for x in (one, other)]
    draw = np.random.default_rng(seed)
    n_candidates = int(coverage.CANDIDATES_PER_ATOM * n_atoms)
    together = torch.nn.functional.normalize(torch.cat(sides, 1), dim=1)
    candidates = coverage._central(together, n_candidates, draw)
    losses = torch.zeros(len(candidates), dtype=torch.float64)
    for directions in sides:
        of_side = coverage._losses_without(directions, candidates, l0, draw)
        losses += of_side / of_side.sum()
    kept = candidates[losses.argsort(descending=True, stable=True)[:n_atoms]]
    return usual[kept.sort().values.numpy()]


def _directions(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(x - centre_of(x).mean, dim=1)
