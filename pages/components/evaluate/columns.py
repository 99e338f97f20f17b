"""What the measures of an evaluation are called, and what they mean."""

import math
from dataclasses import dataclass

import streamlit as st

MASSIVE_HELP = "Massive activations are tokens whose norm is over 10 × the median norm."


@dataclass(frozen=True)
class Column:
    """A column of Store.runs.evaluations as the reader sees it."""

    label: str
    help: str
    format: str = "%.4f"


COLUMNS = {
    "l0": Column("L0", "Terms that one token may use.", "%d"),
    "mean_l0": Column("terms used", "Terms that a token really uses, mean.", "%.2f"),
    "mean_latents": Column(
        "latents used",
        "Different latents that a token uses, mean: a pursuit may take one again.",
        "%.2f",
    ),
    "fvu": Column(
        "FVU",
        "Fraction of variance unexplained, Σ‖x − x̂‖² / Σ‖x − x̄‖²: 0 is perfect, 1 is no better "
        "than the mean.",
    ),
    "fvu_without_massive": Column(
        "FVU without massive",
        f"FVU over the tokens that are no massive activations. {MASSIVE_HELP}",
    ),
    "explained_variance": Column("explained variance", "1 − FVU."),
    "cosine": Column("cosine", "cos(x, x̂), mean over tokens."),
    "norm_ratio": Column(
        "norm ratio", "‖x̂‖ / ‖x‖, mean over tokens: below 1 the reconstruction is too short."
    ),
    "ce_loss_score": Column(
        "CE loss score",
        "What is left of the layer's help in predicting the next token when the reconstruction "
        "takes its place: 1 is all of it, 0 is as bad as zeros.",
    ),
    "kl": Column(
        "KL (nats)", "How far the predictions move from those of the model as it is, mean."
    ),
    "unused_share": Column(
        "unused latents",
        "Share of the latents that no evaluated token uses, at the largest L0.",
        "%.1f %%",
    ),
    "tokens": Column("tokens", "Tokens evaluated on.", "%d"),
    "corpus": Column("prompts", "Where the prompts are from.", ""),
}


def columns() -> dict:
    """The columns of a table of evaluations."""
    configs = {"dictionary": st.column_config.TextColumn("dictionary", pinned=True)}
    for name, measure in COLUMNS.items():
        if measure.format:
            configs[name] = st.column_config.NumberColumn(
                measure.label, help=measure.help, format=measure.format
            )
        else:
            configs[name] = st.column_config.TextColumn(measure.label, help=measure.help)
    return configs


def shown(name: str, value: float | None) -> str:
    """A value as text, a dash where there is none."""
    is_missing = value is None or math.isnan(value)
    return "–" if is_missing else COLUMNS[name].format % value
