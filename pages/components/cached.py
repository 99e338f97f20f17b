"""What stays in memory between clicks: models, dictionaries, runs.

torch is imported when the first of them is asked for, or by `warm_up`, behind the first page.
"""

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from itda_core.config import ModelSpec
from itda_core.model.process_lock import PROCESS_LOCK
from itda_core.runs.run import Run, read_run

if TYPE_CHECKING:
    from itda_core.dictionary.dictionary import Dictionary
    from itda_core.model.model import Model

_UNTIL_DRAWN_SECONDS = 1.0
_OF_ONE_RUN = ("config.json", "metrics.json", "dictionary.safetensors")


@st.cache_resource(max_entries=2, show_spinner="Loading the model (only once) …")
def loaded_model(spec: ModelSpec) -> "Model":
    """A model that stays in memory; the two used last are kept."""
    from itda_core.model.loading import load_model

    return load_model(spec)


def loaded_dictionary(directory: str) -> "Dictionary":
    """A run's dictionary that stays in memory while it is the one that is there."""
    return _dictionary(directory, _written(directory))


@st.cache_resource(max_entries=64, show_spinner=False)
def _dictionary(directory: str, written: tuple | None) -> "Dictionary":  # noqa: ARG001 as a key alone
    from itda_core.dictionary.dictionary import Dictionary

    return Dictionary.load(directory)


def loaded_run(directory: str) -> Run:
    """A run as its directory describes it now."""
    return _run(directory, _written(directory))


@st.cache_resource(max_entries=256, show_spinner=False)
def _run(directory: str, written: tuple | None) -> Run:  # noqa: ARG001 as a key alone
    return read_run(Path(directory))


def _written(directory: str) -> tuple[tuple[int, int, int], ...] | None:
    """Tells one run from another that took its place under its id; None where there is none."""
    try:
        files = [(Path(directory) / name).stat() for name in _OF_ONE_RUN]
    except OSError:
        return None
    return tuple((file.st_ino, file.st_size, file.st_mtime_ns) for file in files)


def model_and_dictionary(directory: str) -> tuple["Model", "Dictionary"]:
    """A run's model, and its dictionary on the model's device."""
    model = loaded_model(loaded_run(directory).config.model)
    return model, _dictionary_on(directory, _written(directory), str(model.device))


@st.cache_resource(max_entries=2, show_spinner=False)
def _dictionary_on(directory: str, written: tuple | None, device: str) -> "Dictionary":
    """The two used last are kept there, beside their models."""
    return _dictionary(directory, written).to(device)


@st.cache_resource(show_spinner=False)
def warm_up() -> None:
    """Import what the other pages need while the first one is being read: torch takes seconds."""
    threading.Thread(target=_import_torch, name="warm-up", daemon=True).start()


def _import_torch() -> None:
    time.sleep(_UNTIL_DRAWN_SECONDS)
    with PROCESS_LOCK:
        import itda_core.dictionary.dictionary
        import itda_core.model.loading  # noqa: F401
