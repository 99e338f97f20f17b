"""Do latents with the same source say the same in two dictionaries? Correlations of namesakes, and
whether a latent's namesake is the one of all that it is used most like.

docs/method.md says why the correlation is signed, what chance gives, and how the intervals are
made.
"""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csc_array

from itda_core.similarity.correlations import CodedTokens

GROUPS = 10
"""Groups of prompts, of which one after another is left out for the intervals"""
PERMUTATIONS = 100
"""Of the sources, for the median that chance gives"""
_T_OF_GROUPS = 2.262
"""The 0.975 quantile of Student's t with 9 degrees of freedom"""
_TIE = 1e-9
"""Correlations nearer than this are equal"""


@dataclass(frozen=True)
class Value:
    """A number with its 95 % interval and what it is on average where sources are permuted; None
    for what can't be said."""

    value: float | None
    low: float | None
    high: float | None
    chance: float | None


@dataclass(frozen=True)
class Namesakes:
    """Pairs of latents on the same tokens; arrays are [n_pairs], in the order of the pairs."""

    correlation: np.ndarray
    """float64 in [−1, 1]; NaN where one of the two has none: unused, or the same on every token"""
    rank_a: np.ndarray
    """int64: of B's latent among all of B's by their correlation with A's: 1 is the best partner,
    ties count against it, 0 where there is no correlation"""
    rank_b: np.ndarray
    """int64: of A's latent among all of A's by their correlation with B's"""
    uses_a: np.ndarray
    """int64: tokens that use A's latent"""
    uses_b: np.ndarray
    uses_both: np.ndarray
    """int64: tokens that use both"""
    chance: np.ndarray
    """float64: the correlation with the latent of B that one permutation of the sources gives; NaN
    where `correlation` is"""
    best: Value
    """share of namesakes that are best partners, of those that have a correlation: the mean of A's
    latents among B's and of B's among A's"""
    median: Value
    """of the correlations"""

    @property
    def is_compared(self) -> np.ndarray:
        """bool: there is a correlation."""
        return self.rank_a > 0


def compare_namesakes(
    a: csc_array, b: csc_array, pairs: np.ndarray, prompts: np.ndarray, seed: int = 0
) -> Namesakes:
    """Every pair of latents compared, and each of its two looked for among all latents.

    a, b: coefficients of the same tokens, [n_tokens, n_a] and [n_tokens, n_b]; pairs: [n_pairs, 2]
    int64, latents of a and of b, each in one pair at most; prompts: [n_tokens], ascending, the
    prompt that each token is from; seed: of the permutations.
    """
    coded = CodedTokens(a, b, _groups(prompts))
    own = coded.of_pairs(pairs)
    search = _Search(pairs, own, a.shape[1], b.shape[1], seed)
    for latents, correlations in coded.blocks():
        search.look_at(latents, correlations)
    columns = a[:, pairs[:, 0]], b[:, pairs[:, 1]]
    uses = [np.diff(one.indptr).astype(np.int64) for one in columns]
    both = columns[0].astype(bool).multiply(columns[1].astype(bool))
    return Namesakes(
        own[0],
        *(search.rank_a, search.rank_b, *uses, np.asarray(both.sum(0, dtype=np.int64))),
        chance=search.chance(),
        best=_value([search.best(number) for number in range(len(own))], search.best_chance(), 0.0),
        median=_value([_median(one) for one in own], search.median_chance(), -1.0),
    )


def _groups(prompts: np.ndarray) -> list[slice]:
    """The tokens of each group of prompts; none where there are fewer prompts than groups."""
    begins = np.flatnonzero(np.diff(prompts, prepend=-1))
    if len(begins) < GROUPS:
        return []
    firsts = [int(part[0]) for part in np.array_split(begins, GROUPS)]
    return [slice(*ends) for ends in zip(firsts, [*firsts[1:], len(prompts)], strict=True)]


def _median(values: np.ndarray) -> float:
    kept = values[~np.isnan(values)]
    return float(np.median(kept)) if len(kept) else float("nan")


def _value(with_and_without: list[float], chance: float, lowest: float) -> Value:
    """The first with the interval that leaving out each group gives (the jackknife's). lowest: that
    it can be."""
    value, *without = with_and_without
    if np.isnan(value):
        return Value(None, None, None, None)
    if not without or np.isnan(without).any():
        return Value(value, None, None, chance)
    spread = np.square(np.array(without) - np.mean(without)).sum()
    half = _T_OF_GROUPS * float(np.sqrt((GROUPS - 1) / GROUPS * spread))
    return Value(value, max(lowest, value - half), min(1.0, value + half), chance)


