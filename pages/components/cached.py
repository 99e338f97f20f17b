"""What stays in memory between clicks: models, dictionaries, runs."""

from pathlib import Path

import streamlit as st

from itda_core.config import ModelSpec
from itda_core.dictionary.dictionary import Dictionary
from itda_core.model.model import Model
from itda_core.runs.run import Run, read_run


@st.cache_resource(max_entries=2, show_spinner="Loading the model (only once) …")
def loaded_model(spec: ModelSpec) -> Model:
    """A model that stays in memory; the two used last are kept."""
    from itda_core.model.loading import load_model

    return load_model(spec)


@st.cache_resource(max_entries=64, show_spinner=False)
def loaded_dictionary(directory: str) -> Dictionary:
    """A run's dictionary that stays in memory."""
    return Dictionary.load(directory)


@st.cache_resource(max_entries=256, show_spinner=False)
def loaded_run(directory: str) -> Run:
    return read_run(Path(directory))
