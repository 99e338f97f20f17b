"""The list of latents: its order, the page that is shown, and which latent is looked at."""

import dataclasses
from dataclasses import dataclass

import pandas as pd
import streamlit as st

from itda_core.analysis.neighbours import cosines_to
from itda_core.glossary import GLOSSARY
from itda_core.settings import Setting
from itda_core.store.latent_search import LatentPage, LatentSearch
from pages.components.cached import loaded_dictionary
from pages.components.downloads import offer_downloads
from pages.components.explorer import explorer
from pages.components.latent_rows.rows import Column, show_rows_of
from pages.components.latents.elsewhere import origins
from pages.components.latents.found import MATCH, in_short, says_that_all_count, why_found
from pages.components.latents.search import (
    OF_ALL,
    SEARCH_KEYS,
    USED_ON,
    forget_selection,
    show_everything,
)
from pages.components.number_field import linked_number_field
from pages.components.run_names import words_of
from pages.components.text import context, literal, row_context, shown, token_label
from pages.components.url import follow_url, keep, number_below, write_url

_HEIGHT = 560
_ROWS = 15  # as many as are seen at once, so that the chosen one is
_BY_MEANING = (
    "Latents whose label has it; then those with uses on it or whose source it is, by the share of "
    "their uses, which counts less where they are few; then those whose uses are near it, by the "
    "same, function words last; then those with it around their source."
)
_BY_SOURCE = "Latents whose source token it is, then those whose token holds it, then the others."
_ORDERS = {
    "match": "Best match",
    "number": "Number",
    "density": "Most used",
    "strength": "Strongest",
    "similarity": "Similar to …",
    "auroc": "Best score",
    "strong_first": "Most often the first term",
    "strong_on_token": "Most often on its token",
    "strong_on_word": "Most often on its word",
}
IN_LINK = (*SEARCH_KEYS, "order", "like", "latent")
"""What the link says of the list and of the latent that is open"""
_SCORE = (
    "How well its source tells its strong uses from any token: AUROC, 0.5 is chance. The card has "
    "the interval. – where it has too few strong uses to tell."
)
_WITH_FILLER = f"{GLOSSARY['density']} {GLOSSARY['filler']}"


@dataclass(frozen=True)
class Listing:
    """What is listed of one dictionary, and in which order."""

    run_id: str
    asked: LatentSearch
    order: str
    similarities: tuple[float, ...] = ()
    """of each latent to the one that the order asks for"""
    reasons: tuple[str, ...] = ()
    """why each of the numbers that are asked for by rank is there"""

    def why(self, short: bool = False) -> dict[int, str]:
        """Why latents are in the list, of those of which there is something to say. short: in a
        word or two."""
        if self.reasons:
            return dict(zip(self.asked.ranked, self.reasons, strict=True))
        return (in_short if short else why_found)(self.run_id, self.asked)

    @property
    def has_a_best(self) -> bool:
        """Whether what comes first is what was asked for, as it is not by number."""
        if self.order == "match":
            return bool(self.asked.text) or self.asked.ranked is not None
        return self.order != "number"

    @property
    def _order(self) -> str:
        """As the store calls it: most used by the uses that are asked for."""
        is_strong = self.order == "density" and self.asked.of_strong
        return "strong_density" if is_strong else self.order

    def page(self, latent: int) -> LatentPage:
        return explorer().store.latents.page(
            self.run_id, self.asked, latent, _ROWS, self._order, self.similarities
        )

    def at(self, place: int, seen: LatentPage) -> int:
        """The latent at a place. seen: the page on the screen, which mostly holds it."""
        if 0 <= place - seen.first < len(seen.numbers):
            return seen.numbers[place - seen.first]
        return explorer().store.latents.at_place(
            self.run_id, self.asked, place, self._order, self.similarities
        )

    def numbers(self) -> list[int]:
        return explorer().store.latents.numbers(
            self.run_id, self.asked, self._order, self.similarities
        )

    def table(self) -> pd.DataFrame:
        """All of it, for a file."""
        numbers = self.numbers()
        table = (
            explorer()
            .store.latents.table(self.run_id, numbers)
            .set_index("latent", drop=False)
            .loc[numbers]
        )
        table["source"] = [context(row.text, row.start, row.end) for row in table.itertuples()]
        if found := self.why():
            table["found"] = [found.get(number, "") for number in numbers]
        return table.drop(columns="text").assign(run=self.run_id)


