"""Model + corpus + selection -> dictionaries, yielding progress.

One pass over the prompts feeds the builders of all layers' dictionaries. The activations of the
explored part are kept on disk on the way, so that encoding it needs no second pass. A checkpoint
every 20 s makes an interrupted training resume to the same dictionaries.
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from itda_core.activations.massive import usable
from itda_core.activations.plan import Plan, make_plan
from itda_core.activations.pool import Offered, choosable_rows, offered_at
from itda_core.activations.sources import sources_of
from itda_core.config import IMPORTED, HookPoint, TrainConfig, run_id
from itda_core.corpus.corpus import Corpus, load_corpus
from itda_core.dictionary.dictionary import Dictionary
from itda_core.dictionary.growing import source_table
from itda_core.errors import InputError, ItdaError
from itda_core.files import told_when_disk_is_full
from itda_core.model.loading import load_model
from itda_core.model.model import Model
from itda_core.runs.run import list_runs
from itda_core.runs.workspace import Workspace, interrupted_trainings
from itda_core.selection.builders import make_builder
from itda_core.training.run_writer import Finisher

CHECKPOINT_SECONDS = 20.0
_TRAINING_SHARE = 0.85
"""Share of the whole time that the pass over the prompts takes, for the estimate of the rest."""


@dataclass
class Progress:
    """How far a training is."""

    stage: str
    """loading, reading, training, choosing, encoding or done"""
    training_id: str = ""
    tokens: int = 0
    """activations seen, per layer"""
    total_tokens: int = 0
    layer: int | None = None
    """whose atoms are chosen or tokens encoded, where it is one layer's turn"""
    atoms: dict[int, int] = field(default_factory=dict)
    """by layer"""
    max_atoms: int = 0
    mean_error: dict[int, float] = field(default_factory=dict)
    """by layer: mean ‖x/‖x‖ − x̂/‖x̂‖‖² of the newest step"""
    tokens_per_second: float = 0.0
    fraction: float = 0.0
    """of the whole training, in [0, 1]"""
    seconds_left: float | None = None
    skipped: dict[str, int] = field(default_factory=dict)
    """what was left out, and how often"""
    finished: list[str] = field(default_factory=list)
    """ids of the runs that are written"""


def resume(name: str, runs: Path) -> Iterator[Progress]:
    """Go on with an interrupted training, given its id or the id of one of its runs."""
    interrupted = interrupted_trainings(runs)
    training_id = name if name in interrupted else name.rpartition("-L")[0]
    if training_id not in interrupted:
        known = ", ".join(interrupted) or "none"
        raise InputError(f"There is no interrupted training {name!r}. There are: {known}.")
    yield from train(interrupted[training_id], runs, expected_id=training_id)


def train(config: TrainConfig, runs: Path, expected_id: str | None = None) -> Iterator[Progress]:
    """Train a dictionary for each layer of `config` and write the run directories.

    What is already written is not made again, and what was interrupted goes on from its
    checkpoint. Closing the generator keeps a checkpoint. Raises ItdaError with the remedy.
    """
    if config.selection == IMPORTED:
        raise InputError("This dictionary was made elsewhere and imported: import it again.")
    yield Progress("loading")
    model = load_model(_as_before(config, runs).model)
    config = config.with_dtype(model.dtype)
    model.check_layers(config.layers)
    yield Progress("reading")
    corpus = load_corpus(config.corpus)
    training_id = config.training_id(f"{model.digest} {model.dtype}", corpus.digest)
    if expected_id not in (None, training_id):
        raise InputError(
            f"{expected_id} can't be resumed: its model or corpus has changed since, or an "
            "earlier version began it. Start anew."
        )
    wanted = [run_id(training_id, layer) for layer in config.layers]
    if all((runs / name).exists() for name in wanted):
        Workspace(runs, training_id).remove()
        yield Progress("done", training_id, fraction=1.0, finished=wanted)
        return
    plan = make_plan(model, corpus.training(config.seed), config, config.max_tokens)
    _check_enough_tokens(plan, config)
    workspace = Workspace(runs, training_id)
    with workspace.locked(config), told_when_disk_is_full(runs):
        training = _Training(config, model, corpus, plan, workspace)
        yield from training.run()
    workspace.remove()


