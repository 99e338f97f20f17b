"""The prompts of a list are read batch by batch: how many there are, and a button that ends it and
keeps what is there."""

import functools
import hashlib
from contextlib import closing

import numpy as np
import streamlit as st

from itda_core.analysis.prompt_table import PromptTable, joined, prompt_table_steps
from pages.components.cached import loaded_run, model_and_dictionary
from pages.components.computed import Kept, bar_text, is_asked_for

_CANCELLED = "_prompts_cancelled"
"""The list that this session does not want to be read on, as `Kept.of` has it"""


class KeptPrompts(Kept[PromptTable]):
    """The table of a list; while it is not whole, those of the prompts that were read."""

    def __init__(self, *of):
        super().__init__(*of)
        self.parts: list[PromptTable] = []

    @property
    def n_read(self) -> int:
        return sum(len(part.prompts) for part in self.parts)


def read_prompts(run, prompts: list[str], thresholds: np.ndarray | None) -> PromptTable | None:
    """The table of the prompts, or, where reading them was cancelled, of those that were read; None
    where there is none yet. thresholds: of strong uses, as `prompt_table` takes them."""
    model, dictionary = model_and_dictionary(run.directory)
    kept = _kept(run.directory, tuple(prompts), _digest(thresholds))
    if kept.value is None and st.session_state.get(_CANCELLED) == kept.of:
        _tell_cancelled(kept, model, len(prompts))
        if not model.is_swept:
            return joined(kept.parts) if kept.parts else None
    if not is_asked_for(model, kept, "Read the prompts", "the blocks up to the layer", "read_all"):
        return None
    config = loaded_run(run.directory).config
    steps = functools.partial(prompt_table_steps, dictionary, model, prompts, config, thresholds)
    with kept.lock:
        if kept.value is None:
            _read(kept, steps, range(dictionary.hook_point.layer + 1) if model.is_swept else None)
    return kept.value


def _tell_cancelled(kept: KeptPrompts, model, n_prompts: int) -> None:
    if model.is_swept:
        st.info("Cancelled: what was read of the model is dropped.")
        return
    has = "The table has these." if kept.n_read else "There is no table yet."
    st.info(f"Cancelled: {kept.n_read:,} of {n_prompts:,} prompts were read. {has}")
    st.button("Go on", on_click=_want, args=[None], key="read_on", help="Reads the others.")


def _read(kept: KeptPrompts, steps, blocks: range | None) -> None:
    """Reads what is not there; a click anywhere on the page ends it between two batches, and what
    is read stays. blocks: of a model that is read block by block."""
    _want(None)
    n_prompts = len(kept.of[1])
    place = st.empty()
    with place.container():
        shown, cancelled = st.columns([4, 1], vertical_alignment="center")
        bar = shown.progress(0.0, _said(kept, n_prompts, blocks, 0.0))
        cancelled.button(
            "Cancel", on_click=_want, args=[kept.of], key="cancel_prompts", width="stretch"
        )
    with closing(steps(after=kept.n_read)) as reading:
        for step in reading:
            if step.value is not None:
                kept.parts.append(step.value)
            done = step.fraction if blocks else kept.n_read / n_prompts
            bar.progress(min(1.0, done), _said(kept, n_prompts, blocks, step.fraction))
    kept.value, kept.parts = joined(kept.parts), []
    place.empty()


def _said(kept: KeptPrompts, n_prompts: int, blocks: range | None, fraction: float) -> str:
    if blocks:
        return bar_text(blocks, fraction)
    return f"{kept.n_read:,} of {n_prompts:,} prompts read"


def _want(cancelled: tuple | None) -> None:
    st.session_state[_CANCELLED] = cancelled


def _digest(thresholds: np.ndarray | None) -> str:
    return "" if thresholds is None else hashlib.blake2b(thresholds.tobytes()).hexdigest()


@st.cache_resource(max_entries=8, show_spinner=False)
def _kept(directory: str, prompts: tuple[str, ...], thresholds: str) -> KeptPrompts:
    return KeptPrompts(directory, prompts, thresholds)
