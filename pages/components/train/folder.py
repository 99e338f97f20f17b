"""A folder of activations in place of a model and a corpus."""

import os
from pathlib import Path

import streamlit as st

from itda_core.activations.folder import ActivationFolder
from itda_core.activations.folder_index import INDEX_FILE
from itda_core.config import TrainConfig
from itda_core.errors import InputError
from itda_core.runs.training_context import fewer_tokens
from itda_core.settings import SETTINGS
from pages.components.exposure import PATHS_ARE_OFF, is_exposed
from pages.components.text import bytes_text, literal

_SOURCES = {
    "model": "A model and a corpus",
    "folder": "A folder of activations",
    "list": "A list of trainings",
}


def ask_for_source() -> str:
    """What a training reads: "model", "folder", or for several trainings "list"."""
    st.session_state.setdefault("source", "model")
    return st.segmented_control(
        "Train on",
        _SOURCES,
        format_func=_SOURCES.get,
        required=True,
        key="source",
        help="A folder has the activations of a model on some texts, captured before, here or by "
        "another program: the model itself is not needed. A list has several trainings, which make "
        "one job.",
    )


def ask_for_folder() -> ActivationFolder | None:
    """A folder of this machine, with what is in it on the page; None while none is named. Raises
    InputError where it can't be used."""
    setting = SETTINGS["activations"]
    typed = st.text_input(
        setting.label, key="activations", placeholder="/data/activations", help=setting.advice
    )
    if not typed.strip():
        return None
    if is_exposed():
        raise InputError(PATHS_ARE_OFF)
    # pathlib's own tests raise for names that no folder can have, such as very long ones.
    path = Path(os.path.expanduser(typed.strip())).absolute()  # noqa: PTH111
    index = path / INDEX_FILE
    stamp = index.stat().st_mtime_ns if os.path.exists(index) else None  # noqa: PTH110
    folder = _opened(path, stamp)
    st.caption(literal(_about(folder)))
    return folder


@st.cache_resource(max_entries=4, show_spinner="Reading what is in the folder …")
def _opened(path: Path, stamp: int | None) -> ActivationFolder:  # noqa: ARG001
    """stamp: of its index, so that what was written anew is read anew."""
    return ActivationFolder(path)


def _about(folder: ActivationFolder) -> str:
    index = folder.index
    layers = ", ".join(map(str, index.layers))
    corpus = f" on {Path(index.corpus.name).name}" if index.corpus else ""
    known = "" if index.model_digest else " · which version of the model is not said"
    return (
        f"{index.model.name}{corpus} · layers {layers} of {index.n_layers} · "
        f"{', '.join(index.sites)} · d_model "
        f"{index.d_model:,} · {index.model.dtype} · {folder.n_rows(held_out=False):,} tokens, "
        f"{folder.n_rows(held_out=True):,} held out · context length {index.context_length:,} · "
        f"{bytes_text(folder.bytes)}{known}"
    )


def ask_for_site_of(folder: ActivationFolder) -> str:
    """One of its places in a block; asked where it has several."""
    if len(folder.index.sites) == 1:
        return folder.index.sites[0]
    setting = SETTINGS["site"]
    key = f"site_{folder.path}"
    return st.selectbox(setting.label, folder.index.sites, key=key, help=setting.advice)


def ask_for_layers_of(folder: ActivationFolder) -> tuple[int, ...]:
    """Some of its layers."""
    return tuple(
        st.multiselect(
            "Layers",
            folder.index.layers,
            default=folder.index.layers,
            key=f"layers_{folder.path}",
            help="One dictionary for each.",
        )
    )


def show_fewer_tokens(folder: ActivationFolder, config: TrainConfig) -> None:
    """A sentence where the folder has fewer tokens than the settings ask for."""
    there = folder.n_rows(held_out=False)
    if there < config.max_tokens:
        st.caption(literal(fewer_tokens(there, config)))
