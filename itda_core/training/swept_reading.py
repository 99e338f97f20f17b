"""The pass of a training through a model that is read block by block.

The texts go through one block after another, held-out ones first. What a block gave for all of them
is kept until the next has taken it; now and then it is brought to the disk, from where the pass
goes on after an interruption.
"""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from itda_core.activations.plan import LazyBatches, Plan
from itda_core.model.hidden_states import HiddenStates, KeptStates
from itda_core.model.kept_rows import KeptRows
from itda_core.model.model import Activations
from itda_core.model.passes import Gathered, Passes
from itda_core.runs.rows import RowFile
from itda_core.runs.training_context import TrainingContext
from itda_core.training.held_out import held_out_plan, held_out_rows


@dataclass(frozen=True)
class Done:
    """What has just been done."""

    block: int
    fraction: float
    """of the whole pass, in [0, 1]"""
    window: int | None = None
    """of the plan, whose activations of the block are there"""
    activations: Activations | None = None
    ends_block: bool = False
    """Whether all texts are through the block"""


class SweptPass:
    """Takes the windows of a plan, and the held-out texts, through the blocks of a model."""

    def __init__(self, context: TrainingContext):
        self._context, self._config = context, context.config
        self._held_out = held_out_plan(context)
        self._batches = _Batches(context.plan, self._held_out)
        kept = _Kept(self._batches, self._config.skip_first)
        self._passes = Passes(context.model, self._batches, kept)
        self._gathered = Gathered(context.model, self._passes, kept, context.device)
        width, dtype = context.model.d_model, getattr(torch, context.model.dtype)
        shapes = [(*shape, width) for shape in self._passes.shapes]
        self._on_disk = KeptStates(context.workspace.directory, shapes, dtype)
        self._rows: dict[int, RowFile] = {}
        """Held-out rows by layer"""
        self._states: HiddenStates | None = None
        self._whole: int | None = None
        """The block whose output `_states` holds of all texts"""

    def through_blocks(self, read: dict[int, int]) -> Iterator[Done]:
        """All blocks from where the pass can go on up to the last layer. read: windows of each
        layer that are; those are not given again."""
        first, last = self._first_block(read), max(self._config.layers)
        self._states = self._context.model.new_states(self._context.workspace.directory)
        try:
            if first and not self._on_disk.load(first - 1, self._states):
                first = 0
            yield from self._sweep(range(first, last + 1), read)
            self.flush()
        except GeneratorExit:
            with contextlib.suppress(OSError):  # what does not come to the disk is read again
                self.flush()
            raise
        finally:
            self._whole = None
            self._states.close()

    def _sweep(self, blocks: range, read: dict[int, int]) -> Iterator[Done]:
        total = len(blocks) * len(self._passes)
        passes = self._context.model.sweep(self._passes, blocks, self._states, layers=read)
        for done, (block, number, hidden) in enumerate(passes, start=1):
            self._whole = None
            at = functools.partial(Done, block, done / total)
            if block in read:
                for window, rows in self._windows(block, number, hidden):
                    if window >= read[block]:
                        yield at(window, rows)
            is_last = number == len(self._passes) - 1
            if is_last and block < blocks[-1]:
                self._whole = block
            yield at(ends_block=is_last)

    def _windows(
        self, block: int, number: int, hidden: torch.Tensor
    ) -> Iterator[tuple[int, Activations]]:
        """The windows that are whole with a pass; held-out rows go to their file."""
        for batch, rows in self._gathered.add(block, number, hidden):
            if batch < self._batches.held_out:
                file = self._held_out_rows(block)
                if file.written < len(file):  # else a checkpoint counts with what is there
                    file.write(0, rows[block])
            else:
                yield batch - self._batches.held_out, rows

    def _held_out_rows(self, layer: int) -> RowFile:
        if layer not in self._rows:
            self._rows[layer] = held_out_rows(self._context, self._held_out, layer)
        return self._rows[layer]

    def _first_block(self, read: dict[int, int]) -> int:
        """The one after that whose output is on the disk, where all that was to be read of the
        blocks up to there is; else the first one."""
        newest, n_windows = self._on_disk.newest(), len(self._context.plan.windows)
        if newest is None or newest >= max(read):
            return 0
        is_read = all(count == n_windows for layer, count in read.items() if layer <= newest)
        return newest + 1 if is_read else 0

    def flush(self) -> None:
        """Bring the held-out rows to the disk."""
        for rows in self._rows.values():
            rows.flush()

    def keep(self) -> None:
        """Bring the hidden states to the disk, where all texts are through a block and not yet in
        the next."""
        if self._whole is not None and self._on_disk.newest() != self._whole:
            self._on_disk.save(self._whole, self._states)

    def forget(self) -> None:
        """Drop what was brought to the disk: no block is computed again."""
        self._on_disk.remove()


class _Batches(LazyBatches):
    """The held-out texts, where there are any, and the windows of a plan."""

    def __init__(self, plan: Plan, held_out: Plan | None):
        windows = [functools.partial(plan.tokens, *window) for window in plan.windows]
        first = []
        if held_out is not None:
            first = [functools.partial(held_out.tokens, 0, len(held_out.prompts))]
        self.held_out = len(first)
        """How many of them are held out"""
        super().__init__([*first, *windows])


class _Kept(Sequence):
    """Which rows of each batch are kept, worked out when it is asked for."""

    def __init__(self, batches: _Batches, skip_first: bool):
        self._batches, self._skip_first = batches, skip_first
        self._newest: tuple[int, KeptRows] | None = None

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> KeptRows:
        if self._newest is None or self._newest[0] != number:
            self._newest = number, KeptRows(self._batches[number], self._skip_first)
        return self._newest[1]
