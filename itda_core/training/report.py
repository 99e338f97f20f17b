"""How far a training is, as its stages tell it; every line also goes into its progress.jsonl."""

import json
import time
from collections import deque
from datetime import UTC, datetime
from typing import Protocol

from itda_core.progress import Progress
from itda_core.runs.rows import DeviceRows, RowFile
from itda_core.runs.training_context import TrainingContext
from itda_core.selection.builders import Builder

_CAPTURE_SHARE = 0.85
"""Share of the whole time that the pass over the prompts takes, for the estimate of the rest."""
_RECENT_WINDOWS = 8


class Captured(Protocol):
    """A pass over the prompts, as its progress is told and its runs are written from it."""

    builders: dict[int, Builder]
    explored: dict[int, RowFile | DeviceRows]
    rows: dict[int, int]
    """Activations of each layer that are read"""
    bad_rows: dict[int, int]
    """Those of them that can't be used"""
    seconds: float

    @property
    def tokens(self) -> int:
        """Of which all layers are read that need any more."""
        ...

    @property
    def fraction(self) -> float:
        """Of the reading, in [0, 1]."""
        ...

    @property
    def block(self) -> int | None:
        """Through which all texts go, where they go through one after another."""
        ...

    @property
    def is_at_rest(self) -> bool:
        """Whether all that was done is kept."""
        ...

    def left_out(self, layer: int | None = None) -> dict[str, int]:
        """What was not read or can't be used, and how often; of all layers, or of one."""
        ...

    def let_go(self, layer: int) -> None:
        """The run of a layer is written: what was kept for it is not needed any more."""
        ...


class Report:
    """The progress of one training."""

    def __init__(self, context: TrainingContext, capture: Captured):
        self._context, self._capture = context, capture
        self.progress = Progress(
            "moving" if context.moved else "training",
            context.workspace.training_id,
            tokens=capture.tokens,
            total_tokens=context.plan.total_rows,
            asked_tokens=context.asked_tokens,
            max_atoms=context.config.max_atoms,
            skipped=capture.left_out(),
            notes=context.notes,
        )
        self._began: tuple[float, float] | None = None
        """Seconds and fraction when the first part was read, which takes longer than the others"""
        self._recent = deque([(time.monotonic(), capture.tokens)], maxlen=_RECENT_WINDOWS)

    def window(self) -> Progress:
        """One more window is captured, or, by others, perhaps nothing since."""
        progress, capture = self.progress, self._capture
        now, row = time.monotonic(), capture.tokens
        if row > self._recent[-1][1]:  # of several machines much comes at once, and long nothing
            self._recent.append((now, row))
        start, first_row = self._recent[0]
        progress.tokens = row
        progress.tokens_per_second = (row - first_row) / max(now - start, 1e-9)
        builders = capture.builders.items()
        errors = {layer: builder.mean_error for layer, builder in builders}
        progress.mean_error = {layer: e for layer, e in errors.items() if e is not None}
        progress.atoms = {layer: builder.n_atoms for layer, builder in builders}
        progress.skipped = capture.left_out()
        self._follow()
        self._log()
        return progress

    def block(self) -> Progress:
        """Some texts more are through a block of the model."""
        self._follow()
        if self._capture.is_at_rest:
            self._log()
        return self.progress

    def _follow(self) -> None:
        self.progress.block = self._capture.block
        self._estimate(_CAPTURE_SHARE * self._capture.fraction)

    def layer(self, layer: int) -> Progress:
        """The atoms of a layer are about to be chosen; those of a move are known."""
        layers = self._context.config.layers
        share = layers.index(layer) / len(layers)
        self.progress.layer = layer
        if not self._context.moved:
            self.progress.stage = "choosing"
        self.progress.block = None
        self.progress.tokens_per_second = 0.0
        self._estimate(_CAPTURE_SHARE + (1 - _CAPTURE_SHARE) * share)
        return self.progress

    def encoding(self, layer: int, n_atoms: int) -> Progress:
        """They are chosen, and the explored tokens are about to be encoded."""
        self.progress.stage, self.progress.atoms[layer] = "encoding", n_atoms
        return self.progress

    def done(self) -> Progress:
        self.progress.finish()
        self._log()
        return self.progress

    def _estimate(self, fraction: float) -> None:
        seconds = self._capture.seconds
        self.progress.follow(fraction, 0.0, 1.0, seconds)
        began, self._began = self._began, self._began or (seconds, fraction)
        if began and fraction > began[1]:
            rate = (seconds - began[0]) / (fraction - began[1])
            self.progress.seconds_left = rate * (1 - self.progress.fraction)

    def _log(self) -> None:
        line = {"time": datetime.now(UTC).isoformat(), **self.progress.to_dict()}
        self._context.workspace.add_to_log(json.dumps(line))
