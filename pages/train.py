"""Train: the settings of a training, its progress, and the dictionaries there are."""

import streamlit as st

from itda_core.config import CorpusSpec, ModelSpec, TrainConfig
from itda_core.corpus.corpus import BUILT_IN as BUILT_IN_CORPORA
from itda_core.errors import InputError
from itda_core.glossary import GLOSSARY
from itda_core.jobs.estimate import estimate
from itda_core.model.built_in import BUILT_IN
from itda_core.model.loading import known_models, model_shape
from itda_core.runs.workspace import delete_interrupted, interrupted_trainings, lost_trainings
from itda_core.settings import DTYPES
from pages.components.explorer import explorer
from pages.components.frame import errors_as_sentences, page
from pages.components.job_panel import show_ended_jobs, watch_active_jobs
from pages.components.run_names import run_label
from pages.components.text import bytes_text, literal, seconds_text
from pages.components.train.method import ask_for_method, ask_for_selection
from pages.components.upload import upload_texts

_DEFAULTS = {name: field.default for name, field in TrainConfig.__dataclass_fields__.items()}


def show() -> None:
    st.title("Train")
    watch_active_jobs()
    settings, trained = st.columns([3, 2], gap="large")
    with settings:
        st.subheader("A new training")
        _show_settings()
    with trained:
        _show_interrupted()
        st.subheader("Dictionaries")
        _show_dictionaries()
        st.subheader("Past trainings")
        show_ended_jobs("training", "No training has ended yet.")


def _show_settings() -> None:
    try:
        model = _ask_for_model()
        layers = _ask_for_layers(model)
        corpus = _ask_for_corpus()
        numbers = _ask_for_numbers(ask_for_selection())
        if model is None or corpus is None:
            st.button("Start training", type="primary", disabled=True)
            return
        config = TrainConfig(model=model, corpus=corpus, layers=layers, **numbers)
    except InputError as error:
        st.warning(literal(str(error)))
        st.button("Start training", type="primary", disabled=True)
        return
    _show_estimate(config)
    if st.button("Start training", type="primary"):
        explorer().queue.submit(config)
        st.rerun()


def _ask_for_model() -> ModelSpec | None:
    name = st.selectbox(
        "Model",
        [model["model"] for model in known_models()],
        accept_new_options=True,
        key="model",
        help="A built-in model, one from the hub such as EleutherAI/pythia-70m, or the path of a "
        "folder with config.json and safetensors. Type a new one to add it.",
    )
    if not name or not name.strip():
        return None
    more = {key: st.session_state.get(key) for key in ("revision", "dtype")}
    revision = (more["revision"] or "").strip() if name not in BUILT_IN else ""
    return ModelSpec(name, revision or None, more["dtype"] or "auto")


