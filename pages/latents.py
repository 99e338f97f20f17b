"""Latents: a list to search by source text, and the card of the chosen latent."""

import random

import pandas as pd
import streamlit as st

from itda_core.errors import InputError
from itda_core.latent_store import LatentSearch
from pages.components.label_editor import edit_label
from pages.components.latent_card import show_card
from pages.components.latent_relations import show_relations
from pages.components.latent_search import ask_for_search, describe, forget_search
from pages.components.session import (
    choose_run,
    explorer,
    follow_url,
    nothing_yet,
    origin_word,
    page,
    write_url,
)
from pages.components.text import literal, snippet, token_label

_ROWS = 50
_ORDERS = {"number": "Number", "density": "Most used", "strength": "Strongest"}


def show() -> None:
    st.title("Latents")
    runs = explorer().store.runs()
    if runs.empty:
        nothing_yet()
        return
    where, search, order, filters = st.columns([3, 3, 1, 1], vertical_alignment="bottom")
    with where:
        run = choose_run(runs)
    asked = ask_for_search(search, filters)
    follow_url("order", list(_ORDERS))
    by = order.selectbox("Order", list(_ORDERS), format_func=_ORDERS.get, key="order")
    write_url("order", by if by != "number" else None)
    numbers = _numbers(run, asked, by)
    if not numbers:
        st.button("Show all latents", on_click=forget_search)
        return
    chosen = _chosen_latent(run.run_id, numbers)
    latent = explorer().store.latents(run.run_id, [chosen]).iloc[0]
    left, right = st.columns([2, 3], gap="large")
    with left:
        _show_list(run, numbers, chosen)
        show_relations(run, latent)
    with right:
        _show_head(numbers, latent, run)
        edit_label(run, latent)
        show_card(run, latent, has_ranges=True)


def _numbers(run, asked: LatentSearch, order: str) -> list[int]:
    """The latents of the list; why there are none is said in place."""
    try:
        numbers = explorer().store.latent_numbers(run.run_id, asked, order)
    except InputError as error:  # an expression that is none
        st.warning(literal(str(error)))
        return []
    if not numbers:
        told = literal(describe(asked))
        st.info(f"No latent of this dictionary fits. {told} Try a shorter word or fewer filters.")
    return numbers


def _chosen_latent(run_id: str, numbers: list[int]) -> int:
    """The latent to show: the one in the URL or chosen last, else the first of the list."""
    wanted = st.query_params.get("latent", "")
    is_other_run = st.session_state.get("_latent_run") != run_id
    if is_other_run:
        st.session_state.pop("latent", None)
    st.session_state["_latent_run"] = run_id
    is_ours = wanted == st.session_state.get("_written_latent") and not is_other_run
    if wanted.isdecimal() and not is_ours:
        st.session_state["latent"] = int(wanted)
        if int(wanted) not in numbers:
            st.warning(f"There is no latent {literal(wanted)} in this dictionary and search.")
    if st.session_state.get("latent") not in numbers:
        st.session_state["latent"] = numbers[0]
    write_url("latent", st.session_state["latent"])
    return st.session_state["latent"]


def _show_head(numbers: list[int], latent: pd.Series, run) -> None:
    number = int(latent.latent)
    place = numbers.index(number)

    def go(target: int) -> None:
        st.session_state["latent"] = numbers[target % len(numbers)]

    st.markdown(f"#### {literal(token_label(latent.token))}")
    st.caption(
        literal(f"{run.model} · layer {run.layer} · latent {number} · {latent.title or 'prompt'} ")
        + f"· prompt {latent.prompt_id}, {origin_word(run)} {latent.position}"
    )
    previous, following, any_one, decompose = st.columns(
        [1, 1, 1, 1.4], vertical_alignment="center"
    )
    previous.button("Previous", on_click=go, args=[place - 1], shortcut="Left", width="stretch")
    following.button("Next", on_click=go, args=[place + 1], shortcut="Right", width="stretch")
    any_one.button("Random", on_click=go, args=[random.randrange(len(numbers))], width="stretch")
    decompose.page_link(
        "pages/decompose.py",
        label="Decompose its text",
        query_params={"run": run.run_id, "prompt": latent.prompt_id},
    )


def _show_list(run, numbers: list[int], chosen: int) -> None:
    place = numbers.index(chosen)
    n_pages = (len(numbers) + _ROWS - 1) // _ROWS
    page_number = place // _ROWS
    shown = numbers[page_number * _ROWS : (page_number + 1) * _ROWS]
    table = explorer().store.latents(run.run_id, shown).set_index("latent").loc[shown].reset_index()
    table["source"] = [
        snippet(row.text, row.start, row.end, around=40, before=10) for row in table.itertuples()
    ]
    table["token"] = table["token"].map(token_label)
    table["percent"] = table["density"] * 100
    table["label"] = ["★ " * one.bookmarked + one.label for one in table.itertuples()]
    written = ["label"] if table["label"].any() else []
    # Other latents are another table, in which nothing was chosen yet.
    key = f"list_{run.run_id}_{hash(tuple(shown))}"
    selection = {"rows": [place % _ROWS], "columns": [], "cells": []}
    if (st.session_state.get(key) or {}).get("selection", {}).get("rows") != selection["rows"]:
        # The table stays the same element, so that the browser need not build it anew.
        st.session_state[key] = {"selection": selection}

    def choose() -> None:
        rows = st.session_state[key]["selection"]["rows"]
        if rows:
            st.session_state["latent"] = shown[rows[0]]

    st.caption(f"{len(numbers):,} latents · page {page_number + 1} of {n_pages}")
    st.dataframe(
        table,
        column_order=["latent", "token", *written, "percent", "strongest", "source"],
        column_config={
            "latent": st.column_config.NumberColumn("no.", width=50, format="%d"),
            "token": st.column_config.TextColumn("token", width=80),
            "source": f"{origin_word(run)} in context",
            "percent": st.column_config.NumberColumn("used on", format="%.2f %%", width=70),
            "strongest": st.column_config.NumberColumn("strongest", format="%.1f", width=70),
            "label": st.column_config.TextColumn("label", width=90),
        },
        hide_index=True,
        height=600,
        on_select=choose,
        selection_mode="single-row",
        key=key,
    )
    _show_pager(numbers, page_number, n_pages)


def _show_pager(numbers: list[int], page_number: int, n_pages: int) -> None:
    def turn(target: int) -> None:
        st.session_state["latent"] = numbers[target * _ROWS]

    before, after = st.columns(2)
    before.button(
        "Page before",
        on_click=turn,
        args=[page_number - 1],
        disabled=page_number == 0,
        width="stretch",
    )
    after.button(
        "Page after",
        on_click=turn,
        args=[page_number + 1],
        disabled=page_number == n_pages - 1,
        width="stretch",
    )


with page("Latents"):
    show()
