"""What is said of dictionaries that have the same sources because one was moved from another."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import streamlit as st

from pages.components.explorer import explorer
from pages.components.similarity.choice import Choice, Item
from pages.components.similarity.values import Values
from pages.components.text import literal

_ALL = 1 - 1e-9


@dataclass(frozen=True)
class MovedPair:
    """A row and a column with dictionaries that have the same sources by construction."""

    names: tuple[str, str]
    run_ids: tuple[str, str]
    """of the first two of them"""
    jaccard: float
    """of the cell"""


def say_what_is_by_construction(choice: Choice, values: Values) -> None:
    """That a Jaccard index of such dictionaries says nothing of their models, with a link to what
    does; nothing where there are none. Of the Jaccard index alone: other measures read
    activations."""
    roots = explorer().store.runs.table().set_index("run_id")["root"]
    pairs = moved_pairs(choice.rows, choice.columns, values.values, roots)
    if not pairs:
        return
    st.info(literal(construction_in_words(pairs)))
    left, right = pairs[0].run_ids
    query = {"view": "latents", "left": left, "right": right}
    st.page_link(
        "pages/similarity.py", label="How alike their latents are used", query_params=query
    )


def moved_pairs(
    rows: Sequence[Item], columns: Sequence[Item], values: np.ndarray, roots: pd.Series
) -> list[MovedPair]:
    """Each once. values: [n_rows, n_columns]; roots: by run id, the run whose training chose the
    sources."""
    found: dict[frozenset, MovedPair] = {}
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            runs = _of_one_root(row, column, roots)
            if runs is not None and not np.isnan(values[i, j]):
                both = row.name, column.name
                pair = MovedPair(both, runs, float(values[i, j]))
                found.setdefault(frozenset((row.run_ids, column.run_ids)), pair)
    return list(found.values())


def _of_one_root(row: Item, column: Item, roots: pd.Series) -> tuple[str, str] | None:
    """The first two runs that are compared with each other, and are not the same."""
    if row.run_ids == column.run_ids:
        return None
    for (layer, _), a in zip(row.side, row.run_ids, strict=True):
        for (other, _), b in zip(column.side, column.run_ids, strict=True):
            is_of_one = a in roots and b in roots and roots[a] == roots[b]
            if layer == other and a != b and is_of_one:
                return a, b
    return None


def construction_in_words(pairs: Sequence[MovedPair]) -> str:
    """Which pairs they are, and what their values are worth."""
    first = pairs[0]
    why = "because one was moved from the other, or both from one run"
    what = "that says nothing about the models"
    if len(pairs) > 1:
        return (
            f"{len(pairs):,} pairs, such as {first.names[0]} and {first.names[1]}, have the same "
            f"sources {why}: there a Jaccard index of 1 is by construction, and {what}."
        )
    told = f"{first.names[0]} and {first.names[1]} have the same sources {why}: "
    if first.jaccard >= _ALL:
        return f"{told}a Jaccard index of 1 is by construction, and {what}."
    return (
        f"{told}a Jaccard index near 1 is by construction, less what was left out or is matched "
        f"otherwise, and {what}."
    )
