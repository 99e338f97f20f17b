"""Runs measured one after another, for the command line and the queue: what they share is loaded
once, and results are kept as they come."""

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from itda_core.config import CorpusSpec
from itda_core.corpus.corpus import Corpus, Prompt, load_corpus
from itda_core.dictionary.dictionary import Dictionary
from itda_core.errors import CorpusError, InputError, ItdaError, RunError
from itda_core.evaluation.by_l0 import EVALUATION_TOKENS, QUICK_TOKENS, evaluate_together, quick_l0s
from itda_core.evaluation.evaluated import Evaluation
from itda_core.evaluation.sparse_probing import PROBE_TOKENS, Probing, probe
from itda_core.evaluation.token_errors import token_frequencies
from itda_core.model.loading import load_model
from itda_core.model.model import Model
from itda_core.progress import Progress
from itda_core.runs.results import read_evaluation, save_evaluation, save_probing
from itda_core.runs.run import Run
from itda_core.tables import read_frame


class Loaded:
    """Models, corpora and token frequencies, each loaded once for runs that share them."""

    def __init__(self, device: str | None = None, memory: int | None = None):
        """device, memory: of the models, as `load_model` takes them."""
        load = functools.partial(load_model, device=device, memory=memory)
        self.model = functools.lru_cache(maxsize=1)(load)
        self.corpus = functools.lru_cache(maxsize=2)(load_corpus)
        self._frequencies = functools.lru_cache(maxsize=2)(_count_tokens)
        self.shared: dict[str, Shared] = {}
        """By run, what was measured together with another one"""

    def frequencies(self, run: Run, model: Model) -> np.ndarray | None:
        """How often each token id occurs in the training part of a run's corpus; None where that
        corpus can't be had any more."""
        try:
            corpus = self.corpus(run.config.corpus).as_before(run.about.get("corpus_digest"))
        except CorpusError:
            return None
        if corpus.digest != run.about.get("corpus_digest"):
            return None
        return self._frequencies(model, corpus, run.config.seed, run.config.context_length)


@dataclass(frozen=True)
class Shared:
    """What was measured together with another run."""

    result: Evaluation
    seconds: float
    """that all of them took"""


class Measured(Protocol):
    """How far the measuring of one run is."""

    stage: str
    tokens: int
    total_tokens: int
    prompts: int
    fraction: float

    def to_dict(self) -> dict[str, Any]:
        """The result, once all is measured, as JSON types."""
        ...


class Task(Protocol):
    """What to measure of which runs, and on what."""

    runs: tuple[Run, ...]
    corpus: CorpusSpec | None
    """other prompts than each run's own held-out ones"""
    save: bool
    """keep each result in the run's directory"""
    device: str | None
    """of the models, as `load_model` takes it"""
    memory: int | None
    """that the models may use, as `load_model` takes it"""

    def steps(
        self, run: Run, model: Model, prompts: Sequence[Prompt], loaded: Loaded
    ) -> Iterator[Measured]: ...

    def check(self, run: Run) -> None:
        """Raises InputError where a run's result could not be kept."""
        ...

    def keep(self, run: Run, result: dict[str, Any]) -> Path: ...


