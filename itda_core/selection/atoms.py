"""What a selection comes to."""

from dataclasses import dataclass, field

import torch

from itda_core.config import HookPoint
from itda_core.dictionary.dictionary import Dictionary
from itda_core.dictionary.moving import MovedAtoms, taken_over
from itda_core.runs.training_context import TrainingContext


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


@dataclass(frozen=True)
class MovedSelection:
    """The same of a dictionary that is moved: nothing is chosen."""

    made: MovedAtoms
    sources: list[tuple] = field(repr=False)
    """of each activation that `made` was made from"""

    def __len__(self) -> int:
        return len(self.made.atoms)

    def dictionary(self, context: TrainingContext, layer: int) -> Dictionary:
        """The origin's latents at a layer."""
        config, moved = context.config, context.moved
        hook_point = HookPoint(config.model.name, layer, config.site)
        where = (hook_point, context.model)
        return taken_over(moved.origin, self.made, moved.latents, self.sources, *where)
