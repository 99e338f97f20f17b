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
from itda_core.devices import free_cached_memory, is_out_of_memory, to_device, to_host
from itda_core.dictionary.dictionary import Dictionary
from itda_core.dictionary.growing import GrowingDictionary
from itda_core.runs.training_context import TrainingContext
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


class CoverageBuilder:
    """Keeps a sample of the activations, drawn over the whole plan, and chooses from it."""

    mean_error: float | None = None
    n_atoms = 0
    is_full = False

    def __init__(self, context: TrainingContext, layer: int):
        self._config, self._plan = context.config, context.plan
        size = sample_size(self._config.max_atoms)
        self.rows = sample_rows(self._plan.total_rows, size, self._config.seed)
        """[n_sample] numbers, ascending, of the plan's rows that it wants"""
        self._sample = context.rows(f"sample-{layer}", len(self.rows))
        self._layer, self._device = layer, context.device
        self.notes: list[str] = []

    def offer(self, first: int, activations: torch.Tensor, sources: Sources) -> None:  # noqa: ARG002
        start, end = np.searchsorted(self.rows, [first, first + len(activations)])
        if end > start:
            rows = torch.from_numpy(self.rows[start:end] - first)
            self.take(int(start), activations[to_device(rows, activations.device)])

    def take(self, first: int, sample: torch.Tensor) -> None:
        """Keep these of the wanted activations, [n, d_model]: `rows` from `first` on."""
        self._sample.write(first, sample)

    def flush(self) -> None:
        self._sample.flush()

    def atoms(self) -> Atoms:
        """Choose the rows of the sample that cover it, and look their sources up; on the CPU where
        the device has no room for that."""
        try:
            return self._chosen_on(self._device)
        except Exception as error:
            if self._device.type == "cpu" or not is_out_of_memory(error):
                raise
        free_cached_memory()  # here, where the error no longer holds what was made
        self.notes.append(
            f"The atoms of layer {self._layer} were chosen on the CPU, which takes longer: the "
            f"device {self._device} has no room for it."
        )
        return self._chosen_on(torch.device("cpu"))

    def _chosen_on(self, device: torch.device) -> Atoms:
        config, x = self._config, self._sample.on(device)
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
        sources = sources_at(self._plan, self.rows[good[choice.rows].numpy()])
        median_norm = choice.centre.median_norm
        return Atoms(choice.atoms, choice.offset, sources, median_norm, min_projection)

    def restore(self, atoms: torch.Tensor, sources: list[tuple]) -> None:
        """What was kept is on disk."""

    def close(self) -> None:
        self._sample.close()
