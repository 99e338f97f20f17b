"""The table of dictionaries on Overview: a row opens its latents, and its button all else that can
be done with it."""

import pandas as pd
import streamlit as st

from itda_core.corpus.corpus import BUILT_IN as BUILT_IN_CORPORA
from itda_core.glossary import GLOSSARY
from pages.components.explorer import explorer
from pages.components.held_out import HeldOut, held_out
from pages.components.in_sight import bring_into_sight, note_act
from pages.components.latent_rows.rows import Action, Column, show_latent_rows
from pages.components.name_field import ask_for_name
from pages.components.overview.export import show_exchange
from pages.components.run_names import run_label
from pages.components.text import literal, shown
from pages.components.train.moving import offer_move, show_origin
from pages.components.upload import corpus_name

_COLUMNS = (
    Column("model", "model", "latent"),
    Column("layer", "layer", "number"),
    Column("site", "site"),
    Column("method", "method", help=GLOSSARY["selection"]),
    Column("atoms", "atoms", "number"),
    Column(
        "thousands", "tokens", "number", 1, unit=" k",
        help="Tokens that the atoms were chosen from, in thousands",
    ),
    Column("l0", "L0", "number", help=GLOSSARY["L0"]),
    Column(
        "fvu", "held-out FVU", "number", 3,
        help=f"{GLOSSARY['FVU']} On held-out tokens, which no atom was chosen from, without "
        "massive activations. Compare only what was measured on the same tokens.",
    ),
    Column(
        "measured_on", "measured on",
        help="Held-out tokens at the end of the training; – where there were none. "
        f"{GLOSSARY['massive activation']} A few of them can hold nearly all of the variance, so "
        "that the FVU with them says little of other tokens; Evaluate has both by L0.",
    ),
    Column("corpus", "corpus", help=f"sotu: {BUILT_IN_CORPORA['sotu']}"),
    Column("trained", "trained"),
    Column("run_id", "run"),
)  # fmt: skip
_LABEL_COLUMNS = (
    Column(
        "own", "labels", "number",
        help="Latents that have a label or a note of this dictionary's own.",
    ),
    Column(
        "elsewhere", "labels elsewhere", "number",
        help="Latents without one whose source was given a label or a note in another dictionary.",
    ),
)  # fmt: skip
_MORE = Action("more", "More", "What else can be done with")
_OPENED = "_more_of"
"""In the session: the dictionary of which more is shown"""


def show_dictionaries(runs: pd.DataFrame) -> None:
    """runs: rows of Store.runs.table(), with name, which a person gave, or ""."""
    st.subheader("Dictionaries")
    st.caption(
        "A click on a row opens its latents. *More* has, below the table, what else can be done "
        "with it: decompose a text, evaluate, name, move and export it."
    )
    opened = st.session_state.get(_OPENED)
    rows = _rows(runs).assign(pressed=["more" * (one == opened) for one in runs["run_id"]])
    named = [Column("name", "name")] * bool(runs["name"].any())
    counted = [column for column in _LABEL_COLUMNS if rows[column.name].any()]
    columns = [*named, *_COLUMNS, *counted]
    columns.insert(len(named) + 1, Column("actions", "", "actions"))
    places = {run_id: {"run": run_id} for run_id in runs["run_id"]}
    acted = show_latent_rows(rows, columns, {}, places, "runs", 420, [_MORE])
    if acted:
        st.session_state[_OPENED] = None if acted[1] == opened else acted[1]
        note_act("more")
        st.rerun()
    if opened in set(runs["run_id"]):
        _show_more(runs[runs["run_id"] == opened].iloc[0])


def _rows(runs: pd.DataFrame) -> pd.DataFrame:
    """What the table shows of them."""
    store = explorer().store
    rows = runs.merge(store.known(store.labels.counts), on="run_id", how="left")
    corpora = [corpus_name(name) for name in rows["corpus"]]
    measured = [held_out(directory) for directory in rows["directory"]]
    return rows.assign(
        key=rows["run_id"],
        named=rows["run_id"],
        name=rows["name"].map(shown),
        model=rows["model"].map(shown),
        thousands=rows["tokens"] / 1_000,
        corpus=[shown(name) for name in corpora],
        fvu=[one.fvu for one in measured],
        measured_on=[
            _measured_on(one, corpus) for one, corpus in zip(measured, corpora, strict=True)
        ],
        trained=pd.to_datetime(rows["created"]).dt.strftime("%Y-%m-%d %H:%M"),
    )


def _show_more(run: pd.Series) -> None:
    bring_into_sight("more")
    st.markdown(f"##### {literal(run_label(run))}")
    link = {"run": run["run_id"]}
    with st.container(horizontal=True):
        options = {"width": "content"}
        st.page_link("pages/latents.py", label="Its latents", query_params=link, **options)
        st.page_link("pages/decompose.py", label="Decompose with it", query_params=link, **options)
        compare = {"compare": run["run_id"]}
        st.page_link("pages/evaluate.py", label="Evaluate it", query_params=compare, **options)
    ask_for_name(run["run_id"])
    show_origin(run)
    offer_move(run)
    show_exchange(run)


def _measured_on(measured: HeldOut, corpus: str) -> str:
    """ "4,010 tokens of licences.txt; with 6 massive activations 0.006"."""
    if not measured.tokens and not measured.is_without:
        return "–"
    told = f"{measured.tokens:,} tokens of {corpus}"
    return shown(f"{told}; {measured.note}" if measured.note else told)
