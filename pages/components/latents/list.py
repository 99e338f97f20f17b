"""The list of latents: the page that is shown, its columns, and the way to others."""

import pandas as pd
import streamlit as st

from itda_core.glossary import GLOSSARY
from itda_core.store.latent_search import LatentPage
from pages.components.downloads import offer_downloads
from pages.components.explorer import explorer
from pages.components.latent_rows.rows import Column, show_rows_of
from pages.components.latents.elsewhere import origins
from pages.components.latents.found import MATCH, says_that_all_count
from pages.components.latents.listing import ROWS, Listing
from pages.components.latents.search import (
    OF_ALL,
    USED_ON,
    forget_selection,
    show_everything,
)
from pages.components.run_names import words_of
from pages.components.text import row_context, shown, token_label

_HEIGHT = 560
_BY_MEANING = (
    "Latents whose label has it; then those with uses on it or whose source it is, by the share of "
    "their uses, which counts less where they are few; then those whose uses are near it, by the "
    "same, function words last; then those with it around their source."
)
_BY_SOURCE = "Latents whose source token it is, then those whose token holds it, then the others."
_SCORE = (
    "How well its source tells its strong uses from any token: AUROC, 0.5 is chance. The card has "
    "the interval. – where it has too few strong uses to tell."
)
_WITH_FILLER = f"{GLOSSARY['density']} {GLOSSARY['filler']}"


def show_list(run, listing: Listing, shown_page: LatentPage) -> None:
    """The page of the list that holds the chosen latent. run: a row of Store.runs.table()."""
    _show_count(run, listing, shown_page)
    if not shown_page.numbers:
        return
    table = explorer().store.known(_rows, listing, tuple(shown_page.numbers))
    table["from"] = origins(run, table["label_from"])
    chosen = "" if shown_page.place is None else str(shown_page.numbers[_row_of(shown_page)])
    columns = _columns(run, listing, table)
    show_rows_of(
        run,
        table,
        columns,
        "latent_list",
        _HEIGHT,
        places={},
        chosen=chosen,
        choose=choose_from_list,
    )
    _show_pager(listing, shown_page)


def _row_of(shown_page: LatentPage) -> int:
    return shown_page.place - shown_page.first


def choose_from_list(latent: str) -> None:
    """Open a latent of the dictionary, whose number a row gives; for a callback."""
    st.session_state["latent"] = int(latent)


def _columns(run, listing: Listing, table: pd.DataFrame) -> list[Column]:
    """Those that have something to say: how far to trust a latent comes first, then, after a
    search, what it is found by and its source, for which there is room beside the card."""
    is_strong, percent = listing.asked.of_strong, {"kind": "number", "digits": 2, "unit": " %"}
    columns = {
        "number": Column("latent", "no.", "number", is_name=True),
        "token": Column("token", "token", "latent", width=130),
        "auroc": Column("auroc", "score", "number", digits=2, help=_SCORE),
        "label": Column("label", "label", width=140),
        "found": Column(
            "found", "match" if listing.reasons else "match by weight", width=215, help=MATCH
        ),
        "from": Column(
            "from", "from", width=110,
            help="The dictionary in which the same source was given the label",
        ),
        "cosine": Column("cosine", "cosine", "number", digits=3, sign=True),
        "percent": Column("percent", "used on", help=USED_ON if is_strong else OF_ALL, **percent),
        "source": Column("source", f"{words_of(run).source} in context", "quote"),
        "with_filler": Column("with_filler", "with filler", help=_WITH_FILLER, **percent),
        "strongest": Column("strongest", "strongest", "number", digits=1),
    }  # fmt: skip
    is_scored = bool(table["why"].notna().any())
    is_left_out = {
        "auroc": not is_scored,
        "cosine": not listing.similarities,
        "percent": bool(listing.similarities),
        "with_filler": not (is_scored and is_strong),
        "strongest": bool(listing.similarities) and not is_scored,
    } | {name: not table[name].any() for name in ("label", "found", "from")}
    names = [name for name in columns if not is_left_out.get(name)]
    if "found" in names:
        order = ("number", "token", "auroc", "label", "found", "source")
        first = [name for name in order if name in names]
        names = [*first, *(name for name in names if name not in first)]
    return [columns[name] for name in names]


