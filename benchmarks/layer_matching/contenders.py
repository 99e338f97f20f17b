"""What is compared on the known answer: every measure in its settings, and the Jaccard index.

A contender takes the layers of several models, [models][layers] of [n_tokens, d_model], and gives
[models, models, layers, layers] values, larger for more alike. Peers come in several settings, of
which the report takes the best; the explorer's own measures come in its setting only, and the parts
that source resemblance is made of are shown beside it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.layer_matching.dictionaries import (
    coverage_rows,
    jaccard_values,
    threshold_rows,
)
from itda_core.similarity import linear, tokenwise
from itda_core.similarity.measures import MEASURES

Layers = Sequence[Sequence[torch.Tensor]]
BLOCK = 10_000
"""Tokens compared at once where memory grows with tokens × sources; more are a mean over blocks"""
_OURS = ("source_resemblance", "best_partners", "namesake_correlation")
_ATOMS = {1_000: (128, 256, 512), 10_000: (512, 1_024, 2_048), 100_000: (4_096,)}


@dataclass(frozen=True)
class Contender:
    """One measure in one setting."""

    family: str
    """peers of one family are reported by their best setting"""
    setting: str
    values: Callable[[Layers], np.ndarray]
    is_ours: bool = False


def contenders(n_tokens: int) -> list[Contender]:
    """All that is compared at a number of tokens."""
    plain = [
        Contender(MEASURES[name].title, "", _pairwise(name), name in _OURS)
        for name in (*_OURS, "cka", "cka_unbiased", "mean_cca", "procrustes")
    ]
    return [
        *plain,
        *(_svcca(share) for share in (0.99, 0.9)),
        *(_relative(count) for count in (tokenwise.ANCHORS, 1_000)),
        Contender(MEASURES["regression"].title, "mean of both directions", _regression),
        *(_neighbours(k) for k in (tokenwise.NEIGHBOURS, 30, 100)),
        *_parts(),
        *(_coverage(n_atoms) for n_atoms in _ATOMS[n_tokens]),
        *(_threshold(n_atoms) for n_atoms in _ATOMS[n_tokens]),
    ]


def compared(layers: Layers, prepare: Callable, compare: Callable) -> np.ndarray:
    """Values of a symmetric measure between different models; NaN within a model."""
    prepared = [[prepare(x) for x in model] for model in layers]
    n_models, n_layers = len(layers), len(layers[0])
    values = np.full((n_models, n_models, n_layers, n_layers), np.nan)
    for a in range(n_models):
        for b in range(a + 1, n_models):
            for i, one in enumerate(prepared[a]):
                for j, other in enumerate(prepared[b]):
                    values[a, b, i, j] = values[b, a, j, i] = compare(one, other)
    return values


def by_blocks(layers: Layers, prepare: Callable, compare: Callable) -> np.ndarray:
    """The same as the mean over blocks of tokens."""
    count = max(1, len(layers[0][0]) // BLOCK)
    parts = [
        compared([[x.tensor_split(count)[part] for x in m] for m in layers], prepare, compare)
        for part in range(count)
    ]
    return np.mean(parts, axis=0)


def _pairwise(name: str) -> Callable[[Layers], np.ndarray]:
    how = by_blocks if name == "source_resemblance" else compared
    return partial(how, prepare=MEASURES[name].prepare, compare=MEASURES[name].compare)


def _svcca(share: float) -> Contender:
    prepare = partial(linear.cca_form, variance=share)
    values = partial(compared, prepare=prepare, compare=linear.mean_cca)
    return Contender("SVCCA", f"{share:.0%} of the variance", values)


def _relative(count: int) -> Contender:
    prepare = partial(tokenwise.relative_form, anchors=count)
    values = partial(by_blocks, prepare=prepare, compare=tokenwise.relative_likeness)
    return Contender(MEASURES["relative"].title, f"{count:,} anchors", values)


def _regression(layers: Layers) -> np.ndarray:
    def both(a: Any, b: Any) -> float:
        return (linear.regression_r2(a, b) + linear.regression_r2(b, a)) / 2

    return compared(layers, linear.regression_form, both)


def _neighbours(k: int) -> Contender:
    # A bit for each token of the block: with many neighbours faster than their numbers.
    def prepare(x: torch.Tensor) -> np.ndarray:
        near = np.zeros((len(x), min(len(x), 1_000)), bool)
        np.put_along_axis(near, tokenwise.neighbours_form(x, k).numbers.numpy(), True, axis=1)
        return np.packbits(near, axis=1)

    def compare(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.bitwise_count(a & b).sum(dtype=np.int64)) / (k * len(a))

    values = partial(by_blocks, prepare=prepare, compare=compare)
    return Contender(MEASURES["mutual_knn"].title, f"k = {k}", values)


def _parts() -> list[Contender]:
    """Source resemblance with one of its parts left out, or in CKA's place."""
    form, compare = tokenwise.resemblance_form, tokenwise.source_resemblance
    undamped = partial(form, damping=0.0)
    whitened = partial(tokenwise.damped, damping=tokenwise.DAMPING)
    return [
        Contender(
            "Parts: source resemblance, no damping",
            "",
            partial(by_blocks, prepare=undamped, compare=compare),
        ),
        Contender(
            "Parts: relative representations, damped",
            "",
            partial(
                by_blocks,
                prepare=lambda x: tokenwise.relative_form(whitened(x), tokenwise.SOURCES),
                compare=tokenwise.relative_likeness,
            ),
        ),
        Contender(
            "Parts: CKA, damped",
            "",
            partial(compared, prepare=lambda x: linear.cka_form(whitened(x)), compare=linear.cka),
        ),
    ]


def _coverage(n_atoms: int) -> Contender:
    def values(layers: Layers) -> np.ndarray:
        chosen = [[coverage_rows(x, n_atoms) for x in model] for model in layers]
        return jaccard_values(chosen, len(layers[0][0]))

    return Contender("Jaccard index, coverage", f"{n_atoms:,} atoms", values)


def _threshold(n_atoms: int) -> Contender:
    def values(layers: Layers) -> np.ndarray:
        chosen = [[threshold_rows(x, n_atoms) for x in model] for model in layers]
        return jaccard_values(chosen, len(layers[0][0]))

    return Contender("Jaccard index, published greedy choice", f"{n_atoms:,} atoms", values)
