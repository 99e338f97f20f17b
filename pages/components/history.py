"""The browser's history: what a page writes into its address by itself is no step back."""

from pathlib import Path

import streamlit as st

_history = st.components.v2.component(
    "itda.history", js=(Path(__file__).parent / "history.js").read_text("utf-8")
)


def keep_history() -> None:
    """Once on a page, where an empty element does no harm."""
    _history(key="history")
