"""The forward passes of several batches of texts, and the activations put together from them."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from itda_core.devices import to_device
from itda_core.model.kept_rows import KeptRows
from itda_core.model.model import Activations, Model
from itda_core.model.tokens import Tokens


class Passes(Sequence):
    """The forward passes of several batches: of each the texts that go through the model together,
    as where it is in memory."""

    def __init__(self, model: Model, batches: Sequence[Tokens], kept: Sequence[KeptRows]):
        self._batches = batches
        self.texts: list[tuple[int, np.ndarray]] = [
            (batch, texts)
            for batch, tokens in enumerate(batches)
            for texts in model.forward_batches(tokens.lengths)
            if len(kept[batch].places(texts))
        ]
        """of each pass the batch and the numbers of its texts in that"""
        self.shapes = [
            (len(texts), int(batches[batch].lengths[texts].max())) for batch, texts in self.texts
        ]
        """texts and tokens of the longest, of each pass"""

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, number: int) -> Tokens:
        batch, texts = self.texts[number]
        return self._batches[batch].select(texts)


class Gathered:
    """The activations of each batch at one layer, put together from its passes."""

    def __init__(
        self, model: Model, passes: Passes, kept: Sequence[KeptRows], device: torch.device
    ):
        self._model, self._passes, self._kept, self._device = model, passes, kept, device
        self._last = {batch: number for number, (batch, _) in enumerate(passes.texts)}
        """The last pass of each batch"""
        self._rows: torch.Tensor | None = None
        self._given = 0
        """Batches given at the layer under way"""

    def add(
        self, layer: int, number: int, hidden: torch.Tensor
    ) -> Iterator[tuple[int, Activations]]:
        """The batches that are whole once a pass has given `hidden`, in their order."""
        batch, texts = self._passes.texts[number]
        kept = self._kept[batch]
        while self._given < batch:  # they have no rows
            yield self._whole(layer, self._empty(self._given))
        if self._rows is None:
            self._rows = self._empty(batch)
        rows = to_device(kept.rows(texts, hidden.shape[1]), hidden.device)
        places = to_device(kept.places(texts), self._device)
        self._rows[places] = hidden.flatten(0, 1)[rows].float().to(self._device)
        if number == self._last[batch]:
            rows, self._rows = self._rows, None
            yield self._whole(layer, rows)
        if number == len(self._passes) - 1:
            yield from self.nothing(layer)

    def nothing(self, layer: int) -> Iterator[tuple[int, Activations]]:
        """The batches that are left, which have no rows; the next layer begins anew."""
        while self._given < len(self._kept):
            yield self._whole(layer, self._empty(self._given))
        self._given = 0

    def _whole(self, layer: int, rows: torch.Tensor) -> tuple[int, Activations]:
        batch, self._given = self._given, self._given + 1
        kept = self._kept[batch]
        return batch, Activations({layer: rows}, kept.prompts, kept.positions)

    def _empty(self, batch: int) -> torch.Tensor:
        shape = (len(self._kept[batch]), self._model.d_model)
        return torch.full(shape, float("nan"), dtype=torch.float32, device=self._device)
