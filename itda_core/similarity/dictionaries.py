"""How alike dictionaries are: the Jaccard index of their source tokens.

Two dictionaries built on the same prompts are sets of (prompt, token) pairs, so |A ∩ B| / |A ∪ B|
says how alike two layers or models are, and the sets say which tokens make the difference
(arXiv 2505.17769, section 5). Across tokenizers a source is called by its white-space word.

Beside each index stand what chance gives and an interval; what the threshold took before it chose
anything is left out unless `seeds` asks for it. docs/method.md has the formulas.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from itda_core.dictionary.dictionary import Dictionary
from itda_core.errors import ComparisonError
from itda_core.similarity.log_odds import by_log_odds, word_counts
from itda_core.similarity.overlap import RESAMPLES, Matrix, compare_all
from itda_core.similarity.source_sets import (
    KEYS,
    NO_LAYER,
    Side,
    SourceSet,
    common_prompts,
    prompt_numbers,
)

__all__ = [
    "KEYS",
    "Comparison",
    "Matrix",
    "Side",
    "SourceSet",
    "common_prompts",
    "comparable",
    "compare",
    "compare_all",
    "jaccard",
    "jaccard_matrix",
    "model_comparison",
    "word_counts",
]


@dataclass(frozen=True)
class Comparison:
    """Two dictionaries as sets of source tokens; the most distinctive sources come first."""

    jaccard: float
    """|A ∩ B| / |A ∪ B|, in [0, 1]"""
    shared: pd.DataFrame
    """sources in both: A's columns, `layer` and `score`, and, as `latent_b` and `layer_b`, B's
    latent; by word there may be several latents of a side for one word, of which the first stands
    here"""
    only_a: pd.DataFrame
    only_b: pd.DataFrame
    union: int
    """|A ∪ B|"""
    intersection: int
    """|A ∩ B|"""
    size_a: int
    """|A|: in the common prompts, without the seed atoms of either"""
    size_b: int
    chance: float
    """the index of random sets of these sizes, in [0, 1]; NaN where that isn't known"""
    low: float
    """where the 95 % interval of the index begins (bootstrap over prompts); NaN with one prompt"""
    high: float
    pool_size: int
    """N, the tokens (words) that both could choose, which `chance` draws from; 0 where unknown"""
    is_assumed: bool
    """N is only what the sources show: too small, so that `chance` is too high"""


def jaccard(a: Dictionary, b: Dictionary, key: str = "token", seeds: bool = False) -> float:
    """Jaccard index of two dictionaries' sources, in [0, 1]; 0 for two empty ones.

    key: "token" takes a source as (prompt, token position), which needs one tokenizer; "word"
    as (prompt, the white-space word that holds the token), which works across tokenizers.
    seeds: count the seed atoms too, as published. By default the tokens that either dictionary
    took before it chose anything count for neither: for them there was no choice to compare.
    Where one training read more of the same prompts, only those that both read count. Raises
    ComparisonError for dictionaries built on different prompts.
    """
    return float(_matrix([{0: a}], [{0: b}], key, seeds, resamples=0).jaccard[0, 0])


def compare(a: Dictionary, b: Dictionary, key: str = "token", seeds: bool = False) -> Comparison:
    """The Jaccard index with chance, interval, and the sources behind it: shared, only in A, only
    in B. Arguments and errors are those of `jaccard`."""
    return model_comparison({0: a}, {0: b}, key, seeds)


def jaccard_matrix(
    a: Sequence[Dictionary], b: Sequence[Dictionary], key: str = "token", seeds: bool = False
) -> np.ndarray:
    """The index of every pair, [len(a), len(b)] float64. Raises ComparisonError like `jaccard`."""
    rows, columns = ([{0: dictionary} for dictionary in side] for side in (a, b))
    return _matrix(rows, columns, key, seeds, resamples=0).jaccard


def model_comparison(
    a: Mapping[int, Dictionary],
    b: Mapping[int, Dictionary],
    key: str = "token",
    seeds: bool = False,
) -> Comparison:
    """Two models: the unions of their sources over the layers that both have, compared.

    a, b: a dictionary for each layer. What is a seed in one layer is left out of the whole union.
    Chance draws sets as large as the unions from the union of the layers' candidate pools.
    Raises ComparisonError where no layer is common.
    """
    if not set(a) & set(b):
        raise ComparisonError(NO_LAYER)
    matrix = _matrix([a], [b], key, seeds, RESAMPLES)
    shared, only_a, only_b = by_log_odds(*_lists(a, b, key, seeds))
    return Comparison(
        jaccard=float(matrix.jaccard[0, 0]),
        shared=shared,
        only_a=only_a,
        only_b=only_b,
        union=int(matrix.union[0, 0]),
        intersection=int(matrix.shared[0, 0]),
        size_a=int(matrix.size_a[0, 0]),
        size_b=int(matrix.size_b[0, 0]),
        chance=float(matrix.chance[0, 0]),
        low=float(matrix.low[0, 0]),
        high=float(matrix.high[0, 0]),
        pool_size=int(matrix.pool_size[0, 0]),
        is_assumed=bool(matrix.is_assumed[0, 0]),
    )


def comparable(matrix: Matrix) -> Matrix:
    """The matrix itself. Raises ComparisonError where a pair can't be compared, with the reason."""
    for reason in matrix.reasons[matrix.reasons != ""]:
        raise ComparisonError(reason)
    return matrix


def _matrix(
    a: Sequence[Mapping[int, Dictionary]],
    b: Sequence[Mapping[int, Dictionary]],
    key: str,
    seeds: bool,
    resamples: int,
) -> Matrix:
    """All pairs compared. Raises ComparisonError with the first reason why a pair can't be."""
    rows, columns = (
        [{layer: SourceSet.of(dictionary) for layer, dictionary in side.items()} for side in sides]
        for sides in (a, b)
    )
    return comparable(compare_all(rows, columns, key, seeds, resamples))


def _lists(
    a: Mapping[int, Dictionary], b: Mapping[int, Dictionary], key: str, seeds: bool
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Sources in both, only in A, only in B, in the order of layers and latents."""
    sides = [
        {layer: SourceSet.of(dictionary) for layer, dictionary in side.items()} for side in (a, b)
    ]
    numbers = prompt_numbers([sides[0]], [sides[1]], key)
    keys = [
        {layer: side[layer].keys(part, key) for layer, part in numbers.items()} for side in sides
    ]
    unchosen = {-1}  # what lies in none of the common prompts
    for side, its_keys in zip(sides, keys, strict=True):
        for layer, numbered in its_keys.items():
            unchosen.update(numbered[: 0 if seeds else side[layer].n_seed_atoms].tolist())
    table_a, table_b = (
        _table(side, its_keys, unchosen) for side, its_keys in zip((a, b), keys, strict=True)
    )
    in_b, in_a = table_a.index.isin(table_b.index), table_b.index.isin(table_a.index)
    others = table_b[["latent", "layer"]].reindex(table_a.index[in_b])
    shared = table_a[in_b].assign(latent_b=others["latent"], layer_b=others["layer"])
    return shared, table_a[~in_b], table_b[~in_a]


def _table(
    side: Mapping[int, Dictionary], keys: Mapping[int, np.ndarray], unchosen: set[int]
) -> pd.DataFrame:
    """Sources indexed by key, the first of each key."""
    table = pd.concat(
        [side[layer].sources.set_axis(keys[layer], axis=0).assign(layer=layer) for layer in keys]
    )
    return table[~table.index.duplicated() & ~table.index.isin(list(unchosen))]
