"""What the chosen model can do, before anything is trained on it."""

import streamlit as st

from itda_core.config import ModelSpec
from itda_core.devices import best_device
from itda_core.errors import ModelError
from itda_core.jobs.job import ANY
from itda_core.model.abilities import Abilities
from itda_core.model.data_types import resolved_dtype
from itda_core.model.loading import try_model
from itda_core.model.model_info import remembered_abilities, remembered_sites, type_abilities
from pages.components.text import literal

_ABOUT = (
    "Two short texts went through the model, together and alone, and each result was compared with "
    "transformers' own."
)


def show_abilities(model: ModelSpec, device: str | None, memory: int | None = None) -> bool:
    """What was proved of the model here, else of its type, and a button that tries it; whether it
    may be used as far as is known. device: as a job names it, None where there is no choice;
    memory: bytes that the model may use."""
    device = best_device() if device in (None, ANY) else device
    abilities = remembered_abilities(model, device)
    failed = st.session_state.setdefault("_not_loaded", {}).get((model, memory))
    if failed and abilities is None:
        st.error(literal(failed))
    elif known := abilities or type_abilities(model):
        _show(model, known, device, is_own=abilities is not None)
    if abilities is None and st.button(
        "Check this model again" if failed else "Check this model now",
        key="check_model",
        help="Loads it, which may take a while, and shows what it can do. A training does the same "
        "before it starts.",
    ):
        _try(model, device, memory)
    return not (failed or (abilities and abilities.capture))


def _show(model: ModelSpec, abilities: Abilities, device: str, is_own: bool) -> None:
    if abilities.capture and is_own:
        st.error(literal(abilities.why_not(model.name, "capture")))
        return
    if abilities.capture:
        st.warning(
            f"A tiny model of this type was refused: {literal(abilities.capture)}. This one is "
            "tried when it is first loaded."
        )
        return
    whose = "this model" if is_own else "models of this type"
    with st.expander(f"Proved for {whose}: {_in_short(abilities)}"):
        sites = remembered_sites(model, device) if is_own else None
        rows = [*abilities.table(), *(sites.table() if sites else [])]
        st.dataframe(rows, placeholder="–", hide_index=True)
        if is_own:
            dtype = str(resolved_dtype(model.dtype, device)).removeprefix("torch.")
            st.caption(f"{_ABOUT} Its weights are used in {literal(dtype)}.")
        else:
            st.caption(
                f"{_ABOUT} That was a tiny model of the same type; this one proves itself when it "
                "is first loaded."
            )


def _in_short(abilities: Abilities) -> str:
    if abilities.next_tokens:
        return "its activations; it is used as an encoder"
    lacking = [f"“{row['ability']}”" for row in abilities.table() if row["why not"]]
    return f"all but {' and '.join(lacking)}" if lacking else "everything"


def _try(model: ModelSpec, device: str, memory: int | None) -> None:
    """What went wrong stands on the page until the model is checked again, or may use another
    memory."""
    failed = st.session_state["_not_loaded"]
    failed.pop((model, memory), None)
    try:
        with st.spinner("Loading the model and trying it …"):
            tried = try_model(model, device, memory)
            if not tried.abilities.capture:
                tried.sites  # noqa: B018 - tried when first asked for, and remembered
    except ModelError as error:
        failed[model, memory] = str(error)
    st.rerun()
