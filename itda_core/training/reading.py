"""Where a training's activations come from, part by part."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from itda_core.activations.sources import Sources, sources_of
from itda_core.model.model import Activations
from itda_core.model.swept import SweptModel
from itda_core.runs.training_context import TrainingContext
from itda_core.training.swept_reading import SweptPass


@dataclass(frozen=True)
class Part:
    """The activations of one window of the plan, of all layers or of some; or only how far the
    reading is."""

    activations: Activations | None
    sources: Sources | None
    """of each row"""
    fraction: float | None = None
    """of the whole reading that is done, in [0, 1], where that is not told by the rows"""
    block: int | None = None
    """through which the texts go, where they go through one after another"""
    is_at_rest: bool = True
    """Whether a checkpoint now keeps all that was done"""


class Reader(Protocol):
    """Reads the windows of a plan, those of each layer in their order."""

    def parts(self, read: dict[int, int]) -> Iterator[Part]:
        """What is not read yet. read: windows of each layer that are."""
        ...

    def flush(self) -> None:
        """Bring to the disk what belongs to the parts that were given, before a checkpoint."""
        ...

    def keep(self) -> None:
        """Bring to the disk from where reading can go on, once a checkpoint is there."""
        ...

    def forget(self) -> None:
        """Drop what `keep` brought there, once all is read and a checkpoint says so."""
        ...


def reader_of(context: TrainingContext) -> Reader:
    """The reader for what a training reads from."""
    if isinstance(context.model, SweptModel):
        return SweptReader(context)
    return ModelReader(context)


class ModelReader:
    """Window by window through a model in memory, all layers in one pass."""

    def __init__(self, context: TrainingContext):
        self._context = context

    def parts(self, read: dict[int, int]) -> Iterator[Part]:
        for number in range(len(self._context.plan.windows)):
            # One that was read block by block before may be further at some layers.
            layers = [layer for layer in self._context.config.layers if read[layer] <= number]
            if layers:
                yield self._window(number, layers)  # and not held while the next one is captured

    def _window(self, number: int, layers: Sequence[int]) -> Part:
        plan, model = self._context.plan, self._context.model
        first, last = plan.windows[number]
        tokens = plan.tokens(first, last)
        activations = model.capture(tokens, layers, self._context.config.skip_first)
        return Part(activations, sources_of(tokens, plan.prompts[first:last], activations))

    def flush(self) -> None:
        """Nothing is kept beside what it gives."""

    def keep(self) -> None:
        """What is read tells where it goes on."""

    def forget(self) -> None:
        """Nothing was kept."""


class SweptReader:
    """Block by block: all windows go through one block before the next is read. Held-out
    activations are captured on the way, so that no weight is read twice."""

    def __init__(self, context: TrainingContext):
        self._context = context
        self._pass = SweptPass(context)

    def parts(self, read: dict[int, int]) -> Iterator[Part]:
        plan = self._context.plan
        for done in self._pass.through_blocks(read):
            progress = {"fraction": done.fraction, "block": done.block}
            if done.activations is None:
                yield Part(None, None, **progress, is_at_rest=done.ends_block)
                continue
            first, last = plan.windows[done.window]
            tokens, prompts = plan.tokens(first, last), plan.prompts[first:last]
            sources = sources_of(tokens, prompts, done.activations)
            yield Part(done.activations, sources, **progress, is_at_rest=False)

    def flush(self) -> None:
        """The held-out activations."""
        self._pass.flush()

    def keep(self) -> None:
        """The hidden states, where a block has just been done."""
        self._pass.keep()

    def forget(self) -> None:
        """The hidden states."""
        self._pass.forget()