def _order_in_words(listing: Listing) -> tuple[str, str | None]:
    """What *Best match* comes to, and what that means where it takes more words; the other orders
    are their own names."""
    if listing.order != "match":
        return "", None
    if listing.asked.ranked is not None:
        return " · best match first", None
    if not listing.asked.text:
        return " · by number", None
    return " · best match first", _BY_MEANING if listing.asked.is_by_meaning else _BY_SOURCE


def _show_count(run, listing: Listing, shown_page: LatentPage) -> None:
    pages = max(1, -(-shown_page.total // ROWS))
    count, hidden, files = st.columns([3, 1.7, 1.2], vertical_alignment="center")
    latents = "1 latent" if shown_page.total == 1 else f"{shown_page.total:,} latents"
    page = f"page {shown_page.first // ROWS + 1:,} of {pages:,}"
    sorted_by, meaning = _order_in_words(listing)
    if shown_page.total:
        count.caption(f"{latents} · {page}{sorted_by}", help=meaning)
    if said := says_that_all_count(run, listing.asked):
        count.caption(said)
    if listing.asked.among is not None:
        hidden.button("Selected on the map · clear", on_click=forget_selection, type="tertiary")
    store = explorer().store
    noise = store.known(store.latents.hidden_noise, run.run_id, listing.asked)
    if noise:
        hidden.button(
            f"{noise:,} hidden · show",
            on_click=show_everything,
            type="tertiary",
            help="Latents that sit on the first position of a text, or are used on more than 10 % "
            "of the tokens. They say little of any one token.",
        )
    if not shown_page.total:
        return
    with files.popover("Export", width="stretch"):
        st.markdown("**All latents of this list**, with sources, uses and labels")
        about = {"run": run.run_id, "order": listing.order, **vars(listing.asked)}
        offer_downloads(listing.table, about, f"latents-{run.run_id}", "latents_file")


def latents_of(run_id: str, numbers: tuple[int, ...]) -> pd.DataFrame:
    """Rows of Store.latents.table(), known while the same page is looked at."""
    store = explorer().store
    return store.known(store.latents.table, run_id, tuple(sorted(set(numbers))))


def _rows(listing: Listing, numbers: tuple[int, ...]) -> pd.DataFrame:
    latents = latents_of(listing.run_id, numbers)
    table = latents.set_index("latent").loc[list(numbers)].reset_index()
    table["source"] = [row_context(row.text, row.start, row.end) for row in table.itertuples()]
    table["token"] = table["token"].map(token_label)
    table["percent"] = table["strong_density" if listing.asked.of_strong else "density"] * 100
    table["with_filler"] = table["density"] * 100
    table["label"] = [_star(row) + shown(row.label) for row in table.itertuples()]
    found = listing.why(short=True)
    table["found"] = [found.get(number, "") for number in numbers]
    if listing.similarities:
        table["cosine"] = [listing.similarities[number] for number in numbers]
    return table.drop(columns=["text", "lists"])


def _star(row) -> str:
    """Filled where it was bookmarked here, open where the same source was elsewhere."""
    return "" if not row.bookmarked else "☆ " if row.bookmarked_from else "★ "


def select_rows(key: str, rows: list[int]) -> None:
    """Mark the chosen rows of a table. It stays the same element, so that the browser need not
    build it anew."""
    if (st.session_state.get(key) or {}).get("selection", {}).get("rows") != rows:
        st.session_state[key] = {"selection": {"rows": rows, "columns": [], "cells": []}}


def _show_pager(listing: Listing, shown_page: LatentPage) -> None:
    def turn(place: int) -> None:
        st.session_state["latent"] = listing.at(place, shown_page)

    before, after = st.columns(2)
    is_last = shown_page.first + ROWS >= shown_page.total
    before.button(
        "Previous page",
        on_click=turn,
        args=[shown_page.first - ROWS],
        disabled=shown_page.first == 0,
        width="stretch",
    )
    after.button(
        "Next page",
        on_click=turn,
        args=[shown_page.first + ROWS],
        disabled=is_last,
        width="stretch",
    )
