"""A text's decomposition by a dictionary: computed once, kept, and what is said of its model."""

import functools

import pandas as pd
import streamlit as st

from itda_core.analysis.decomposition import Decomposition, decompose_steps
from pages.components.cached import loaded_model, loaded_run, model_and_dictionary
from pages.components.computed import Kept, computed
from pages.components.decompose.terms import latents_of


def decomposed(directory: str, text: str) -> Decomposition:
    """With all terms. directory: of the dictionary's run."""
    model, dictionary = model_and_dictionary(directory)
    config = loaded_run(directory).config
    steps = functools.partial(decompose_steps, dictionary, model, text, config)
    blocks = range(dictionary.hook_point.layer + 1)
    return computed(_kept(directory, text), model, steps, blocks)


@st.cache_resource(max_entries=32, show_spinner=False)
def _kept(directory: str, text: str) -> Kept[Decomposition]:
    return Kept(directory, text)


OF_TEXT = {Decomposition: lambda result: (result.text, result.codes.l0)}
"""By what Streamlit tells the decompositions by one dictionary apart"""


def tables_of(directory: str, result: Decomposition) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All its terms, as Decomposition.table(), and its latents, as `latents_of`; not to be changed.
    directory: of the dictionary's run."""
    kept = _kept_tables(directory, result.text, result.codes.l0)
    with kept.lock:
        if kept.value is None:
            table = result.table()
            kept.value = table, latents_of(result, table)
    return kept.value


@st.cache_resource(max_entries=8, show_spinner=False)
def _kept_tables(directory: str, text: str, l0: int) -> Kept[tuple[pd.DataFrame, pd.DataFrame]]:
    return Kept(directory, text, l0)


def warn_of_another_model(directory: str, name: str = "this dictionary") -> None:
    """Says it where the model is not the one that a dictionary was trained on, or may not be."""
    run = loaded_run(directory)
    digest = run.about.get("model_digest")
    if digest is None and run.config.activations:
        st.warning(
            f"{name[0].upper()}{name[1:]} was trained from a folder of activations that does not "
            "say which version of the model they are of. What is shown holds only if it is this "
            "one."
        )
    elif digest != loaded_model(run.config.model).digest:
        st.warning(f"The model has changed since {name} was trained: train it again.")
