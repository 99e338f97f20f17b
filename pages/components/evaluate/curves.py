"""The curves by L0, with what else they are read against."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from itda_core.runs.results import read_evaluation
from itda_core.runs.run import Run
from pages.components.cached import loaded_run
from pages.components.charts.camera import picture_config
from pages.components.charts.evaluation import (
    Reference,
    pareto,
)
from pages.components.evaluate.columns import MASSIVE_HELP
from pages.components.evaluate.looked_at import LOOKED_AT, look_at, times_of
from pages.components.evaluate.references import about, autoencoders_of, references
from pages.components.evaluate.verdict import (
    on_different_texts,
)
from pages.components.text import literal
from pages.components.upload import corpus_name


def show_curves(
    runs: pd.DataFrame, evaluations: pd.DataFrame, run: Run, result: dict[str, Any]
) -> str:
    """run, result: the dictionary that is looked at, and its evaluation. Which FVU is shown."""
    st.subheader("What each L0 gives")
    fvu = "fvu"
    if (evaluations["massive_tokens"] > 0).any():
        without = st.toggle(
            "FVU without massive activations", value=True, key="without", help=MASSIVE_HELP
        )
        fvu = "fvu_without_massive" if without else "fvu"
    name = evaluations[evaluations["run_id"] == run.run_id].iloc[0]["dictionary"]
    others = autoencoders_of(run, result) if result else []
    grey = {of: references(of, result, others, name) for of in (fvu, "ce_loss_score")}
    left, right = st.columns(2, gap="large")
    with left:
        _show_curve(evaluations, fvu, "FVU: variance unexplained", "lower", grey[fvu])
    with right:
        if not evaluations["ce_loss_score"].isna().all():
            title, of = "CE loss score", "ce_loss_score"
            _show_curve(evaluations, of, title, "higher", grey[of])
        for reason in _why_no_losses(tuple(runs["directory"]), times_of(evaluations)):
            st.info(f"No CE loss score. {literal(reason)}")
    if result:
        st.caption(literal(about(result, others)))
    if said := on_different_texts(
        evaluations.assign(corpus=evaluations["corpus"].map(corpus_name))
    ):
        st.caption(literal(said))
    return fvu


def _show_curve(
    evaluations: pd.DataFrame,
    measure: str,
    title: str,
    better: str,
    beside_them: Sequence[Reference],
) -> None:
    points = evaluations.rename(columns={measure: "value", "dictionary": "label"})
    points = points[["run_id", "label", "is_sae", "l0", "mean_l0", "value"]].dropna()
    point = (st.session_state[LOOKED_AT], st.session_state["at_l0"])
    key = f"curve_{measure}"

    def choose() -> None:
        clicked = st.session_state[key]["selection"]["points"]
        if clicked and "customdata" in clicked[0]:  # what dictionaries are compared with has none
            run_id, l0, _ = clicked[0]["customdata"]
            look_at(run_id, l0)

    st.plotly_chart(
        pareto(points, title, better, point, beside_them),
        on_select=choose,
        selection_mode="points",
        config=picture_config(f"{measure}-by-l0"),
        key=key,
    )


@st.cache_data(max_entries=8, show_spinner=False)
def _why_no_losses(directories: tuple[str, ...], times: tuple[str, ...]) -> list[str]:  # noqa: ARG001
    """Why evaluations have no cross-entropy, each reason once. times: part of the key."""
    results = [read_evaluation(loaded_run(directory)) or {} for directory in directories]
    reasons = [
        result.get("why_no_losses") or "The model predicts no next token."
        for result in results
        if result.get("by_l0") and all(row["ce_loss_score"] is None for row in result["by_l0"])
    ]
    return list(dict.fromkeys(reasons))
