"""One dictionary at one L0: what it says, its numbers, and where to go with it."""

from typing import Any

import pandas as pd
import streamlit as st

from itda_core.runs.run import Run
from pages.components.evaluate.columns import COLUMNS, shown
from pages.components.evaluate.looked_at import LOOKED_AT
from pages.components.evaluate.references import autoencoders_of
from pages.components.evaluate.verdict import (
    MEDIAN_MEANS,
    NOT_KEPT,
    beside,
    quick_note,
    says,
    verdict,
)
from pages.components.text import literal

_METRICS = (
    ("median_unexplained", "cosine", "norm_ratio", "mean_latents"),
    ("ce_loss_score", "model_cross_entropy", "cross_entropy", "zeros_cross_entropy", "kl"),
)
"""The numbers of a point: of the reconstruction, behind the FVU that is chosen, and of what it
costs the model"""


def show_point(evaluations: pd.DataFrame, run: Run, result: dict[str, Any], fvu: str) -> None:
    """The point that is looked at: what it says, its numbers, and where to go with it."""
    run_id, l0 = st.session_state[LOOKED_AT], st.session_state["at_l0"]
    row = evaluations[(evaluations["run_id"] == run_id) & (evaluations["l0"] == l0)].iloc[0]
    with st.container(border=True):
        head, browse, decompose = st.columns([4, 1, 1], vertical_alignment="center")
        head.markdown(f"**{literal(row['dictionary'])}**")
        browse.page_link("pages/latents.py", label="Browse latents", query_params={"run": run_id})
        decompose.page_link("pages/decompose.py", label="Decompose", query_params={"run": run_id})
        st.markdown(literal(verdict(row, fvu == "fvu_without_massive")))
        if row["quick"]:
            st.markdown(f":orange[{literal(quick_note(int(row['tokens'])))}]")
        if not pd.isna(row["median_unexplained"]):
            st.caption(MEDIAN_MEANS)
        pca = result.get("pca", {}).get(fvu, [])
        others = autoencoders_of(run, result) if result else []
        if said := beside(l0, row["mean_l0"], pca, others, fvu):
            st.markdown(literal(said[0].upper() + said[1:]))
        for names in ((fvu, *_METRICS[0]), _METRICS[1]):
            for place, name in zip(st.columns(len(names)), names, strict=True):
                place.metric(COLUMNS[name].label, shown(name, row[name]), help=COLUMNS[name].help)
        if pd.isna(row["cross_entropy"]) and not pd.isna(row["ce_loss_score"]):
            st.caption(NOT_KEPT)
        _show_others(evaluations, run_id, l0, fvu)
        st.caption("Click a point of the curves, or choose a row below, to look at another.")


def _show_others(evaluations: pd.DataFrame, run_id: str, l0: int, fvu: str) -> None:
    """The same sentence of the other dictionaries that were measured at this L0."""
    others = evaluations[(evaluations["run_id"] != run_id) & (evaluations["l0"] == l0)]
    if others.empty:
        return
    with st.expander("The other dictionaries at this L0"):
        for _, row in others.iterrows():
            sentence = literal(says(row, fvu == "fvu_without_massive"))
            st.markdown(f"**{literal(row['dictionary'])}** {sentence}")
