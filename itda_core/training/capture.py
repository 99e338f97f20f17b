"""What is read of the prompts: activations to the builders and, of the explored part, to disk."""

import time
from dataclasses import replace

import torch

from itda_core.activations.massive import usable
from itda_core.devices import is_out_of_memory, to_host
from itda_core.dictionary.dictionary import Dictionary
from itda_core.errors import ItdaError
from itda_core.runs.training_context import TrainingContext
from itda_core.selection.builders import make_builder
from itda_core.training.reading import Part, reader_of


class Capture:
    """How far the pass is: all that a checkpoint keeps."""

    def __init__(
        self, context: TrainingContext, checkpoint: tuple[dict[int, Dictionary], dict] | None
    ):
        """Begins anew, or goes on from a checkpoint, which the workspace has loaded: that cuts off
        what came after it of the rows that are taken up here."""
        self.context = context
        config = context.config
        self.explored = {
            layer: context.rows(f"activations-{layer}", context.explored_rows)
            for layer in config.layers
        }
        self.builders = {layer: make_builder(context, layer) for layer in config.layers}
        self.windows = dict.fromkeys(config.layers, 0)
        """Windows of each layer that are read"""
        self.rows = dict.fromkeys(config.layers, 0)
        """Activations of each layer that are read"""
        self.n_parts = 0
        """How often something was read: numbers the checkpoints"""
        self.seconds = 0.0
        self.bad_rows = dict.fromkeys(config.layers, 0)
        self._is_let_go = False
        if checkpoint is not None:
            self._restore(*checkpoint)
        self._reader = reader_of(context)
        self._parts = self._reader.parts(self._read())
        self._newest: Part | None = None

    @property
    def is_done(self) -> bool:
        """At the end of the plan, or when all is full and the explored part is captured."""
        return all(self._is_done(layer) for layer in self.windows)

    def _is_done(self, layer: int) -> bool:
        if self.windows[layer] == len(self.context.plan.windows):
            return True
        return self.builders[layer].is_full and self.rows[layer] >= self.context.explored_rows

    def _read(self) -> dict[int, int]:
        """Windows of each layer that need no reading any more."""
        n_windows = len(self.context.plan.windows)
        return {
            layer: n_windows if self._is_done(layer) else count
            for layer, count in self.windows.items()
        }

    @property
    def fraction(self) -> float:
        """Of the reading, in [0, 1]: by the activations of all layers, where it does not say."""
        if self._newest is not None and self._newest.fraction is not None:
            return self._newest.fraction
        return sum(self.rows.values()) / (len(self.rows) * self.context.plan.total_rows)

    @property
    def tokens(self) -> int:
        """Tokens of which all layers are read that need any more."""
        going_on = [rows for layer, rows in self.rows.items() if not self._is_done(layer)]
        return min(going_on, default=max(self.rows.values()))

    @property
    def block(self) -> int | None:
        """Through which all texts go, where they go through one after another."""
        return self._newest and self._newest.block

    @property
    def is_at_rest(self) -> bool:
        """Whether a checkpoint now keeps all that was done."""
        return self._newest is None or self._newest.is_at_rest

    def next_part(self) -> bool:
        """Read what comes next, and hand its activations on; whether there were any."""
        started = time.monotonic()
        try:
            part = next(self._parts)
            # Without its rows, which would lie beside the next ones.
            self._newest = replace(part, activations=None, sources=None)
            if part.activations is None:
                self.seconds += time.monotonic() - started
                return False
            # One wait for the device, for all layers.
            good = to_host(*(usable(rows) for rows in part.activations.values()))
        except Exception as error:  # of this part nothing has been handed on yet
            if isinstance(error, ItdaError) or is_out_of_memory(error):
                self.checkpoint()
            raise
        self._hand_on(part, dict(zip(part.activations, good, strict=True)))
        self.n_parts += 1
        self.seconds += time.monotonic() - started
        return True

    def stop_reading(self) -> None:
        """Let go of what the reading holds: a block of the model, for one."""
        self._parts.close()

    def _hand_on(self, part: Part, is_good: dict[int, torch.Tensor]) -> None:
        """is_good: which rows of each layer are usable, on the host. A layer that is done takes no
        more, whichever way the others are read: what its run says does not depend on it."""
        for layer, rows in part.activations.items():
            if self._is_done(layer):
                continue
            first = self.rows[layer]
            room = self.context.explored_rows - first
            if room > 0:
                self.explored[layer].write(first, rows[:room])
            self.bad_rows[layer] += int((~is_good[layer]).sum())
            self.builders[layer].offer(first, rows, part.sources)
            self.rows[layer] += len(rows)
            self.windows[layer] += 1

    def left_out(self, layer: int | None = None) -> dict[str, int]:
        """What was not read or can't be used, and how often; of all layers, or of one."""
        layers = self.bad_rows if layer is None else [layer]
        count = sum(self.bad_rows[layer] for layer in layers)
        unusable = {"activations not finite or zero": count} if count else {}
        return {**self.context.left_out(), **unusable}

    def checkpoint(self) -> None:
        """Bring everything to the disk, from where the training can go on. Once a layer is let go
        of, what is there stands."""
        if self._is_let_go:
            return
        for rows in (*self.explored.values(), *self.builders.values()):
            rows.flush()
        self._reader.flush()
        state = {
            "parts": self.n_parts,
            "windows": _by_name(self.windows),
            "rows": _by_name(self.rows),
            "seconds": self.seconds,
            "bad_rows": _by_name(self.bad_rows),
        }
        dictionaries = {
            layer: builder.atoms().dictionary(self.context, layer)
            for layer, builder in self.builders.items()
            if builder.n_atoms
        }
        self.context.workspace.save_checkpoint(self.n_parts, dictionaries, state)
        if self.is_done:  # atoms are chosen from the rows alone
            self._reader.forget()
        else:
            self._reader.keep()

    def let_go(self, layer: int) -> None:
        """The run of a layer is written: what was kept for it is not needed any more."""
        self._is_let_go = True
        self.explored[layer].close()
        self.builders[layer].close()

    def _restore(self, dictionaries: dict[int, Dictionary], state: dict) -> None:
        self.seconds, self.bad_rows = state["seconds"], _by_layer(state["bad_rows"])
        if "windows" in state:
            self.n_parts = state["parts"]
            self.windows, self.rows = _by_layer(state["windows"]), _by_layer(state["rows"])
        else:  # of an earlier version, which read all layers together
            self.n_parts = state["window"]
            self.windows = dict.fromkeys(self.windows, state["window"])
            self.rows = dict.fromkeys(self.rows, state["row"])
        for layer, dictionary in dictionaries.items():
            table = dictionary.sources.drop(columns="latent").assign(word=dictionary.words)
            sources = [tuple(row) for row in table.itertuples(index=False)]
            self.builders[layer].restore(dictionary.atoms, sources)


def _by_name(counts: dict[int, int]) -> dict[str, int]:
    """As JSON keeps it."""
    return {str(layer): count for layer, count in counts.items()}


def _by_layer(counts: dict[str, int]) -> dict[int, int]:
    return {int(layer): count for layer, count in counts.items()}