@dataclass(frozen=True)
class EvaluationTask:
    """Every measure of a reconstruction by L0."""

    runs: tuple[Run, ...]
    corpus: CorpusSpec | None = None
    max_tokens: int = EVALUATION_TOKENS
    l0s: tuple[int, ...] | None = None
    """by default 1, 2, 4 … and the dictionary's own"""
    save: bool = False
    device: str | None = None
    memory: int | None = None
    quick: bool = False
    """at most QUICK_TOKENS, and by default `quick_l0s`"""
    replace: bool = False
    """keep a quick result in place of a full one"""

    def steps(
        self, run: Run, model: Model, prompts: Sequence[Prompt], loaded: Loaded
    ) -> Iterator[Evaluation]:
        if run.run_id in loaded.shared:
            yield loaded.shared[run.run_id].result
            return
        started, dictionary = time.monotonic(), run.dictionary()
        others = self._beside(run, dictionary, model)
        dictionaries = [dictionary, *others.values()]
        tokens = min(self.max_tokens, QUICK_TOKENS) if self.quick else self.max_tokens
        of_all = model, prompts, run.config, tokens, self._l0s(dictionary)
        for found in evaluate_together(dictionaries, *of_all, loaded.frequencies(run, model)):
            yield found[0]
        seconds = time.monotonic() - started
        loaded.shared |= {
            name: Shared(result, seconds) for name, result in zip(others, found[1:], strict=True)
        }

    def _l0s(self, dictionary: Dictionary) -> tuple[int, ...] | None:
        return quick_l0s(dictionary.l0) if self.quick and self.l0s is None else self.l0s

    def _beside(self, run: Run, own: Dictionary, model: Model) -> dict[str, Dictionary]:
        """The dictionaries of later runs that are measured together with a run's, by run: those of
        the same layer and site, on the same prompts. For a model in memory one after another is
        loaded and measured; of one that is read block by block, each would cost two readings."""
        later = self.runs[self.runs.index(run) + 1 :] if model.is_swept else ()
        found = {}
        for other in later:
            if _reads_alike(run, other):
                try:
                    dictionary = other.dictionary()
                except ItdaError:  # which is said when its own turn comes
                    continue
                is_same = dictionary.hook_point.site == own.hook_point.site
                is_same &= self._l0s(dictionary) == self._l0s(own)
                if is_same and max(self.l0s or [0]) <= dictionary.l0:
                    found[other.run_id] = dictionary
        return found

    def check(self, run: Run) -> None:
        """A quick result does not replace a full one unasked."""
        if self.quick and self.save and not self.replace and _is_fully_evaluated(run):
            raise InputError(
                f"{run.run_id} has a full evaluation, which a quick run does not replace: leave "
                "out --save, or add --replace."
            )

    def keep(self, run: Run, result: dict[str, Any]) -> Path:
        self.check(run)  # it may have come meanwhile
        return save_evaluation(run, result)


@dataclass(frozen=True)
class ProbingTask:
    """Sparse probing of labelled prompts."""

    runs: tuple[Run, ...]
    corpus: CorpusSpec | None = None
    max_tokens: int = PROBE_TOKENS
    save: bool = False
    device: str | None = None
    memory: int | None = None

    def steps(
        self, run: Run, model: Model, prompts: Sequence[Prompt], _loaded: Loaded
    ) -> Iterator[Probing]:
        yield from probe(run.dictionary(), model, prompts, run.config, self.max_tokens)

    def check(self, run: Run) -> None:
        """A probing replaces the one before."""

    def keep(self, run: Run, result: dict[str, Any]) -> Path:
        return save_probing(run, result)


def _is_fully_evaluated(run: Run) -> bool:
    try:
        found = read_evaluation(run)
    except RunError:  # what can't be read may be replaced
        return False
    return found is not None and not found.get("quick")


def measure_runs(task: Task) -> Iterator[Progress]:
    """Measure each run of a task; see `each_run`."""
    loaded = Loaded(task.device, task.memory)
    yield from each_run(task.runs, functools.partial(_measure_run, task, loaded))


def each_run(
    runs: Sequence[Run], measure: Callable[[Run, Progress, float], Iterator[Progress]]
) -> Iterator[Progress]:
    """Measure one run after another; the last progress holds the results.

    measure: (run, progress, fraction that is done before it) -> progress. A run that can't be
    measured keeps no other from it: its ItdaError is raised at the end.
    """
    progress, failure = Progress("loading"), None
    for number, run in enumerate(runs):
        progress.run_id, progress.tokens = run.run_id, 0
        try:
            yield from measure(run, progress, number / len(runs))
        except ItdaError as error:
            failure = failure or error
    if failure:
        raise failure
    progress.finish()
    yield progress


