"""What the chosen model can do, before anything is trained on it."""

import streamlit as st

from itda_core.config import ModelSpec
from itda_core.errors import ModelError
from itda_core.model.abilities import Abilities
from itda_core.model.loading import remembered_abilities, try_model, type_abilities
from pages.components.text import literal

_ABOUT = (
    "Two short texts went through the model, together and alone, and each result was compared with "
    "transformers' own."
)


def show_abilities(model: ModelSpec) -> bool:
    """What was proved of the model here, else of its type, and a button that tries it; whether it
    may be used as far as is known."""
    abilities = remembered_abilities(model)
    of_type = None if abilities else type_abilities(model)
    if known := abilities or of_type:
        _show(model, known, is_own=abilities is not None)
    if abilities is None and st.button(
        "Check this model now",
        key="check_model",
        help="Loads it, which may take a while, and shows what it can do. A training does the same "
        "before it starts.",
    ):
        _try(model)
    return not (abilities and abilities.capture)


def _show(model: ModelSpec, abilities: Abilities, is_own: bool) -> None:
    if abilities.capture and is_own:
        st.error(literal(abilities.why_not(model.name, "capture")))
        return
    if abilities.capture:
        st.warning(
            f"A tiny model of this type was refused: {literal(abilities.capture)}. This one is "
            "tried when it is first loaded."
        )
        return
    lacking = [row["ability"] for row in abilities.table() if row["why not"]]
    whose = "this model" if is_own else "models of this type"
    title = f"Proved for {whose}: " + (f"all but {', '.join(lacking)}" if lacking else "everything")
    with st.expander(title):
        st.dataframe(abilities.table(), hide_index=True)
        st.caption(
            _ABOUT
            if is_own
            else f"{_ABOUT} That was a tiny model of the same type; this one proves itself when it "
            "is first loaded."
        )


def _try(model: ModelSpec) -> None:
    try:
        with st.spinner("Loading the model and trying it …"):
            try_model(model)
    except ModelError as error:
        st.error(literal(str(error)))
        return
    st.rerun()
