"""In which other dictionaries the source of a latent is an atom too, and how alike it is used."""

import pandas as pd
import streamlit as st

from pages.components.explorer import explorer
from pages.components.latents.search import OF_ALL, USED_ON, wants_strong
from pages.components.run_names import layer_of, run_label
from pages.components.text import literal, shown, visible


def show_other_models(run, latent: pd.Series) -> None:
    """A row for each; choosing one gives links to the latent there and to both side by side. run: a
    row of Store.runs.table(); latent: a row of Store.latents.table()."""
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
    event = st.dataframe(
        table,
        column_order=[
            *("model", "place", "latent", "percent"),
            *["correlation", "over"] * bool(table["correlation"].notna().any()),
            *["label"] * bool(table["label"].any()),
            "dictionary",
        ],
        column_config={
            "model": st.column_config.TextColumn("model", width=110),
            "place": st.column_config.TextColumn("layer", width=80),
            "latent": st.column_config.NumberColumn("latent", format="%d", width=60),
            "percent": st.column_config.NumberColumn(
                "used on", format="%.2f %%", width=70, help=USED_ON if wants_strong() else OF_ALL
            ),
            "correlation": st.column_config.NumberColumn("corr.", format="%+.2f", width=60),
            "over": st.column_config.TextColumn(
                "over",
                width=100,
                help="What was compared. Correlations over few tokens say little.",
            ),
            "label": st.column_config.TextColumn("label there", width=110),
        },
        placeholder="–",
        hide_index=True,
        on_select="rerun",
        selection_mode="single-row",
        key=f"other_models_{run.run_id}_{latent.latent}",
    )
    rows = event["selection"]["rows"]
    if rows and rows[0] < len(table):
        _show_links(run, int(latent.latent), table.iloc[rows[0]])
    else:
        st.caption("Choose a row for links to it.")


def _in_words(found: pd.DataFrame, runs: dict) -> pd.DataFrame:
    rows = [runs[run_id] for run_id in found["run_id"]]
    return found.assign(
        model=[visible(row.model.rstrip("/").split("/")[-1]) for row in rows],
        place=[layer_of(row) for row in rows],
        percent=100 * found["density"],
        over=[_compared_in_words(row) for row in found.itertuples()],
        label=found["label"].map(shown),
        dictionary=[run_label(row) for row in rows],
    )


def _compared_in_words(row) -> str | None:
    """Over what a correlation is; None where there is none."""
    if pd.isna(row.correlation):
        return None
    return f"{row.compared_tokens:,.0f} {'tokens' if row.compared_unit == 'token' else 'words'}"


def _show_links(run, latent: int, other: pd.Series) -> None:
    st.page_link(
        "pages/latents.py",
        label=f"Open latent {other.latent} of {literal(other.model)} {other.place}",
        query_params={"run": other.run_id, "latent": str(other.latent)},
    )
    both = {"view": "latents", "left": run.run_id, "right": other.run_id, "same": str(latent)}
    st.page_link("pages/similarity.py", label="Both side by side", query_params=both)
