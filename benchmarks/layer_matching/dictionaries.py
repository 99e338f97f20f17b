"""The Jaccard index as a measure of layers: dictionaries chosen from the same tokens, compared."""

from collections.abc import Sequence

import numpy as np
import torch

from itda_core.dictionary.growing import GrowingDictionary
from itda_core.pursuit.codes import direction_errors
from itda_core.selection.coverage import choose
from itda_core.selection.threshold import ThresholdSelection

L0 = 32
_STEPS = 16
"""Steps in which the threshold is offered the tokens, beside those of the seeds"""


def coverage_rows(x: torch.Tensor, n_atoms: int) -> np.ndarray:
    """Rows of the tokens that the coverage makes atoms of, [≤ n_atoms] int64."""
    return choose(x, n_atoms, L0, seed=0).rows.numpy()


def threshold_rows(x: torch.Tensor, n_atoms: int) -> np.ndarray:
    """Rows that the paper's method takes beside its seeds, the first d_model tokens for every
    model; [≤ n_atoms] int64.

    The threshold is the error that `n_atoms` tokens exceed with the seeds alone, so that atoms are
    taken up to the end of the tokens and not from their beginning only.
    """
    n_seeds = x.shape[1]
    dictionary = GrowingDictionary(n_seeds, n_seeds + n_atoms)
    sources = [("", row, 0, 0, "", -1) for row in range(len(x))]
    seeds = ThresholdSelection(dictionary, L0, threshold=0.0)
    seeds.offer(x[:n_seeds], sources[:n_seeds])
    rest = x[n_seeds:]
    errors = direction_errors(rest, dictionary.encode(rest, L0).reconstruct(dictionary.atoms))
    threshold = float(errors.sort(descending=True).values[min(n_atoms, len(rest) - 1)])
    selection = ThresholdSelection(dictionary, L0, threshold)
    step = max(1, len(rest) // _STEPS)
    for first in range(n_seeds, len(x), step):
        selection.offer(x[first : first + step], sources[first : first + step])
    rows = np.array([source[1] for source in dictionary.sources], np.int64)
    return rows[rows >= n_seeds]


def jaccard_values(chosen: Sequence[Sequence[np.ndarray]], n_tokens: int) -> np.ndarray:
    """|A ∩ B| / |A ∪ B| of the rows of every two layers, [models, models, layers, layers]."""
    holds = np.zeros((len(chosen), len(chosen[0]), n_tokens), np.float32)
    for model, layers in enumerate(chosen):
        for layer, rows in enumerate(layers):
            holds[model, layer, rows] = 1
    shared = np.einsum("ait,bjt->abij", holds, holds, optimize=True)
    sizes = holds.sum(2)
    union = sizes[:, None, :, None] + sizes[None, :, None, :] - shared
    return shared / np.maximum(union, 1)
