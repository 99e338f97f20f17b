"""Keys that Streamlit has no widget for: "/" goes to the search field."""

from pathlib import Path

import streamlit as st

_keys = st.components.v2.component(
    "itda.keys", js=(Path(__file__).parent / "keys.js").read_text("utf-8")
)


def listen_for_keys(search_label: str) -> None:
    """search_label: of the text field that "/" puts the cursor into."""
    _keys(data={"search": search_label}, key="keys")
