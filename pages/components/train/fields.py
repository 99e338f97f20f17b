"""The fields of a new training: model, layers, corpus, numbers, and where it runs."""

import dataclasses
from typing import Any

import streamlit as st

from itda_core.activations.folder import ActivationFolder
from itda_core.config import CorpusSpec, ModelSpec, TrainConfig
from itda_core.corpus.corpus import BUILT_IN as BUILT_IN_CORPORA
from itda_core.errors import InputError
from itda_core.model.built_in import BUILT_IN
from itda_core.model.model_info import known_models, model_shape
from itda_core.settings import DTYPES, SETTINGS, Setting
from pages.components.device_choice import ask_for_device, ask_for_memory, show_only_device
from pages.components.exposure import check_no_path
from pages.components.file_reading import ask_how_to_read
from pages.components.number_field import number_field
from pages.components.train.cluster import ask_for_cluster
from pages.components.train.method import ask_for_method
from pages.components.train.upload_tokens import say_tokens
from pages.components.upload import upload_texts
from pages.components.url import keep

_DEFAULTS = {name: field.default for name, field in TrainConfig.__dataclass_fields__.items()}

Place = tuple[str, int | None, str]
"""A device or "any", bytes that the model may use, and the Ray cluster that trains instead"""


def ask_for_model() -> ModelSpec | None:
    """None while none is named. Raises InputError for what can't be a model."""
    name = st.selectbox(
        SETTINGS["model"].label,
        [model["model"] for model in known_models()],
        accept_new_options=True,
        key="model",
        help=SETTINGS["model"].advice,
    )
    if not name or not name.strip():
        return None
    check_no_path(name)
    more = {key: st.session_state.get(key) for key in ("revision", "dtype")}
    revision = (more["revision"] or "").strip() if name not in BUILT_IN else ""
    return ModelSpec(name, revision or None, more["dtype"] or "auto")


def ask_for_layers(model: ModelSpec | None) -> tuple[int, ...]:
    """Chosen among those of a model that is known, else typed as numbers."""
    shape = model_shape(model) if model else None
    if shape is None:
        st.session_state.setdefault("layers_text", "0")
        text = st.text_input(
            "Layers",
            key="layers_text",
            help="Numbers from 0, such as 3,5. How many the model has is known once it is loaded.",
        )
        return _numbers(text)
    quarter = max(1, shape.n_layers // 4)
    usual = [7, 15, 22] if shape.n_layers == 30 else [quarter, 2 * quarter, 3 * quarter]
    key = f"layers_{model.name}"
    keep(key)
    st.session_state.setdefault(key, [layer for layer in usual if layer < shape.n_layers])
    return tuple(
        st.multiselect(
            f"Layers (0 to {shape.n_layers - 1})",
            range(shape.n_layers),
            key=key,
            help="What these blocks give is decomposed, one dictionary for each, in one pass.",
        )
    )


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise InputError(f"Layers are numbers such as 3,5; got {text!r}.") from None


def ask_for_corpus(model: ModelSpec | None) -> CorpusSpec | None:
    """Built in, uploaded, or named; None while none is. model: its tokens are counted in an
    upload."""
    st.session_state.setdefault("corpus_kind", "Built in")
    kinds = ["Built in", "Upload", "Hub or path"]
    kind = st.segmented_control("Corpus", kinds, required=True, key="corpus_kind")
    if kind == "Upload":
        upload = upload_texts("Texts to train on", key="corpus_upload")
        if upload is None:
            return None
        say_tokens(upload, model)
        return upload.spec
    if kind == "Hub or path":
        name = st.text_input(
            "Data set or file",
            key="corpus_name",
            placeholder="owner/name, or the path of a file",
            help="A data set of the hub as owner/name, or a file: .txt, .csv, .tsv, .jsonl "
            "(also as .gz or .zst) or .parquet.",
        )
        column = st.text_input(SETTINGS["column"].label, key="corpus_column")
        if not name.strip():
            return None
        check_no_path(name)
        how = ask_how_to_read("corpus_how")
        return CorpusSpec(name, column or None, *dataclasses.astuple(how))
    name = st.selectbox(
        "Built-in corpus",
        list(BUILT_IN_CORPORA),
        format_func=lambda name: f"{name}: {BUILT_IN_CORPORA[name]}",
        key="corpus",
    )
    return CorpusSpec(name)


def ask_for_numbers(
    selection: str, folder: ActivationFolder | None = None
) -> tuple[dict[Setting, str], dict[str, Any]]:
    """What stands in the fields for numbers, and the other fields of TrainConfig. folder: it says
    by itself how its activations were captured."""
    tokens = _DEFAULTS["max_tokens"]
    most = {"max_tokens": min(tokens, folder.n_rows(held_out=False))} if folder else {}
    texts = _number_fields("max_tokens", "max_atoms", "l0", **most)
    with st.expander("More settings"):
        method_texts, others = ask_for_method(selection)
        if folder:
            texts |= method_texts | _number_fields("seed", "explored_tokens", seed=folder.seed)
            return texts, others
        texts |= method_texts | _number_fields("seed", "context_length", "explored_tokens")
        first, middle, second = st.columns([1, 1, 2], vertical_alignment="bottom")
        dtype, revision = SETTINGS["dtype"], SETTINGS["revision"]
        first.selectbox(dtype.label, DTYPES, key="dtype", help=dtype.page_help)
        middle.text_input(
            revision.label,
            key="revision",
            placeholder="the newest",
            disabled=st.session_state.get("model") in BUILT_IN,
            help=revision.page_help,
        )
        skipping = SETTINGS["skip_first"]
        st.session_state.setdefault("skip_first", _DEFAULTS["skip_first"])
        others["skip_first"] = second.checkbox(
            skipping.label, key="skip_first", help=skipping.page_help
        )
    return texts, others


def _number_fields(*names: str, **others: int) -> dict[Setting, str]:
    """A field of its own column for each; what stands in it, by its setting. others: what stands
    there at first, where it is not the usual."""
    usual = {**_DEFAULTS, **others}
    keys = {
        name: f"train_{name}_{others[name]}" if name in others else f"train_{name}"
        for name in names
    }
    keep(*keys.values())
    return {
        SETTINGS[name]: number_field(place, SETTINGS[name], keys[name], usual[name])
        for place, name in zip(st.columns(3), names, strict=False)
    }


def ask_for_place(source: str) -> Place:
    """source: what is read, as `ask_for_source` gives it."""
    show_only_device()
    device = ask_for_device("device")
    memory = ask_for_memory("memory", device) if source != "folder" else None
    return device, memory, ask_for_cluster(source)
