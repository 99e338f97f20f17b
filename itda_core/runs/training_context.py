"""What a training or an import is made of; every stage takes it."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from itda_core.activations.plan import Plan
from itda_core.activations.source import ActivationSource
from itda_core.activations.sources import source_table
from itda_core.config import HookPoint, TrainConfig, run_id
from itda_core.corpus.corpus import Corpus
from itda_core.dictionary.dictionary import Dictionary
from itda_core.dictionary.moving import MovedSources
from itda_core.runs.rows import DeviceRows, RowFile, RowRoom
from itda_core.runs.run import is_run
from itda_core.runs.workspace import Workspace


@dataclass(frozen=True)
class TrainingContext:
    """The settings, what they name, the prompts in their order, and where to write."""

    config: TrainConfig
    model: ActivationSource
    corpus: Corpus
    plan: Plan
    workspace: Workspace
    moved: MovedSources | None = None
    """Of a dictionary that is moved: where the sources stand in the plan"""

    @property
    def explored_rows(self) -> int:
        """Activations that are encoded for browsing, per layer: the plan's first."""
        return min(self.config.explored_tokens, self.plan.chosen_rows)

    @property
    def device(self) -> torch.device:
        """Where the model is, and so where all of it is computed."""
        return self.model.device

    @functools.cached_property
    def _room(self) -> RowRoom:
        return RowRoom(self.device)

    def rows(self, name: str, length: int) -> RowFile | DeviceRows:
        """Room for `length` activations, found again after an interruption: on the device where
        that has room, and in a file. Raises OSError where the disk has no space for them."""
        return self._room.take(self.workspace.rows(name, length, self.model.d_model))

    def run_id(self, layer: int) -> str:
        return run_id(self.workspace.training_id, layer)

    def run_directory(self, layer: int) -> Path:
        """Where the run of a layer is, once it is written."""
        return self.workspace.runs / self.run_id(layer)

    def is_written(self, layer: int) -> bool:
        """Whether it is. Raises RunError where something else has its name."""
        return is_run(self.run_directory(layer))

    def dictionary(self, layer: int, sources: list[tuple], **fields: Any) -> Dictionary:
        """A dictionary of a layer. sources: (prompt_id, position, start, end, token, word) of each
        atom; fields: the others of `Dictionary`."""
        table = source_table(sources)
        return Dictionary(
            hook_point=HookPoint(self.config.model.name, layer, self.config.site),
            sources=table.drop(columns="word"),
            words=table["word"].to_numpy(),
            tokenizer=self.model.tokenizer_digest,
            model_digest=self.model.digest or "",
            reading=_reading(self.config),
            **fields,
        )

    @property
    def notes(self) -> list[str]:
        """What a person has to know of what is left out, a sentence each."""
        notes, plan = self.corpus.notes, self.plan
        if self.asked_tokens:
            notes.append(fewer_tokens(plan.total_rows, self.config))
        if plan.cut:
            prompts = "1 prompt is" if plan.cut == 1 else f"{plan.cut:,} prompts are"
            notes.append(
                f"{prompts} longer than the context length, {plan.context_length:,} tokens: what "
                "comes after is left out."
            )
        return [*notes, *(self.moved.notes if self.moved else []), *self.workspace.notes]

    @property
    def asked_tokens(self) -> int:
        """Tokens that the settings ask for, where there are fewer; else 0."""
        if self.moved:  # which reads what holds sources, and never all that there is
            return 0
        asked = self.config.max_tokens
        return asked if self.plan.total_rows < asked else 0

    def left_out(self) -> dict[str, int]:
        """Texts and prompts that are not read, or not whole, and how many."""
        counts = {
            "rows that can't be read": sum(row.n_rows for row in self.corpus.bad_rows),
            "empty texts": self.corpus.empty,
            "repeated texts": self.corpus.duplicates,
            "prompts shorter than two tokens": self.plan.too_short,
            "prompts cut to the context length": self.plan.cut,
            "latents without a token": len(self.moved.why) if self.moved else 0,
        }
        return {what: count for what, count in counts.items() if count}


def fewer_tokens(there: int, config: TrainConfig) -> str:
    """A sentence on texts that have fewer tokens than the settings ask for."""
    which = "folder of activations has" if config.activations else "corpus gives"
    return (
        f"The {which} {there:,} tokens beside those held out, fewer than the "
        f"{config.max_tokens:,} asked for: all of them are read."
    )


def _reading(config: TrainConfig) -> str:
    """How much of each prompt is read, as `Dictionary.reading` says it."""
    first = "without" if config.skip_first else "with"
    return f"{config.context_length} tokens, {first} the first"
