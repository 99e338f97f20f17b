"""How a training builds the dictionary of one layer: what it keeps meanwhile, and the atoms.

A builder is offered the activations window by window. The threshold takes atoms as it goes; the
coverage keeps a sample of the activations on disk and chooses at the end.
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from itda_core.activations.massive import usable
from itda_core.activations.plan import Plan
from itda_core.activations.pool import LEAST_SAMPLE, sample_rows, sample_size
from itda_core.activations.sources import Sources, sources_at
from itda_core.config import TrainConfig
from itda_core.dictionary.growing import GrowingDictionary
from itda_core.model.model import Model
from itda_core.runs.workspace import RowFile, Workspace
from itda_core.selection.coverage import choose, choose_on_average
from itda_core.selection.threshold import ThresholdSelection

__all__ = [
    "LEAST_SAMPLE",
    "Atoms",
    "Builder",
    "make_builder",
    "sample_rows",
    "sample_size",
    "usable",
]


@dataclass(frozen=True)
class Atoms:
    """What becomes a dictionary: atoms never without their sources."""

    atoms: torch.Tensor
    """[n_atoms, d_model] float32, unit rows"""
    offset: torch.Tensor
    """[d_model] float32"""
    sources: list[tuple] = field(repr=False)
    """(prompt_id, position, start, end, token, word) of each atom"""
    median_norm: float | None = None
    least: float = 0.0
    seeds: int = 0
    """How many of them, the first ones, were taken before there was a choice"""

    def __len__(self) -> int:
        return len(self.atoms)


class Builder(Protocol):
    """The dictionary of one layer under way."""

    mean_error: float | None
    """mean ‖x/‖x‖ − x̂/‖x̂‖‖² of the newest step, where the selection decomposes anything"""

    @property
    def n_atoms(self) -> int: ...

    @property
    def is_full(self) -> bool:
        """Whether further activations change nothing."""
        ...

    def offer(self, first: int, activations: torch.Tensor, sources: Sources) -> None:
        """Look at the usable activations of a window, [n_tokens, d_model]; the number of its
        first row in the plan, and the source of each row. Rows that are not usable (not finite,
        or zero) count as well: `usable` leaves them out."""
        ...

    def flush(self) -> None:
        """Bring what is kept on disk there, before a checkpoint."""
        ...

    def atoms(self) -> Atoms:
        """The atoms as they stand; with the coverage, the choice among all that was kept."""
        ...

    def restore(self, atoms: torch.Tensor, sources: list[tuple]) -> None:
        """Take back the atoms of a checkpoint."""
        ...


def make_builder(
    config: TrainConfig, layer: int, model: Model, plan: Plan, workspace: Workspace
) -> Builder:
    """The builder of the selection that `config` names."""
    if config.selection == "threshold":
        return ThresholdBuilder(config, model.d_model, plan.step)
    return CoverageBuilder(config, layer, model, plan, workspace)


class ThresholdBuilder:
    """The paper's greedy selection, step by step."""

    def __init__(self, config: TrainConfig, d_model: int, step: int):
        self.step = step
        self.dictionary = GrowingDictionary(d_model, config.max_atoms)
        self.selection = ThresholdSelection(self.dictionary, config.l0, config.threshold)
        self.mean_error: float | None = None

    @property
    def n_atoms(self) -> int:
        return len(self.dictionary)

    @property
    def is_full(self) -> bool:
        return self.dictionary.is_full

    def offer(self, first: int, activations: torch.Tensor, sources: Sources) -> None:  # noqa: ARG002
        good = usable(activations)
        for start in range(0, len(activations), self.step):
            rows = start + good[start : start + self.step].nonzero()[:, 0]
            offer = self.selection.offer(activations[rows], sources.take(rows.numpy()))
            if offer.mean_error is not None:
                self.mean_error = offer.mean_error

    def flush(self) -> None:
        """Nothing is kept on disk."""

    def atoms(self) -> Atoms:
        made = self.dictionary.atoms.clone()
        sources, seeds = list(self.dictionary.sources), self.selection.seeds
        return Atoms(made, torch.zeros(made.shape[1]), sources, seeds=seeds)

    def restore(self, atoms: torch.Tensor, sources: list[tuple]) -> None:
        self.dictionary.restore(atoms, sources)


class CoverageBuilder:
    """Keeps a sample of the activations, drawn over the whole plan, and chooses from it."""

    mean_error: float | None = None
    n_atoms = 0
    is_full = False

    def __init__(
        self, config: TrainConfig, layer: int, model: Model, plan: Plan, workspace: Workspace
    ):
        self.config, self.model, self.plan = config, model, plan
        self.rows = sample_rows(plan.total_rows, sample_size(config.max_atoms), config.seed)
        self._kept: RowFile = workspace.rows(f"sample-{layer}", len(self.rows), model.d_model)

    def offer(self, first: int, activations: torch.Tensor, sources: Sources) -> None:  # noqa: ARG002
        start, end = np.searchsorted(self.rows, [first, first + len(activations)])
        if end > start:
            self._kept.write(int(start), activations[self.rows[start:end] - first])

    def flush(self) -> None:
        self._kept.flush()

    def atoms(self) -> Atoms:
        """Choose the rows of the sample that cover it, and look their sources up."""
        x = self._kept.read(0, len(self.rows))
        good = usable(x).nonzero()[:, 0]
        config = self.config
        x = x[good]
        sizes, least = (config.max_atoms, config.l0), 0.0
        if config.budget == "mean":
            made, least = choose_on_average(x, *sizes, config.most_terms, config.seed)
        else:
            made = choose(x, *sizes, config.seed, config.offset)
        sources = sources_at(self.model, self.plan, self.rows[good[made.rows].numpy()])
        return Atoms(made.atoms, made.offset, sources, made.centre.median_norm, least)

    def restore(self, atoms: torch.Tensor, sources: list[tuple]) -> None:
        """What was kept is on disk."""
