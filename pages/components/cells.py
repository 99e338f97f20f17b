"""The cells of a similarity matrix: numbers that are kept, tokens that are looked up on a click."""

import streamlit as st

from itda_core.dictionary import Dictionary
from itda_core.errors import ItdaError
from itda_core.similarity import Comparison, Matrix, SourceSet, compare_all, model_comparison
from pages.components.session import loaded_dictionary

Side = tuple[tuple[int, str], ...]
"""One row or column of a matrix: layers and run directories"""


def compare_sides(a: Side, b: Side, key: str) -> Comparison:
    """The sources of two sides compared. Raises ComparisonError."""
    return model_comparison(
        {layer: loaded_dictionary(directory) for layer, directory in a},
        {layer: loaded_dictionary(directory) for layer, directory in b},
        key,
    )


@st.cache_resource(max_entries=32, show_spinner="Comparing …")
def compare_all_sides(rows: tuple[Side, ...], columns: tuple[Side, ...], key: str) -> Matrix:
    """Every row with every column; what can't be read or compared has its reason there."""
    (a, unreadable_rows), (b, unreadable_columns) = _loaded(rows), _loaded(columns)
    matrix = compare_all(a, b, key)
    for row, reason in unreadable_rows.items():
        matrix.reasons[row, :] = reason
    for column, reason in unreadable_columns.items():
        matrix.reasons[:, column] = reason
    return matrix


def _loaded(sides: tuple[Side, ...]) -> tuple[list[dict[int, SourceSet]], dict[int, str]]:
    """The sources of each side, and why there are none for those that can't be read."""
    found, unreadable = [], {}
    for number, side in enumerate(sides):
        try:
            found.append({layer: _loaded_sources(directory) for layer, directory in side})
        except ItdaError as error:
            found.append({})
            unreadable[number] = str(error)
    return found, unreadable


@st.cache_resource(max_entries=1_024, show_spinner=False)
def _loaded_sources(directory: str) -> SourceSet:
    """A few hundred KB that stay in memory, so that a matrix doesn't crowd out dictionaries."""
    return SourceSet.of(Dictionary.load(directory))
