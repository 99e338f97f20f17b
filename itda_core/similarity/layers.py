"""Compare the layers of models by their activations on the same tokens, for the command line and
the queue.

Models are loaded one at a time and their activations kept in temporary files, so that memory holds
those of two models whatever their number.
"""

import functools
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from itda_core.activations.alignment import RowNames, common_rows
from itda_core.activations.massive import massive_rows
from itda_core.config import CorpusSpec
from itda_core.corpus.corpus import Corpus, load_corpus
from itda_core.devices import free_memory, to_device
from itda_core.errors import ComparisonError, InputError, ItdaError
from itda_core.evaluation.batch import check_model
from itda_core.files.disk_errors import disk_errors_as_sentences
from itda_core.model.loading import load_model
from itda_core.progress import Progress
from itda_core.runs.run import Run
from itda_core.similarity.compared_texts import ComparedTexts
from itda_core.similarity.measures import MEASURES, MIN_TOKENS, Measure, prepare

COMPARED_TOKENS = 10_000
_CAPTURING = 0.7
"""Share of a comparison in which models run"""
_KEPT_MODELS = 4
"""Models whose layers stay in memory as a measure takes them"""
_FORM_BYTES = 8
"""Of each component of a token, what a measure keeps and what it needs beside"""
_CONSTANT = "The activations of one of the layers do not differ by token, so there is no value."


@dataclass(frozen=True, eq=False)
class Captured:
    """The activations of one model that is compared, on disk."""

    runs: tuple[Run, ...]
    """one for each layer"""
    files: tuple[Path, ...]
    """[n_rows, d_model] float32 each, as numpy keeps them"""
    names: RowNames
    massive: np.ndarray
    """[n_rows] bool: in any of the layers"""
    tokenizer: str
    """its digest"""
    device: torch.device
    """the model's"""

    @property
    def width(self) -> int:
        """Components of a token in all layers together."""
        return sum(np.load(file, mmap_mode="r").shape[1] for file in self.files)

    def layer(self, number: int, rows: np.ndarray) -> torch.Tensor:
        """Some rows of a layer, [n, d_model] float32, in main memory."""
        return torch.from_numpy(np.load(self.files[number], mmap_mode="r")[rows])


def compare_runs(
    runs: Sequence[Run],
    measures: Sequence[str],
    max_tokens: int = COMPARED_TOKENS,
    device: str | None = None,
    memory: int | None = None,
) -> Iterator[Progress]:
    """Compare every layer with every layer, also of the same model, by each measure. device,
    memory: of the models, as `load_model` takes them.

    The last progress holds the results, a row for each measure and pair: measure, a and b (from a
    to b where the measure is not symmetric; names of activations), run_a, run_b, value (None where
    there is none), reason (why there is none), tokens, and unit: they are "token" positions where
    both have one tokenizer, else the ends of each "word". Tokens are those of held-out prompts, but
    not the first of each and none that is massive in either model.

    Raises InputError for fewer than two runs or an unknown measure. What keeps one model from being
    compared keeps no other from it: the results come all the same, and its error is raised at the
    end.
    """
    _check(runs, measures, max_tokens)
    progress, failed = Progress("loading", total_tokens=max_tokens), []
    with tempfile.TemporaryDirectory(prefix="itda-") as folder:
        capturing = _Capturing(runs, max_tokens, Path(folder), device, memory)
        yield from capturing.steps(progress, failed)
        yield from _compare_all(capturing.found, measures, max_tokens, progress)
    progress.finish()
    yield progress
    if failed:
        raise failed[0]


def _check(runs: Sequence[Run], measures: Sequence[str], max_tokens: int) -> None:
    if len(runs) < 2:
        raise InputError("Give at least two runs to compare.")
    for name in measures or [""]:
        if name not in MEASURES:
            raise InputError(f"There is no measure {name!r}: take some of {', '.join(MEASURES)}.")
    if max_tokens < MIN_TOKENS:
        raise InputError(f"Compare by at least {MIN_TOKENS} tokens, got {max_tokens}.")


