"""Dictionaries that were made elsewhere become runs.

The model reads prompts once more, for the codes that the explorer shows and for the sources. What
comes out is a run directory like that of a training; `kind` and `origin` in its config.json say
what it is.
"""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from itda_core.activations.plan import Plan
from itda_core.config import IMPORTED, CorpusSpec, HookPoint, ModelSpec, TrainConfig, run_id
from itda_core.corpus.corpus import Corpus
from itda_core.dictionary.dictionary import Dictionary
from itda_core.dictionary.growing import source_table
from itda_core.digests import digest
from itda_core.errors import ExchangeError, InputError
from itda_core.files import told_when_disk_is_full
from itda_core.model.loading import load_model
from itda_core.model.model import Model
from itda_core.runs.workspace import RowFile, Workspace
from itda_core.training.run_writer import Finisher
from itda_core.training.trainer import Progress, reading_of

IMPORT_TOKENS = 65_536


@dataclass(frozen=True)
class Choices:
    """What to read a dictionary from elsewhere with; None is whatever its folder says."""

    model: str | None = None
    layer: int | None = None
    corpus: str | None = None
    column: str | None = None
    max_tokens: int = IMPORT_TOKENS
    """Activations that are encoded for browsing"""
    context_length: int | None = None
    seed: int = 0
    dtype: str = "auto"

    def load_model(self, said: str | None) -> Model:
        """The model that was chosen, else the one that the folder names, where that is a name
        and not a place on this machine."""
        name = self.model or said
        if name is None or (self.model is None and not is_plain_name(name)):
            raise InputError(
                "The folder does not say which model it is for in a way that is known here. Name "
                "it with --model."
            )
        return load_model(ModelSpec(name, dtype=self.dtype))

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
    choices: Choices, model: Model, corpus: CorpusSpec, layer: int, **fields: Any
) -> TrainConfig:
    """How the prompts of an import are read."""
    return TrainConfig(
        ModelSpec(model.name, dtype=model.dtype),
        corpus,
        (layer,),
        max_tokens=choices.max_tokens,
        explored_tokens=choices.max_tokens,
        seed=choices.seed,
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


class Adoption:
    """One import under way: reads the plan's prompts, then writes the run."""

    def __init__(
        self,
        config: TrainConfig,
        model: Model,
        corpus: Corpus,
        plan: Plan,
        runs: Path,
        kind: str,
        identity: str,
    ):
        """kind: stands in the run's id; identity: names what is imported and the texts."""
        self.config, self.model, self.plan = config, model, plan
        self.layer = config.layers[0]
        name = config.training_id(f"{model.digest} {model.dtype}", identity)
        model_name, _, tail = name.rpartition("-")
        self.workspace = Workspace(runs, f"{model_name}-{kind}-{tail}")
        # Under another name than a training's, since an import can't be resumed.
        self.workspace.directory = runs / f".writing-{self.workspace.training_id}"
        self.finisher = Finisher(config, model, corpus, plan, self.workspace)
        self.skipped: dict[str, int] = {}
        self.progress = Progress("encoding", total_tokens=plan.total_rows)
        self.progress.atoms = {self.layer: config.max_atoms}

    @property
    def run_id(self) -> str:
        return run_id(self.workspace.training_id, self.layer)

    def run(
        self,
        dictionary: Callable[[], Dictionary],
        facts: Callable[[], dict[str, Any]],
        about: dict[str, Any],
        look: Callable[[int, torch.Tensor], None] = lambda _first, _x: None,
    ) -> Iterator[Progress]:
        """Read, then write the run, unless it is there already.

        dictionary, facts: give what to write, once all is read; about: what config.json says
        beside the rest; look: is shown the activations of each window, with the number of the
        first of them.
        """
        if not (self.workspace.runs / self.run_id).exists():
            started = time.monotonic()
            with self._workspace() as kept:
                for first, x in self._captured():
                    kept.write(first, x[: len(kept) - first] if first < len(kept) else x[:0])
                    look(first, x)
                    self._report(first + len(x), started)
                    yield self.progress
                said = {"tokens": self.plan.total_rows, "seconds": time.monotonic() - started}
                said["skipped"] = {what: count for what, count in self.skipped.items() if count}
                self.finisher.finish(self.layer, dictionary(), kept, {**said, **facts()}, about)
        self.progress.stage, self.progress.fraction = "done", 1.0
        self.progress.finished = [self.run_id]
        yield self.progress

    @contextmanager
    def _workspace(self) -> Iterator[RowFile]:
        """Room for the explored activations; gone at the end, whatever happens."""
        explored = min(self.config.explored_tokens, self.plan.total_rows)
        with told_when_disk_is_full(self.workspace.runs), self.workspace.locked(self.config):
            kept = self.workspace.rows("activations", explored, self.model.d_model)
            try:
                yield kept
            finally:
                kept.close()
                self.workspace.remove()

    def _captured(self) -> Iterator[tuple[int, torch.Tensor]]:
        """The number of its first row, and the activations, of each window."""
        row = 0
        for first, last in self.plan.windows:
            tokens = self.plan.tokens(self.model, first, last)
            x = self.model.capture(tokens, [self.layer], self.config.skip_first)[self.layer]
            yield row, x
            row += len(x)

    def _report(self, rows: int, started: float) -> None:
        self.progress.tokens = rows
        self.progress.fraction = rows / self.plan.total_rows
        self.progress.tokens_per_second = rows / max(time.monotonic() - started, 1e-9)

    def dictionary(self, **fields) -> Dictionary:
        """A dictionary of this import's layer."""
        table = source_table(fields.pop("sources"))
        return Dictionary(
            hook_point=HookPoint(self.config.model.name, self.layer),
            sources=table.drop(columns="word"),
            words=table["word"].to_numpy(),
            tokenizer=self.model.tokenizer_digest,
            reading=reading_of(self.config),
            **fields,
        )
