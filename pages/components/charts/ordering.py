"""Orders and best matches of a similarity matrix. Pure functions."""

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform


def cluster_order(values: np.ndarray) -> np.ndarray:
    """The rows of a symmetric matrix of similarities, those that are alike side by side.

    values: [n, n], NaN where unknown; returns [n] row numbers, leaves of average linkage.
    """
    if len(values) < 3:
        return np.arange(len(values))
    return leaves_list(model_linkage(values, ordered=True))


def model_linkage(values: np.ndarray, ordered: bool = False) -> np.ndarray:
    """scipy's linkage of a symmetric matrix, [n − 1, 4]: average linkage of 1 − similarity.

    values: [n, n], n at least 2; a pair that is unknown counts as the least alike of all.
    """
    measured = values[~np.isnan(values)]
    filled = np.where(np.isnan(values), measured.min() if len(measured) else 0.0, values)
    distances = 1.0 - (filled + filled.T) / 2
    np.fill_diagonal(distances, 0.0)
    condensed = squareform(np.maximum(distances, 0.0), checks=False)
    return linkage(condensed, "average", optimal_ordering=ordered)


def comparable(values: np.ndarray) -> np.ndarray:
    """Numbers of as many things as can all be compared with each other, in order.

    values: [n, n], NaN where two can't; what lacks the most goes first.
    """
    rows = np.arange(len(values))
    while len(rows):
        lacking = np.isnan(values[np.ix_(rows, rows)]).sum(1)
        if not lacking.any():
            break
        rows = np.delete(rows, lacking.argmax())
    return rows


def profile_orders(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of any matrix, those with like values side by side.

    values: [n_rows, n_columns], NaN where unknown.
    """
    filled = np.nan_to_num(values, nan=0.0)
    return _by_profile(filled), _by_profile(filled.T)


def _by_profile(rows: np.ndarray) -> np.ndarray:
    if len(rows) < 3:
        return np.arange(len(rows))
    return leaves_list(linkage(rows, "average", optimal_ordering=True))


def best_in_rows(values: np.ndarray, but_itself: bool = False) -> np.ndarray:
    """The column of each row's largest value, [n_rows] int; −1 where the row has no value.

    but_itself: leave the diagonal out, for a matrix of things with themselves.
    """
    open_values = np.where(np.isnan(values), -np.inf, values)
    if but_itself:
        open_values = open_values.copy()
        np.fill_diagonal(open_values, -np.inf)
    if not open_values.shape[1]:
        return np.full(len(values), -1)
    best = open_values.argmax(1)
    return np.where(np.isneginf(open_values.max(1)), -1, best)


def best_cells(
    values: np.ndarray, but_itself: bool, by_row: bool, is_told: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Row and column numbers of each row's (else each column's) largest value, where it has one and
    is_told, bool [n_rows, n_columns], says that it counts."""
    best = best_in_rows(values if by_row else values.T, but_itself)
    own = np.flatnonzero(best >= 0)
    rows, columns = (own, best[own]) if by_row else (best[own], own)
    counts = slice(None) if is_told is None else is_told[rows, columns]
    return rows[counts], columns[counts]
