"""The cells of a similarity matrix: numbers that are kept, tokens that are looked up on a click."""

from typing import NamedTuple

import streamlit as st

from itda_core.errors import ItdaError
from itda_core.similarity import Comparison, model_comparison
from pages.components.session import loaded_dictionary

Side = tuple[tuple[int, str], ...]
"""One row or column of a matrix: layers and run directories"""


class Cell(NamedTuple):
    """What a cell shows of a comparison."""

    jaccard: float
    shared: int
    union: int


def compare_sides(a: Side, b: Side, key: str) -> Comparison:
    """The sources of two sides compared. Raises ComparisonError."""
    return model_comparison(
        {layer: loaded_dictionary(directory) for layer, directory in a},
        {layer: loaded_dictionary(directory) for layer, directory in b},
        key,
    )


@st.cache_resource(max_entries=8_192, show_spinner="Comparing …")
def cell(a: Side, b: Side, key: str) -> Cell | str:
    """The numbers of one cell, or the reason why there are none."""
    try:
        compared = compare_sides(a, b, key)
        return Cell(compared.jaccard, len(compared.shared), compared.union)
    except ItdaError as error:
        return str(error)
