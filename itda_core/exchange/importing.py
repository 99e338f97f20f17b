"""Dictionaries that were made elsewhere become runs.

The model reads prompts once more, for the codes that the explorer shows and for the sources. What
comes out is a run directory like that of a training; `kind` and `origin` in its config.json say
what it is.
"""

import dataclasses
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from itda_core.config import IMPORTED, CorpusSpec, ModelSpec, TrainConfig
from itda_core.dictionary.dictionary import Dictionary
from itda_core.digests import digest
from itda_core.errors import ExchangeError, InputError
from itda_core.files.disk_errors import disk_errors_as_sentences
from itda_core.model.loading import load_model
from itda_core.model.model import Activations, Model
from itda_core.model.steps_of_work import Step
from itda_core.progress import Progress
from itda_core.runs.training_context import TrainingContext
from itda_core.runs.workspace import RowFile, Workspace
from itda_core.settings import SETTINGS
from itda_core.training.run_writer import RunWriter

IMPORT_TOKENS = 65_536


@dataclass(frozen=True)
class ImportOptions:
    """What to read a dictionary from elsewhere with; None is whatever its folder says."""

    model: str | None = None
    layer: int | None = None
    corpus: str | None = None
    column: str | None = None
    separator: str | None = None
    quote: str | None = None
    header: bool | None = None
    encoding: str | None = None
    max_tokens: int = IMPORT_TOKENS
    """Activations that are encoded for browsing"""
    context_length: int | None = None
    seed: int = 0
    dtype: str = "auto"
    device: str | None = None
    """of the model, as `load_model` takes it"""
    memory: int | None = None
    """that the model may use, as `load_model` takes it"""

    def __post_init__(self) -> None:
        for name in ("max_tokens", "seed", "dtype"):
            SETTINGS[name].check(getattr(self, name))
        if self.layer is not None:
            SETTINGS["layers"].check(self.layer)
        if self.context_length is not None:
            SETTINGS["context_length"].check(self.context_length)

    def corpus_spec(self, name: str) -> CorpusSpec:
        """The corpus of that name, read as the options say."""
        how = (self.column, self.separator, self.quote, self.header, self.encoding)
        return CorpusSpec(name, *how)

    def load_model(self, said: str | None) -> Model:
        """The model that was chosen, else the one that the folder names, where that is a name
        and not a place on this machine."""
        name = self.model or said
        if name is None or (self.model is None and not is_plain_name(name)):
            raise InputError(
                "The folder does not say which model it is for in a way that is known here. Name "
                "it with --model."
            )
        return load_model(ModelSpec(name, dtype=self.dtype), device=self.device, memory=self.memory)

    def layer_of(self, said: int | None) -> int:
        """The layer that was chosen, else the one that the folder names; both have to agree."""
        if self.layer is None and said is None:
            raise InputError("The folder does not say which layer it is for. Give it with --layer.")
        if None not in (self.layer, said) and self.layer != said:
            raise ExchangeError(
                f"This is a dictionary of layer {said}, not of layer {self.layer}. Leave --layer "
                "out."
            )
        return said if self.layer is None else self.layer


def is_plain_name(name: str) -> bool:
    """Whether this is a built-in name or a hub id, as a file of others may give one: nothing that
    leads to a file or folder of this machine."""
    is_name = re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", name) is not None
    return is_name and not os.path.exists(name)  # noqa: PTH110


def import_config(
    options: ImportOptions, model: Model, corpus: CorpusSpec, layer: int, **fields: Any
) -> TrainConfig:
    """How the prompts of an import are read."""
    return TrainConfig(
        ModelSpec(model.name, dtype=model.dtype),
        corpus,
        (layer,),
        max_tokens=options.max_tokens,
        explored_tokens=options.max_tokens,
        seed=options.seed,
        selection=IMPORTED,
        **fields,
    )


