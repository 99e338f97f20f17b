"""The explorer behind the pages: one data folder with its database, its runs and its queue."""

import atexit
import contextlib
import dataclasses
import functools
import gc
import logging
import os
import sys
import threading
from pathlib import Path

import streamlit as st

from itda_core.config import CorpusSpec, ModelSpec, TrainConfig
from itda_core.data_folder import data_directory
from itda_core.errors import (
    ItdaError,
    RunError,
    StoreDamagedError,
    StoreOutdatedError,
)
from itda_core.events import tell, tell_error
from itda_core.files.disk_errors import why_closed
from itda_core.jobs.queue import JobQueue
from itda_core.leftovers import leftovers_of_data, remove
from itda_core.model.built_in import is_installed
from itda_core.runs.given_names import keep_name, names_file, read_names
from itda_core.runs.interrupted import delete_interrupted
from itda_core.runs.labels import Change
from itda_core.runs.run import delete_run
from itda_core.runs.watching import DigestWatch
from itda_core.settings import MAX_COUNT, Setting
from itda_core.store.apart import StoreApart
from itda_core.store.database import check_name
from itda_core.store.store import FILE_NAME, Rebuilt, Store, rebuild, rebuild_all

DEMO_MODEL = "smollm2-135m"
DEMO_LAYERS = ((7,), (15, 22))
"""The demo is two trainings: one short layer first, so that there is something to browse early."""
_DEMO_TOKENS = Setting("ITDA_DEMO_TOKENS", "ITDA_DEMO_TOKENS", min=2_048, max=MAX_COUNT)
"""Each of the demo's atoms is one of its tokens."""


class Explorer:
    """One data folder: its database, its runs and its jobs."""

    def __init__(self, data: Path):
        if os.environ.get("ITDA_DEMO"):  # a wrong size is told before anything is opened
            demo_config((0,))
        self.data = data
        self.closed = why_closed(data)
        """why nothing can be kept here; "" where it can"""
        self.runs_folder = data / "runs"
        self.import_error = self.names_error = ""
        self._names: dict[str, str] = {}
        self._names_seen: tuple[int, int] | None = None
        left = [] if self.closed else leftovers_of_data(data)
        remove(left)
        self.store = self._open_store(data / FILE_NAME)
        self._import_finished()
        self._watch = DigestWatch(self.runs_folder)
        self.queue = JobQueue(
            data / "jobs", self.runs_folder, self._import_finished, scores=True, closed=self.closed
        )
        wants_demo = os.environ.get("ITDA_DEMO") and not self.closed
        if wants_demo and self.is_new and is_installed(DEMO_MODEL):
            self.start_demo()
        self._watch.start()
        tell("opened", data=data, runs=len(self.store.runs.table()), leftovers_removed=len(left))
        _spare_the_collector()
        atexit.register(_be_quiet_at_last)  # the last registered runs first
        atexit.register(self.close)

    def _open_store(self, path: Path) -> Store:
        """The database; one of an older version is made anew from the run directories. Of a folder
        that can only be read it lies elsewhere."""
        if self.closed:
            return StoreApart(path)
        try:
            return Store(path)
        except StoreOutdatedError:
            with contextlib.suppress(RunError):  # a damaged run is told of when runs are imported
                rebuild(path, self.runs_folder)
            return Store(path)

    @property
    def troubles(self) -> list[str]:
        """What is stored and can't be used, a text each: once, however many have come upon it."""
        known = (self.closed, self.import_error, self.names_error)
        told = [error for error in known if error]
        others = [*self._watch.found, *map(str, self.queue.damaged())]
        return told + [other for other in others if not any(other in one for one in told)]

    def rebuild(self) -> Rebuilt:
        """Make the database anew, whatever has become of it; other sessions wait meanwhile."""
        self._check_open(needs_database=False)
        path = self.data / FILE_NAME
        return _told(self.store.anew(lambda: rebuild_all(path, self.runs_folder)))

    @property
    def is_new(self) -> bool:
        """Nothing trained yet and nothing under way."""
        return self.store.runs.table().empty and not self.queue.jobs()

    def close(self) -> None:
        """Stop the queue and let go of the database."""
        self._watch.close()
        self.queue.close()
        self.store.close()

    def start_demo(self) -> None:
        """Train SmolLM2 on the built-in corpus, the first layer on its own; maps and evaluations
        follow, so that every page has something to show."""
        for layers in DEMO_LAYERS:
            self.queue.submit(demo_config(layers), then=("map", "evaluate"))

    def keep_changes(self, changes: list[Change]) -> None:
        """Keep what was written about latents, in the file first, with where their sources stand
        and what they were moved from. Raises ItdaError where it is not kept, or not shown."""
        self._check_open()
        placed = self.store.labels.with_places(changes)
        failed = self.store.index.add_labels(self.runs_folder, placed)
        tell("labels-kept", latents=len({one.label.latent for one in changes}))
        self.import_error = str(failed or self.import_error)

    @property
    def names(self) -> dict[str, str]:
        """What people call their dictionaries, by run id; none where the file can't be read, which
        `names_error` says then."""
        file = names_file(self.runs_folder)
        try:
            seen = (file.stat().st_mtime_ns, file.stat().st_size) if file.exists() else None
            if self._names_seen != seen or self.names_error:
                self._names, self._names_seen, self.names_error = read_names(file), seen, ""
        except (RunError, OSError) as error:
            self._names, self.names_error = {}, str(error)
        return self._names

    def keep_name(self, run_id: str, name: str) -> None:
        """Call a dictionary so. Raises ItdaError where the name can't be kept."""
        self._check_open()
        keep_name(names_file(self.runs_folder), run_id, name)

    def delete(self, run_id: str) -> None:
        """Remove a run's directory, its rows and its name; a damaged directory goes too. Raises
        ItdaError where the folder refuses, or the id leads out of it."""
        self._check_open()
        # What a database says may be what somebody else wrote there.
        if Path(run_id).name != run_id or run_id in ("", ".."):
            raise ItdaError(f"{run_id!r} is no name of a run. Nothing was removed.")
        delete_run(self.runs_folder / run_id)
        if run_id in self.names:
            self.keep_name(run_id, "")
        self.store.index.forget_run(run_id)
        tell("run-deleted", run=run_id)

    def discard(self, training_id: str) -> None:
        """Remove what an interrupted training has on disk. Raises ItdaError where the folder
        refuses."""
        self._check_open()
        delete_interrupted(self.runs_folder, training_id)
        tell("training-discarded", training=training_id)

    def _check_open(self, needs_database: bool = True) -> None:
        """Raises ItdaError where nothing can be kept."""
        why_not = self.closed or self._why_gone(needs_database)
        if why_not:
            raise ItdaError(why_not)

    def _why_gone(self, needs_database: bool = True) -> str:
        """Why what is at the data folder's place is not what was opened, a sentence; "" where it
        is. What is written there would be in another folder, or under the place of a disk that
        comes back."""
        if self.closed:  # its database lies elsewhere
            return ""
        looked_at = self.data / FILE_NAME if needs_database else self.data
        if looked_at.exists():
            return ""
        return (
            f"{looked_at} is gone: it was moved or removed, or its disk taken away, since the "
            "explorer was opened. Nothing is kept meanwhile. Bring it back, or start the explorer "
            "again."
        )

    def _import_finished(self) -> None:
        if why_gone := self._why_gone():
            self.import_error = why_gone
            return
        try:
            for run_id in self.store.import_new(self.runs_folder):
                tell("run-taken-in", run=run_id)
            self.import_error = ""
        except ItdaError as error:
            if str(error) != self.import_error:
                tell("not-taken-in", logging.WARNING, error=type(error).__name__)
            self.import_error = str(error)
        except Exception as error:  # whatever a file holds, the pages open
            tell_error("not-taken-in", error)
            self.import_error = (
                f"What is new in {self.data} could not be taken in ({type(error).__name__}: "
                f"{str(error)[:300]}). The terminal that runs the explorer shows where it failed."
            )


