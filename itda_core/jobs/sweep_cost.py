"""What a model that is read block by block takes: bytes, memory, seconds (docs/scale.md)."""

import functools
import itertools
import os
import time
from dataclasses import dataclass
from pathlib import Path

from itda_core.model.sizes import ModelParts

DISK_SPEED = 1e9
"""Bytes a second that a disk is taken to read where it was not measured"""
_PROBE_SECONDS = 0.3
_PROBE_BYTES = 2**28
_TOGETHER = 2**23
_COPIES = 3
"""Of the hidden states on the disk at once"""


@functools.cache
def reading_speed(folder: Path | None) -> tuple[float, bool]:
    """Bytes a second at which a model's files are read, and whether that was measured: by reading
    some of the largest, of which the system forgets what it keeps in memory, where it can."""
    try:
        files = [] if folder is None else [*folder.glob("*.safetensors")]
        return _measured_speed(max(files, key=lambda path: path.stat().st_size)), True
    except (ValueError, OSError):  # there is none, or it holds nothing
        return DISK_SPEED, False


def _measured_speed(path: Path) -> float:
    count, started = 0, time.perf_counter()
    with path.open("rb", buffering=0) as file:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, _PROBE_BYTES, os.POSIX_FADV_DONTNEED)
        while count < _PROBE_BYTES and time.perf_counter() - started < _PROBE_SECONDS:
            block = file.read(_TOGETHER)
            if not block:
                break
            count += len(block)
    if not count:
        raise ValueError(path)
    return count / (time.perf_counter() - started)


@dataclass(frozen=True)
class SweepCost:
    """Of one pass of all tokens through the blocks of a model, one block in memory at a time."""

    read: int
    """bytes of weights that are read, each once"""
    held: int
    """bytes of weights that memory must have room for: the block that computes, the one that is
    read ahead, and the embedding or the head"""
    hidden: int
    """bytes of the hidden states that all tokens have between two blocks"""
    reading: float
    """seconds"""
    computing: float
    """seconds"""
    is_measured: bool = False
    """whether the disk's speed was, from which `reading` comes"""

    @property
    def hidden_on_disk(self) -> int:
        """Bytes that hidden states take at most there: those that the next block takes, the copy
        from which an interrupted training goes on, and the one that is about to replace it."""
        return _COPIES * self.hidden

    @property
    def seconds(self) -> float:
        """One block is read while the one before it computes, so that the longer of both counts."""
        return max(self.reading, self.computing)


def sweep_cost(
    parts: ModelParts,
    last: int,
    n_tokens: int,
    d_model: int,
    item: int,
    bytes_a_second: float,
    operations_a_second: float,
) -> SweepCost:
    """Of a sweep up to block `last`. n_tokens: all that go through the model, the first of each
    prompt and held-out ones too; item: bytes of a number in memory, and on disk where that is not
    known; operations_a_second: of the forward pass, two for each number of a block and token."""
    blocks = parts.blocks[: last + 1]
    stored = item if parts.on_disk is None else parts.on_disk
    ahead = max(item, stored)
    read = int(stored * (sum(blocks) + parts.largest_outside))
    pairs = itertools.pairwise((*parts.blocks, 0))
    blocks_held = max(max(item * one + ahead * following, ahead * one) for one, following in pairs)
    return SweepCost(
        read=read,
        held=int(blocks_held + ahead * parts.largest_outside),
        hidden=item * n_tokens * d_model,
        reading=read / bytes_a_second,
        computing=2 * sum(blocks) * n_tokens / operations_a_second,
    )