def ask_for_order(place, run) -> tuple[str, tuple[float, ...]]:
    """The order, and where it is by similarity the cosine of each atom to the given one."""
    keep("order", "like")
    if st.query_params.get("order") == "strong_density":  # of earlier links
        st.query_params["order"] = "density"
    follow_url("order", list(_ORDERS))
    like_place = None
    if st.session_state["order"] == "similarity":
        place, like_place = place.columns(2)
    order = place.selectbox(
        "Order",
        _ORDERS,
        format_func=_ORDERS.get,
        key="order",
        help="Best match: as the search says; in other places than uses first the latents whose "
        "source token is what you search for, then those whose token holds it. Without a search by "
        "number.",
    )
    write_url("order", order if order != next(iter(_ORDERS)) else None)
    if like_place is None:
        write_url("like", None)
        return order, ()
    like = Setting("like", "… latent", min=0, max=int(run.atoms) - 1)
    proposed = st.session_state.get("latent") or 0
    text = linked_number_field(like_place, like, "like", proposed)
    return order, _similarities(run.directory, like.read(text))


@st.cache_data(max_entries=8, show_spinner=False)
def _similarities(directory: str, latent: int) -> tuple[float, ...]:
    return tuple(cosines_to(loaded_dictionary(directory), latent).tolist())


def chosen_latent(
    listing: Listing, n_latents: int, is_by_link: bool = False
) -> tuple[int | None, LatentPage]:
    """The latent to show: the one in the URL or opened last, which need not be in the list; after
    another search or order the list's first, but for the list by number, in which it stands where
    it stands. None where there is neither. With the page that holds it. is_by_link: whether
    the link says something else of IN_LINK than the page wrote."""
    is_other_run = st.session_state.get("_latent_run") != listing.run_id
    # Another count is no other search, what is alike follows the latent, and a link, or a step
    # back, says itself which latent it is about.
    asked = dataclasses.replace(listing.asked, of_strong=False, ranked=None), listing.order
    is_other_search = st.session_state.get("_asked", asked) != asked and not is_by_link
    st.session_state["_latent_run"], st.session_state["_asked"] = listing.run_id, asked
    if is_other_run:
        st.session_state.pop("latent", None)
    wanted = st.query_params.get("latent", "")
    is_ours = wanted == st.session_state.get("_written_latent")
    is_ours = is_ours and not is_other_run and not is_by_link
    if wanted and not is_ours:
        number = number_below(wanted, n_latents)
        if number is not None:
            st.session_state["latent"] = number
            is_other_search = False
        else:
            st.warning(f"There is no latent {literal(wanted)} in this dictionary.")
    latent = st.session_state.get("latent")
    shown_page = listing.page(-1 if latent is None else latent)
    is_lost = is_other_search and (shown_page.place is None or listing.has_a_best)
    if shown_page.total and (latent is None or is_lost):
        latent = listing.at(0, shown_page)
        shown_page = listing.page(latent)
    st.session_state["latent"] = latent
    write_url("latent", latent)
    return latent, shown_page


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
    pages = max(1, -(-shown_page.total // _ROWS))
    count, hidden, files = st.columns([3, 1.7, 1.2], vertical_alignment="center")
    latents = "1 latent" if shown_page.total == 1 else f"{shown_page.total:,} latents"
    page = f"page {shown_page.first // _ROWS + 1:,} of {pages:,}"
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
    is_last = shown_page.first + _ROWS >= shown_page.total
    before.button(
        "Previous page",
        on_click=turn,
        args=[shown_page.first - _ROWS],
        disabled=shown_page.first == 0,
        width="stretch",
    )
    after.button(
        "Next page",
        on_click=turn,
        args=[shown_page.first + _ROWS],
        disabled=is_last,
        width="stretch",
    )