def _measure_run(
    task: Task, loaded: Loaded, run: Run, progress: Progress, before: float
) -> Iterator[Progress]:
    """Load, check, read the prompts, measure, keep. before: the fraction of the task that is
    done."""
    task.check(run)
    progress.stage = "loading"
    yield progress
    model = loaded.model(run.config.model)
    check_model(run, model)
    progress.stage = "reading"
    yield progress
    started = time.monotonic()
    corpus = loaded.corpus(task.corpus) if task.corpus else None
    if corpus:
        progress.notes = corpus.notes
    prompts = corpus.prompts if corpus else held_out_prompts(run, loaded.corpus)
    for step in task.steps(run, model, prompts, loaded):
        progress.stage = step.stage
        progress.tokens, progress.total_tokens = step.tokens, step.total_tokens
        seconds = time.monotonic() - started
        progress.follow(step.fraction, before, 1 / len(task.runs), seconds)
        yield progress
    seconds = time.monotonic() - started
    if run.run_id in loaded.shared:
        seconds = loaded.shared.pop(run.run_id).seconds
    result = {
        "run_id": run.run_id,
        **step.to_dict(),
        **({"quick": True} if getattr(task, "quick", False) else {}),
        "measured_on": _measured_on(run, task.corpus, step),
        "dtype": model.dtype,
        "seconds": seconds,
    }
    if task.save:
        task.keep(run, result)
    progress.results.append(result)


def check_model(run: Run, model: Model) -> None:
    """Raises InputError where a model is not the one that a run was trained with."""
    if run.about.get("model_digest", model.digest) is None:
        raise InputError(
            f"The activations that {run.run_id} was trained from do not say which version of "
            f"{model.name} they are of, so it can't be told whether it is this one. Capture them "
            "anew, or train on the model."
        )
    if run.about.get("model_digest", model.digest) != model.digest:
        raise InputError(
            f"The model {model.name} has changed since {run.run_id} was trained, so its dictionary "
            "no longer fits it. Train it anew."
        )


def _reads_alike(run: Run, other: Run) -> bool:
    """Whether two runs are of one layer of one model, and are measured on the same prompts."""
    return run.layer == other.layer and _reading(run) == _reading(other)


def _reading(run: Run) -> tuple:
    config, about = run.config, run.about
    names = ("model_digest", "corpus_digest", "origin")
    own = config.model, config.corpus, config.context_length, config.skip_first, config.seed
    return own, tuple(about.get(name) for name in names)


def held_out_prompts(run: Run, load: Callable[[CorpusSpec], Corpus] = load_corpus) -> list[Prompt]:
    """The prompts that were held out when a run was made. Raises InputError where they can't be
    told (any more)."""
    if run.why_no_held_out:
        raise InputError(f"{run.why_no_held_out} Give others with --corpus.")
    corpus = load(run.config.corpus).as_before(run.about.get("corpus_digest"))
    if corpus.digest != run.about.get("corpus_digest"):
        raise InputError(
            f"The corpus {corpus.name} has changed since {run.run_id} was trained, or an earlier "
            "version read it otherwise, so what was held out then can't be told. Give other "
            "prompts with --corpus."
        )
    prompts = corpus.held_out()
    if not prompts:
        raise InputError(
            f"The corpus of {run.run_id} has one prompt only, so none is held out. Give others "
            "with --corpus."
        )
    read = set(read_frame(run.directory / "prompts.parquet", columns=["prompt_id"])["prompt_id"])
    if run.config.moved_from is not None:  # and what its sources were chosen from
        read.update(run.dictionary().prompt_ids)
    if n_read := sum(prompt.prompt_id in read for prompt in prompts):
        raise InputError(
            f"{run.run_id} was trained on {n_read:,} of the {len(prompts):,} prompts that its "
            f"corpus {corpus.name} holds out: the folder of activations that it is from holds out "
            "others. Give other prompts with --corpus."
        )
    return prompts


def _count_tokens(model: Model, corpus: Corpus, seed: int, context_length: int) -> np.ndarray:
    longest = min(context_length, model.context_length)
    return token_frequencies(model, corpus.training(seed), longest)


def _measured_on(run: Run, other: CorpusSpec | None, step: Measured) -> dict[str, Any]:
    """What the measures are of, for those who read them later. other: the corpus, if it is not the
    run's own held-out part."""
    return {
        "corpus": (other or run.config.corpus).name,
        "held_out": other is None,
        "prompts": step.prompts,
        "tokens": step.tokens,
        "context_length": run.config.context_length,
    }
