"""Similarity: how alike models are, which layers correspond, which tokens differ, and which latents
are used alike."""

import numpy as np
import streamlit as st

from itda_core.similarity.measures import JACCARD
from pages.components.explorer import explorer
from pages.components.frame import nothing_yet, page
from pages.components.job_panel import watch_active_jobs
from pages.components.similarity.choice import Choice, ask, ask_for_view
from pages.components.similarity.drilldown import show_drilldown
from pages.components.similarity.jobs import offer_comparison
from pages.components.similarity.matrix import (
    choose_cell,
    follow_cell,
    offer_exports,
    show_cell_words,
    show_matrix,
)
from pages.components.similarity.model_groups import groups_of
from pages.components.similarity.moved import say_what_is_by_construction
from pages.components.similarity.overlaps import doubt_of_words
from pages.components.similarity.same_latents import show_same_latents
from pages.components.similarity.training import offer_training
from pages.components.similarity.values import Values, jaccard_values, stored_values
from pages.components.text import literal


def show() -> None:
    st.title("Similarity")
    runs = explorer().store.runs.table()
    if runs.empty:
        nothing_yet()
        return
    st.caption(
        "Latents are tokens of prompts, so dictionaries built on the same prompts are sets that "
        "can be compared: how alike two models are, which layers correspond, and on which tokens "
        "they differ."
    )
    left, right = st.columns([1, 1])
    groups = groups_of(runs, explorer().names)
    view = ask_for_view(left)
    if view == "latents":
        show_same_latents(runs)
        return
    choice = ask(groups, view, right)
    watch_active_jobs()
    if choice is None:
        return
    _say_what_is_missing(choice, len(groups))
    values = _values(choice)
    _show_reasons(choice, values)
    _warn_of_words(choice)
    if choice.kind is JACCARD:
        say_what_is_by_construction(choice, values)
    offer_comparison(choice, values)
    chosen = follow_cell(choice)
    if (values.reasons == "").any():
        show_matrix(choice, values, chosen)
    tools = st.container(horizontal=True)
    with tools:
        offer_exports(choice, values)
        offer_training(groups, choice.groups)
    _show_cell(choice, values)


def _say_what_is_missing(choice: Choice, n_groups: int) -> None:
    if choice.view == "models" and n_groups < 2:
        st.info(
            "There is one model only. Train a second one on the same corpus to compare them, "
            "below the matrix with “Train what is missing” or on the Train page."
        )
        st.page_link("pages/train.py", label="Train another model")
    elif choice.view == "models" and choice.kind is JACCARD:
        st.caption("Each value compares the unions of the sources over the layers both have.")
    elif choice.view == "models":
        st.caption(
            "Each value is the mean, over the layers of one model, of the best value among the "
            "layers of the other, averaged over both directions."
        )


def _values(choice: Choice) -> Values:
    if choice.kind is JACCARD:
        rows, columns = (
            tuple(item.side for item in side) for side in (choice.rows, choice.columns)
        )
        return jaccard_values(rows, columns, choice.key, choice.seeds)
    rows, columns = ([item.run_ids for item in side] for side in (choice.rows, choice.columns))
    return stored_values(choice.kind, rows, columns)


def _show_reasons(choice: Choice, values: Values) -> None:
    """Why cells are empty, and the way out where there is one."""
    # Of a pair of the same things the two ways round say the same.
    told = np.triu(values.reasons) if choice.is_same else values.reasons
    reasons = sorted({reason for reason in told.ravel() if reason})
    for reason in reasons[:3]:
        st.warning(literal(reason))
    if len(reasons) > 3:
        st.caption(f"{len(reasons) - 3:,} more pairs can't be compared for reasons like these.")
    if choice.key == "token" and any("tokenizer" in reason for reason in reasons):
        st.button("Compare by word", on_click=_compare_by_word, type="primary")


def _warn_of_words(choice: Choice) -> None:
    if choice.kind is JACCARD and choice.key == "word":
        doubt = doubt_of_words([item.side for item in (*choice.rows, *choice.columns)])
        if doubt:
            st.warning(literal(doubt))


def _compare_by_word() -> None:
    st.session_state["key"] = "word"


def _show_cell(choice: Choice, values: Values) -> None:
    st.markdown("#### The tokens behind a cell")
    cell = choose_cell(choice)
    if cell is None:
        st.caption("Click a cell, or choose a row and a column.")
        return
    show_cell_words(choice, values, cell)
    row, column = cell
    if choice.kind is JACCARD and values.reasons[cell]:
        st.info(literal(values.reasons[cell]))
        return
    show_drilldown(choice, choice.rows[row], choice.columns[column])


with page("Similarity"):
    show()