class _Training:
    """One training under way: the state that a checkpoint keeps, and the steps on it."""

    def __init__(
        self,
        config: TrainConfig,
        model: Model,
        corpus: Corpus,
        plan: Plan,
        workspace: Workspace,
    ):
        self.config, self.model, self.plan, self.workspace = config, model, plan, workspace
        self.corpus = corpus
        checkpoint = workspace.load_checkpoint()  # before the arrays that it needs are made anew
        self.explored_rows = min(config.explored_tokens, self.plan.total_rows)
        self.kept = {
            layer: workspace.rows(f"activations-{layer}", self.explored_rows, model.d_model)
            for layer in config.layers
        }
        self.builders = {
            layer: make_builder(config, layer, model, plan, workspace) for layer in config.layers
        }
        self.window = self.row = 0
        self.seconds = 0.0
        self.bad_rows = dict.fromkeys(config.layers, 0)
        self.progress = Progress(
            "training", workspace.training_id, total_tokens=self.plan.total_rows
        )
        self.progress.max_atoms = config.max_atoms
        self._newest: tuple[np.ndarray, Offered] | None = None
        """The rows that the newest layer was made from: usually the next one's as well"""
        self.finisher = Finisher(config, model, corpus, plan, workspace)
        if checkpoint is not None:
            self._restore(*checkpoint)

    def run(self) -> Iterator[Progress]:
        """The pass over the prompts, then a run directory for each layer."""
        yield from self._pass()
        self.progress.tokens_per_second, written = 0.0, []
        for number, layer in enumerate(self.config.layers):
            name = run_id(self.workspace.training_id, layer)
            if (self.workspace.runs / name).exists():  # written before an interruption
                self.progress.finished.append(name)
                written.append(layer)
                continue
            started = time.monotonic()
            self._estimate(_TRAINING_SHARE + (1 - _TRAINING_SHARE) * number / len(self.builders))
            self.progress.stage, self.progress.layer = "choosing", layer
            yield self.progress
            dictionary = self._dictionary(layer)
            if len(dictionary):
                dictionary = replace(dictionary, offered=self._offered(dictionary))
                self.progress.atoms[layer] = len(dictionary)
                self.progress.stage = "encoding"
                yield self.progress
                self._finish(layer, dictionary, self.seconds + time.monotonic() - started)
                written.append(layer)
            self.seconds += time.monotonic() - started
        self._check_usable(written)
        self.progress.layer = None
        self.progress.stage, self.progress.fraction, self.progress.seconds_left = "done", 1.0, 0.0
        self._log()
        yield self.progress

    def _finish(self, layer: int, dictionary: Dictionary, seconds: float) -> None:
        """Write the run of one layer."""
        facts = {"tokens": self.row, "seconds": seconds, "skipped": self._skipped(layer)}
        name = self.finisher.finish(layer, dictionary, self.kept[layer], facts)
        self.kept[layer].close()
        self.progress.finished.append(name)

    def _dictionary(self, layer: int) -> Dictionary:
        """The dictionary of a layer as it stands."""
        made = self.builders[layer].atoms()
        table = source_table(made.sources)
        return Dictionary(
            atoms=made.atoms,
            offset=made.offset,
            l0=self.config.most_terms,
            hook_point=HookPoint(self.config.model.name, layer),
            sources=table.drop(columns="word"),
            words=table["word"].to_numpy(),
            prompt_ids=tuple(self.plan.offered),
            tokenizer=self.model.tokenizer_digest,
            reading=reading_of(self.config),
            pursuit=self.config.pursuit,
            least=made.least,
            median_norm=made.median_norm,
            seeds=made.seeds,
        )

    def _offered(self, dictionary: Dictionary) -> Offered:
        """What the atoms were chosen from."""
        names = [prompt.prompt_id for prompt in self.plan.prompts]
        rows = choosable_rows(self.config, names, self.plan.rows, dictionary.sources)
        if self._newest is None or not np.array_equal(self._newest[0], rows):
            self._newest = rows, offered_at(self.model, self.plan, rows)
        return self._newest[1]

    def _pass(self) -> Iterator[Progress]:
        recent: deque[tuple[float, int]] = deque([(time.monotonic(), self.row)], maxlen=8)
        last_checkpoint = time.monotonic()
        while not self._is_done():
            started = time.monotonic()
            self._one_window()
            self.seconds += time.monotonic() - started
            recent.append((time.monotonic(), self.row))
            self._report(recent)
            if time.monotonic() - last_checkpoint > CHECKPOINT_SECONDS:
                self._checkpoint()
                last_checkpoint = time.monotonic()
            try:
                yield self.progress
            except GeneratorExit:  # cancelled between two windows, where the state is whole
                self._checkpoint()
                raise
        self._checkpoint()

    def _is_done(self) -> bool:
        """At the end of the plan, or when all is full and the explored part is captured."""
        if self.window == len(self.plan.windows):
            return True
        full = all(builder.is_full for builder in self.builders.values())
        return full and self.row >= self.explored_rows

    def _one_window(self) -> None:
        first, last = self.plan.windows[self.window]
        tokens = self.plan.tokens(self.model, first, last)
        activations = self.model.capture(tokens, self.config.layers, self.config.skip_first)
        sources = sources_of(tokens, self.plan.prompts[first:last], activations)
        for layer, rows in activations.items():
            if self.row < self.explored_rows:
                self.kept[layer].write(self.row, rows[: self.explored_rows - self.row])
            self.bad_rows[layer] += int((~usable(rows)).sum())
            self.builders[layer].offer(self.row, rows, sources)
        self.row += len(sources)
        self.window += 1

    def _report(self, recent: deque) -> None:
        (start, first_row), (now, row) = recent[0], recent[-1]
        self.progress.tokens = row
        self.progress.tokens_per_second = (row - first_row) / max(now - start, 1e-9)
        errors = {layer: builder.mean_error for layer, builder in self.builders.items()}
        self.progress.mean_error = {k: value for k, value in errors.items() if value is not None}
        self.progress.atoms = {layer: builder.n_atoms for layer, builder in self.builders.items()}
        self.progress.skipped = self._skipped()
        self._estimate(_TRAINING_SHARE * row / self.plan.total_rows)
        self._log()

    def _estimate(self, fraction: float) -> None:
        self.progress.fraction = fraction
        if fraction > 0:
            self.progress.seconds_left = self.seconds * (1 - fraction) / fraction

    def _log(self) -> None:
        self.finisher.log(self.progress)

    def _skipped(self, layer: int | None = None) -> dict[str, int]:
        layers = self.config.layers if layer is None else [layer]
        counts = {
            "rows that can't be read": len(self.corpus.bad_rows),
            "empty texts": self.corpus.empty,
            "repeated texts": self.corpus.duplicates,
            "prompts shorter than two tokens": self.plan.too_short,
            "prompts cut to the context length": self.plan.cut,
            "activations not finite or zero": sum(self.bad_rows[layer] for layer in layers),
        }
        return {what: count for what, count in counts.items() if count}

    def _check_usable(self, written: Iterable[int]) -> None:
        """A layer without an atom is an error; the others are written all the same."""
        empty = [str(layer) for layer in self.config.layers if layer not in written]
        if empty:
            self.workspace.remove()
            raise ItdaError(
                f"Layer {', '.join(empty)} of {self.config.model.name} gives no finite activation. "
                "Choose dtype float32, or check the model's weights."
            )

    def _checkpoint(self) -> None:
        for kept in (*self.kept.values(), *self.builders.values()):
            kept.flush()
        state = {
            "window": self.window,
            "row": self.row,
            "seconds": self.seconds,
            "bad_rows": {str(layer): count for layer, count in self.bad_rows.items()},
        }
        growing = [layer for layer, builder in self.builders.items() if builder.n_atoms]
        dictionaries = {layer: self._dictionary(layer) for layer in growing}
        self.workspace.save_checkpoint(self.window, dictionaries, state)

    def _restore(self, dictionaries: dict[int, Dictionary], state: dict) -> None:
        self.window, self.row, self.seconds = state["window"], state["row"], state["seconds"]
        self.bad_rows = {int(layer): count for layer, count in state["bad_rows"].items()}
        self.progress.tokens, self.progress.skipped = self.row, self._skipped()
        for layer, dictionary in dictionaries.items():
            table = dictionary.sources.drop(columns="latent").assign(word=dictionary.words)
            sources = [tuple(row) for row in table.itertuples(index=False)]
            self.builders[layer].restore(dictionary.atoms, sources)


def _as_before(config: TrainConfig, runs: Path) -> TrainConfig:
    """With the data type of an equal training that was begun before, where "auto" leaves it open:
    a probe may change its mind, and the training is the same."""
    if config.model.dtype != "auto":
        return config
    before = [*interrupted_trainings(runs).values(), *(run.config for run in list_runs(runs))]
    return next((one for one in before if one == config.with_dtype(one.model.dtype)), config)


def reading_of(config: TrainConfig) -> str:
    """How much of each prompt is offered, as `Dictionary.reading` says it."""
    first = "without" if config.skip_first else "with"
    return f"{config.context_length} tokens, {first} the first"


def _check_enough_tokens(plan: Plan, config: TrainConfig) -> None:
    if plan.total_rows < config.max_atoms:
        raise InputError(
            f"The corpus gives {plan.total_rows:,} tokens, fewer than the {config.max_atoms:,} "
            f"atoms asked for. Ask for at most {plan.total_rows:,} atoms, or add texts."
        )
