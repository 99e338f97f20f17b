"""A swept model proves the sites of its blocks by the first two, which are in memory together.

The later ones have them where they are made of the same modules; that what is read there adds up
is tried again as each of them runs.
"""

from typing import Any

import torch
from torch import nn

from itda_core.model.blocks import recorded
from itda_core.model.model import Model
from itda_core.model.proof import reason_of
from itda_core.model.site_proof import SiteProof
from itda_core.model.sites import Place, Sites
from itda_core.model.swept_blocks import PROVED_BLOCKS, SweptBlocks
from itda_core.model.tokens import Tokens
from itda_core.settings import SITES


def prove_swept_sites(model: SweptBlocks) -> Sites:
    """Where the sites of all blocks of a swept model are, and why not where it lacks one. Costs a
    reading of two blocks. Raises ModelError within a sweep of the same thread."""
    found: list[Sites] = []
    count = min(PROVED_BLOCKS, model.n_layers)
    for _ in model.first_in_memory(count):
        # No other thread runs the modules of a model that is being swept.
        reason = reason_of(lambda: found.append(_FirstBlocksProof(_FirstBlocks(model)).sites()))
    if reason:
        return Sites(reasons=dict.fromkeys(SITES[:-1], reason))
    return _of_all_blocks(model.blocks, found[0])


class _FirstBlocks(Model):
    """The first blocks of a swept model, whose weights are in place, as a model that ends there."""

    def __init__(self, model: SweptBlocks):
        vars(self).update(vars(model))
        self.blocks = model.blocks[:PROVED_BLOCKS]

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def dtype(self) -> str:
        return str(self._dtype).removeprefix("torch.")

    def run_base(self, tokens: Tokens, **options) -> Any:
        """Up to the last one; what it gives nobody asks for."""
        with recorded(self.blocks, [self.n_layers - 1]):
            super().run_base(tokens, **options)


class _FirstBlocksProof(SiteProof):
    """What comes of a pass is what the last of the blocks gives."""

    def outcome(self, tokens: Tokens) -> torch.Tensor:
        return self.model.hidden(tokens, self.model.n_layers - 1)


def _of_all_blocks(blocks: nn.ModuleList, proved: Sites) -> Sites:
    """The sites that the first blocks were proved to have, where the others are made alike."""
    places, reasons = {}, dict(proved.reasons)
    kinds = [_made_of(block) for block in blocks]
    for site, first in proved.places.items():
        if site == "resid_pre":
            places[site] = (first[0],) * len(kinds)
            continue
        by_kind: dict[tuple, Place] = {}
        for kind, place in zip(kinds, first, strict=False):
            by_kind.setdefault(kind, place)
        other = next((n for n, kind in enumerate(kinds) if kind not in by_kind), None)
        if any(by_kind[kind] != place for kind, place in zip(kinds, first, strict=False)):
            reasons[site] = "it stands elsewhere in each of its first two blocks"
        elif other is not None:
            reasons[site] = (
                f"it is read block by block, where the first {len(first)} blocks prove it, and "
                f"block {other} is made of other modules"
            )
        else:
            places[site] = tuple(by_kind[kind] for kind in kinds)
    return Sites(places, reasons)


def _made_of(block: nn.Module) -> tuple:
    """The names and classes of a block's modules."""
    return tuple((path, type(module)) for path, module in block.named_modules())
