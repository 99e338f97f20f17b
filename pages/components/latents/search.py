"""Which latents are listed: the search field and the filters, which follow the link."""

import dataclasses

import streamlit as st

from itda_core.settings import Setting
from itda_core.store.latent_search import LatentSearch
from pages.components.explorer import explorer
from pages.components.number_field import linked_number_field
from pages.components.text import shown
from pages.components.url import choose, follow_url, keep, number_below, write_url

_PLACES = {
    "context": "around the source",
    "token": "source token",
    "prompt": "whole prompt",
    "label": "label and note",
}
_WAYS = {"text": "text", "word": "whole word", "regex": "expression"}
_KINDS = {
    "usual": "without noise",
    "all": "all",
    "unused": "dead",
    "first": "on a text's first position",
    "frequent": "on more than 10 %",
}
_LEAST = Setting("least", "Used on at least, %", "number", min=0, max=100)
_MOST = Setting("most", "and at most, %", "number", min=0, max=100)
"""Percent of the explored tokens"""
_LEAST_SCORE = Setting("score", "Score at least", "number", min=0, max=1)
_ANY = ""
_FILTERS = (
    "in", "match", "kind", "least", "most", "list", "bookmarked", "labelled", "score", "of_strong",
)  # fmt: skip
SEARCH_LABEL = "Search the latents"
_KEYS = ("search", "filters", "among", *_FILTERS)
_MAX_IN_LINK = 200
"""Latents drawn around on the map that a link still holds"""
_LARGEST = 2**31
"""The database has a latent's number in 32 bits"""


def ask_for_search(field, switch) -> LatentSearch:
    """field, switch: the places of the search field and of the switch for the filters, which stand
    in a row of their own below."""
    keep(*_KEYS)
    _follow_link()
    search = _ask_for_search(field, switch)
    among = st.session_state.get("among")
    names = ",".join(map(str, among)) if among and len(among) <= _MAX_IN_LINK else None
    write_url("among", names)
    if among and names is None:
        st.caption(
            f"The link leaves out what is drawn around: it holds {_MAX_IN_LINK:,} latents at most, "
            f"and these are {len(among):,}."
        )
    return dataclasses.replace(search, among=among)


def _ask_for_search(field, switch) -> LatentSearch:
    text = field.text_input(
        SEARCH_LABEL,
        key="search",
        placeholder="a word, such as treaty",
        help="Press / to jump here. The source token and 40 characters around it are searched. "
        "With the filters also other places, for whole words and for regular expressions.",
    )
    write_url("search", text or None)
    if not switch.toggle("Filters", key="filters"):
        for key in _FILTERS:
            write_url(key, None)
        return LatentSearch(text, kind="usual")
    places = st.columns([1.4, 1.1, 1.4, 1, 1, 1.2, 1.1, 1.1], vertical_alignment="bottom")
    place = choose(places[0].selectbox, "Look in", _PLACES, "in")
    way = choose(places[1].selectbox, "Match", _WAYS, "match")
    kind = choose(places[2].selectbox, "Which", _KINDS, "kind")
    least = linked_number_field(places[3], _LEAST, "least", 0.0, writes_default=False)
    most = linked_number_field(places[4], _MOST, "most", 100.0, writes_default=False)
    names = {
        _ANY: "any or none",
        **{name: shown(name) for name in explorer().store.latents.list_names()},
    }
    in_list = choose(places[5].selectbox, "List", names, "list")
    bookmarked = _switch(places[6], "Bookmarked", "bookmarked")
    labelled = _switch(places[7], "With label", "labelled")
    places = st.columns([1.4, 3, 5], vertical_alignment="bottom")
    score = linked_number_field(places[0], _LEAST_SCORE, "score", 0.0, writes_default=False)
    of_strong = _switch(places[1], "Used on: strong uses only", "of_strong")
    # Read when all is drawn: a filter that can't be used must not take the others away.
    densities = _LEAST.read(least) / 100, _MOST.read(most) / 100
    return LatentSearch(
        text, place, way, *densities, bookmarked, labelled, kind, in_list,
        min_auroc=_LEAST_SCORE.read(score), of_strong=of_strong,
    )  # fmt: skip


