"""The pass over the prompts, made by the workers of a cluster, and the choice of atoms."""

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from itda_core.cluster.choosing import Chosen, part_rows, parts_folder
from itda_core.cluster.kept_parts import KeptRows, PartRows
from itda_core.cluster.messages import Captured, Share
from itda_core.cluster.pool import Call, Pool
from itda_core.files.json_files import read_json, write_json
from itda_core.runs.training_context import TrainingContext
from itda_core.selection.builders import Atoms
from itda_core.training.held_out import held_out_plan
from itda_core.training.trainer import CHECKPOINT_SECONDS

_AHEAD = 2
"""Parts that a worker is given at a time, where its model is in memory"""


class ClusterCapture:
    """How far the pass is: what is written is told by the folder of the parts."""

    block = None
    is_at_rest = True

    def __init__(self, context: TrainingContext, pool: Pool):
        """Goes on from the parts that are there, once `take_up` has told them."""
        self.context, self._pool = context, pool
        config, width = context.config, context.model.d_model
        self.layers = [layer for layer in config.layers if not context.is_written(layer)]
        self.kept = KeptRows(context.plan, config, width)
        self.held_out = held_out_plan(context)
        self._parts = {
            layer: part_rows(context, layer, self.kept, len(self.kept.rows))
            for layer in self.layers
        }
        self.explored = {
            layer: part_rows(context, layer, self.kept, context.explored_rows)
            for layer in self.layers
        }
        self.builders = {layer: ChosenFar(self, layer) for layer in self.layers}
        self.chosen: dict[int, Chosen] = {}
        self.rows = dict.fromkeys(self.layers, 0)
        self.bad_rows = dict.fromkeys(self.layers, 0)
        folder = parts_folder(context, self.kept)
        folder.mkdir(exist_ok=True)
        self._clock = folder / "seconds.json"
        self.seconds = seconds_before(self._clock)
        self._kept_at = time.monotonic()
        self._missing: dict[int, set[int]] = {}
        """The layers that each part lacks, the held-out prompts being the last part"""
        self._swept: dict[Call, float] = {}
        """How much of each call of a worker that reads block by block is done"""

    def take_up(self) -> Iterator[None]:
        """Find out which parts are there; comes back after each, which may take seconds to read."""
        for number in range(len(self.kept.parts) + (self.held_out is not None)):
            parts = self._parts.items()
            self._missing[number] = {layer for layer, rows in parts if not rows.take_up(number)}
            if len(self._missing[number]) < len(parts):
                yield

    def run(self) -> Iterator[None]:
        """Have all that is missing captured; comes back whenever a worker tells how far it is, and
        now and then in between."""
        is_swept = self.context.model.is_swept
        calls = self._shared_out() if is_swept else self._one_by_one()
        started = time.monotonic()
        for heard in self._pool.run(calls, ahead=1 if is_swept else _AHEAD):
            self.seconds, started = self.seconds + time.monotonic() - started, time.monotonic()
            if heard is not None:
                self._take_in(*heard)
            if started - self._kept_at > CHECKPOINT_SECONDS:
                self.keep_seconds()
            yield

    def keep_seconds(self) -> None:
        """What was done took so long, as who goes on has to know."""
        self._kept_at = time.monotonic()
        if self._clock.parent.exists():  # not once all is written
            write_json(self._clock, {"seconds": self.seconds})

    def _take_in(self, call: Call, captured: Captured) -> None:
        if self.context.model.is_swept:
            # A call that is made again begins anew: what it takes is not told twice.
            self._swept[call] = max(self._swept.get(call, 0.0), captured.fraction)
        if captured.part is not None:
            self._missing[captured.part].discard(captured.layer)

    def _one_by_one(self) -> Iterator[Call]:
        for number, layers in [*self._missing.items()]:
            if layers:
                yield self._call([number])

    def _shared_out(self) -> Iterator[Call]:
        """An equal share for each worker, in one call, so that each reads the weights once."""
        missing = [number for number, layers in self._missing.items() if layers]
        count = min(len(missing), self._pool.workers)
        for worker in range(count):
            yield self._call(missing[worker::count])

    def _call(self, parts: list[int]) -> Call:
        shares = [self._share(number) for number in parts]
        return Call("capture", (shares, self.context.config.skip_first))

    def _share(self, number: int) -> Share:
        to = [self._parts[layer] for layer in sorted(self._missing[number])]
        if number == len(self.kept.parts):
            return Share(number, [self.held_out.texts], None, to)
        windows, plan = range(*self.kept.parts[number]), self.context.plan
        texts = [plan.texts[slice(*plan.windows[window])] for window in windows]
        return Share(number, texts, [self.kept.of_window(window) for window in windows], to)

    @property
    def tokens(self) -> int:
        """Of the parts that are written."""
        there = [part for part in range(len(self.kept.parts)) if not self._missing[part]]
        return sum(self._rows_of(part) for part in there)

    def _rows_of(self, part: int) -> int:
        first, last = self.kept.parts[part]
        return int(self.kept.edges[last] - self.kept.edges[first])

    @property
    def fraction(self) -> float:
        if self._swept:
            return sum(self._swept.values()) / max(len(self._swept), self._pool.workers)
        return self.tokens / self.context.plan.total_rows

    def left_out(self, layer: int | None = None) -> dict[str, int]:
        """What was not read or can't be used, and how often; of all layers, or of one."""
        layers = self.bad_rows if layer is None else [layer]
        count = sum(self.bad_rows[layer] for layer in layers)
        unusable = {"activations not finite or zero": count} if count else {}
        return {**self.context.left_out(), **unusable}

    def let_go(self, layer: int) -> None:
        """The parts go with the workspace, when all layers are written."""

    def choose(self) -> Iterator[None]:
        """Have the atoms of all layers chosen, beside each other by as many workers; comes back now
        and then."""
        context, started = self.context, time.monotonic()
        what = self._pool.share((context.config, context.plan, context.workspace.training_id))
        calls = {Call("choose", (layer, what)): layer for layer in self.layers}
        for heard in self._pool.run(calls):
            if heard is not None:
                call, chosen = heard
                layer = calls[call]
                self.chosen[layer] = chosen
                self.rows[layer], self.bad_rows[layer] = chosen.rows, chosen.bad_rows
            self.seconds, started = self.seconds + time.monotonic() - started, time.monotonic()
            yield

    def held_out_rows(self, layer: int) -> PartRows | None:
        """Those that the workers have written; None where there are none."""
        if self.held_out is None:
            return None
        count = self.held_out.total_rows
        starts = np.concatenate([np.zeros_like(self.kept.starts), [count]])
        return replace(self._parts[layer], starts=starts, length=count)


def seconds_before(file: Path) -> float:
    """How long the training took before it was interrupted."""
    with contextlib.suppress(Exception):  # whatever the file holds
        seconds = float(read_json(file)["seconds"])
        return seconds if math.isfinite(seconds) and seconds >= 0 else 0.0
    return 0.0


class ChosenFar:
    """The dictionary of a layer, which a worker has chosen when it is asked for."""

    mean_error: float | None = None
    n_atoms = 0
    is_full = False

    def __init__(self, capture: ClusterCapture, layer: int):
        self._capture, self._layer = capture, layer
        self.notes: list[str] = []

    def atoms(self) -> Atoms:
        chosen = self._capture.chosen[self._layer]
        self.notes = chosen.notes
        return chosen.atoms
