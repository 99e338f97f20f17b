"""Edits of “What if” in the URL: "5*0,7>12" removes latent 5 and puts 12 in the place of 7."""

import re
from collections.abc import Sequence

import streamlit as st

from itda_core.analysis.what_if import Edit
from pages.components.url import write_url

_EDIT = re.compile(r"(\d{1,9})(?:\*(-?\d{1,3}(?:\.\d{1,6})?))?(?:>(\d{1,9}))?")
LARGEST = 20.0
"""Factor, whatever its sign"""

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
    edits: Edits = {}
    for part in text.split(","):
        match = _EDIT.fullmatch(part)
        if not match:
            continue
        latent, instead = int(match[1]), int(match[3]) if match[3] else None
        factor = float(match[2]) if match[2] else 1.0
        if max(latent, instead or 0) < n_latents and abs(factor) <= LARGEST:
            edits[latent] = factor, instead
    return edits


def first_edits(scope: tuple, editor: str, n_latents: int) -> Edits:
    """What the table of edits starts from: those of the link, until they are of another place.
    scope: what they are made to; editor: the key of the table, which keeps what is typed into it.
    """
    wanted = st.query_params.get("edits", "")
    is_theirs = bool(wanted) and wanted != st.session_state.get("_written_edits")
    if is_theirs or editor not in st.session_state:
        st.session_state.pop(editor, None)
        is_here = is_theirs or st.session_state.get("_edits_of", scope) == scope
        st.session_state["_first_edits"] = read_edits(wanted, n_latents) if is_here else {}
    st.session_state["_edits_of"] = scope
    return st.session_state["_first_edits"]


def write_edits(edits: Sequence[Edit]) -> None:
    """Put them into the link."""
    write_url("edits", edits_text(edits) or None)
