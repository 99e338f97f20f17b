"""The choice of a method: how atoms are chosen, and how activations are decomposed with them."""

from typing import Any

import streamlit as st

from itda_core.config import TrainConfig
from itda_core.settings import BUDGETS, OFFSETS, PURSUITS, SELECTIONS, SETTINGS, Setting
from pages.components.number_field import number_field
from pages.components.url import keep

_METHODS = {"coverage": "Coverage (recommended)", "threshold": "Published (greedy threshold)"}
_ABOUT_METHODS = {
    "coverage": "Reads all tokens first, then takes those that explain the others best. The mean "
    "activation is subtracted, and the coefficients of a token are fitted together.",
    "threshold": "The method of the ITDA paper: goes through the tokens once and takes each that "
    "is explained badly so far, until the dictionary is full. No mean, no refitting.",
}
_PURSUITS = {
    "orthogonal": "orthogonal matching pursuit (OMP): refits all coefficients after each term; "
    "explains most, takes longest",
    "refit": "takes all terms as matching pursuit does, then fits them together once",
    "matching": "matching pursuit (MP): takes one term after the other and never changes a "
    "coefficient; as published",
}
_BUDGETS = {"token": "L0 for every token", "mean": "L0 on average"}
_OFFSETS = {"mean": "the mean activation", "zero": "nothing"}
_DEFAULTS = {name: field.default for name, field in TrainConfig.__dataclass_fields__.items()}


def ask_for_selection() -> str:
    """The method, as a selection of TrainConfig."""
    st.session_state.setdefault("selection", _DEFAULTS["selection"])
    selection = st.segmented_control(
        SETTINGS["selection"].label,
        SELECTIONS,
        format_func=_METHODS.get,
        required=True,
        key="selection",
        help="Which activations become atoms. Command line and lists call the two coverage and "
        "threshold. With both every atom is the activation of a real token.",
    )
    st.caption(_ABOUT_METHODS[selection])
    return selection


def ask_for_method(selection: str) -> tuple[dict[Setting, str], dict[str, Any]]:
    """The settings of a method: what stands in the fields for numbers, and the other fields of
    TrainConfig."""
    chosen = {"selection": selection}
    if selection == "threshold":
        return _ask_for_threshold(), chosen
    return {}, chosen | _ask_for_coverage()


def _ask_for_threshold() -> dict[Setting, str]:
    keep("train_threshold", "train_batch_tokens")
    return {
        SETTINGS[name]: number_field(place, SETTINGS[name], f"train_{name}", _DEFAULTS[name])
        for place, name in zip(st.columns(3), ("threshold", "batch_tokens"), strict=False)
    }


def _ask_for_coverage() -> dict[str, Any]:
    pursuit = st.radio(
        SETTINGS["pursuit"].label,
        PURSUITS,
        captions=[_PURSUITS[name] for name in PURSUITS],
        key="pursuit",
        help=SETTINGS["pursuit"].advice,
    )
    first, second = st.columns(2)
    budgets = BUDGETS if pursuit == "orthogonal" else BUDGETS[:1]
    if st.session_state.get("budget") not in budgets:
        st.session_state["budget"] = budgets[0]
    budget = first.selectbox(
        SETTINGS["budget"].label,
        budgets,
        format_func=_BUDGETS.get,
        key="budget",
        help=SETTINGS["budget"].advice,
    )
    offset = second.selectbox(
        SETTINGS["offset"].label,
        OFFSETS,
        format_func=_OFFSETS.get,
        key="offset",
        help=SETTINGS["offset"].advice,
    )
    return {"pursuit": pursuit, "budget": budget, "offset": offset}
