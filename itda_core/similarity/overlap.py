"""Sets of sources compared all with all: what is shared, what chance gives, what prompts decide.

Chance: sets of these sizes drawn from the same tokens share |A| |B| / N on average, the mean of
the hypergeometric distribution. Interval: a bootstrap over prompts (Efron & Tibshirani 1993).
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from itda_core.activations.pool import CandidatePool
from itda_core.model.tokenizer import is_of_before
from itda_core.similarity.source_sets import (
    PER_PROMPT,
    Side,
    alike,
    check_key,
    pool_keys,
    prompt_numbers,
    why_not,
)

RESAMPLES = 200
"""Draws of as many prompts as there are, with replacement"""
INTERVAL = (2.5, 97.5)
"""Percentiles of the resamples' indices"""
_SEED = 0


@dataclass(frozen=True)
class Matrix:
    """Every row compared with every column; all arrays are [n_rows, n_columns]."""

    shared: np.ndarray
    """int64, |A ∩ B|; 0 where there is a reason, like all counts"""
    union: np.ndarray
    """int64, |A ∪ B|"""
    reasons: np.ndarray
    """str: why a pair can't be compared, empty where it can"""
    size_a: np.ndarray
    """int64, |A|: in the common prompts, without the seed atoms of either"""
    size_b: np.ndarray
    """int64, |B|"""
    pool_size: np.ndarray
    """int64, N: the tokens (words) that both could choose; 0 where that isn't known"""
    is_assumed: np.ndarray
    """bool: N is only what the sources show, too small, so that `chance` is too high"""
    expected: np.ndarray
    """float64, |A ∩ B| that chance gives, NaN where N isn't known or there is a reason"""
    low: np.ndarray
    """float64, where the 95 % interval of the index begins; NaN with fewer than two prompts, and
    where there is a reason"""
    high: np.ndarray

    @classmethod
    def empty(cls, n_rows: int, n_columns: int) -> "Matrix":
        shape = n_rows, n_columns
        counts, values = (
            ("shared", "union", "size_a", "size_b", "pool_size"),
            ("expected", "low", "high"),
        )
        return cls(
            reasons=np.full(shape, "", object),
            is_assumed=np.zeros(shape, bool),
            **{name: np.zeros(shape, np.int64) for name in counts},
            **{name: np.full(shape, np.nan) for name in values},
        )

    @property
    def jaccard(self) -> np.ndarray:
        """|A ∩ B| / |A ∪ B|, float64 in [0, 1]; 0 for two empty sides, NaN with a reason."""
        index = self.shared / np.maximum(self.union, 1)
        return np.where(self.reasons == "", index, np.nan)

    @property
    def chance(self) -> np.ndarray:
        """The index of sets that share what chance gives, E / (|A| + |B| − E), float64 in [0, 1];
        NaN where that isn't known."""
        union = self.size_a + self.size_b - self.expected
        return self.expected / np.where(union == 0, 1.0, union)


def compare_all(
    rows: Sequence[Side],
    columns: Sequence[Side],
    key: str = "token",
    seeds: bool = False,
    resamples: int = RESAMPLES,
) -> Matrix:
    """Every row with every column: unions over the layers both have, as in `model_comparison`.

    What can't be compared has its reason in the matrix instead of an error. seeds: count the seed
    atoms too; else the tokens that either side took before it chose are left out of both sides
    and of the candidate pool. resamples: of the prompts, for the interval; 0 for none. Raises
    ComparisonError for an unknown key.
    """
    check_key(key)
    matrix = Matrix.empty(len(rows), len(columns))
    by_model = any(is_of_before(one.tokenizer) for s in (*rows, *columns) for one in s.values())
    for some_rows in alike(rows, by_model):
        for some_columns in alike(columns, by_model):
            a, b = [rows[row] for row in some_rows], [columns[column] for column in some_columns]
            place = np.ix_(some_rows, some_columns)
            reasons = why_not(a, b, key)
            if reasons is not None:
                matrix.reasons[place] = reasons
                continue
            block = _Overlap(a, b, key, seeds).matrix(resamples)
            for name, values in vars(block).items():
                getattr(matrix, name)[place] = values
    return matrix


