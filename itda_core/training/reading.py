"""Where a training's activations come from, part by part."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from itda_core.activations.sources import Sources, sources_of
from itda_core.model.model import Activations
from itda_core.runs.training_context import TrainingContext


@dataclass(frozen=True)
class Part:
    """The activations of one window of the plan, of all layers or of some."""

    activations: Activations
    sources: Sources
    """of each row"""


class Reader(Protocol):
    """Reads the windows of a plan, those of each layer in their order."""

    def parts(self, read: dict[int, int]) -> Iterator[Part]:
        """What is not read yet. read: windows of each layer that are."""
        ...


def reader_of(context: TrainingContext) -> Reader:
    """The reader for what a training reads from."""
    return ModelReader(context)


class ModelReader:
    """Window by window through a model in memory, all layers in one pass."""

    def __init__(self, context: TrainingContext):
        self._context = context

    def parts(self, read: dict[int, int]) -> Iterator[Part]:
        plan, config = self._context.plan, self._context.config
        for first, last in plan.windows[min(read.values()) :]:
            tokens = plan.tokens(first, last)
            activations = self._context.model.capture(tokens, config.layers, config.skip_first)
            yield Part(activations, sources_of(tokens, plan.prompts[first:last], activations))