@functools.cache
def _spare_the_collector() -> None:
    """What is there once the explorer is open stays, and the garbage collector need not go through
    it again and again: that took 0.2 s, in the midst of one click in thirty. Once a process."""
    gc.collect()
    gc.freeze()


def _be_quiet_at_last() -> None:
    """Without torch's modules being freed at exit, DuckDB's bindings list 40 lines of "leaks"."""
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def demo_config(layers: tuple[int, ...]) -> TrainConfig:
    """SmolLM2 on the annual messages; all other settings are the defaults.

    ITDA_DEMO_TOKENS makes it smaller, for a slow machine or a test.
    """
    config = TrainConfig(ModelSpec(DEMO_MODEL), CorpusSpec("sotu"), layers)
    tokens = os.environ.get("ITDA_DEMO_TOKENS", "")
    return dataclasses.replace(config, max_tokens=_DEMO_TOKENS.read(tokens)) if tokens else config


def explorer() -> Explorer:
    """The explorer of this process and data folder, opened on first use."""
    return _open_explorer(_resolved(str(data_directory()), str(Path.cwd())))


@functools.lru_cache(8)
def _resolved(folder: str, here: str) -> str:
    """Pages ask for the explorer twenty times at a click, and each look at the disk costs. Raises
    StoreOutOfReachError where no database can lie there: Streamlit remembers by texts alone."""
    data = (Path(here) / folder).resolve()
    check_name(data / FILE_NAME)
    return str(data)


def rebuild_database() -> Rebuilt:
    """Make the database of the data folder anew, also where the explorer could not open it. One
    session after another: both would write the same new file."""
    with _rebuilding:
        try:
            here = explorer()
        except StoreDamagedError:
            data = data_directory().resolve()
            return _told(rebuild_all(data / FILE_NAME, data / "runs"))
        return here.rebuild()


def _told(done: Rebuilt) -> Rebuilt:
    tell("rebuilt", runs=done.runs, kept_aside=done.kept_aside)
    return done


@st.cache_resource(show_spinner="Opening the database …")
def _open_explorer(data: str) -> Explorer:
    opened = Explorer(Path(data))
    _opened.append(opened)
    return opened


_opened: list[Explorer] = []
_rebuilding = threading.Lock()


def close_opened() -> None:
    """Stop the queues and let go of the databases that this process has opened."""
    while _opened:
        _opened.pop().close()