@dataclass(frozen=True)
class _Keys:
    """A side as sorted distinct keys."""

    chosen: np.ndarray
    seeds: np.ndarray
    seeds_class: int
    """Sides whose seeds are the same have the same number"""
    pools: tuple | None
    """Tells the side's candidate pools; None where a layer of it doesn't know"""


class _Overlap:
    """Two groups of sides whose prompts, tokenizers and layers compare."""

    def __init__(self, a: list[Side], b: list[Side], key: str, seeds: bool):
        self.numbers, self.key = prompt_numbers(a, b, key), key
        self.n_prompts = len({name for part in self.numbers.values() for name in part})
        self._classes: dict[bytes, int] = {}
        self._seeds: list[np.ndarray] = []
        self._pools: dict[tuple, tuple[CandidatePool, tuple[str, ...], dict[str, int]]] = {}
        self._furthest: list[np.ndarray] = []
        self.a = [self._keys_of(side, seeds) for side in a]
        self.b = [self._keys_of(side, seeds) for side in b]
        self.pool = functools.cache(self._common_pool)

    def matrix(self, resamples: int) -> Matrix:
        """All pairs; one row after another, so that memory holds the resamples of one."""
        matrix = Matrix.empty(len(self.a), len(self.b))
        weights = prompt_weights(self.n_prompts, resamples)
        every = np.unique(np.concatenate([side.chosen for side in self.b]))
        holds = np.stack([_holds(side.chosen, every) for side in self.b], axis=1)
        left_b = [{c: _minus(side.chosen, s) for c, s in self._seeds_of(self.a)} for side in self.b]
        drawn_b = [
            {c: self._drawn(weights, keys) for c, keys in drawn_side.items()}
            for drawn_side in left_b
        ]
        seeds_b = self._seeds_of(self.b)
        for row, side in enumerate(self.a):
            left = {c: _minus(side.chosen, s) for c, s in seeds_b}
            shared, drawn = self._shared(side.chosen, every, holds, weights)
            matrix.shared[row] = shared
            for column, other in enumerate(self.b):
                pair = left[other.seeds_class], left_b[column][side.seeds_class]
                self._fill(matrix, (row, column), pair)
            if self.n_prompts >= 2 and resamples:
                sizes = {c: self._drawn(weights, keys) for c, keys in left.items()}
                size_a = np.stack([sizes[other.seeds_class] for other in self.b], axis=1)
                size_b = np.stack([drawn_side[side.seeds_class] for drawn_side in drawn_b], axis=1)
                index = drawn / np.maximum(size_a + size_b - drawn, 1)
                matrix.low[row], matrix.high[row] = np.percentile(index, INTERVAL, axis=0)
        matrix.union[:] = matrix.size_a + matrix.size_b - matrix.shared
        return matrix

    def _keys_of(self, side: Side, seeds: bool) -> _Keys:
        layers = {layer: side[layer].keys(part, self.key) for layer, part in self.numbers.items()}
        everything = _distinct(np.concatenate(list(layers.values())))
        unchosen = [
            keys[: 0 if seeds else side[layer].n_seed_atoms] for layer, keys in layers.items()
        ]
        taken = _distinct(np.concatenate(unchosen))
        number = self._classes.setdefault(taken.tobytes(), len(self._classes))
        if number == len(self._seeds):
            self._seeds.append(taken)
        self._furthest.append(everything)
        return _Keys(_minus(everything, taken), taken, number, self._pools_of(side))

    def _pools_of(self, side: Side) -> tuple | None:
        names = set()
        for layer, numbers in self.numbers.items():
            pool = side[layer].pool
            if pool is None:
                return None
            name = id(pool), id(numbers)
            self._pools[name] = pool, side[layer].prompt_ids, numbers
            names.add(name)
        return tuple(sorted(names))

    def _seeds_of(self, sides: list[_Keys]) -> list[tuple[int, np.ndarray]]:
        return [(number, self._seeds[number]) for number in {side.seeds_class for side in sides}]

    def _shared(
        self, chosen: np.ndarray, every: np.ndarray, holds: np.ndarray, weights: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """|A ∩ B| with each column, [n_columns], and in each resample, [n_resamples, n_columns]."""
        common = chosen[_holds(every, chosen)]
        if not len(common):
            return np.zeros(holds.shape[1], np.int64), np.zeros((len(weights), holds.shape[1]))
        prompts, first = np.unique(common // PER_PROMPT, return_index=True)
        of_both = holds[np.searchsorted(every, common)]
        counts = np.add.reduceat(of_both, first, axis=0, dtype=np.int64)
        return counts.sum(0), weights[:, prompts] @ counts.astype(np.float64)

    def _drawn(self, weights: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """How many keys each resample holds, [n_resamples]."""
        return weights @ np.bincount(keys // PER_PROMPT, minlength=self.n_prompts).astype(float)

    def _fill(self, matrix: Matrix, place: tuple, pair: tuple[np.ndarray, np.ndarray]) -> None:
        """Sizes, the candidate pool and what chance shares, for one pair."""
        a, b = self.a[place[0]], self.b[place[1]]
        matrix.size_a[place], matrix.size_b[place] = (len(keys) for keys in pair)
        matrix.is_assumed[place] = a.pools is None and b.pools is None
        pool = self.pool(a.pools, b.pools)
        if pool is None:
            return
        unchosen = a.seeds if a.seeds_class == b.seeds_class else np.union1d(a.seeds, b.seeds)
        pool_size = len(pool) - int(_holds(pool, unchosen).sum())
        inside = [len(keys) for keys in pair]
        if a.pools != b.pools:  # then one of them could choose what the other could not
            inside = [int(_holds(pool, keys).sum()) for keys in pair]
        matrix.pool_size[place] = pool_size
        matrix.expected[place] = inside[0] * inside[1] / pool_size if pool_size else 0.0

    def _common_pool(self, a: tuple | None, b: tuple | None) -> np.ndarray | None:
        """Sorted keys that both could choose. Where one does not know, what the other does; where
        neither does, every token up to the furthest source of its prompt (None by word)."""
        if a is None and b is None:
            return self._up_to_the_furthest() if self.key == "token" else None
        sides = [self._one_pool(side) for side in {a, b} - {None}]
        return functools.reduce(lambda one, other: one[_holds(other, one)], sides)

    def _one_pool(self, names: tuple) -> np.ndarray:
        parts = [pool_keys(*self._pools[name], self.key) for name in names]
        return np.unique(np.concatenate(parts))

    def _up_to_the_furthest(self) -> np.ndarray:
        keys = _distinct(np.concatenate(self._furthest))
        prompts, first = np.unique(keys // PER_PROMPT, return_index=True)
        if not len(keys):
            return keys
        ends = np.append(first[1:], len(keys)) - 1
        seconds = keys % PER_PROMPT
        lowest = seconds.min()
        counts = seconds[ends] - lowest + 1
        starts = np.repeat(np.cumsum(counts) - counts, counts)
        return np.repeat(prompts * PER_PROMPT + lowest, counts) + np.arange(len(starts)) - starts


@functools.lru_cache(4)
def prompt_weights(n_prompts: int, resamples: int = RESAMPLES) -> np.ndarray:
    """How often each resample draws each prompt, [resamples, n_prompts] float64: one for all."""
    if not n_prompts:
        return np.zeros((resamples, 0))
    chances = np.full(n_prompts, 1 / n_prompts)
    draws = np.random.default_rng(_SEED).multinomial(n_prompts, chances, resamples)
    return draws.astype(np.float64)


def _distinct(keys: np.ndarray) -> np.ndarray:
    return np.unique(keys[keys >= 0])


def _holds(keys: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """[n_asked] bool, which are among the sorted `keys`."""
    if not len(keys):
        return np.zeros(len(candidates), bool)
    return keys[np.minimum(np.searchsorted(keys, candidates), len(keys) - 1)] == candidates


def _minus(keys: np.ndarray, others: np.ndarray) -> np.ndarray:
    return keys[~_holds(others, keys)]
