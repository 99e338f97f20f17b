"""Probe runs one after another, for the command line and the queue: what each needs is loaded
once, and results are kept as they come."""

import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from itda_core.config import CorpusSpec
from itda_core.corpus import load_corpus
from itda_core.errors import ItdaError
from itda_core.evaluating import check_model, held_out_prompts, measured_on
from itda_core.loading import load_model
from itda_core.probing import PROBE_TOKENS, Probing, probe
from itda_core.results import save_probing
from itda_core.runs import Run

_READING = 0.95
"""Share of a probing's time in which texts are read; the regressions take the rest."""


@dataclass(frozen=True)
class ProbingTask:
    """What to probe, and on what."""

    runs: tuple[Run, ...]
    corpus: CorpusSpec | None = None
    """other prompts than each run's own held-out ones"""
    max_tokens: int = PROBE_TOKENS
    save: bool = False
    """keep each result in the run's directory"""


@dataclass
class ProbingProgress:
    """How far the probing of several runs is."""

    stage: str
    """loading, reading, averaging, probing or done"""
    run_id: str = ""
    tokens: int = 0
    """read, of this run"""
    total_tokens: int = 0
    fraction: float = 0.0
    """of all runs, in [0, 1]"""
    seconds_left: float | None = None
    results: list[dict[str, Any]] = field(default_factory=list)
    """of the runs that are done, each as it is saved and printed"""

    def follow(self, step: Probing, before: float, share: float, seconds: float) -> None:
        """Take over how far one run is.

        before: what was done before it; share: its own part of all; both in [0, 1]. seconds: what
        it has taken so far. The runs that follow are taken to need as long.
        """
        self.stage = "averaging" if step.fraction < 1 else "probing"
        self.tokens, self.total_tokens = step.tokens, step.total_tokens
        done = 1.0 if step.results else _READING * step.fraction
        self.fraction = before + share * done
        self.seconds_left = seconds / done * (1 - self.fraction) / share

    def to_dict(self) -> dict[str, Any]:
        """A line of a progress file: everything but the results."""
        return {name: value for name, value in asdict(self).items() if name != "results"}


def probe_runs(task: ProbingTask) -> Iterator[ProbingProgress]:
    """Probe each run of `task`; the last progress holds the results.

    A run that can't be probed keeps no other from it: its ItdaError is raised at the end.
    """
    progress, failed = ProbingProgress("loading"), None
    load = functools.lru_cache(maxsize=1)(load_model)
    read = functools.lru_cache(maxsize=2)(load_corpus)
    for number, run in enumerate(task.runs):
        try:
            yield from _probe_run(task, run, load, read, progress, number / len(task.runs))
        except ItdaError as error:
            failed = failed or error
    if failed:
        raise failed
    progress.stage, progress.fraction, progress.seconds_left = "done", 1.0, 0.0
    yield progress


def _probe_run(
    task: ProbingTask,
    run: Run,
    load: Callable,
    read: Callable,
    progress: ProbingProgress,
    before: float,
) -> Iterator[ProbingProgress]:
    """load, read: a model and a corpus by their specs; before: the fraction of the task that is
    done."""
    progress.run_id, progress.stage, progress.tokens = run.run_id, "loading", 0
    yield progress
    model = load(run.config.model)
    check_model(run, model)
    progress.stage = "reading"
    yield progress
    started = time.monotonic()
    prompts = read(task.corpus).prompts if task.corpus else held_out_prompts(run, read)
    for step in probe(run.dictionary(), model, prompts, run.config, task.max_tokens):
        progress.follow(step, before, 1 / len(task.runs), time.monotonic() - started)
        yield progress
    result = {
        "run_id": run.run_id,
        "tokens": step.tokens,
        "results": step.results,
        "measured_on": measured_on(run, task.corpus, step.prompts, step.tokens),
        "seconds": time.monotonic() - started,
    }
    if task.save:
        save_probing(run, result)
    progress.results.append(result)
