"""The dictionary and L0 that Evaluate looks at closely."""

import pandas as pd
import streamlit as st

from pages.components.url import follow_url, write_url

LOOKED_AT = "evaluated_run"
"""In the session: other pages go on with the dictionary that they were at"""


def follow_point(evaluations: pd.DataFrame) -> None:
    """The dictionary and L0 that are looked at closely: of the URL, or those last clicked."""
    follow_url("run", list(dict.fromkeys(evaluations["run_id"])), LOOKED_AT)
    of_run = evaluations[evaluations["run_id"] == st.session_state[LOOKED_AT]]
    l0s = of_run["l0"].tolist()
    follow_url("at_l0", [l0s[-1], *l0s[:-1]])  # its own comes first
    write_url("run", st.session_state[LOOKED_AT], LOOKED_AT)
    write_url("at_l0", st.session_state["at_l0"])


def look_at(run_id: str, l0: int) -> None:
    """Look at another point from the next drawing on."""
    st.session_state[LOOKED_AT], st.session_state["at_l0"] = run_id, int(l0)


def times_of(evaluations: pd.DataFrame) -> tuple[str, ...]:
    """When each was made: what is known of them is known until one is made anew."""
    return tuple(evaluations.drop_duplicates("run_id")["created"])
