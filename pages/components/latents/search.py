"""Which latents are listed: the search field and the filters, which follow the link."""

import dataclasses

import streamlit as st

from itda_core.glossary import GLOSSARY
from itda_core.settings import Setting
from itda_core.store.latent_search import LatentSearch
from pages.components.explorer import explorer
from pages.components.number_field import linked_number_field
from pages.components.text import shown
from pages.components.url import choose, follow_url, keep, linked_switch, number_below, write_url

_PLACES = {
    "meaning": "label, uses or source, then near either",
    "context": "around the source",
    "token": "source token",
    "prompt": "whole prompt",
    "label": "label and note",
}
_WAYS = {"word": "whole word", "text": "text", "regex": "expression"}
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
_FILTERS = ("in", "kind", "least", "most", "list", "bookmarked", "labelled", "score")
OF_ALL = GLOSSARY["density"]
USED_ON = f"{OF_ALL} Of strong uses, or of all where there is no threshold."
SEARCH_LABEL = "Search the latents"
SEARCH_KEYS = ("search", "match", "all_uses", "as_text", "among", *_FILTERS)
_MAX_IN_LINK = 200
"""Latents drawn around on the map that a link still holds"""
_LARGEST = 2**31
"""The database has a latent's number in 32 bits"""


def ask_for_search(field, ways, switch) -> LatentSearch:
    """field, ways, switch: the places of the search field, of the switches for how it is matched,
    and of the one for all uses with the filters."""
    keep(*SEARCH_KEYS)
    _follow_link()
    search = _ask_for_search(field, ways, switch)
    among = st.session_state.get("among")
    names = ",".join(map(str, among)) if among and len(among) <= _MAX_IN_LINK else None
    write_url("among", names)
    if among and names is None:
        st.caption(
            f"The link leaves out what is drawn around: it holds {_MAX_IN_LINK:,} latents at most, "
            f"and these are {len(among):,}."
        )
    return dataclasses.replace(search, among=among)


def _ask_for_search(field, ways, switch) -> LatentSearch:
    text = field.text_input(
        SEARCH_LABEL,
        key="search",
        placeholder="a word, such as treaty",
        help="Press / to come here. First come latents with it in their label or note, then those "
        "whose source is the word or with much of their strong uses on it, by their squared "
        "coefficients; then those whose strong uses are at most 20 characters from it, and those "
        "with it in the 40 characters around their source.",
    )
    write_url("search", text or None)
    way = _ask_for_way(ways)
    of_strong = not linked_switch(
        switch, "All uses", "all_uses",
        help="Densities, searches and companions are of strong uses, where the dictionary has "
        f"scores; with this switch filler counts as well. {GLOSSARY['strong use']} "
        f"{GLOSSARY['filler']}",
    )  # fmt: skip
    with switch.popover(_filters_label(), width="stretch"):
        return _ask_for_filters(text, way, of_strong)


def _ask_for_way(place) -> str:
    """How the text is matched, by two switches of which one can be on."""
    keep("match")
    follow_url("match", list(_WAYS))
    way = st.session_state["match"]
    for key, of in (("whole_word", "word"), ("expression", "regex")):
        st.session_state[key] = way == of
    place.toggle(
        "Whole word",
        key="whole_word",
        on_change=_take_way,
        args=["whole_word", "word"],
        help="Without it *war* is found in *unaware* too, after all that is found as a whole word.",
    )
    place.toggle(
        "Regular expression",
        key="expression",
        on_change=_take_way,
        args=["expression", "regex"],
        help="Of RE2, such as `wars?|battles?`. Upper and lower case are one.",
    )
    write_url("match", None if way == next(iter(_WAYS)) else way)
    return way


def _take_way(key: str, way: str) -> None:
    other = "text" if way == "word" else "word"
    st.session_state["match"] = way if st.session_state[key] else other


def _filters_label() -> str:
    """With how many of them are set."""
    asked = {"in": "meaning", "kind": "usual", "least": "0", "most": "100", "score": "0"}
    n_set = sum(
        str(st.session_state.get(key) or asked.get(key, "")) != asked.get(key, "")
        for key in _FILTERS
    )
    return f"Filters · {n_set}" if n_set else "Filters"


def _ask_for_filters(text: str, way: str, of_strong: bool) -> LatentSearch:
    place = choose(st.selectbox, "Look in", _PLACES, "in")
    kind = choose(st.selectbox, "Which", _KINDS, "kind")
    low, high = st.columns(2)
    least = linked_number_field(low, _LEAST, "least", 0.0, writes_default=False)
    most = linked_number_field(high, _MOST, "most", 100.0, writes_default=False)
    store = explorer().store
    names = {
        _ANY: "any or none",
        **{name: shown(name) for name in store.known(store.latents.list_names)},
    }
    in_list = choose(st.selectbox, "List", names, "list")
    score = linked_number_field(st, _LEAST_SCORE, "score", 0.0, writes_default=False)
    bookmarked = linked_switch(st, "Bookmarked", "bookmarked")
    labelled = linked_switch(st, "With label", "labelled")
    # Read when all is drawn: a filter that can't be used must not take the others away.
    densities = _LEAST.read(least) / 100, _MOST.read(most) / 100
    return LatentSearch(
        text, place, way, *densities, bookmarked, labelled, kind, in_list,
        min_auroc=_LEAST_SCORE.read(score), of_strong=of_strong,
    )  # fmt: skip


def wants_strong() -> bool:
    """Whether the page is of strong uses, where a dictionary has scores."""
    return not st.session_state.get("all_uses", False)


def describe(search: LatentSearch) -> str:
    """What was asked for, in a sentence."""
    parts = []
    if search.text:
        parts.append(f"“{search.text}” as {_WAYS[search.way]} in: {_PLACES[search.place]}")
    if (search.min_density, search.max_density) != (0.0, 1.0):
        uses = " (strong uses where there is a threshold)" * search.of_strong
        parts.append(f"used on {search.min_density:.2%} to {search.max_density:.2%}{uses}")
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
    hints += ["without “Whole word”"] * bool(search.text and search.way == "word")
    hidden = (
        "Latents on a text's first position and those on more than 10 % of the tokens are hidden."
    )
    said = [f"Try {' or '.join(hints)}."] if hints else []
    return " ".join(said + [hidden] * (search.kind == "usual"))


def forget_search() -> None:
    """Everything is listed again; for callbacks, before the widgets are drawn."""
    for key in SEARCH_KEYS:
        st.session_state.pop(key, None)
        st.query_params.pop(key, None)
        st.session_state[f"_written_{key}"] = None


def forget_selection() -> None:
    """What was drawn around on the map is forgotten; for a callback."""
    st.session_state["among"] = None


def show_everything() -> None:
    """Nothing is hidden as noise any more; for a callback."""
    st.session_state["kind"] = "all"
    st.session_state["_written_kind"] = None


def _follow_link() -> None:
    """A link to a latent that says nothing of a search, among latents or among its uses, is not to
    be hidden by an earlier one."""
    wanted = st.query_params.get("latent")
    is_new = wanted is not None and wanted != st.session_state.get("_written_latent")
    if is_new and not any(key in st.query_params for key in SEARCH_KEYS):
        forget_search()
    if is_new and "in_uses" not in st.query_params:
        st.session_state.pop("in_uses", None)
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
