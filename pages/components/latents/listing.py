"""What is listed of one dictionary: its order, its page, and which latent is looked at."""

import dataclasses
from dataclasses import dataclass

import pandas as pd
import streamlit as st

from itda_core.analysis.neighbours import cosines_to
from itda_core.settings import Setting
from itda_core.store.latent_search import LatentPage, LatentSearch
from pages.components.cached import loaded_dictionary
from pages.components.explorer import explorer
from pages.components.latents.found import in_short, why_found
from pages.components.latents.search import (
    SEARCH_KEYS,
)
from pages.components.number_field import linked_number_field
from pages.components.text import context, literal
from pages.components.url import follow_url, keep, number_below, write_url

ROWS = 15  # as many as are seen at once, so that the chosen one is
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
            self.run_id, self.asked, latent, ROWS, self._order, self.similarities
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
