"""The choice of a method: how atoms are chosen, and how activations are decomposed with them."""

from typing import Any

import streamlit as st

from itda_core.config import TrainConfig
from itda_core.glossary import GLOSSARY
from itda_core.settings import BUDGETS, OFFSETS, PURSUITS, SELECTIONS

_METHODS = {"coverage": "Coverage (recommended)", "threshold": "Published (greedy threshold)"}
_ABOUT_METHODS = {
    "coverage": "Reads all tokens first, then takes those that explain the others best. The mean "
    "activation is subtracted, and the coefficients of a token are fitted together.",
    "threshold": "The method of the ITDA paper: goes through the tokens once and takes each that "
    "is explained badly so far, until the dictionary is full. No mean, no refitting.",
}
_PURSUITS = {
    "orthogonal": "orthogonal matching pursuit (OMP): fits all coefficients anew after each term; "
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
    selection = st.segmented_control(
        "Method",
        SELECTIONS,
        format_func=_METHODS.get,
        default=_DEFAULTS["selection"],
        required=True,
        key="selection",
        help=f"{GLOSSARY['selection']} With both every atom is the activation of a real token.",
    )
    st.caption(_ABOUT_METHODS[selection])
    return selection


def ask_for_method(selection: str) -> dict[str, Any]:
    """The settings of a method, as fields of TrainConfig."""
    chosen = {"selection": selection}
    return chosen | (_ask_for_threshold() if selection == "threshold" else _ask_for_coverage())


def _ask_for_threshold() -> dict[str, Any]:
    first, second, _ = st.columns(3)
    return {
        "threshold": first.number_input(
            "Threshold",
            0.0,
            4.0,
            _DEFAULTS["threshold"],
            0.01,
            key="threshold",
            help="An activation whose direction is reconstructed with a larger squared error "
            "becomes an atom. Lower fills the dictionary sooner.",
        ),
        "batch_tokens": second.number_input(
            "Tokens in a step",
            1,
            65_536,
            _DEFAULTS["batch_tokens"],
            256,
            key="batch_tokens",
            help="Activations that are looked at together. The atoms of one step do not know of "
            "each other: smaller steps choose better and take longer.",
        ),
    }


def _ask_for_coverage() -> dict[str, Any]:
    pursuit = st.radio(
        "Pursuit",
        PURSUITS,
        captions=[_PURSUITS[name] for name in PURSUITS],
        key="pursuit",
        help="How a token is written as a sum of atoms.",
    )
    first, second = st.columns(2)
    budget = first.selectbox(
        "Terms",
        BUDGETS if pursuit == "orthogonal" else BUDGETS[:1],
        format_func=_BUDGETS.get,
        key="budget",
        help="On average: tokens that are easy to explain use fewer terms than L0, others up to "
        "twice as many; only with the orthogonal pursuit.",
    )
    offset = second.selectbox(
        "Subtract first (offset)",
        OFFSETS,
        format_func=_OFFSETS.get,
        key="offset",
        help=f"{GLOSSARY['offset']} Without the mean activation, atoms need not explain what all "
        "tokens have in common.",
    )
    return {"pursuit": pursuit, "budget": budget, "offset": offset}
