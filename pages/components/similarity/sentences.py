"""What a similarity matrix says in plain words. Pure functions."""

import numpy as np

from itda_core.similarity.measures import JACCARD, Measure
from pages.components.charts.ordering import best_cells
from pages.components.similarity.values import Values

_MUCH = 0.5
"""By chance: then hardly anything but chance is left to see."""


def summary(values: np.ndarray, rows: list[str], columns: list[str], is_same: bool) -> str:
    """The most and the least alike pair. rows, columns: names; is_same: both are the same things,
    so that the diagonal says nothing."""
    off_diagonal = values.astype(float).copy()
    if is_same:
        np.fill_diagonal(off_diagonal, np.nan)
        off_diagonal[np.tril_indices(len(off_diagonal), -1)] = np.nan
    if np.isnan(off_diagonal).all():
        return ""
    most = np.unravel_index(np.nanargmax(off_diagonal), off_diagonal.shape)
    least = np.unravel_index(np.nanargmin(off_diagonal), off_diagonal.shape)
    text = f"The most alike are {rows[most[0]]} and {columns[most[1]]} ({off_diagonal[most]:.2f})"
    if most == least:
        return f"{text}."
    return (
        f"{text}, the least alike {rows[least[0]]} and {columns[least[1]]} "
        f"({off_diagonal[least]:.2f}). The mean of all pairs is {np.nanmean(off_diagonal):.2f}."
    )


def chance_summary(values: Values, is_same: bool) -> str:
    """How many pairs are surely more alike than chance; empty where that is not known."""
    if not values.counts:
        return ""
    judged = _is_judged(values)
    if is_same:
        judged = judged & ~np.tri(len(judged), dtype=bool)
    if not judged.any():
        return ""
    above = int(is_told(values)[judged].sum())
    mean = values.counts["chance"][judged].mean()
    return (
        f"Sets of these sizes drawn by chance would have {mean:.2f} on average; in {above:,} of "
        f"{judged.sum():,} pairs the whole 95 % interval lies above what chance gives."
    )


def is_told(values: Values) -> np.ndarray:
    """bool [n_rows, n_columns]: whether a value says more than chance would. Where that is not
    known it is taken to."""
    if not values.counts:
        return np.ones(values.values.shape, bool)
    return ~_is_judged(values) | (values.counts["low"] > values.counts["chance"])


def _is_judged(values: Values) -> np.ndarray:
    return ~np.isnan(values.values + values.counts["chance"] + values.counts["low"])


def path_summary(values: Values, layers_a: list[int], layers_b: list[int]) -> str:
    """How many layers are most like the layer with their own number in the other model."""
    told = is_told(values)
    rows, columns = best_cells(values.values, False, True, told)
    judged = [
        (layers_a[row], layers_b[column])
        for row, column in zip(rows, columns, strict=True)
        if layers_a[row] in layers_b
    ]
    if not judged:
        return ""
    own = sum(a == b for a, b in judged)
    above = "" if told.all() else " with a best match above chance"
    return (
        f"{own} of {len(judged)} layers of A{above} ({own / len(judged):.0%}) are most like the "
        "layer of B with the same number."
    )


def cell_sentence(kind: Measure, values: Values, row: int, column: int) -> str:
    """The value of one cell with all that is known of how sure it is and what chance would give."""
    value = values.values[row, column]
    if np.isnan(value):
        return f"{kind.title}: not known yet."
    text = f"{kind.title} **{value:.2f}**"
    if kind is not JACCARD:
        return f"{text}, on a scale from {kind.low:g} to {kind.high:g}."
    counts = {name: array[row, column] for name, array in values.counts.items()}
    if not np.isnan(counts["low"]):
        text += f", 95 % interval {counts['low']:.2f}–{counts['high']:.2f}"
    text += f": {counts['shared']:,} shared of {counts['union']:,} in either"
    return f"{text}. {_chance_sentence(counts)}".strip()


def _chance_sentence(counts: dict) -> str:
    if np.isnan(counts["chance"]):
        return ""
    share = f"{counts['chance']:.2f}" if counts["chance"] >= 0.005 else "less than 0.01"
    text = f"Two sets of these sizes drawn by chance would share {share}"
    if counts["is_assumed"]:
        text += " at most: which tokens they could choose from is not known exactly"
    if counts["chance"] >= _MUCH:
        text += ", more than half of all, so that this index can't say much"
    return f"{text}."


def hovers(kind: Measure, values: Values, rows: list[str], columns: list[str], key: str) -> list:
    """What the mouse shows of each cell."""

    def hover(row: int, column: int) -> str:
        pair = f"{rows[row]} and {columns[column]}"
        value = values.values[row, column]
        if values.reasons[row, column]:
            return f"{pair}\nnot comparable"
        if np.isnan(value):
            return f"{pair}\nnot computed yet"
        lines = [pair, f"{kind.title} {value:.4f}"]
        if values.counts:
            lines += _counted({name: of[row, column] for name, of in values.counts.items()}, key)
        return "\n".join(lines)

    return [[hover(i, j) for j in range(len(columns))] for i in range(len(rows))]


def _counted(counts: dict, key: str) -> list[str]:
    """The lines of a hover that only the Jaccard index has."""
    shared, union, low, high = (counts[name] for name in ("shared", "union", "low", "high"))
    lines = [f"|A ∩ B| = {shared:,}, |A ∪ B| = {union:,}, matched by {key}"]
    if not np.isnan(low):
        lines.append(f"95 % interval {low:.3f}–{high:.3f}")
    if not np.isnan(counts["chance"]):
        lines.append(f"by chance {counts['chance']:.3f}")
    return lines