class _Search:
    """Looks for the best partners of all latents, a block of A's at a time: with all tokens, and
    without each group of prompts."""

    def __init__(self, pairs: np.ndarray, own: np.ndarray, n_a: int, n_b: int, seed: int):
        """own: [1 + groups, n_pairs], the namesakes' correlations."""
        self._pairs, self._own = pairs, own
        self._compared = np.flatnonzero(~np.isnan(own[0]))
        self._pair_of = _pair_numbers(pairs[:, 0], n_a)
        self.rank_a, self.rank_b = (np.zeros(len(pairs), np.int64) for _ in range(2))
        self._others_a, self._others_b = (np.full((len(own), n), -np.inf) for n in (n_a, n_b))
        """[1 + groups, n_latents]: the largest correlation with another than the namesake"""
        self._top_a, self._top_b = _Top(n_a), _Top(n_b)
        draw = np.random.default_rng(seed)
        self._permutations = np.array(
            [draw.permutation(self._compared) for _ in range(PERMUTATIONS)], np.int64
        )
        """[permutations, n_compared]: the pair whose latent of B each is given"""
        self._permuted = np.full(self._permutations.shape, np.nan)

    def look_at(self, latents: np.ndarray, correlations) -> None:
        """Take up some latents of A: [n, n_b] with all tokens, then without each group."""
        for number, values in enumerate(correlations):
            if number == 0:
                self._take_all_tokens(latents, values)
            pairs = self._pair_of[latents]
            rows = np.flatnonzero(pairs >= 0)
            values[rows, self._pairs[pairs[rows], 1]] = -np.inf
            self._others_a[number, latents] = values.max(1)
            np.maximum(self._others_b[number], values.max(0), out=self._others_b[number])

    def _take_all_tokens(self, latents: np.ndarray, values: np.ndarray) -> None:
        row_of = np.full(len(self._pair_of), -1)
        row_of[latents] = np.arange(len(latents))
        rows = row_of[self._pairs[self._compared, 0]]
        here = np.flatnonzero(rows >= 0)
        rows, pairs = rows[here], self._compared[here]
        bounds = self._own[0] - _TIE
        self.rank_a[pairs] = (values[rows] >= bounds[pairs, None]).sum(1)  # itself among them
        of_b = values[:, self._pairs[self._compared, 1]]
        self.rank_b[self._compared] += (of_b >= bounds[self._compared]).sum(0)
        self._permuted[:, here] = values[rows, self._pairs[self._permutations[:, here], 1]]
        everyone = np.arange(values.shape[1])
        self._top_a.take(latents, everyone, values)
        self._top_b.take(everyone, latents, values.T)

    def chance(self) -> np.ndarray:
        """[n_pairs] float64: what one permutation of the sources gives."""
        drawn = np.full(len(self._pairs), np.nan)
        drawn[self._compared] = self._permuted[0]
        return drawn

    def best(self, number: int) -> float:
        """Share of namesakes that are best partners, both ways; NaN where there are none."""
        kept = ~np.isnan(self._own[number])
        if not kept.any():
            return float("nan")
        own, (i, j) = self._own[number][kept] - _TIE, self._pairs[kept].T
        others = self._others_a[number][i], self._others_b[number][j]
        return float(np.mean([(own > other).mean() for other in others]))

    def best_chance(self) -> float:
        """The same on average over all permutations of the sources: each latent gets the source of
        its best partner once in as many times as there are pairs."""
        i, j = self._pairs[self._compared].T
        given = np.isin(self._top_a.partner[i], j), np.isin(self._top_b.partner[j], i)
        return float(np.mean(given)) / max(1, len(i)) if len(i) else float("nan")

    def median_chance(self) -> float:
        """The mean of the medians over permutations of the sources."""
        if not len(self._compared):
            return float("nan")
        return float(np.median(self._permuted, axis=1).mean())


class _Top:
    """The partner with the largest correlation for each latent, −1 where several have it."""

    def __init__(self, n_latents: int):
        self.partner = np.full(n_latents, -1)
        self._value = np.full(n_latents, -np.inf)

    def take(self, latents: np.ndarray, others: np.ndarray, values: np.ndarray) -> None:
        """values: [n_latents, n_others], −inf where there is no correlation."""
        best, known = values.max(1), self._value[latents]
        is_alone = (values >= best[:, None] - _TIE).sum(1) == 1
        partner = np.where(is_alone, others[values.argmax(1)], -1)
        is_new, is_old = best > known + _TIE, known > best + _TIE
        partner = np.where(is_new, partner, np.where(is_old, self.partner[latents], -1))
        self.partner[latents] = partner
        self._value[latents] = np.maximum(best, known)


def _pair_numbers(latents: np.ndarray, n_latents: int) -> np.ndarray:
    """[n_latents] int64: in which pair each is; −1 for none."""
    numbers = np.full(n_latents, -1)
    numbers[latents] = np.arange(len(latents))
    return numbers
