"""The dictionaries there are: what each was trained on, its name, its move, and its end."""

import contextlib

import streamlit as st

from itda_core.errors import RunError
from pages.components.cached import loaded_run
from pages.components.explorer import explorer
from pages.components.frame import OPEN_QUESTION, errors_as_sentences
from pages.components.held_out import held_out
from pages.components.name_field import ask_for_name
from pages.components.run_names import run_label
from pages.components.text import literal, seconds_text
from pages.components.train.moving import offer_move, show_origin
from pages.components.upload import corpus_name

_SEEN, _HEIGHT = 12, 700
"""Dictionaries that stand below each other as they are, and the pixels that more of them have"""


def show_dictionaries() -> None:
    """Each folded, by model and layer. Many scroll, so that what stands below stays near."""
    runs = explorer().store.runs.table()
    if runs.empty:
        st.caption("None yet.")
    height = _HEIGHT if len(runs) > _SEEN else "content"
    with st.container(height=height, border=False):
        for run in runs.itertuples():
            _show_dictionary(run)
    run_id = st.session_state.get(OPEN_QUESTION)
    if run_id in set(runs["run_id"]):
        _confirm_delete(run_id)
    else:  # it went meanwhile, and another one may come under its id
        _forget_question()


def _show_dictionary(run) -> None:
    """run: a row of the store's runs."""
    with st.expander(literal(run_label(run))):
        st.page_link(
            "pages/latents.py", label="Browse its latents", query_params={"run": run.run_id}
        )
        st.code(run.run_id, language=None)
        ask_for_name(run.run_id)
        st.caption(
            literal(
                f"{run.atoms:,} atoms · L0 {run.l0} · {run.method} · "
                f"{corpus_name(run.corpus)} · {_tokens_read(run)} · "
                f"{held_out(run.directory).in_words()} · "
                f"seed {run.seed} · {run.dtype} · "
                f"{seconds_text(run.seconds)} of work"
            )
        )
        show_origin(run)
        offer_move(run)
        if st.button("Delete …", key=f"delete_{run.run_id}"):
            st.session_state[OPEN_QUESTION] = run.run_id


def _tokens_read(run) -> str:
    """run: a row of the store's runs."""
    asked = None
    with contextlib.suppress(RunError):  # its directory has gone: the list will know it soon
        asked = loaded_run(run.directory).metrics.get("asked_tokens")
    return f"{run.tokens:,} tokens" + (f" of the {asked:,} asked for" if asked else "")


def _forget_question() -> None:
    st.session_state.pop(OPEN_QUESTION, None)


@st.dialog("Delete this dictionary?", on_dismiss=_forget_question)
def _confirm_delete(run_id: str) -> None:
    st.markdown(
        f"{literal(run_id)} and all that was stored with it will be gone. It can only be had back "
        "by training it again."
    )
    yes, no = st.columns(2)
    if yes.button("Delete permanently", type="primary", width="stretch"):
        with errors_as_sentences():
            explorer().delete(run_id)
            _forget_question()
            st.rerun()
    if no.button("Keep it", width="stretch"):
        _forget_question()
        st.rerun()
