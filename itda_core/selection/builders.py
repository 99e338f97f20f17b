"""How a training builds the dictionary of one layer: what it keeps meanwhile, and the atoms.

A builder is offered the activations window by window. The threshold takes atoms as it goes; the
coverage keeps a sample of the activations on disk and chooses at the end.
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from itda_core.activations.massive import usable
from itda_core.activations.pool import sample_rows, sample_size
from itda_core.activations.sources import Sources, sources_at
from itda_core.dictionary.dictionary import Dictionary
from itda_core.dictionary.growing import GrowingDictionary
from itda_core.runs.training_context import TrainingContext
from itda_core.runs.workspace import RowFile
from itda_core.selection.coverage import choose, choose_on_average
from itda_core.selection.threshold import ThresholdSelection


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
    min_projection: float = 0.0
    n_seed_atoms: int = 0
    """How many of them, the first ones, were taken before there was a choice"""

    def __len__(self) -> int:
        return len(self.atoms)

    def dictionary(self, context: TrainingContext, layer: int) -> Dictionary:
        """The dictionary of a layer that they make, its candidate pool still open."""
        return context.dictionary(
            layer,
            self.sources,
            atoms=self.atoms,
            offset=self.offset,
            l0=context.config.max_terms,
            prompt_ids=tuple(context.plan.prompt_ids),
            pursuit=context.config.pursuit,
            min_projection=self.min_projection,
            median_norm=self.median_norm,
            n_seed_atoms=self.n_seed_atoms,
        )


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


def make_builder(context: TrainingContext, layer: int) -> Builder:
    """The builder of the selection that the configuration names."""
    if context.config.selection == "threshold":
        return ThresholdBuilder(context)
    return CoverageBuilder(context, layer)


class ThresholdBuilder:
    """The paper's greedy selection, step by step."""

    def __init__(self, context: TrainingContext):
        config = context.config
        self.step = context.plan.step
        self.dictionary = GrowingDictionary(context.model.d_model, config.max_atoms)
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
        atoms, sources = self.dictionary.atoms.clone(), list(self.dictionary.sources)
        n_seed_atoms = self.selection.n_seed_atoms
        return Atoms(
            atoms,
            torch.zeros(atoms.shape[1], dtype=torch.float32),
            sources,
            n_seed_atoms=n_seed_atoms,
        )

    def restore(self, atoms: torch.Tensor, sources: list[tuple]) -> None:
        self.dictionary.restore(atoms, sources)


class CoverageBuilder:
    """Keeps a sample of the activations, drawn over the whole plan, and chooses from it."""

    mean_error: float | None = None
    n_atoms = 0
    is_full = False

    def __init__(self, context: TrainingContext, layer: int):
        self._config, self._plan = context.config, context.plan
        size = sample_size(self._config.max_atoms)
        self.rows = sample_rows(self._plan.total_rows, size, self._config.seed)
        workspace, d_model = context.workspace, context.model.d_model
        self._sample: RowFile = workspace.rows(f"sample-{layer}", len(self.rows), d_model)

    def offer(self, first: int, activations: torch.Tensor, sources: Sources) -> None:  # noqa: ARG002
        start, end = np.searchsorted(self.rows, [first, first + len(activations)])
        if end > start:
            self._sample.write(int(start), activations[self.rows[start:end] - first])

    def flush(self) -> None:
        self._sample.flush()

    def atoms(self) -> Atoms:
        """Choose the rows of the sample that cover it, and look their sources up."""
        config, x = self._config, self._sample.read(0, len(self.rows))
        good = usable(x).nonzero()[:, 0]
        x = x[good]  # the sample itself is let go of before more is made of it
        sizes, min_projection = (config.max_atoms, config.l0), 0.0
        if config.budget == "mean":
            terms = (*sizes, config.max_terms, config.seed)
            choice, min_projection = choose_on_average(x, *terms)
        else:
            choice = choose(x, *sizes, config.seed, config.offset)
        sources = sources_at(self._plan, self.rows[good[choice.rows].numpy()])
        median_norm = choice.centre.median_norm
        return Atoms(choice.atoms, choice.offset, sources, median_norm, min_projection)

    def restore(self, atoms: torch.Tensor, sources: list[tuple]) -> None:
        """What was kept is on disk."""
