"""A model that answers as one does whose blocks are read one after another: layer by layer, with
progress in between, and only when it is asked for all texts in one call.

Its values are the model's own, so that what works with it gives what works with a model in memory.
"""

import copy
from contextlib import contextmanager

from itda_core.model.model import Activations, Model
from itda_core.model.steps_of_work import Step

_ONE_BY_ONE = ("capture", "hidden", "logits", "logits_after", "run", "run_base", "splice")


class SweptLike(Model):
    """Refuses what would read all its blocks for one batch of texts."""

    is_swept = True

    def __init__(self, model):
        vars(self).update(vars(copy.copy(model)))
        self._resident = model
        self.sweeps = []
        """first and last block of each call"""
        for name in _ONE_BY_ONE:
            setattr(self, name, _refused(name))

    def capture_each(self, batches, layers, skip_first=True, to=None):
        batches, last = list(batches), max(layers)
        with self._sweep(0, last):
            for block in range(last + 1):
                yield Step(block / (last + 1))
                for number, tokens in enumerate(batches) if block in layers else ():
                    found = self._resident.capture(tokens, [block], skip_first, to)
                    rows = Activations({block: found[block]}, found.prompts, found.positions)
                    yield Step((block + (number + 1) / len(batches)) / (last + 1), number, rows)

    def hidden_each(self, batches, layer):
        batches = list(batches)
        with self._sweep(0, layer):
            for block in range(layer + 1):
                yield Step(block / (layer + 1))
            for number, tokens in enumerate(batches):
                fraction = (layer + (number + 1) / len(batches)) / (layer + 1)
                yield Step(fraction, number, self._resident.hidden(tokens, layer))

    def logits_after_each(self, layer, streams, n_tokens=None):
        streams, blocks = list(streams), self.n_layers - layer  # the head is one more
        with self._sweep(layer + 1, self.n_layers):
            for block in range(blocks):
                yield Step(block / blocks)
            for number, (tokens, hidden) in enumerate(streams):
                fraction = (blocks - 1 + (number + 1) / len(streams)) / blocks
                yield Step(fraction, number, self._resident.logits_after(tokens, layer, hidden))

    def unembed(self, hidden):
        with self._sweep(self.n_layers, self.n_layers):
            return self._resident.unembed(hidden)

    @contextmanager
    def _sweep(self, first, last):
        self.sweeps.append((first, last))
        yield


def _refused(name):
    def refuse(*_arguments, **_options):
        raise AssertionError(f"{name} would read every block for these texts alone")

    return refuse
