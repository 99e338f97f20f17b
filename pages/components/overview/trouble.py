"""What Overview says of what is stored and can't be used, and its offer to mend the database."""

import streamlit as st

from itda_core.errors import StoreDamagedError
from pages.components.explorer import Explorer, rebuild_database
from pages.components.text import literal, sentence


def show_trouble(here: Explorer) -> None:
    """What can't be used, and what was mended."""
    for error in here.troubles:
        st.warning("  \n".join(map(literal, error.split("\n"))))
    notes = [*st.session_state.get("_rebuilt", []), *here.store.index.notes]
    if notes:
        st.info("  \n".join(literal(note) for note in dict.fromkeys(notes)))


def offer_rebuild(error: StoreDamagedError) -> None:
    """The database can't be used: make it anew here."""
    st.error(sentence(error))
    st.caption(
        "The runs and labels lie in files of their own, from which the database is made. It takes "
        "some seconds a dictionary."
    )
    if st.button("Rebuild", type="primary", key="rebuild"):
        with st.spinner("Making the database anew …"):
            done = rebuild_database()
        aside = [f"The damaged database is kept as {done.kept_aside}."] if done.kept_aside else []
        left_out = [f"Left out: {done.left_out}"] if done.left_out else []
        made = f"The database was made anew, with {done.runs:,} runs."
        st.session_state["_rebuilt"] = [made, *aside, *done.notes, *left_out]
        st.rerun()
