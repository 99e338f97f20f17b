"""Edits that were tried on a text, and what each changed: a list that is kept while the explorer is
open, and brings an edit back."""

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
import streamlit as st

from itda_core.analysis.decomposition import Decomposition
from itda_core.analysis.what_if import Edit, WhatIf
from pages.components.decompose.edits import edits_in_words
from pages.components.decompose.edits_url import edits_text, put_edits, read_edits
from pages.components.downloads import offer_downloads
from pages.components.latent_rows.rows import Column, show_latent_rows
from pages.components.text import token_label

_MOST_KEPT = 200


@dataclass(frozen=True)
class Try:
    """An edit and what it changed."""

    run_id: str
    text: str
    edits: str
    """as the link has them"""
    position: int | None
    """of the token that was edited; None for all"""
    l0: int
    onto: str
    words: str
    largest_kl: float
    """nats, after the token where it is largest"""
    after: int
    after_token: str
    likeliest_before: str
    likeliest_after: str
    """the likeliest next token there"""
    kl_reconstruction: float
    """nats, there"""


def remember_try(
    run,
    result: Decomposition,
    edits: tuple[Edit, ...],
    onto: str,
    outcome: WhatIf,
    names: dict[int, str],
) -> None:
    """Keep what edits changed; again the same ones, and none, are not. names: of latents."""
    if not edits or not outcome.changed.size:
        return
    after = int(np.argmax(outcome.kl_edit))
    where = edits[0].positions
    tried = Try(
        run.run_id,
        result.text,
        edits_text(edits),
        None if where is None else where[0],
        result.codes.l0,
        onto,
        edits_in_words(edits, names),
        float(outcome.kl_edit[after]),
        after,
        result.token_text(after),
        *(outcome.likeliest[name][after] for name in ("before", "after")),
        float(outcome.kl_reconstruction[after]),
    )
    kept = st.session_state.setdefault("_tries", {})
    kept[_identity(tried)] = tried
    while len(kept) > _MOST_KEPT:
        kept.pop(next(iter(kept)))


def _identity(tried: Try) -> tuple:
    return tried.run_id, tried.text, tried.edits, tried.position, tried.l0, tried.onto


def show_tries(run, result: Decomposition) -> None:
    """Those of this text by this dictionary, what changed most first."""
    kept = st.session_state.get("_tries", {})
    here = [one for one in kept.values() if (one.run_id, one.text) == (run.run_id, result.text)]
    if not here:
        return
    here.sort(key=lambda one: -one.largest_kl)
    st.markdown("##### Edits of this text so far")
    st.caption(
        "What changed the predictions most stands first: the KL of the edit after the token where "
        "it is largest, in nats. Click a row to have its edits again."
    )
    columns = [
        Column("edits", "edits"),
        Column("at", "at"),
        Column("kl", "largest KL", "number", digits=4),
        Column("after", "after"),
        Column("next", "likeliest next token"),
        Column("reconstruction", "reconstruction", "number", digits=4, help="KL of it, there"),
        Column("onto", "put into"),
        Column("l0", "L0", "number"),
    ]
    chosen = show_latent_rows(_table(result, here), columns, {}, {}, key="tries", height=300)
    if chosen:
        # Before the widgets that it sets are drawn again.
        st.session_state["_take_back"] = here[int(chosen[1])]
        st.rerun()
    with st.container(horizontal=True):
        with st.popover("Export the edits"):
            about = {"run": run.run_id, "prompt": result.text}
            offer_downloads(lambda: _for_file(here), about, f"edits-{run.run_id}", "tries_file")
        if len(here) > 1:
            st.button("Forget the others", on_click=_forget, args=[here], key="forget_tries")


def _table(result: Decomposition, tries: list[Try]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "key": [str(number) for number in range(len(tries))],
            "edits": [one.words for one in tries],
            "at": [_token(result, one.position) for one in tries],
            "kl": [one.largest_kl for one in tries],
            "after": [f"{one.after}: {token_label(one.after_token)}" for one in tries],
            "next": [
                token_label(one.likeliest_before)
                + (
                    " stays"
                    if one.likeliest_before == one.likeliest_after
                    else f" → {token_label(one.likeliest_after)}"
                )
                for one in tries
            ],
            "reconstruction": [one.kl_reconstruction for one in tries],
            "onto": [one.onto for one in tries],
            "l0": [one.l0 for one in tries],
        }
    )


def _token(result: Decomposition, position: int | None) -> str:
    if position is None:
        return "all tokens"
    return f"{position}: {token_label(result.token_text(position))}"


def _for_file(tries: list[Try]) -> pd.DataFrame:
    return pd.DataFrame([asdict(one) for one in tries]).drop(columns=["run_id", "text"])


def take_back_a_try(run) -> None:
    """At the top of a page: the edits of the row that was chosen, with the token and all that they
    were made with. run: a row of Store.runs.table()."""
    one = st.session_state.pop("_take_back", None)
    if one is None or one.run_id != run.run_id:
        return
    st.session_state["onto"] = one.onto
    st.session_state["at"] = "all" if one.position is None else "token"
    st.session_state["l0"] = one.l0
    if one.position is not None:
        st.session_state[f"strip_{hash(one.text)}"] = {"locked": one.position, "lit": None}
    put_edits((one.run_id, one.text, one.position), read_edits(one.edits, int(run.atoms)))


def _forget(tries: list[Try]) -> None:
    """The present edits are kept again as soon as they are drawn."""
    for one in tries:
        st.session_state["_tries"].pop(_identity(one), None)
