"""What the measures of an evaluation are called, and what they mean."""

import math
from dataclasses import dataclass

import streamlit as st

from itda_core.glossary import GLOSSARY

MASSIVE_HELP = GLOSSARY["massive activation"]
_ABOVE_1 = "Above 1 the model predicts better with it than as it is: chance, where tokens are few."
_NO_LOSS = "– where the model predicts no next token, or there was none to predict."


@dataclass(frozen=True)
class Column:
    """A column of Store.runs.evaluations as the reader sees it."""

    label: str
    help: str
    format: str = "%.4f"


def _of(term: str, number_format: str = "%.4f", more: str = "") -> Column:
    """A column that is a term of the glossary."""
    return Column(term, f"{GLOSSARY[term]} {more}".strip(), number_format)


COLUMNS = {
    "l0": _of("L0", "%d"),
    "mean_l0": _of("terms used", "%.2f"),
    "mean_latents": _of("latents used", "%.2f"),
    "fvu": _of("FVU"),
    "fvu_without_massive": _of("FVU without massive", more=MASSIVE_HELP),
    "median_unexplained": _of("median token"),
    "explained_variance": _of("explained variance"),
    "cosine": _of("cosine"),
    "norm_ratio": _of("norm ratio"),
    "ce_loss_score": _of("CE loss score", more=f"{_ABOVE_1} {_NO_LOSS}"),
    "kl": _of("KL (nats)", more=_NO_LOSS),
    "model_cross_entropy": _of("cross-entropy, model", "%.3f", _NO_LOSS),
    "cross_entropy": _of("cross-entropy, reconstruction", "%.3f", _NO_LOSS),
    "zeros_cross_entropy": _of("cross-entropy, zeros", "%.3f", _NO_LOSS),
    "unused_share": Column("dead latents", GLOSSARY["dead share"], "%.1f %%"),
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
