"""What a page computes with a model while it is looked at: kept between clicks, and with a bar
where the model is read block by block."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import streamlit as st

if TYPE_CHECKING:
    from itda_core.model.model import Model
    from itda_core.model.steps_of_work import Step

Value = TypeVar("Value")


class Kept(Generic[Value]):
    """A value that is computed once, by the first session that asks for it; what stops it leaves
    nothing behind."""

    def __init__(self, *of: Any):
        """of: all that it depends on, by which `st.cache_resource` tells it from others."""
        self.of, self.lock = of, threading.Lock()
        self.value: Value | None = None


def computed(
    kept: Kept[Value], model: "Model", steps: Callable[[], "Iterator[Step[Value]]"], blocks: range
) -> Value:
    """The kept value, or that of the last of `steps`. blocks: those that they read of a model that
    is read block by block. A click elsewhere on the page ends it between two of them."""
    with kept.lock:
        if kept.value is None:
            shown = _with_bar if model.is_swept else _with_spinner
            kept.value = shown(steps(), blocks)
    return kept.value


def _with_spinner(steps: "Iterator[Step[Value]]", _blocks: range) -> Value:
    with st.spinner("Running the model …"):
        *_, last = steps
    return last.value


def _with_bar(steps: "Iterator[Step[Value]]", blocks: range) -> Value:
    bar = st.progress(0.0, bar_text(blocks, 0.0))
    with closing(steps):  # a click elsewhere ends it here, and the model is free at once
        for step in steps:
            bar.progress(min(1.0, step.fraction), bar_text(blocks, step.fraction))
    bar.empty()
    return step.value


def bar_text(blocks: range, fraction: float) -> str:
    """Which block is read, counted from 1; `fraction` of their reading is done, in [0, 1]."""
    read = min(len(blocks) - 1, int(fraction * len(blocks))) if blocks else 0
    return f"Reading block {blocks.start + read + 1:,} of {blocks.stop:,} from the disk …"


def is_asked_for(model: "Model", kept: Kept[Any], what: str, cost: str, key: str) -> bool:
    """Whether to compute what is not there yet: a model in memory does at once, one that is read
    block by block when its button is pressed. what: stands on the button; cost: what is read."""
    if not model.is_swept or kept.value is not None:
        return True
    st.caption(f"The model does not fit into memory: this reads {cost} from the disk.")
    return st.button(what, key=key)
