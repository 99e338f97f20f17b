"""In which other dictionaries the source of a latent is an atom too, and how alike it is used."""

import pandas as pd
import streamlit as st

from pages.components.explorer import explorer
from pages.components.latent_rows.rows import Action, Column, show_rows_of_runs
from pages.components.latents.search import OF_ALL, USED_ON, wants_strong
from pages.components.run_names import layer_of, run_label
from pages.components.text import last_part, shown, visible

_BOTH = Action("both", "Side by side", "Show side by side with this one")


def show_other_models(run, latent: pd.Series) -> None:
    """A row for each, which opens the latent there; a button shows both side by side. run: a row of
    Store.runs.table(); latent: a row of Store.latents.table()."""
    store = explorer().store
    found = store.known(store.latents.elsewhere, run.run_id, int(latent.latent), wants_strong())
    if found.empty:
        st.caption(
            "Its source is an atom in no other dictionary. Move this one to another model or layer "
            "on the Train page, and it is there under the same number."
        )
        return
    st.caption(
        "Dictionaries in which the same source is an atom. The correlation of its coefficients "
        "there and here is known where the two were compared on the Similarity page."
    )
    runs = {row.run_id: row for row in store.runs.table().itertuples()}
    table = _in_words(found[found["run_id"].isin(runs)].reset_index(drop=True), runs)
    acted = show_rows_of_runs(
        runs, table, _columns(table), f"other_models_{run.run_id}", actions=[_BOTH]
    )
    if acted:
        pair = {"left": run.run_id, "right": acted[1].partition("@")[2]}
        both = {"view": "latents", **pair, "same": str(latent.latent)}
        st.switch_page("pages/similarity.py", query_params=both)


def _columns(table: pd.DataFrame) -> list[Column]:
    columns = [
        Column("model", "model", "latent", width=160),
        Column("place", "layer"),
        Column("latent", "latent", "number", is_name=True),
        Column(
            "percent", "used on", "number", digits=2, unit=" %",
            help=USED_ON if wants_strong() else OF_ALL,
        ),
    ]  # fmt: skip
    if table["correlation"].notna().any():
        told = "What was compared. Correlations over few tokens say little."
        columns += [
            Column("correlation", "corr.", "number", digits=2, sign=True),
            Column("over", "over", help=told),
        ]
    columns += [Column("label", "label there", width=180)] * bool(table["label"].any())
    return [*columns, Column("actions", "", "actions"), Column("dictionary", "dictionary")]


def _in_words(found: pd.DataFrame, runs: dict) -> pd.DataFrame:
    rows = [runs[run_id] for run_id in found["run_id"]]
    return found.assign(
        model=[visible(last_part(row.model)) for row in rows],
        place=[layer_of(row) for row in rows],
        percent=100 * found["density"],
        over=[_compared_in_words(row) for row in found.itertuples()],
        label=found["label"].map(shown),
        dictionary=[run_label(row) for row in rows],
        named=[f"latent {row.latent}" for row in found.itertuples()],
        pressed="",
    )


def _compared_in_words(row) -> str | None:
    """Over what a correlation is; None where there is none."""
    if pd.isna(row.correlation):
        return None
    told = f"{row.compared_tokens:,.0f} {'tokens' if row.compared_unit == 'token' else 'words'}"
    return told + ", strong uses" * bool(row.compared_strong)
