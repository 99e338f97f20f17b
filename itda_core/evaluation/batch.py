"""Evaluate runs one after another, for the command line and the queue: what each needs is loaded
once, and results are kept as they come."""

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from itda_core.config import CorpusSpec
from itda_core.corpus.corpus import Corpus, Prompt, load_corpus
from itda_core.errors import CorpusError, InputError, ItdaError
from itda_core.evaluation.by_l0 import EVALUATION_TOKENS, evaluate
from itda_core.evaluation.token_errors import token_frequencies
from itda_core.model.loading import load_model
from itda_core.model.model import Model
from itda_core.runs.results import save_evaluation
from itda_core.runs.run import Run


@dataclass(frozen=True)
class EvaluationTask:
    """What to measure, and on what."""

    runs: tuple[Run, ...]
    corpus: CorpusSpec | None = None
    """other prompts than each run's own held-out ones"""
    max_tokens: int = EVALUATION_TOKENS
    l0s: tuple[int, ...] | None = None
    """by default 1, 2, 4 … and the dictionary's own"""
    save: bool = False
    """keep each result in the run's directory"""


@dataclass
class RunsProgress:
    """How far a measurement of several runs is."""

    stage: str
    """loading, reading, what is done with a run, or done"""
    run_id: str = ""
    tokens: int = 0
    """measured, of this run"""
    total_tokens: int = 0
    fraction: float = 0.0
    """of all runs, in [0, 1]"""
    seconds_left: float | None = None
    results: list[dict[str, Any]] = field(default_factory=list)
    """of the runs that are done, each as it is saved and printed"""

    def follow(self, done: float, before: float, share: float, seconds: float) -> None:
        """Take over how far one run is.

        done: of this run; before: what was done before it; share: its own part of all; in [0, 1].
        seconds: what it has taken so far. The runs that follow are taken to need as long.
        """
        self.fraction = before + share * done
        self.seconds_left = seconds / done * (1 - self.fraction) / share

    def to_dict(self) -> dict[str, Any]:
        """A line of a progress file: everything but the results."""
        return {name: value for name, value in asdict(self).items() if name != "results"}


def each_run(
    runs: Sequence[Run], measure: Callable[[Run, RunsProgress, float], Iterator[RunsProgress]]
) -> Iterator[RunsProgress]:
    """Measure one run after another; the last progress holds the results.

    measure: (run, progress, fraction that is done before it) -> progress. A run that can't be
    measured keeps no other from it: its ItdaError is raised at the end.
    """
    progress, failed = RunsProgress("loading"), None
    for number, run in enumerate(runs):
        try:
            yield from measure(run, progress, number / len(runs))
        except ItdaError as error:
            failed = failed or error
    if failed:
        raise failed
    progress.stage, progress.fraction, progress.seconds_left = "done", 1.0, 0.0
    yield progress


def evaluate_runs(task: EvaluationTask) -> Iterator[RunsProgress]:
    """Evaluate each run of `task`; see `each_run`."""
    yield from each_run(task.runs, functools.partial(_evaluate_run, task, _Loaded()))


class _Loaded:
    """Models, corpora and token frequencies, each loaded once for runs that share them."""

    def __init__(self):
        self.model = functools.lru_cache(maxsize=1)(load_model)
        self.corpus = functools.lru_cache(maxsize=2)(load_corpus)
        self.frequencies = functools.lru_cache(maxsize=2)(_frequencies)


def _evaluate_run(
    task: EvaluationTask, loaded: _Loaded, run: Run, progress: RunsProgress, before: float
) -> Iterator[RunsProgress]:
    """before: the fraction of the task that is done."""
    progress.run_id, progress.stage, progress.tokens = run.run_id, "loading", 0
    yield progress
    model = loaded.model(run.config.model)
    check_model(run, model)
    progress.stage = "reading"
    yield progress
    started = time.monotonic()
    prompts = _prompts(run, task.corpus, loaded)
    frequencies = _training_frequencies(run, model, loaded)
    for step in evaluate(
        run.dictionary(), model, prompts, run.config, task.max_tokens, task.l0s, frequencies
    ):
        progress.stage = "evaluating"
        progress.tokens, progress.total_tokens = step.tokens, step.total_tokens
        seconds = time.monotonic() - started
        progress.follow(step.fraction, before, 1 / len(task.runs), seconds)
        yield progress
    result = {
        "run_id": run.run_id,
        **step.to_dict(),
        "measured_on": measured_on(run, task.corpus, step.prompts, step.tokens),
        "dtype": model.dtype,
        "seconds": time.monotonic() - started,
    }
    if task.save:
        save_evaluation(run, result)
    progress.results.append(result)


def check_model(run: Run, model: Model) -> None:
    """Raises InputError where a model is not the one that a run was trained with."""
    if run.about.get("model_digest", model.digest) != model.digest:
        raise InputError(
            f"The model {model.name} has changed since {run.run_id} was trained, so its dictionary "
            "no longer fits it. Train it anew."
        )


def _prompts(run: Run, other: CorpusSpec | None, loaded: _Loaded) -> Sequence[Prompt]:
    if other:
        return loaded.corpus(other).prompts
    return held_out_prompts(run, loaded.corpus)


def held_out_prompts(run: Run, load: Callable[[CorpusSpec], Corpus] = load_corpus) -> list[Prompt]:
    """The prompts that were held out when a run was made. Raises InputError where they can't be
    told (any more)."""
    if run.about.get("origin") == "published":
        raise InputError(
            f"{run.run_id} was made elsewhere, of texts that would be held out here. Give others "
            "with --corpus."
        )
    corpus = load(run.config.corpus)
    if corpus.digest != run.about.get("corpus_digest"):
        raise InputError(
            f"The corpus {corpus.name} has changed since {run.run_id} was trained, so what was "
            "held out then can't be told. Give other prompts with --corpus."
        )
    prompts = corpus.held_out()
    if not prompts:
        raise InputError(
            f"The corpus of {run.run_id} has one prompt only, so none is held out. Give others "
            "with --corpus."
        )
    return prompts


def _training_frequencies(run: Run, model: Model, loaded: _Loaded) -> np.ndarray | None:
    """How often each token id occurs in the training part of the run's corpus; None where that
    corpus can't be had any more."""
    try:
        corpus = loaded.corpus(run.config.corpus)
    except CorpusError:
        return None
    if corpus.digest != run.about.get("corpus_digest"):
        return None
    return loaded.frequencies(model, corpus, run.config.seed, run.config.context_length)


def _frequencies(model: Model, corpus: Corpus, seed: int, context_length: int) -> np.ndarray:
    longest = min(context_length, model.context_length)
    return token_frequencies(model, corpus.training(seed), longest)


def measured_on(run: Run, other: CorpusSpec | None, prompts: int, tokens: int) -> dict[str, Any]:
    """What the measures are of, for those who read them later. other: the corpus, if it is not the
    run's own held-out part; prompts, tokens: how many were read."""
    return {
        "corpus": (other or run.config.corpus).name,
        "held_out": other is None,
        "prompts": prompts,
        "tokens": tokens,
        "context_length": run.config.context_length,
    }
