"""Train: the settings of a training, its progress, and the dictionaries there are."""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import streamlit as st

from itda_core.activations.folder import ActivationFolder
from itda_core.activations.recorded import folder_config
from itda_core.config import CorpusSpec, ModelSpec, TrainConfig, layers_in_words
from itda_core.corpus.corpus import BUILT_IN as BUILT_IN_CORPORA
from itda_core.errors import InputError, RunError
from itda_core.jobs.job import Job
from itda_core.model.built_in import BUILT_IN
from itda_core.model.loading import known_models, model_shape
from itda_core.runs.workspace import interrupted_trainings, lost_trainings
from itda_core.settings import DTYPES, MEMORY, SETTINGS, Setting
from itda_core.training.trainer import came_to
from pages.components.cached import loaded_run
from pages.components.device_choice import ask_for_device, ask_for_memory, show_only_device
from pages.components.explorer import explorer
from pages.components.exposure import check_no_path
from pages.components.file_reading import ask_how_to_read
from pages.components.frame import errors_as_sentences, page
from pages.components.job_panel import show_ended_jobs, watch_active_jobs
from pages.components.name_field import ask_for_name
from pages.components.number_field import number_field, read_numbers
from pages.components.run_names import run_label
from pages.components.text import literal, seconds_text, sentence
from pages.components.train.abilities import show_abilities
from pages.components.train.cluster import ask_for_cluster
from pages.components.train.folder import (
    ask_for_folder,
    ask_for_layers_of,
    ask_for_site_of,
    ask_for_source,
    show_fewer_tokens,
)
from pages.components.train.list import ask_for_list, show_needs_of_list
from pages.components.train.method import ask_for_method, ask_for_selection
from pages.components.train.moving import offer_move, show_origin
from pages.components.train.needs import show_needs
from pages.components.train.site import ask_for_site
from pages.components.train.upload_tokens import (
    as_far_as_there_are,
    check_has_tokens,
    say_tokens,
)
from pages.components.upload import as_uploaded, corpus_name, upload_texts
from pages.components.url import keep

_DEFAULTS = {name: field.default for name, field in TrainConfig.__dataclass_fields__.items()}


def show() -> None:
    st.title("Train")
    watch_active_jobs()
    settings, trained = st.columns([3, 2], gap="large")
    with settings:
        st.subheader("A new training")
        place = _show_settings()
    with trained:
        _show_interrupted(place)
        st.subheader("Dictionaries")
        _show_dictionaries()
        st.subheader("Past trainings")
        show_ended_jobs("training", "No training has ended yet.")
        if any(job.kind == "move" and not job.is_active for job in explorer().queue.jobs()):
            st.subheader("Past moves")
            show_ended_jobs("move", "")


_Place = tuple[str, int | None, str]
"""A device or "any", bytes that the model may use, and the Ray cluster that trains instead"""


_FIELDS = ("model", "layers_text", "site", "corpus_kind", "corpus", "corpus_name")
_FIELDS += ("selection", "pursuit", "budget", "offset", "dtype", "revision", "skip_first")
_FIELDS += ("memory", "activations", "list_text", "source")
"""Of the form, by their keys: those that have one key, but for "column", which Similarity has
too"""


def _show_settings() -> _Place | None:
    """The form of a new training; where it runs as it stands there, None where that is wrong."""
    # A look at a list, or at another page, draws none of these: Streamlit would forget them.
    keep(*_FIELDS)
    source = ask_for_source()
    if source == "list":
        return _show_list()
    config = _ask_for_config_of_folder() if source == "folder" else _ask_for_config()
    if config and not _or_sentence(_is_trainable, config):
        config = None
    place = _or_sentence(_ask_for_place, source)
    is_ready = None not in (config, place)
    if is_ready:
        is_ready = _or_sentence(show_needs, as_far_as_there_are(config), *place) is not False
    is_clicked = st.button("Start training", type="primary", disabled=not is_ready)
    if is_clicked and is_ready:
        _note_start(explorer().queue.submit(config, *place))
    _say_what_started()
    return place


def _note_start(job: Job | None) -> None:
    """Draw the page again, which then says beside the button what it has queued."""
    st.session_state["_started"] = job and job.job_id
    st.rerun()


def _say_what_started() -> None:
    """A line while the job that was queued here is active: its card is out of sight, above."""
    job_id = st.session_state.get("_started")
    for job in explorer().queue.jobs():
        if job.job_id == job_id and job.is_active:
            words = "is queued" if job.state == "queued" else "runs"
            title = literal(as_uploaded(job.title))
            st.success(f"**{title}** {words}. Its progress is at the top of this page.")


def _is_trainable(config: TrainConfig) -> bool:
    """True; raises InputError where the settings, or the upload, make no training."""
    config.check()
    check_has_tokens(config)
    return True


def _show_list() -> _Place | None:
    """The form of several trainings."""
    found = _or_sentence(ask_for_list)
    place = _or_sentence(_ask_for_place, "list")
    is_ready = None not in (found, place)
    if is_ready:
        _or_sentence(show_needs_of_list, found[1], *place)
    is_clicked = st.button("Start trainings", type="primary", disabled=not is_ready)
    if is_clicked and is_ready:
        _note_start(explorer().queue.submit_list(found[0], *place))
    _say_what_started()
    return place


def _ask_for_place(source: str) -> _Place:
    """source: what is read, as `ask_for_source` gives it."""
    show_only_device()
    device = ask_for_device("device")
    memory = ask_for_memory("memory", device) if source != "folder" else None
    return device, memory, ask_for_cluster(source)


def _typed_memory() -> int | None:
    """What stands in the field for memory, which is drawn further down; None where it is wrong,
    which is told there."""
    with contextlib.suppress(InputError):
        text = st.session_state.get("memory") or ""
        return MEMORY.read(text) if text.strip() else None


