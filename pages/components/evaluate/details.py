"""Densities and errors of single tokens of one dictionary."""

import pandas as pd
import streamlit as st

from itda_core.evaluation.token_errors import COUNTED_TOKENS
from itda_core.runs.results import read_evaluation
from pages.components.cached import loaded_run
from pages.components.charts.camera import picture_config
from pages.components.charts.evaluation import (
    density_histogram,
    error_bars,
)
from pages.components.evaluate.columns import MASSIVE_HELP
from pages.components.evaluate.looked_at import LOOKED_AT
from pages.components.evaluate.offer import submit
from pages.components.text import literal
from pages.components.upload import corpus_name


def show_details(runs: pd.DataFrame, labels: dict[str, str]) -> None:
    """Densities and errors of single tokens of one dictionary."""
    st.subheader("One dictionary")
    choice, again = st.columns([4, 1], vertical_alignment="bottom")
    run_id = choice.selectbox(
        "Dictionary", runs["run_id"].tolist(), format_func=labels.get, key=LOOKED_AT
    )
    directory = runs[runs["run_id"] == run_id].iloc[0]["directory"]
    if again.button("Evaluate again", width="stretch"):
        submit([directory])
    result = read_evaluation(loaded_run(directory))
    if result is None:
        st.info("Its evaluation has just been removed.")
        return
    _show_measured_on(result)
    measure = st.segmented_control(
        "Error shown as",
        ["fvu", "cosine"],
        format_func={"fvu": "variance unexplained", "cosine": "cosine"}.get,
        default="fvu",
        required=True,
        key="measure",
        help="Both at the dictionary's largest L0. Σ‖x − x̂‖² / Σ‖x − x̄‖² over the tokens of a bar, "
        "with x̄ the mean of all tokens; or the mean of cos(x, x̂).",
    )
    _show_charts(result, measure)


def _show_measured_on(result: dict) -> None:
    on = result["measured_on"]
    prompts = f"{on['prompts']:,} {'held-out ' if on['held_out'] else ''}prompts of "
    prompts += corpus_name(on["corpus"])
    parts = [
        *(["quick run"] if result.get("quick") else []),
        f"{result['tokens']:,} tokens of {prompts}",
        f"{result['massive_tokens']:,} of them massive activations",
        f"{result['unused_share']:.1%} of the latents dead",
        f"{result['created'][:16].replace('T', ' ')} UTC",
    ]
    st.caption(literal(" · ".join(parts)))


def _show_charts(result: dict, measure: str) -> None:
    errors = result["errors"]
    by_position, by_norm = st.columns(2, gap="large")
    by_frequency, density = st.columns(2, gap="large")
    with by_position:
        st.markdown("**By position in the prompt**")
        bars = error_bars(errors["position"], measure, "position, the first token being 0")
        st.plotly_chart(bars, config=picture_config("by-position"), key="by_position")
    with by_norm:
        st.markdown("**By norm of the activation**", help=f"Tenths of the tokens. {MASSIVE_HELP}")
        bins, special = errors["norm"] + errors["massive"], "massive" if errors["massive"] else ""
        bars = error_bars(bins, measure, "‖x‖", special)
        st.plotly_chart(bars, config=picture_config("by-norm"), key="by_norm")
    with by_frequency:
        st.markdown(
            "**By frequency of the token**",
            help=f"Counted in the first {COUNTED_TOKENS:,} tokens of the prompts that are not held "
            "out.",
        )
        if errors["frequency"]:
            title = "times it occurs in the training part of the corpus"
            bars = error_bars(errors["frequency"], measure, title)
            st.plotly_chart(bars, config=picture_config("by-frequency"), key="by_frequency")
        else:
            st.info("The corpus it was trained on can't be read any more.")
    with density:
        st.markdown("**How often latents are used**", help="At the dictionary's largest L0.")
        bars = density_histogram(result["density"])
        st.plotly_chart(bars, config=picture_config("density"), key="density")
