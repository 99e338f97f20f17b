"""How a training builds the dictionary of one layer: what it keeps meanwhile, and the atoms.

A builder is offered the activations window by window. The threshold takes atoms as it goes; the
coverage keeps a sample of the activations on disk and chooses at the end.
"""

from typing import Protocol

import numpy as np
import torch

from itda_core.activations.massive import usable
from itda_core.activations.pool import sample_rows, sample_size
from itda_core.activations.sources import Sources, sources_at
from itda_core.devices import to_device, to_host
from itda_core.dictionary.growing import GrowingDictionary
from itda_core.dictionary.moving import NOT_USABLE, moved_atoms, named
from itda_core.runs.training_context import TrainingContext
from itda_core.selection.atoms import Atoms, MovedSelection
from itda_core.selection.coverage import choose, choose_on_average
from itda_core.selection.sampled import SampledRows
from itda_core.selection.threshold import ThresholdSelection
from itda_core.settings import MOVED


class Builder(Protocol):
    """The dictionary of one layer under way."""

    mean_error: float | None
    """mean ‖x/‖x‖ − x̂/‖x̂‖‖² of the newest step, where the selection decomposes anything"""
    notes: list[str]
    """What a person has to know of how the atoms were chosen, a sentence each"""

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
        """Take back the atoms of a checkpoint, which may be on another device."""
        ...

    def close(self) -> None:
        """Let go of what was kept, once the run is written."""
        ...


def make_builder(context: TrainingContext, layer: int) -> Builder:
    """The builder of the selection that the configuration names."""
    if context.config.selection == "threshold":
        return ThresholdBuilder(context)
    if context.config.selection == MOVED:
        return MovedBuilder(context, layer)
    return CoverageBuilder(context, layer)


class ThresholdBuilder:
    """The paper's greedy selection, step by step."""

    def __init__(self, context: TrainingContext):
        config = context.config
        self.step = context.plan.step
        d_model, device = context.model.d_model, context.device
        self.dictionary = GrowingDictionary(d_model, config.max_atoms, device)
        self.selection = ThresholdSelection(self.dictionary, config.l0, config.threshold)
        self.mean_error: float | None = None
        self.notes: list[str] = []

    @property
    def n_atoms(self) -> int:
        return len(self.dictionary)

    @property
    def is_full(self) -> bool:
        return self.dictionary.is_full

    def offer(self, first: int, activations: torch.Tensor, sources: Sources) -> None:  # noqa: ARG002
        [good] = to_host(usable(activations))
        for start in range(0, len(activations), self.step):
            rows = start + good[start : start + self.step].nonzero()[:, 0]
            x = activations[to_device(rows, activations.device)]
            offer = self.selection.offer(x, sources.take(rows.numpy()))
            if offer.mean_error is not None:
                self.mean_error = offer.mean_error

    def flush(self) -> None:
        """Nothing is kept on disk."""

    def atoms(self) -> Atoms:
        atoms, sources = self.dictionary.atoms.clone(), list(self.dictionary.sources)
        n_seed_atoms = self.selection.n_seed_atoms
        return Atoms(
            atoms,
            atoms.new_zeros(atoms.shape[1]),
            sources,
            n_seed_atoms=n_seed_atoms,
        )

    def restore(self, atoms: torch.Tensor, sources: list[tuple]) -> None:
        self.dictionary.restore(atoms, sources)

    def close(self) -> None:
        """Nothing is kept but the atoms."""


class CoverageBuilder(SampledRows):
    """Keeps a sample of the activations, drawn over the whole plan, and chooses from it."""

    def __init__(self, context: TrainingContext, layer: int):
        size = sample_size(context.config.max_atoms)
        rows = sample_rows(context.plan.total_rows, size, context.config.seed)
        super().__init__(context, layer, rows)

    def _made_on(self, device: torch.device) -> Atoms:
        """Choose the rows of the sample that cover it, and look their sources up."""
        config, x = self._context.config, self._sample.on(device)
        [good] = to_host(usable(x))
        good = good.nonzero()[:, 0]
        if len(good) < len(x):
            x = x[to_device(good, device)]
        sizes, min_projection = (config.max_atoms, config.l0), 0.0
        if config.budget == "mean":
            terms = (*sizes, config.max_terms, config.seed)
            choice, min_projection = choose_on_average(x, *terms)
        else:
            choice = choose(x, *sizes, config.seed, config.offset)
        sources = sources_at(self._context.plan, self.rows[good[choice.rows].numpy()])
        median_norm = choice.centre.median_norm
        return Atoms(choice.atoms, choice.offset, sources, median_norm, min_projection)


_APART = 512
"""Tokens of prompts without a source by which an L0 on average is found, at least"""


class MovedBuilder(SampledRows):
    """Keeps the activations of another dictionary's sources, which become its atoms, and a sample
    of the explored ones, whose mean is the offset."""

    def __init__(self, context: TrainingContext, layer: int):
        self._sources = context.moved.rows[context.moved.latents]
        total = context.explored_rows or context.plan.total_rows
        size = sample_size(context.config.max_atoms)
        self._drawn = sample_rows(total, size, context.config.seed)
        rows = np.unique(np.concatenate([self._sources, self._drawn]))
        super().__init__(context, layer, rows)

    def _made_on(self, device: torch.device) -> MovedSelection:
        moved, x = self._context.moved, self._sample.on(device)
        of_sources, drawn = (
            x[to_device(torch.from_numpy(np.searchsorted(self.rows, rows)), device)]
            for rows in (self._sources, self._drawn)
        )
        made = moved_atoms(moved.origin, of_sources, drawn, self._apart())
        if len(made.atoms) < len(self._sources):
            latents = np.delete(moved.latents, made.kept)
            numbers = moved.origin.latents_in_origin()[latents].tolist()
            self.notes = [f"Left out at layer {self._layer} {named(numbers)}: {NOT_USABLE}."]
        return MovedSelection(made, sources_at(self._context.plan, self._sources))

    def _apart(self) -> np.ndarray:
        """Which of the drawn rows are of prompts that hold no source, or come after the last."""
        prompts, _ = self._context.plan.first_rows(self._context.plan.total_rows)
        names = np.array([prompt.prompt_id for prompt in self._context.plan.prompts])
        holds_one = np.isin(names, names[prompts[self._sources]])[prompts[self._drawn]]
        is_apart = ~holds_one | (self._drawn > self._sources.max(initial=-1))
        # Where nearly every prompt holds a source, other tokens of the same prompts have to do.
        few = is_apart.sum() < min(_APART, len(self._drawn))
        return ~np.isin(self._drawn, self._sources) if few else is_apart
