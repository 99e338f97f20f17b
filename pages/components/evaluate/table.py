"""Every dictionary and L0 in a table, and as files."""

import json

import pandas as pd
import streamlit as st

from itda_core.runs.results import read_evaluation
from pages.components.cached import loaded_run
from pages.components.downloads import offer_downloads
from pages.components.evaluate.columns import COLUMNS, columns
from pages.components.evaluate.looked_at import look_at, times_of
from pages.components.upload import corpus_name


def show_table(runs: pd.DataFrame, evaluations: pd.DataFrame) -> None:
    table = evaluations.assign(
        unused_share=100 * evaluations["unused_share"],
        corpus=[corpus_name(name) for name in evaluations["corpus"]],
    )

    def choose() -> None:
        rows = st.session_state["measures"]["selection"]["rows"]
        if rows:
            look_at(*table.iloc[rows[0]][["run_id", "l0"]])

    st.dataframe(
        table,
        column_order=["dictionary", *COLUMNS],
        column_config=columns(),
        placeholder="–",
        hide_index=True,
        on_select=choose,
        selection_mode="single-row",
        key="measures",
    )
    _offer_files(runs, evaluations)


def _offer_files(runs: pd.DataFrame, evaluations: pd.DataFrame) -> None:
    rows, everything, _ = st.columns([1, 1, 4])
    times = times_of(evaluations)
    with rows.popover("Export the table", width="stretch"):
        st.markdown("**A row a dictionary and L0**, with all measures")
        about = {"runs": runs["run_id"].tolist(), "times": times}
        table = evaluations.drop(columns=["dictionary"])
        offer_downloads(table, about, "evaluations-by-l0", "evaluations_file")
    everything.download_button(
        "Download as JSON",
        lambda: _as_json(tuple(runs["directory"]), times),
        file_name="evaluations.json",
        mime="application/json",
        on_click="ignore",
        width="stretch",
        help="Everything that was measured, errors of single tokens and densities included.",
    )


@st.cache_data(max_entries=8, show_spinner=False)
def _as_json(directories: tuple[str, ...], times: tuple[str, ...]) -> str:  # noqa: ARG001 (part of the key)
    contents = [read_evaluation(loaded_run(directory)) for directory in directories]
    return json.dumps(contents, ensure_ascii=False, indent=1)
