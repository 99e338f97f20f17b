"""Latents near those that a search found, where it found few."""

import pandas as pd
import streamlit as st

from itda_core.analysis.neighbours import nearest_to_any
from itda_core.store.latent_search import LatentPage
from itda_core.store.word_search import CONTEXT, LABEL, SOURCE, USES
from pages.components.cached import loaded_dictionary
from pages.components.explorer import explorer
from pages.components.latent_rows.rows import Column, show_rows_of
from pages.components.latents.list import Listing, choose_from_list, latents_of
from pages.components.text import row_context, token_label

_FEW = 10
"""Latents found by their uses, source or label, from which on nothing is suggested"""
_SUGGESTED = 5


def suggest_related(run, listing: Listing, shown_page: LatentPage) -> None:
    """The atoms with the largest cosine to those that a word was found on, where these are few.
    run: a row of Store.runs.table()."""
    if not listing.asked.is_by_meaning or not shown_page.total:
        return
    found = explorer().store.latents.found(run.run_id, listing.asked)
    if (found["by"] != CONTEXT).sum() >= _FEW:
        return
    near = nearest_to_any(
        loaded_dictionary(run.directory), found_on(found), found["latent"].tolist(), _SUGGESTED
    )
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
        Column("latent", "no.", "number"),
        Column("token", "token", "latent", width=130),
        Column("cosine", "cosine", "number", digits=2, sign=True),
        Column("nearest", "to", width=130),
        Column("source", "in context", "quote"),
    ]
    show_rows_of(run, rows, columns, "suggested_latents", places={}, choose=choose_from_list)


def found_on(found: pd.DataFrame) -> list[int]:
    """Latents whose label, uses or source are on what was searched for. found: of
    `LatentQueries.found`."""
    is_on = found["by"].isin([LABEL, SOURCE]) | (
        (found["by"] == USES) & (found["on"] > found["near"])
    )
    return found.loc[is_on, "latent"].tolist()
