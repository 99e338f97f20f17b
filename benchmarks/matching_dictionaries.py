"""The Jaccard index as a measure of layers: dictionaries chosen from the same tokens, compared."""

import itertools
from collections.abc import Sequence

import numpy as np
import torch

from itda_core.coverage import choose
from itda_core.dictionary import GrowingDictionary
from itda_core.selection import ThresholdSelection

L0 = 32
_STEPS = 16
"""Steps in which the threshold is offered the tokens, beside that of the seeds"""


def coverage_rows(x: torch.Tensor, n_atoms: int) -> np.ndarray:
    """Rows of the tokens that the coverage makes atoms of, [≤ n_atoms] int64."""
    return choose(x, n_atoms, L0, seed=0).rows.numpy()


def threshold_rows(x: torch.Tensor, n_atoms: int, threshold: float) -> np.ndarray:
    """Rows that the paper's method takes beside its seeds, the first d_model tokens for every
    model; [≤ n_atoms] int64."""
    dictionary = GrowingDictionary(x.shape[1], x.shape[1] + n_atoms)
    selection = ThresholdSelection(dictionary, L0, threshold)
    sources = [("", row, 0, 0, "", -1) for row in range(len(x))]
    step = max(1, (len(x) - x.shape[1]) // _STEPS)
    bounds = [0, *range(x.shape[1], len(x), step), len(x)]
    for first, last in itertools.pairwise(bounds):
        selection.offer(x[first:last], sources[first:last])
    rows = np.array([source[1] for source in dictionary.sources], np.int64)
    return rows[x.shape[1] :]


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