def _ask_for_config() -> TrainConfig | None:
    """None while something is missing, or wrong: then with a sentence about it. All fields are
    drawn all the same, so that none forgets what was typed."""
    model = _or_sentence(_ask_for_model)
    device = st.session_state.get("device")
    is_usable = model is not None and _or_sentence(show_abilities, model, device, _typed_memory())
    layers = _or_sentence(_ask_for_layers, model)
    site = ask_for_site(model, device, _typed_memory())
    corpus = _or_sentence(_ask_for_corpus, model)
    texts, others = _ask_for_numbers(ask_for_selection())
    numbers = read_numbers(texts)
    if not is_usable or None in (layers, site, corpus, numbers):
        return None
    chosen = {"model": model, "corpus": corpus, "layers": layers, "site": site}
    return _or_sentence(TrainConfig, **chosen, **numbers, **others)


def _ask_for_config_of_folder() -> TrainConfig | None:
    """The same of a training from activations that were captured before."""
    folder = _or_sentence(ask_for_folder)
    layers = ask_for_layers_of(folder) if folder else None
    site = ask_for_site_of(folder) if folder else None
    texts, others = _ask_for_numbers(ask_for_selection(), folder)
    numbers = read_numbers(texts)
    if not layers or numbers is None:
        return None
    config = _or_sentence(folder_config, folder, layers=layers, site=site, **numbers, **others)
    if config:
        show_fewer_tokens(folder, config)
    return config


def _or_sentence(ask: Callable, *arguments: Any, **fields: Any) -> Any:
    """What `ask` gives; None, with a sentence on the page, where that is wrong."""
    try:
        return ask(*arguments, **fields)
    except InputError as error:
        st.warning(sentence(error))
        return None


def _ask_for_model() -> ModelSpec | None:
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


def _ask_for_layers(model: ModelSpec | None) -> tuple[int, ...]:
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


def _ask_for_corpus(model: ModelSpec | None) -> CorpusSpec | None:
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
        column = st.text_input(SETTINGS["column"].label, key="column")
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


def _ask_for_numbers(
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


def _show_interrupted(place: _Place | None) -> None:
    """Trainings with a checkpoint that no job of the list leads to, from the command line say.
    place: where they go on, which no checkpoint keeps; None where the form's is wrong. Of a folder
    that can only be read none is listed: nobody can tell whether its owner trains there."""
    here = explorer()
    if here.closed:
        return
    active = bool(here.queue.active())
    waiting = {} if active else interrupted_trainings(here.runs_folder)
    left = [job for job in here.queue.jobs() if job.state != "done"]
    listed = [config for job in left for config in here.queue.configs(job)]
    waiting = {
        name: config
        for name, config in waiting.items()
        # What a job leaves open, the training that it started has written down.
        if not any(came_to(one, config) for one in listed)
    }
    lost = {} if active else lost_trainings(here.runs_folder)
    if not waiting and not lost:
        return
    st.subheader("Stopped half-way")
    for training_id, why in lost.items():
        with st.container(border=True):
            st.markdown(f"**{literal(training_id)}** can't be resumed. {literal(why)}")
            if st.button("Discard", key=f"discard_{training_id}", width="stretch"):
                _discard(training_id)
    for training_id, config in waiting.items():
        with st.container(border=True):
            layers = layers_in_words(config.layers, config.site)
            st.markdown(f"**{literal(config.model.name)}**, {literal(layers)}")
            go_on, discard = st.columns(2)
            if go_on.button(
                "Resume",
                key=f"go_on_{training_id}",
                width="stretch",
                disabled=place is None,
                help="With the device, the memory and the cluster that stand in the form.",
            ):
                here.queue.submit(config, *place)
                st.rerun()
            if discard.button("Discard", key=f"discard_{training_id}", width="stretch"):
                _discard(training_id)


def _discard(training_id: str) -> None:
    with errors_as_sentences():
        explorer().discard(training_id)
        st.rerun()


def _show_dictionaries() -> None:
    runs = explorer().store.runs.table()
    if runs.empty:
        st.caption("None yet.")
    for run in runs.itertuples():
        with st.expander(literal(run_label(run))):
            st.code(run.run_id, language=None)
            ask_for_name(run.run_id)
            fvu = "–" if run.fvu != run.fvu else f"{run.fvu:.3f}"
            st.caption(
                literal(
                    f"{run.method} · {corpus_name(run.corpus)} · {_tokens_read(run)} · FVU {fvu} · "
                    f"seed {run.seed} · {run.dtype} · "
                    f"{seconds_text(run.seconds)} of work"
                )
            )
            show_origin(run)
            offer_move(run)
            if st.button("Delete …", key=f"delete_{run.run_id}"):
                _confirm_delete(run.run_id)


def _tokens_read(run) -> str:
    """run: a row of the store's runs."""
    asked = None
    with contextlib.suppress(RunError):  # its directory has gone: the list will know it soon
        asked = loaded_run(run.directory).metrics.get("asked_tokens")
    return f"{run.tokens:,} tokens" + (f" of the {asked:,} asked for" if asked else "")


@st.dialog("Delete this dictionary?")
def _confirm_delete(run_id: str) -> None:
    st.markdown(
        f"{literal(run_id)} and all that was stored with it will be gone. It can only be had back "
        "by training it again."
    )
    yes, no = st.columns(2)
    if yes.button("Delete permanently", type="primary", width="stretch"):
        with errors_as_sentences():
            explorer().delete(run_id)
            st.rerun()
    if no.button("Keep it", width="stretch"):
        st.rerun()


with page("Train"):
    show()