class _Capturing:
    """Every model of a comparison, one after another."""

    def __init__(
        self,
        runs: Sequence[Run],
        max_tokens: int,
        folder: Path,
        device: str | None,
        memory: int | None,
    ):
        self.found: list[Captured] = []
        self._where = {"device": device, "memory": memory}
        self._max_tokens, self._folder = max_tokens, folder
        self._models = _by_model(runs)
        self._read = functools.lru_cache(maxsize=2)(load_corpus)
        self._started = time.monotonic()

    def steps(self, progress: Progress, failed: list[ItdaError]) -> Iterator[Progress]:
        """failed: takes up why a model could not be captured."""
        for number, runs in enumerate(self._models):
            try:
                yield from self._capture(number, runs, progress)
            except ItdaError as error:
                failed.append(error)

    def _capture(
        self, number: int, runs: tuple[Run, ...], progress: Progress
    ) -> Iterator[Progress]:
        progress.stage, progress.run_id, progress.tokens = "loading", runs[0].run_id, 0
        yield progress
        model = load_model(runs[0].config.model, **self._where).at(runs[0].site)
        for run in runs:
            check_model(run, model)
        read = ComparedTexts.of(
            model, _texts(runs[0], self._read), runs[0].config.context_length, self._max_tokens
        )
        files = {run.layer: self._folder / f"{number}-{run.layer}.npy" for run in runs}
        parts, massive = {layer: [] for layer in files}, np.zeros(len(read.names), bool)
        for step in model.capture_each(read.batches, list(files)):
            for layer, x in read.compared(step).items():
                parts[layer].append(x)
                if len(parts[layer]) == len(read.batches):
                    massive |= self._keep(files[layer], torch.cat(parts.pop(layer)))
            self._follow(progress, number, step.fraction, read)
            yield progress
        about = read.names, massive, model.tokenizer_digest, model.device
        self.found.append(Captured(runs, tuple(files[run.layer] for run in runs), *about))

    def _follow(
        self, progress: Progress, number: int, fraction: float, read: ComparedTexts
    ) -> None:
        tokens = round(fraction * min(read.words, self._max_tokens))
        progress.stage, progress.tokens = "capturing", tokens
        done = (number + fraction) / len(self._models)
        seconds = time.monotonic() - self._started
        progress.follow(max(done, 1e-6) * _CAPTURING, 0.0, 1.0, seconds)

    def _keep(self, file: Path, x: torch.Tensor) -> np.ndarray:
        """Writes a layer's rows; gives which of them are massive."""
        with disk_errors_as_sentences(self._folder):
            np.save(file, x.numpy())
        return massive_rows(x)


def _by_model(runs: Sequence[Run]) -> list[tuple[Run, ...]]:
    """Runs whose activations are captured together, each layer once: those of one site."""
    models: dict[tuple, dict[int, Run]] = {}
    for run in runs:
        config = run.config
        digests = [run.about.get(name) for name in ("model_digest", "corpus_digest")]
        of_one = (config.model, config.site, config.context_length, *digests)
        layers = models.setdefault(of_one, {})
        layers.setdefault(run.layer, run)
    return [tuple(layers[layer] for layer in sorted(layers)) for layers in models.values()]


def _texts(run: Run, read: Callable[[CorpusSpec], Corpus]) -> list[str]:
    """The held-out texts of a run's corpus. Raises InputError where it has changed."""
    corpus = read(run.config.corpus).as_before(run.about.get("corpus_digest"))
    if corpus.digest != run.about.get("corpus_digest"):
        raise InputError(
            run.why_no_held_out
            or f"The corpus {corpus.name} has changed since {run.run_id} was trained, or an "
            "earlier version read it otherwise, so its activations can't be had again. Train it "
            "anew."
        )
    return [prompt.text for prompt in corpus.held_out() or corpus.prompts]


