"""How large the parts of a model are: by the headers of its files, else by its configuration."""

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from itda_core.memory import size_in_words
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
    found = _blocks_and_others(stored)
    if found is None:
        return None
    blocks, others, _ = found
    counts = tuple(sum(tensor.count for tensor in block) for block in blocks)
    outside = [tensor.count for tensor in others.values()]
    on_disk = sum(tensor.n_bytes for tensor in stored.values())
    on_disk /= max(1, sum(counts) + sum(outside))
    return ModelParts(counts, sum(outside), max(outside, default=0), on_disk)


def swept_bytes(stored: dict[str, StoredTensor], dtype: torch.dtype) -> int | None:
    """Bytes of memory for the weights that are there at once where a model is read block by block,
    by the names on disk alone; None where no list of blocks is found. Of the encoder of a model of
    two parts it is too much: the decoder's weights are not told from its own.

    The table of embeddings and the head are the largest of what is no block, and all that is as
    large; what else stands beside the blocks stays in memory.
    """
    found = _blocks_and_others(stored)
    if found is None:
        return None
    blocks, others, path = found
    text = {name: one for name, one in others.items() if not OTHER_SENSES.search(name)}
    largest = max((tensor.count for tensor in text.values()), default=0)
    tables = [one for one in text.values() if one.count == largest and len(one.shape) == 2]
    part = f"{path.partition('.')[0]}."  # "bert." has no head within it, which is not loaded
    is_inside = [name.startswith(part) for name in text]
    stays = [
        one
        for one, inside in zip(text.values(), is_inside, strict=True)
        if one not in tables and (inside or not any(is_inside))
    ]
    return most_together(
        [_size(block, dtype) for block in blocks],
        [_size([table], dtype) for table in tables],
        _size(stays, dtype).in_memory,
    )


@dataclass(frozen=True)
class PartSize:
    """Bytes of a part of a model."""

    in_memory: int
    """in the data type that it is used in"""
    on_disk: int
    """in its files, whose data type may be the wider one"""

    @property
    def read_ahead(self) -> int:
        """While it is put in place, it takes what it does on disk, and later what it does then."""
        return max(self.in_memory, self.on_disk)


def most_together(blocks: Sequence[PartSize], tables: Sequence[PartSize], stays: int) -> int:
    """Bytes that memory must have room for where a model is read block by block: the two largest
    neighbours among the blocks, one of which is read ahead, the larger one of embeddings and head,
    and what stays."""
    pairs = [one.in_memory + other.read_ahead for one, other in itertools.pairwise(blocks)]
    most = max([*pairs, *(block.read_ahead for block in blocks)])
    return most + max((table.read_ahead for table in tables), default=0) + stays


def too_little_for(name: str, needed: int, memory: int) -> str:
    """The sentence for a model that even block by block takes more than may be used, bytes."""
    return (
        f"Even block by block {name} takes {size_in_words(needed)} of memory for two of its blocks "
        f"and what lies outside them; {size_in_words(memory)} may be used. Allow more, or choose a "
        "smaller model."
    )


def _size(tensors: Iterable[StoredTensor], dtype: torch.dtype) -> PartSize:
    tensors = list(tensors)
    return PartSize(
        sum(tensor.bytes_as(dtype) for tensor in tensors),
        sum(tensor.n_bytes for tensor in tensors),
    )


def _blocks_and_others(
    stored: dict[str, StoredTensor],
) -> tuple[list[list[StoredTensor]], dict[str, StoredTensor], str] | None:
    """The tensors of each block in their order, those of no block by name, and the path of the list
    of blocks; None where there is none."""
    lists: dict[str, dict[int, list[StoredTensor]]] = {}
    for name, tensor in stored.items():
        if (found := _BLOCK.match(name)) and not OTHER_SENSES.search(name):
            lists.setdefault(found[1], {}).setdefault(int(found[2]), []).append(tensor)
    if not lists:
        return None
    path = max(lists, key=lambda path: sum(one.count for of in lists[path].values() for one in of))
    others = {
        name: tensor
        for name, tensor in stored.items()
        if not ((found := _BLOCK.match(name)) and found[1] == path)
    }
    return [lists[path][number] for number in sorted(lists[path])], others, path


def likely_parts(shape: ModelShape) -> ModelParts:
    """By the configuration, an upper guess: attention with full heads, a gated MLP, a head of its
    own."""
    embedding = shape.vocabulary * shape.d_model
    return ModelParts((shape.block_weights,) * shape.n_layers, 2 * embedding, embedding)
