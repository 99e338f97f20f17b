"""The cells of a similarity matrix: numbers that are kept, tokens that are looked up on a click."""

import contextlib
from collections.abc import Iterable

import streamlit as st

from itda_core.dictionary.dictionary import Dictionary
from itda_core.errors import ItdaError
from itda_core.similarity import source_sets
from itda_core.similarity.dictionaries import (
    Comparison,
    Matrix,
    SourceSet,
    compare_all,
    model_comparison,
)
from itda_core.similarity.source_sets import same_tokenizer
from pages.components.cached import loaded_dictionary

RunSide = tuple[tuple[int, str], ...]
"""One row or column of a matrix: layers and run directories"""


def compare_sides(a: RunSide, b: RunSide, key: str, seeds: bool = False) -> Comparison:
    """The sources of two sides compared. Raises ComparisonError."""
    return model_comparison(
        {layer: loaded_dictionary(directory) for layer, directory in a},
        {layer: loaded_dictionary(directory) for layer, directory in b},
        key,
        seeds,
    )


@st.cache_resource(max_entries=32, show_spinner="Comparing …")
def compare_all_sides(
    rows: tuple[RunSide, ...], columns: tuple[RunSide, ...], key: str, seeds: bool = False
) -> Matrix:
    """Every row with every column; what can't be read or compared has its reason there."""
    (a, unreadable_rows), (b, unreadable_columns) = _loaded(rows), _loaded(columns)
    matrix = compare_all(a, b, key, seeds)
    for row, reason in unreadable_rows.items():
        matrix.reasons[row, :] = reason
    for column, reason in unreadable_columns.items():
        matrix.reasons[:, column] = reason
    return matrix


def _loaded(sides: tuple[RunSide, ...]) -> tuple[list[dict[int, SourceSet]], dict[int, str]]:
    """The sources of each side, and why there are none for those that can't be read."""
    sources, unreadable = [], {}
    for number, side in enumerate(sides):
        try:
            sources.append({layer: _loaded_sources(directory) for layer, directory in side})
        except ItdaError as error:
            sources.append({})
            unreadable[number] = str(error)
    return sources, unreadable


def doubt_of_words(sides: Iterable[RunSide]) -> str:
    """Why a comparison by word says little of some sides; "" where nothing is known against it."""
    return source_sets.doubt_of_words(_loaded(tuple(sides))[0])


def have_one_tokenizer(directories: list[str]) -> bool:
    """Whether token positions of some dictionaries match; those that can't be read are left out."""
    sources = []
    for directory in directories:
        with contextlib.suppress(ItdaError):
            sources.append(_loaded_sources(directory))
    return all(same_tokenizer(sources[0], other) for other in sources)


@st.cache_resource(max_entries=1_024, show_spinner=False)
def _loaded_sources(directory: str) -> SourceSet:
    """A few hundred KB that stay in memory, so that a matrix doesn't crowd out dictionaries."""
    return SourceSet.of(Dictionary.load(directory))
