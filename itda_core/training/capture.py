"""The pass over the prompts: activations to the builders and, of the explored part, to disk."""

import time

from itda_core.activations.massive import usable
from itda_core.activations.sources import sources_of
from itda_core.devices import is_out_of_memory, to_host
from itda_core.dictionary.dictionary import Dictionary
from itda_core.errors import ItdaError
from itda_core.runs.training_context import TrainingContext
from itda_core.selection.builders import make_builder


class Capture:
    """How far the pass is: all that a checkpoint keeps."""

    def __init__(self, context: TrainingContext):
        """Begins anew, or goes on from the workspace's newest checkpoint."""
        self.context = context
        config = context.config
        # Before the arrays that it needs are made anew.
        checkpoint = context.workspace.load_checkpoint()
        self.explored = {
            layer: context.rows(f"activations-{layer}", context.explored_rows)
            for layer in config.layers
        }
        self.builders = {layer: make_builder(context, layer) for layer in config.layers}
        self.window = self.row = 0
        self.seconds = 0.0
        self.bad_rows = dict.fromkeys(config.layers, 0)
        self._is_let_go = False
        if checkpoint is not None:
            self._restore(*checkpoint)

    @property
    def is_done(self) -> bool:
        """At the end of the plan, or when all is full and the explored part is captured."""
        if self.window == len(self.context.plan.windows):
            return True
        is_full = all(builder.is_full for builder in self.builders.values())
        return is_full and self.row >= self.context.explored_rows

    @property
    def fraction(self) -> float:
        """Of the plan, in [0, 1]."""
        return self.row / self.context.plan.total_rows

    def next_window(self) -> None:
        """Capture one window and hand its activations on."""
        started, (config, plan) = time.monotonic(), (self.context.config, self.context.plan)
        first, last = plan.windows[self.window]
        tokens = plan.tokens(first, last)
        try:
            activations = self.context.model.capture(tokens, config.layers, config.skip_first)
            # One wait for the device, for all layers.
            good = to_host(*(usable(rows) for rows in activations.values()))
        except Exception as error:  # of this window nothing has been handed on yet
            if isinstance(error, ItdaError) or is_out_of_memory(error):
                self.checkpoint()
            raise
        sources = sources_of(tokens, plan.prompts[first:last], activations)
        room = self.context.explored_rows - self.row
        for (layer, rows), is_good in zip(activations.items(), good, strict=True):
            if room > 0:
                self.explored[layer].write(self.row, rows[:room])
            self.bad_rows[layer] += int((~is_good).sum())
            self.builders[layer].offer(self.row, rows, sources)
        self.row += len(sources)
        self.window += 1
        self.seconds += time.monotonic() - started

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
        state = {
            "window": self.window,
            "row": self.row,
            "seconds": self.seconds,
            "bad_rows": {str(layer): count for layer, count in self.bad_rows.items()},
        }
        dictionaries = {
            layer: builder.atoms().dictionary(self.context, layer)
            for layer, builder in self.builders.items()
            if builder.n_atoms
        }
        self.context.workspace.save_checkpoint(self.window, dictionaries, state)

    def let_go(self, layer: int) -> None:
        """The run of a layer is written: what was kept for it is not needed any more."""
        self._is_let_go = True
        self.explored[layer].close()
        self.builders[layer].close()

    def _restore(self, dictionaries: dict[int, Dictionary], state: dict) -> None:
        self.window, self.row, self.seconds = state["window"], state["row"], state["seconds"]
        self.bad_rows = {int(layer): count for layer, count in state["bad_rows"].items()}
        for layer, dictionary in dictionaries.items():
            table = dictionary.sources.drop(columns="latent").assign(word=dictionary.words)
            sources = [tuple(row) for row in table.itertuples(index=False)]
            self.builders[layer].restore(dictionary.atoms, sources)
