"""How large the parts of a model are: by the headers of its files, else by its configuration."""

import re
from dataclasses import dataclass

from itda_core.model.blocks import OTHER_SENSES
from itda_core.model.built_in import ModelShape
from itda_core.model.weight_files import StoredTensor

_BLOCK = re.compile(r"(.*?)\.(\d+)\.")
"""The path of a list and a number in it, at the beginning of a name"""


@dataclass(frozen=True)
class ModelParts:
    """Numbers that a model consists of, by its parts."""

    blocks: tuple[int, ...]
    """of each block"""
    outside: int
    """of all that is no block"""
    largest_outside: int
    """of the embedding, or the head where that is larger"""
    on_disk: float | None = None
    """bytes that a number takes in its files, on average; None where those are not known"""

    @property
    def total(self) -> int:
        return sum(self.blocks) + self.outside


def stored_parts(stored: dict[str, StoredTensor]) -> ModelParts | None:
    """By the names on disk alone: the blocks are the list that holds most. None where there is no
    list.

    stored: every tensor of the model by its name.
    """
    lists: dict[str, dict[int, int]] = {}
    for name, tensor in stored.items():
        if (found := _BLOCK.match(name)) and not OTHER_SENSES.search(name):
            blocks = lists.setdefault(found[1], {})
            blocks[int(found[2])] = blocks.get(int(found[2]), 0) + tensor.count
    if not lists:
        return None
    path = max(lists, key=lambda path: sum(lists[path].values()))
    outside = [
        tensor.count
        for name, tensor in stored.items()
        if not ((found := _BLOCK.match(name)) and found[1] == path)
    ]
    counts = tuple(lists[path][number] for number in sorted(lists[path]))
    numbers = sum(counts) + sum(outside)
    on_disk = sum(tensor.n_bytes for tensor in stored.values()) / max(1, numbers)
    return ModelParts(counts, sum(outside), max(outside, default=0), on_disk)


def likely_parts(shape: ModelShape) -> ModelParts:
    """By the configuration, an upper guess: attention with full heads, a gated MLP, a head of its
    own."""
    embedding = shape.vocabulary * shape.d_model
    return ModelParts((shape.block_weights,) * shape.n_layers, 2 * embedding, embedding)
