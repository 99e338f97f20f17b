"""Latents: a list to search by source text, or a map, and the card of the chosen latent."""

import random

import pandas as pd
import streamlit as st

from itda_core.errors import InputError
from itda_core.store.latent_search import LatentPage
from pages.components.explorer import explorer
from pages.components.frame import nothing_yet, page
from pages.components.job_panel import watch_active_jobs
from pages.components.keyboard import listen_for_keys
from pages.components.latents.card import show_card
from pages.components.latents.label_editor import edit_label
from pages.components.latents.list import latents_of, show_list
from pages.components.latents.listing import IN_LINK, Listing, ask_for_order, chosen_latent
from pages.components.latents.map import show_map
from pages.components.latents.phrase import ask_for_phrase
from pages.components.latents.relations import show_relations
from pages.components.latents.search import (
    SEARCH_LABEL,
    ask_for_search,
    describe,
    forget_search,
    show_everything,
    what_to_change,
)
from pages.components.latents.suggested import suggest_related
from pages.components.run_names import choose_run, layer_of, words_of
from pages.components.text import escaped, literal, shown, token_label
from pages.components.url import choose_view, is_from_link, number_below

_VIEWS = {"list": "List", "map": "Map and list"}


def show() -> None:
    st.title("Latents")
    store = explorer().store
    runs = store.known(store.runs.table)
    if runs.empty:
        nothing_yet()
        return
    listen_for_keys(SEARCH_LABEL)
    is_by_link = is_from_link(*IN_LINK)
    with st.container(key="toolbar"):
        widths = [2.6, 2.6, 1.6, 1.7, 1.3]
        where, search, ways, order, filters = st.columns(widths, vertical_alignment="bottom")
    with where:
        run = choose_run(runs)
    watch_active_jobs(run.run_id)
    asked = ask_for_search(search, ways, filters.container(gap="xsmall"))
    ordered = ask_for_order(order, run)
    asked, reasons = ask_for_phrase(run, asked, ordered[0])
    listing = Listing(run.run_id, asked, *ordered, reasons)
    try:
        chosen, shown_page = chosen_latent(listing, int(run.atoms), is_by_link)
    except InputError as error:  # an expression that is none
        st.warning(literal(str(error)))
        st.button("Show all latents", on_click=forget_search)
        return
    if chosen is None:
        _offer_number(asked.text, int(run.atoms))
        _say_that_none_fits(listing)
        return
    _offer_number(asked.text, int(run.atoms))
    latents = latents_of(run.run_id, (*shown_page.numbers, chosen))
    latent = latents[latents["latent"] == chosen].iloc[0]
    if choose_view(_VIEWS) == "map":
        show_map(run, listing, chosen)
    with st.container(key="halves"):
        left, right = st.columns([9, 11], gap="medium")
    with left:
        if not shown_page.numbers:
            _say_that_none_fits(listing)
        show_list(run, listing, shown_page)
        suggest_related(run, listing, shown_page)
    with right:
        _show_head(run, listing, shown_page, latent)
        edit_label(run, latent)
        show_card(run, latent, is_page=True)
    with left:  # last, since it may have to load the model
        show_relations(run, latent)


def _offer_number(text: str, n_latents: int) -> None:
    """Where a number was searched for: the latent of that number."""
    number = number_below(text.strip(), n_latents)
    if number is not None:
        st.button(f"Open latent {number}", on_click=_open, args=[number])


def _open(number: int) -> None:
    st.session_state["latent"] = number


def _say_that_none_fits(listing: Listing) -> None:
    description = literal(describe(listing.asked))
    st.info(f"No latent of this dictionary matches. {description} {what_to_change(listing.asked)}")
    st.button("Show all latents", on_click=_forget_all)


def _forget_all() -> None:
    forget_search()
    show_everything()


def _show_head(run, listing: Listing, shown_page: LatentPage, latent: pd.Series) -> None:
    place = -1 if shown_page.place is None else shown_page.place

    def go(target: int) -> None:
        st.session_state["latent"] = listing.at(target, shown_page)

    st.markdown(f"#### {escaped(token_label(latent.token))}")
    outside = "" if shown_page.place is not None else " · not in this list"
    title = f"{shown(latent.title)} · " if latent.title else ""
    origin = "" if latent.origin == latent.latent else f" (latent {latent.origin} where it is from)"
    st.caption(
        literal(
            f"{run.model} · {layer_of(run)} · latent {latent.latent}{origin} · "
            f"{title}prompt {latent.prompt_id}, "
            f"{words_of(run).source} {latent.position}{outside}"
        )
    )
    previous, following, any_one, links = st.columns([1, 1, 1, 1.4], vertical_alignment="center")
    options = {"disabled": not shown_page.total, "width": "stretch"}
    previous.button("Previous", on_click=go, args=[place - 1], shortcut="Left", **options)
    following.button("Next", on_click=go, args=[place + 1], shortcut="Right", **options)
    any_one.button(
        "Random", on_click=go, args=[random.randrange(max(1, shown_page.total))], **options
    )
    where = {"run": run.run_id, "prompt": latent.prompt_id}
    links.page_link("pages/decompose.py", label="Decompose its text", query_params=where)
    steer = {"run": run.run_id, "view": "steer", "steer": str(latent.latent)}
    links.page_link("pages/decompose.py", label="Steer with it", query_params=steer)


with page("Latents"):
    show()
