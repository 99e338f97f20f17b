"""Charts as pictures: what the camera above a chart gives."""

from typing import Any

import streamlit as st


def picture_format() -> str:
    """What `ask_for_format` was told last: "SVG" or "PNG"."""
    return st.session_state.get("picture", "SVG")


def picture_config(name: str, **others: Any) -> dict[str, Any]:
    """What st.plotly_chart takes as `config`, so that the chart has a camera and nothing else.
    name: of the file; others: take the place of what is said here."""
    picture = picture_format().lower()
    return {
        "displayModeBar": True,
        "displaylogo": False,
        "modeBarButtons": [["toImage"]],
        "toImageButtonOptions": {"format": picture, "filename": name, "scale": 2},
    } | others


def ask_for_format(by: str = "the camera above each chart") -> None:
    """SVG or PNG, once on a page: for all of its charts. by: what gives a picture there."""
    st.markdown(f"**The pictures**, by {by}")
    st.segmented_control("As", ["SVG", "PNG"], default="SVG", key="picture", required=True)
