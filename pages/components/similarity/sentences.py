"""What a similarity matrix says in plain words. Pure functions."""

import numpy as np

from pages.components.charts.ordering import best_in_rows
from pages.components.similarity.values import JACCARD, Kind, Values


def summary(values: np.ndarray, rows: list[str], columns: list[str], is_same: bool) -> str:
    """The most and the least alike pair. rows, columns: names; is_same: both are the same things,
    so that the diagonal says nothing."""
    told = values.astype(float).copy()
    if is_same:
        np.fill_diagonal(told, np.nan)
        told[np.tril_indices(len(told), -1)] = np.nan
    if np.isnan(told).all():
        return ""
    most = np.unravel_index(np.nanargmax(told), told.shape)
    least = np.unravel_index(np.nanargmin(told), told.shape)
    text = f"The most alike are {rows[most[0]]} and {columns[most[1]]} ({told[most]:.2f})"
    if most == least:
        return f"{text}."
    return (
        f"{text}, the least alike {rows[least[0]]} and {columns[least[1]]} ({told[least]:.2f}). "
        f"The mean of all pairs is {np.nanmean(told):.2f}."
    )


def chance_summary(found: Values, is_same: bool) -> str:
    """How many pairs are surely more alike than chance; empty where that is not known."""
    if not found.counts:
        return ""
    judged = ~np.isnan(found.values) & ~np.isnan(found.counts["chance"] + found.counts["low"])
    if is_same:
        judged = judged & ~np.tri(len(judged), dtype=bool)
    if not judged.any():
        return ""
    above = int((found.counts["low"] > found.counts["chance"])[judged].sum())
    mean = found.counts["chance"][judged].mean()
    return (
        f"Sets of these sizes drawn by chance would have {mean:.2f} on average; in {above:,} of "
        f"{judged.sum():,} pairs the whole 95 % interval lies above what chance gives."
    )


def path_summary(values: np.ndarray, layers_a: list[int], layers_b: list[int]) -> str:
    """How many layers are most like the layer with their own number in the other model."""
    best = best_in_rows(values)
    common = [place for place, layer in enumerate(layers_a) if layer in layers_b]
    judged = [place for place in common if best[place] >= 0]
    if not judged:
        return ""
    own = sum(layers_b[best[place]] == layers_a[place] for place in judged)
    return (
        f"{own} of {len(judged)} layers of A ({own / len(judged):.0%}) are most like the layer "
        "of B with the same number."
    )


def cell_sentence(kind: Kind, found: Values, row: int, column: int) -> str:
    """The value of one cell with all that is known of how sure it is and what chance would give."""
    value = found.values[row, column]
    if np.isnan(value):
        return f"{kind.title}: not known yet."
    text = f"{kind.title} **{value:.2f}**"
    if kind.name != JACCARD:
        return f"{text}, on a scale from {kind.low:g} to {kind.high:g}."
    counts = {name: array[row, column] for name, array in found.counts.items()}
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
    return f"{text}."


def hovers(kind: Kind, found: Values, rows: list[str], columns: list[str], key: str) -> list:
    """What the mouse shows of each cell."""

    def hover(row: int, column: int) -> str:
        pair = f"{rows[row]} and {columns[column]}"
        value = found.values[row, column]
        if found.reasons[row, column]:
            return f"{pair}\nnot comparable"
        if np.isnan(value):
            return f"{pair}\nnot computed yet"
        lines = [pair, f"{kind.title} {value:.4f}"]
        if found.counts:
            lines += _counted({name: of[row, column] for name, of in found.counts.items()}, key)
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