def _ask_for_layers(model: ModelSpec | None) -> tuple[int, ...]:
    shape = model_shape(model) if model else None
    if shape is None:
        text = st.text_input(
            "Layers",
            value="0",
            key="layers_text",
            help="Numbers from 0, such as 3,5. How many the model has is known once it is loaded.",
        )
        return _numbers(text)
    quarter = max(1, shape.n_layers // 4)
    usual = [7, 15, 22] if shape.n_layers == 30 else [quarter, 2 * quarter, 3 * quarter]
    return tuple(
        st.multiselect(
            f"Layers (0 to {shape.n_layers - 1})",
            range(shape.n_layers),
            default=[layer for layer in usual if layer < shape.n_layers],
            key=f"layers_{model.name}",
            help="The output of these blocks is decomposed, one dictionary for each, in one pass.",
        )
    )


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise InputError(f"Layers are numbers such as 3,5; got {text!r}.") from None


def _ask_for_corpus() -> CorpusSpec | None:
    kind = st.segmented_control(
        "Corpus", ["Built in", "Upload", "Hub or path"], default="Built in", key="corpus_kind"
    )
    if kind == "Upload":
        upload = upload_texts("Texts to train on", key="corpus_upload")
        if upload is None:
            return None
        st.caption(f"{len(upload.texts):,} texts")
        return CorpusSpec(str(upload.path), upload.column)
    if kind == "Hub or path":
        name = st.text_input(
            "Data set or file",
            key="corpus_name",
            placeholder="owner/name, or the path of a file",
            help="A data set of the hub as owner/name, or a .txt, .csv, .jsonl or .parquet file.",
        )
        column = st.text_input("Column that holds the texts (where it has several)", key="column")
        return CorpusSpec(name, column or None) if name.strip() else None
    name = st.selectbox(
        "Built-in corpus",
        list(BUILT_IN_CORPORA),
        format_func=lambda name: f"{name}: {BUILT_IN_CORPORA[name]}",
        key="corpus",
    )
    return CorpusSpec(name)


def _ask_for_numbers(selection: str) -> dict:
    first, second, third = st.columns(3)
    numbers = {
        "max_tokens": first.number_input(
            "Tokens",
            1,
            100_000_000,
            _DEFAULTS["max_tokens"],
            1_024,
            key="max_tokens",
            help="How many activations of each layer are read. A dictionary that is full takes "
            "no more of them.",
        ),
        "max_atoms": second.number_input(
            "Atoms",
            1,
            65_536,
            _DEFAULTS["max_atoms"],
            256,
            key="max_atoms",
            help="The size of a dictionary. More atoms reconstruct better and differ less.",
        ),
        "l0": third.number_input(
            "L0",
            1,
            512,
            _DEFAULTS["l0"],
            1,
            key="l0",
            help=f"{GLOSSARY['L0']} Fewer are easier to read, more lose less.",
        ),
    }
    with st.expander("More settings"):
        numbers |= ask_for_method(selection)
        first, second, third = st.columns(3)
        numbers |= {
            "seed": first.number_input(
                "Seed",
                0,
                2**31,
                _DEFAULTS["seed"],
                1,
                key="seed",
                help="The order of the prompts. Compare only dictionaries with the same seed.",
            ),
            "context_length": second.number_input(
                "Context length",
                2,
                131_072,
                _DEFAULTS["context_length"],
                16,
                key="context_length",
                help="Longer prompts are cut to this many tokens.",
            ),
            "explored_tokens": third.number_input(
                "Explored tokens",
                0,
                10_000_000,
                _DEFAULTS["explored_tokens"],
                1_024,
                key="explored_tokens",
                help="How many of the tokens are encoded and stored for browsing.",
            ),
        }
        first, middle, second = st.columns([1, 1, 2], vertical_alignment="bottom")
        first.selectbox(
            "Data type",
            DTYPES,
            key="dtype",
            help="Of the model's weights. auto: bfloat16 where this machine "
            "computes faster in it, else float32.",
        )
        middle.text_input(
            "Revision",
            key="revision",
            placeholder="the newest",
            disabled=st.session_state.get("model") in BUILT_IN,
            help="Branch, tag or commit of a hub model: a training checkpoint such as step1000.",
        )
        numbers["skip_first"] = second.checkbox(
            "Leave out first positions",
            _DEFAULTS["skip_first"],
            key="skip_first",
            help="In most models the first position of a text is an attention sink with a huge "
            "norm and no content.",
        )
    return numbers


def _show_estimate(config: TrainConfig) -> None:
    guess = estimate(config)
    if guess is None:
        st.caption("The time can be estimated once the model has been loaded for the first time.")
        return
    st.caption(
        f"About {seconds_text(guess.seconds)} on this machine, {bytes_text(guess.memory)} of "
        f"memory and {bytes_text(guess.disk)} of disk while it runs."
    )


def _show_interrupted() -> None:
    """Trainings with a checkpoint that no job of the list leads to, from the command line say."""
    here = explorer()
    active = any(job.is_active for job in here.queue.jobs())
    waiting = {} if active else interrupted_trainings(here.runs_folder)
    left = [here.queue.config(job) for job in here.queue.jobs() if job.state != "done"]
    listed = [config for config in left if config]
    # A job may leave the data type open; the training it started has written down what it took.
    is_open = [config for config in listed if config.model.dtype == "auto"]
    listed += [config.with_dtype(dtype) for config in is_open for dtype in DTYPES]
    waiting = {name: config for name, config in waiting.items() if config not in listed}
    lost = {} if active else lost_trainings(here.runs_folder)
    if not waiting and not lost:
        return
    st.subheader("Stopped half-way")
    for training_id, why in lost.items():
        with st.container(border=True):
            st.markdown(f"**{literal(training_id)}** can't be resumed. {literal(why)}")
            if st.button("Discard", key=f"discard_{training_id}", width="stretch"):
                delete_interrupted(here.runs_folder, training_id)
                st.rerun()
    for training_id, config in waiting.items():
        with st.container(border=True):
            layers = ", ".join(str(layer) for layer in config.layers)
            noun = "layer" if len(config.layers) == 1 else "layers"
            st.markdown(f"**{literal(config.model.name)}**, {noun} {layers}")
            go_on, discard = st.columns(2)
            if go_on.button("Resume", key=f"go_on_{training_id}", width="stretch"):
                here.queue.submit(config)
                st.rerun()
            if discard.button("Discard", key=f"discard_{training_id}", width="stretch"):
                delete_interrupted(here.runs_folder, training_id)
                st.rerun()


def _show_dictionaries() -> None:
    runs = explorer().store.runs.table()
    if runs.empty:
        st.caption("None yet.")
    for run in runs.itertuples():
        with st.expander(literal(run_label(run))):
            st.code(run.run_id, language=None)
            fvu = "–" if run.fvu != run.fvu else f"{run.fvu:.3f}"
            st.caption(
                literal(
                    f"{run.method} · {run.corpus} · {run.tokens:,} tokens · FVU {fvu} · "
                    f"seed {run.seed} · {run.dtype} · "
                    f"{seconds_text(run.seconds)} of work"
                )
            )
            if st.button("Delete …", key=f"delete_{run.run_id}"):
                _confirm_delete(run.run_id)


@st.dialog("Delete this dictionary?")
def _confirm_delete(run_id: str) -> None:
    st.markdown(
        f"{literal(run_id)} and all that was stored with it will be gone. It can only be had back "
        "by training it again."
    )
    yes, no = st.columns(2)
    if yes.button("Delete for good", type="primary", width="stretch"):
        with errors_as_sentences():
            explorer().delete(run_id)
            st.rerun()
    if no.button("Keep it", width="stretch"):
        st.rerun()


with page("Train"):
    show()
