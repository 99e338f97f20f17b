"""What an act opens further down comes into the window: else a click seems to do nothing."""

from pathlib import Path

import streamlit as st

_in_sight = st.components.v2.component(
    "itda.in_sight", js=(Path(__file__).parent / "in_sight.js").read_text("utf-8")
)


def note_act(of: str) -> None:
    """A person has just asked for what `bring_into_sight` of the same name stands before."""
    st.session_state[_acts(of)] = st.session_state.get(_acts(of), 0) + 1


def bring_into_sight(of: str) -> None:
    """Once for each act, before the result. What a link opens stays where it is."""
    _in_sight(data={"of": of, "act": st.session_state.get(_acts(of), 0)}, key=f"in_sight_{of}")


def _acts(of: str) -> str:
    return f"acts_{of}"
