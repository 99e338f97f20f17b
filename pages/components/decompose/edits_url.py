"""Edits of “What if” in the URL: "5*0,7>12" removes latent 5 and puts 12 in the place of 7.

Edits belong to a place: a dictionary, a text, and a token of it or all. Those of the place that is
looked at are in the link, whatever is shown of it, and are said where they can't be seen; those of
another place leave the link with a sentence and come back with their place.
"""

import re
from collections.abc import Collection, Sequence

import streamlit as st

from itda_core.analysis.what_if import Edit
from pages.components.text import literal
from pages.components.url import write_url

_EDIT = re.compile(r"(\d{1,9})(?:\*(-?\d{1,3}(?:\.\d{1,6})?))?(?:>(\d{1,9}))?")
LARGEST = 20.0
"""Factor, whatever its sign"""
_MOST_PLACES = 100

Edits = dict[int, tuple[float, int | None]]
"""Factor and other latent, by latent"""


def edits_text(edits: Sequence[Edit]) -> str:
    """What `read_edits` reads."""
    parts = []
    for edit in edits:
        factor = f"*{edit.factor:.6g}" if edit.factor != 1 or edit.instead is None else ""
        instead = "" if edit.instead is None else f">{edit.instead}"
        parts.append(f"{edit.latent}{factor}{instead}")
    return ",".join(parts)


def read_edits(text: str, n_latents: int) -> Edits:
    """What a link asks for; what makes no sense is left out."""
    return _read(text, n_latents)[0]


def _read(text: str, n_latents: int) -> tuple[Edits, list[str]]:
    """The edits of a link, and the parts of it that make no sense."""
    edits: Edits = {}
    senseless = []
    for part in filter(None, text.split(",")):
        match = _EDIT.fullmatch(part)
        latent, instead = (int(match[1]), int(match[3]) if match[3] else None) if match else (0, 0)
        factor = float(match[2]) if match and match[2] else 1.0
        if match and max(latent, instead or 0) < n_latents and abs(factor) <= LARGEST:
            edits[latent] = factor, instead
        else:
            senseless.append(part)
    return edits, senseless


def follow_edits(scope: tuple, n_latents: int, is_shown: bool) -> None:
    """Take the edits of a link, and put those of another place out of it; in every view. scope:
    what edits are made to; is_shown: whether the view shows them itself."""
    wanted = st.query_params.get("edits", "")
    if wanted and wanted != st.session_state.get("_written_edits"):
        edits, senseless = _read(wanted, n_latents)
        put_edits(scope, edits)
        if senseless:
            st.warning(literal(f"The link has edits that make no sense: {', '.join(senseless)}."))
    elif wanted and st.session_state.get("_edits_of", scope) != scope:
        st.info(
            literal(
                f"The edits {wanted} were made to another text, token or dictionary: they have "
                "left the link, and come back with it."
            )
        )
    st.session_state["_edits_of"] = scope
    edits = edits_of(scope)
    text = _text(edits)
    write_url("edits", text or None)
    if edits and not is_shown:
        count = "1 edit" if len(edits) == 1 else f"{len(edits):,} edits"
        st.caption(literal(f"“What if” holds {count} of this text, also in the link: {text}"))


def put_edits(scope: tuple, edits: Edits) -> None:
    """Take edits that did not come from the table of factors, which is then drawn anew."""
    _remember(scope, edits)
    st.session_state["_edits_number"] = st.session_state.get("_edits_number", 0) + 1
    st.session_state["_edits_of"] = scope
    write_url("edits", _text(edits) or None)


def edits_of(scope: tuple) -> Edits:
    """What was changed at a place."""
    return st.session_state.get("_edits", {}).get(scope, {})


def editor_key(scope: tuple, latents: Sequence[int]) -> str:
    """Of the table of edits. Its changes are kept by row, so that other rows need another table."""
    return f"edits_{hash((scope, tuple(latents), st.session_state.get('_edits_number', 0)))}"


def first_edits(scope: tuple, editor: str) -> Edits:
    """What the table of edits starts from: those that were made before it was drawn. editor: its
    key, under which it keeps what is typed into it."""
    if editor not in st.session_state or st.session_state.get("_editor") != editor:
        st.session_state.pop(editor, None)
        st.session_state["_first_edits"] = dict(edits_of(scope))
    st.session_state["_editor"] = editor
    return st.session_state["_first_edits"]


def write_edits(scope: tuple, edits: Sequence[Edit], shown: Collection[int]) -> None:
    """Remember them and put them into the link. shown: the latents that have a row in the table;
    edits of others can't do anything here, which is said."""
    unused = [latent for latent in edits_of(scope) if latent not in shown]
    if unused:
        named = ", ".join(f"{latent:d}" for latent in unused)
        st.info(f"Edits of latents that are not used here are dropped: {named}.")
    _remember(scope, {edit.latent: (edit.factor, edit.instead) for edit in edits})
    write_url("edits", edits_text(edits) or None)


def _text(edits: Edits) -> str:
    return edits_text([Edit(latent, *change) for latent, change in edits.items()])


def _remember(scope: tuple, edits: Edits) -> None:
    kept = st.session_state.setdefault("_edits", {})
    kept.pop(scope, None)
    if edits:
        kept[scope] = edits
    while len(kept) > _MOST_PLACES:
        kept.pop(next(iter(kept)))
