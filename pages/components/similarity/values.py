"""The values of a similarity matrix: Jaccard indices, computed here, and measures of a job."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from itda_core.similarity.measures import Measure
from pages.components.explorer import explorer
from pages.components.similarity.overlaps import RunSide, compare_all_sides

_ONLY_SEEDS = (
    "Where one of two dictionaries has nothing but the first d_model tokens of the corpus, which "
    "the published method takes without a choice, there is nothing to compare. Train it with more "
    "atoms than d_model, or count these atoms too."
)


@dataclass(frozen=True)
class Values:
    """One measure for every row and column; arrays are [n_rows, n_columns]."""

    values: np.ndarray
    """float64, NaN where there is none"""
    reasons: np.ndarray
    """str: why there is none, empty where there is a value or one can be computed"""
    counts: dict[str, np.ndarray] = field(default_factory=dict)
    """of the Jaccard index what overlap.Matrix has: shared, union, size_a, size_b, chance,
    is_assumed, low, high"""
    missing: tuple[tuple[str, str], ...] = ()
    """pairs of run ids that are not measured yet"""
    n_pairs: int = 0
    """pairs of run ids that the matrix needs"""


def jaccard_values(
    rows: tuple[RunSide, ...], columns: tuple[RunSide, ...], key: str, seeds: bool = False
) -> Values:
    """The Jaccard index of every pair: unions over the layers both sides have."""
    matrix = compare_all_sides(rows, columns, key, seeds)
    names = ("shared", "union", "size_a", "size_b", "chance", "is_assumed", "low", "high")
    counts = {name: getattr(matrix, name) for name in names}
    is_empty = (matrix.reasons == "") & ((matrix.size_a == 0) | (matrix.size_b == 0))
    reasons = np.where(is_empty, _ONLY_SEEDS, matrix.reasons)
    return Values(np.where(is_empty, np.nan, matrix.jaccard), reasons, counts)


def stored_values(
    kind: Measure, rows: Sequence[tuple[str, ...]], columns: Sequence[tuple[str, ...]]
) -> Values:
    """What jobs have measured. rows, columns: the run ids of each, one for each layer.

    Of several layers a pair's value is the mean over the layers of the best value among the
    other's layers, from both sides.
    """
    ids = sorted({run_id for side in (*rows, *columns) for run_id in side})
    number = {run_id: place for place, run_id in enumerate(ids)}
    stored, untold = _known(kind, number)
    places = [[[number[run_id] for run_id in one] for one in side] for side in (rows, columns)]
    values = np.full((len(rows), len(columns)), np.nan)
    reasons = np.full(values.shape, "", object)
    needed = np.zeros(stored.shape, bool)
    for i, row in enumerate(places[0]):
        for j, column in enumerate(places[1]):
            block = stored[np.ix_(row, column)]
            needed[np.ix_(row, column)] = True
            reasons[i, j] = next(filter(None, untold[np.ix_(row, column)].ravel()), "")
            if block.size and not np.isnan(block).any():
                values[i, j] = (block.max(1).mean() + block.max(0).mean()) / 2
    if kind.is_symmetric:
        needed = np.triu(needed | needed.T)
    lacking = np.argwhere(needed & np.isnan(stored) & (untold == ""))
    missing = tuple((ids[a], ids[b]) for a, b in lacking)
    return Values(values, reasons, {}, missing, int(needed.sum()))


def _known(kind: Measure, number: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """What is stored of all pairs of runs: values [n_runs, n_runs], NaN where
    there is none, and why there is none where that was found out."""
    stored = np.full((len(number), len(number)), np.nan)
    untold = np.full(stored.shape, "", object)
    table = explorer().store.comparisons.table(kind.name, list(number))
    for row in table.itertuples():
        a, b = number[row.run_a], number[row.run_b]
        why = "" if row.value == row.value else row.reason
        for place in ((a, b), (b, a)) if kind.is_symmetric else ((a, b),):
            stored[place], untold[place] = row.value, why
    return stored, untold
