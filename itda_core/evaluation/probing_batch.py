"""Probe runs one after another, for the command line and the queue: what each needs is loaded
once, and results are kept as they come."""

import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from itda_core.config import CorpusSpec
from itda_core.corpus.corpus import load_corpus
from itda_core.evaluation.batch import (
    RunsProgress,
    check_model,
    each_run,
    held_out_prompts,
    measured_on,
)
from itda_core.evaluation.sparse_probing import PROBE_TOKENS, probe
from itda_core.model.loading import load_model
from itda_core.runs.results import save_probing
from itda_core.runs.run import Run

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


def probe_runs(task: ProbingTask) -> Iterator[RunsProgress]:
    """Probe each run of `task`; see `evaluating.each_run`."""
    load = functools.lru_cache(maxsize=1)(load_model)
    read = functools.lru_cache(maxsize=2)(load_corpus)
    yield from each_run(task.runs, functools.partial(_probe_run, task, load, read))


def _probe_run(
    task: ProbingTask,
    load: Callable,
    read: Callable,
    run: Run,
    progress: RunsProgress,
    before: float,
) -> Iterator[RunsProgress]:
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
        progress.stage = "averaging" if step.fraction < 1 else "probing"
        progress.tokens, progress.total_tokens = step.tokens, step.total_tokens
        done = 1.0 if step.results else _READING * step.fraction
        progress.follow(done, before, 1 / len(task.runs), time.monotonic() - started)
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