def check_fits(model: Model, layer: int, d_model: int) -> None:
    """Raises InputError where a dictionary can't be one of this model's layer."""
    model.check_layers([layer])
    if model.d_model != d_model:
        raise ExchangeError(
            f"The dictionary is for activations of {d_model:,} components, and those of "
            f"{model.name} have {model.d_model:,}. Name the model that it was made with."
        )


def digest_of(*tensors: torch.Tensor) -> str:
    """Names the content of tensors."""
    return digest(tensor.contiguous().numpy().tobytes() for tensor in tensors)


class ImportedRun:
    """One import under way: reads the plan's prompts, then writes the run."""

    def __init__(
        self,
        context: TrainingContext,
        about: dict[str, Any],
        skipped: dict[str, int] | None = None,
    ):
        """about: what config.json says beside the rest; skipped: what was left out, and how
        often."""
        self.context, self._about, self._skipped = context, about, skipped or {}
        self.layer = context.config.layers[0]
        self.progress = Progress("encoding", total_tokens=context.plan.total_rows)
        self.progress.notes = context.notes
        self.progress.atoms = {self.layer: context.config.max_atoms}

    def run(
        self,
        dictionary: Callable[[], Dictionary],
        facts: Callable[[], dict[str, Any]],
        look: Callable[[int, torch.Tensor], None] = lambda _first, _x: None,
    ) -> Iterator[Progress]:
        """Read, then write the run, unless it is there already.

        dictionary, facts: give what to write, once all is read; look: is shown the activations of
        each window, with the number of the first of them.
        """
        if not self.context.is_written(self.layer):
            started = time.monotonic()
            with self._workspace() as explored:
                rows = 0
                for step in self._captured():
                    if step.value is not None:
                        first, x = rows, step.value[self.layer]
                        room = max(0, len(explored) - first)
                        explored.write(min(first, len(explored)), x[:room])
                        look(first, x)
                        rows += len(x)
                    self._report(rows, step.fraction, started)
                    yield self.progress
                self._write(dictionary(), explored, facts(), time.monotonic() - started)
        self.progress.finish()
        self.progress.finished = [self.context.run_id(self.layer)]
        yield self.progress

    def _write(
        self, dictionary: Dictionary, explored: RowFile, facts: dict[str, Any], seconds: float
    ) -> None:
        tokens = self.context.plan.total_rows
        skipped = {what: count for what, count in self._skipped.items() if count}
        facts = {"tokens": tokens, "seconds": seconds, "skipped": skipped, **facts}
        # Only now is it known how many terms a token of an autoencoder has.
        config = dataclasses.replace(self.context.config, l0=dictionary.l0)
        writer = RunWriter(dataclasses.replace(self.context, config=config))
        writer.write(self.layer, dictionary, explored, facts, self._about)

    @contextmanager
    def _workspace(self) -> Iterator[RowFile]:
        """Room for the explored activations; gone at the end, whatever happens."""
        context, workspace = self.context, self.context.workspace
        with disk_errors_as_sentences(workspace.runs), workspace.locked(context.config):
            explored = workspace.rows("activations", context.explored_rows, context.model.d_model)
            try:
                yield explored
            finally:
                explored.close()
                workspace.remove()

    def _captured(self) -> Iterator[Step[Activations]]:
        """The activations of each window."""
        windows = self.context.plan.in_windows()
        skip_first = self.context.config.skip_first
        return self.context.model.capture_each(windows, [self.layer], skip_first)

    def _report(self, rows: int, fraction: float, started: float) -> None:
        seconds = time.monotonic() - started
        self.progress.tokens = rows
        self.progress.tokens_per_second = rows / max(seconds, 1e-9)
        self.progress.follow(fraction, 0.0, 1.0, seconds)


def import_workspace(
    config: TrainConfig, model: Model, runs: Path, kind: str, identity: str
) -> Workspace:
    """Where an import is written from. kind: stands in the run's id; identity: names what is
    imported and the texts."""
    name = config.training_id(f"{model.digest} {model.dtype}", identity)
    model_name, _, tail = name.rpartition("-")
    return Workspace(runs, f"{model_name}-{kind}-{tail}", can_resume=False)
