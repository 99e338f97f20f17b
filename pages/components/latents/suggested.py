"""Latents near those that a search found, where it found few."""

import dataclasses

import pandas as pd
import streamlit as st

from itda_core.analysis.neighbours import nearest_to_any
from itda_core.store.latent_search import LatentPage, LatentSearch
from itda_core.store.word_search import CONTEXT, LABEL, SOURCE, USES_ON
from pages.components.cached import loaded_dictionary
from pages.components.explorer import explorer
from pages.components.latent_rows.rows import Column, show_rows_of
from pages.components.latents.list import choose_from_list, latents_of
from pages.components.latents.listing import Listing
from pages.components.text import row_context, token_label

_FEW = 10
"""Latents found by their uses, source or label, from which on nothing is suggested"""
_SUGGESTED = 5


def suggest_related(run, listing: Listing, shown_page: LatentPage) -> None:
    """The atoms with the largest cosine to those that a word was found on, where these are few, of
    those that the filters let through. run: a row of Store.runs.table()."""
    if not listing.asked.is_by_meaning or not shown_page.total:
        return
    fits = _that_fit(run.run_id, listing.asked)
    found = explorer().store.latents.found(run.run_id, listing.asked)
    listed = found[found["latent"].isin(fits)]
    if (listed["by"] != CONTEXT).sum() >= _FEW:
        return
    dictionary = loaded_dictionary(run.directory)
    left_out = set(range(len(dictionary))) - set(fits) | set(found["latent"])
    near = nearest_to_any(dictionary, found_on(listed), sorted(left_out), _SUGGESTED)
    if near.empty:
        return
    st.caption("**Nearby**: the atoms nearest to those that were found on it")
    latents = latents_of(run.run_id, (*near["latent"], *near["nearest"])).set_index("latent")
    rows = latents.loc[near["latent"]].reset_index()
    rows = rows.assign(
        cosine=near["cosine"].to_numpy(),
        token=rows["token"].map(token_label),
        nearest=[token_label(token) for token in latents.loc[near["nearest"], "token"]],
        source=[row_context(row.text, row.start, row.end) for row in rows.itertuples()],
    ).drop(columns=["text", "lists"])
    columns = [
        Column("latent", "no.", "number", is_name=True),
        Column("token", "token", "latent", width=130),
        Column("cosine", "cosine", "number", digits=2, sign=True),
        Column("nearest", "to", width=130),
        Column("source", "in context", "quote"),
    ]
    show_rows_of(run, rows, columns, "suggested_latents", places={}, choose=choose_from_list)


def _that_fit(run_id: str, asked: LatentSearch) -> list[int]:
    """All latents that the filters of a search let through, whatever its text finds."""
    store = explorer().store
    return store.known(store.latents.numbers, run_id, dataclasses.replace(asked, text=""))


def found_on(found: pd.DataFrame) -> list[int]:
    """Latents whose label, uses or source are on what was searched for. found: of
    `LatentQueries.found`."""
    return found.loc[found["by"].isin([LABEL, USES_ON, SOURCE]), "latent"].tolist()
