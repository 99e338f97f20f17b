"""The field in which a person names a dictionary."""

import streamlit as st

from itda_core.errors import ItdaError
from itda_core.runs.given_names import LONGEST_NAME
from pages.components.explorer import explorer
from pages.components.text import literal


def ask_for_name(run_id: str) -> None:
    """Draw the field, with the name that is kept; what is typed is kept at once."""
    key, kept = f"name_{run_id}", explorer().names.get(run_id, "")
    if st.session_state.get(f"_{key}") != kept:  # at first, and where another tab changed it
        st.session_state[key] = st.session_state[f"_{key}"] = kept
    st.text_input(
        "Name",
        key=key,
        max_chars=LONGEST_NAME,
        placeholder="What you call it",
        help="Stands before model, layer and corpus in lists and choices of dictionaries. It is "
        "kept in names.json of the data folder.",
        on_change=_keep,
        args=(run_id, key),
        width=420,
    )
    if error := st.session_state.pop(f"_{key}_error", ""):
        st.error(literal(error))


def _keep(run_id: str, key: str) -> None:
    try:
        explorer().keep_name(run_id, st.session_state[key])
        st.session_state.pop(f"_{key}", None)
    except ItdaError as error:
        st.session_state[f"_{key}_error"] = f"Not saved: {error}"
