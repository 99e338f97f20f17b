"""A phrase that is searched for, or a word that no latent is on: run through the model, and its
latents listed."""

import dataclasses

import numpy as np
import streamlit as st

from itda_core.analysis.decomposition import Decomposition
from itda_core.analysis.phrase import (
    behind_a_stop,
    phrase_latents,
    pieces_of_phrase,
    unexplained_of_phrase,
)
from itda_core.errors import ItdaError
from itda_core.store.latent_search import LatentSearch
from itda_core.store.word_search import CONTEXT
from pages.components.cached import loaded_model, loaded_run
from pages.components.decompose.decomposed import decomposed, warn_of_another_model
from pages.components.explorer import explorer
from pages.components.latents.score import thresholds_of
from pages.components.text import sentence, shown
from pages.components.url import follow_url, keep, number_below, write_url

_SAID = "It was run through the model behind a full stop, and its tokens decomposed"
_LISTED = {
    True: ": the latents with the largest squared coefficients on it come first.",
    False: "; its latents are in the order that you asked for.",
}
"""Whether they are listed by how well they match"""
_ON_NONE = "No latent has this word as its source, in its label or on much of its uses. "


def ask_for_phrase(run, search: LatentSearch, order: str) -> tuple[LatentSearch, tuple[str, ...]]:
    """Where several words are searched for by meaning, or one that no latent is on, the latents
    that the model has on them in place of the search, and of each why it is there; else the search
    as it is. run: a row of Store.runs.table(); order: of the list."""
    is_on_none = _is_on_none(run, search)
    if not (is_on_none or _is_phrase(search)) or not _is_to_be_run():
        return search, ()
    try:
        if loaded_model(loaded_run(run.directory).config.model).is_swept:
            st.caption("The model does not fit into memory, so that it is found as text.")
            return search, ()
        result = decomposed(run.directory, behind_a_stop(search.text))
        found = phrase_latents(result, thresholds_of(run, search.of_strong))
    except ItdaError as error:
        st.warning(f"{sentence(error)} What you search for is found as text.")
        return search, ()
    warn_of_another_model(run.directory)
    said = _SAID + _LISTED[order == "match"] + _how_well_explained(result)
    st.caption(_ON_NONE * is_on_none + said + _in_pieces(search.text, result))
    reasons = tuple(
        f"{row.coefficient:+.1f} on {shown(f'“{row.token.strip()}”')}"
        + (f", on {row.tokens:,} tokens" if row.tokens > 1 else "")
        for row in found.itertuples()
    )
    return dataclasses.replace(search, ranked=tuple(found["latent"].tolist())), reasons


def _how_well_explained(result: Decomposition) -> str:
    """A word that the model does not know has latents too: how much of it they are."""
    count, left = unexplained_of_phrase(result)
    if np.isnan(left):
        return ""
    tokens = "its token" if count == 1 else f"its {count:,} tokens"
    return f" All terms of {tokens}, strong or not, leave {left:.0%} of the activation unexplained."


def _in_pieces(text: str, result: Decomposition) -> str:
    """Of one word that the model reads in pieces, as it may in small letters alone: which."""
    pieces = pieces_of_phrase(result)
    if len(text.split()) > 1 or len(pieces) < 2:
        return ""
    read = ", ".join(shown(f"“{piece}”") for piece in pieces)
    told = f" The model reads it in pieces: {read}."
    if text.strip().islower():
        told += " With a capital letter it may be one."
    return told


def _is_phrase(search: LatentSearch) -> bool:
    return search.is_by_meaning and search.way != "regex" and len(search.text.split()) > 1


def _is_on_none(run, search: LatentSearch) -> bool:
    """Whether one word is searched for, not a latent's number, that is at most around the sources
    of latents."""
    is_word = search.is_by_meaning and search.way != "regex" and len(search.text.split()) == 1
    if not is_word or number_below(search.text.strip(), int(run.atoms)) is not None:
        return False
    found = explorer().store.latents.found(run.run_id, search)
    return bool(found["by"].eq(CONTEXT).all())


def _is_to_be_run() -> bool:
    keep("as_text")
    follow_url("as_text", [False, True])
    as_text = st.toggle("Find it as text, and don't run the model", key="as_text")
    write_url("as_text", as_text or None)
    return not as_text