def describe(search: LatentSearch) -> str:
    """What was asked for, in a sentence."""
    parts = []
    if search.text:
        parts.append(f"“{search.text}” as {_WAYS[search.way]} in: {_PLACES[search.place]}")
    if (search.min_density, search.max_density) != (0.0, 1.0):
        strongly = " strongly" * search.of_strong
        parts.append(f"used on {search.min_density:.2%} to {search.max_density:.2%}{strongly}")
    if search.min_auroc > 0:
        parts.append(f"with a score of at least {search.min_auroc:g}")
    if search.kind not in ("usual", "all"):
        parts.append(_KINDS[search.kind])
    if search.among is not None:
        parts.append(f"{len(search.among):,} latents of the map")
    if search.in_list:
        parts.append(f"in the list “{search.in_list}”")
    parts += ["bookmarked"] * search.bookmarked + ["with a label or note"] * search.labelled
    return f"Asked for: {', '.join(parts)}." if parts else ""


def what_to_change(search: LatentSearch) -> str:
    """What may help where nothing fits: only of what is set."""
    is_filtered = (
        (search.min_density, search.max_density) != (0.0, 1.0)
        or search.kind not in ("usual", "all")
        or search.among is not None
        or search.min_auroc > 0
        or bool(search.in_list or search.bookmarked or search.labelled)
    )
    hints = ["a shorter word"] * bool(search.text) + ["fewer filters"] * is_filtered
    hidden = (
        "Latents on a text's first position and those on more than 10 % of the tokens are hidden."
    )
    said = [f"Try {' or '.join(hints)}."] if hints else []
    return " ".join(said + [hidden] * (search.kind == "usual"))


def forget_search() -> None:
    """Everything is listed again; for callbacks, before the widgets are drawn."""
    for key in _KEYS:
        st.session_state.pop(key, None)
        st.query_params.pop(key, None)
        st.session_state[f"_written_{key}"] = None


def forget_selection() -> None:
    """What was drawn around on the map is forgotten; for a callback."""
    st.session_state["among"] = None


def show_everything() -> None:
    """Nothing is hidden as noise any more; for a callback."""
    st.session_state["filters"], st.session_state["kind"] = True, "all"
    st.session_state["_written_kind"] = None


def _follow_link() -> None:
    """A link to a latent that says nothing of a search is not to be hidden by an earlier one."""
    wanted = st.query_params.get("latent")
    is_new = wanted is not None and wanted != st.session_state.get("_written_latent")
    if is_new and not any(key in st.query_params for key in _KEYS):
        forget_search()
    text = st.query_params.get("search")
    if text is not None and text != st.session_state.get("_written_search"):
        st.session_state["search"] = text
    among = st.query_params.get("among")
    if among is not None and among != st.session_state.get("_written_among"):
        found = [number_below(one, _LARGEST) for one in among.split(",")]
        numbers = [number for number in found if number is not None]
        if len(numbers) > _MAX_IN_LINK:
            st.warning(
                f"The link asks for {len(numbers):,} latents; the first {_MAX_IN_LINK:,} are "
                "listed."
            )
        st.session_state["among"] = tuple(numbers[:_MAX_IN_LINK]) or None
    filters = {key: st.query_params[key] for key in _FILTERS if key in st.query_params}
    if any(value != st.session_state.get(f"_written_{key}") for key, value in filters.items()):
        st.session_state["filters"] = True


def _switch(place, label: str, key: str) -> bool:
    follow_url(key, [False, True])
    chosen = place.toggle(label, key=key)
    write_url(key, chosen or None)
    return chosen