def _compare_all(
    models: list[Captured], measures: Sequence[str], max_tokens: int, progress: Progress
) -> Iterator[Progress]:
    progress.stage, progress.run_id, progress.tokens, progress.total_tokens = "comparing", "", 0, 0
    pairs = list(itertools.combinations_with_replacement(models, 2))
    forms = functools.partial(_forms, device=_where_compared(models, max_tokens))
    forms = functools.lru_cache(maxsize=_KEPT_MODELS)(forms)
    before, started = progress.fraction, time.monotonic()
    for done, (name, (a, b)) in enumerate(itertools.product(measures, pairs), 1):
        progress.results += _compare(MEASURES[name], a, b, max_tokens, forms)
        seconds = time.monotonic() - started
        progress.follow(done / len(pairs) / len(measures), before, 1 - before, seconds)
        yield progress


def _compare(
    measure: Measure, a: Captured, b: Captured, max_rows: int, forms: Callable
) -> list[dict[str, Any]]:
    """One measure between the layers of two models, both ways where it is not symmetric."""
    unit = "token" if a.tokenizer == b.tokenizer else "word"
    rows = common_rows(a.names, b.names, unit, max_rows, (a.massive, b.massive))
    obstacle = _obstacle(a.runs[0], b.runs[0], len(rows[0]))
    left, right = (
        [(run, obstacle) for run in of.runs] if obstacle else forms(measure.name, of, its.tobytes())
        for of, its in zip((a, b), rows, strict=True)
    )
    all_pairs = itertools.product(left, right)
    pairs = itertools.combinations_with_replacement(left, 2) if a is b else all_pairs
    results = []
    for one, other in pairs:
        is_once = measure.is_symmetric or one is other
        for (run_a, form_a), (run_b, form_b) in [(one, other), (other, one)][: 1 if is_once else 2]:
            value, reason = _value(measure, form_a, form_b)
            results.append(
                {
                    "measure": measure.name,
                    "a": run_a.activations_id,
                    "b": run_b.activations_id,
                    "run_a": run_a.run_id,
                    "run_b": run_b.run_id,
                    "value": value,
                    "reason": reason,
                    "tokens": len(rows[0]),
                    "unit": unit,
                }
            )
    return results


def _obstacle(a: Run, b: Run, n_rows: int) -> ComparisonError | None:
    """What keeps every layer of a model from being compared with every layer of another."""
    names = " and ".join(run.config.model.name for run in (a, b))
    if a.about.get("corpus_digest") != b.about.get("corpus_digest"):
        return ComparisonError(
            f"{names} were trained on different corpora. Train both on the same one."
        )
    if n_rows < MIN_TOKENS:
        return ComparisonError(f"{names} have {n_rows} tokens in common, too few to compare by.")
    return None


def _where_compared(models: Sequence[Captured], max_rows: int) -> torch.device:
    """The models' device, unless what measures keep of their layers would fill half of what is
    free there."""
    if not models:
        return torch.device("cpu")
    widths = sorted((model.width for model in models), reverse=True)[:_KEPT_MODELS]
    needed, device = _FORM_BYTES * max_rows * sum(widths), models[0].device
    return device if needed <= free_memory(device) // 2 else torch.device("cpu")


def _forms(name: str, model: Captured, rows: bytes, device: torch.device) -> list[tuple[Run, Any]]:
    """Each layer as a measure takes it, or why it can't be taken; rows: of int64."""
    numbers, forms = np.frombuffer(rows, np.int64), []
    for layer, run in enumerate(model.runs):
        try:
            x = to_device(model.layer(layer, numbers), device)
            forms.append((run, prepare(name, x)))
        except ComparisonError as error:
            forms.append((run, error))
    return forms


def _value(measure: Measure, a: Any, b: Any) -> tuple[float | None, str]:
    """The value of two forms, or why there is none."""
    for form in (a, b):
        if isinstance(form, ComparisonError):
            return None, str(form)
    value = measure.compare(a, b)
    return (None, _CONSTANT) if np.isnan(value) else (value, "")
