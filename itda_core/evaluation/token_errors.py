"""Where a dictionary reconstructs badly: errors by position, by token frequency and by norm."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from itda_core.activations.massive import massive
from itda_core.corpus.corpus import Prompt
from itda_core.devices import in_float64, to_device, to_host
from itda_core.evaluation.metrics import cosines
from itda_core.model.model import Model

COUNTED_TOKENS = 2**19
"""Tokens of the training part in which frequencies are counted, at most."""
_COUNT_TOGETHER = 256
_NORM_BINS = 10

Bin = dict[str, float | int | None]
"""from and to (both included), tokens, fvu, cosine"""


@dataclass(frozen=True)
class TokenErrors:
    """What is known of every evaluated token, [n_tokens] each.

    A bin's `fvu` is Σ‖x − x̂‖² / Σ‖x − x̄‖² over its tokens, with x̄ the mean of all tokens but the
    massive activations; `cosine` is the mean of cos(x, x̂). Massive activations are in no bin but
    their own, since one of them would be all that a bin shows. So the bins of each kind together
    give the FVU without massive activations.
    """

    positions: np.ndarray
    """in the prompt, the first token being 0"""
    frequencies: np.ndarray | None
    """how often the token occurs in the training part of the corpus; None where that is unknown"""
    norms: np.ndarray
    """‖x‖"""
    squared_errors: np.ndarray
    """‖x − x̂‖²"""
    squared_distances: np.ndarray
    """‖x − x̄‖²"""
    cosines: np.ndarray
    is_massive: np.ndarray
    """bool"""

    @classmethod
    def of(
        cls,
        activations: torch.Tensor,
        reconstructions: torch.Tensor,
        positions: np.ndarray,
        frequencies: np.ndarray | None,
        median_norm: float,
    ) -> "TokenErrors":
        """activations and reconstructions: [n_tokens, d_model], on one device."""
        gathered = GatheredErrors()
        gathered.add(activations, reconstructions)
        return gathered.finished(lambda: [activations], positions, frequencies, median_norm)

    def by_position(self) -> list[Bin]:
        """Bins 1, 2–3, 4–7, 8–15 … of the position; 0 by itself, where first ones are kept."""
        return self._whole_number_bins(self.positions, 2)

    def by_frequency(self) -> list[Bin]:
        """Bins 0, 1–9, 10–99, 100–999 … of how often the token occurs in the training part."""
        return [] if self.frequencies is None else self._whole_number_bins(self.frequencies, 10)

    def by_norm(self) -> list[Bin]:
        """Ten bins of equally many tokens, in order of ‖x‖."""
        usual = np.flatnonzero(~self.is_massive)
        ordered = usual[np.argsort(self.norms[usual], kind="stable")]
        parts = np.array_split(ordered, _NORM_BINS)
        return [self._bin(rows, *self.norms[rows[[0, -1]]].tolist()) for rows in parts if len(rows)]

    def massive_bin(self) -> list[Bin]:
        """The massive activations, if there are any."""
        rows = np.flatnonzero(self.is_massive)
        norms = self.norms[rows]
        return [self._bin(rows, float(norms.min()), float(norms.max()))] if len(rows) else []

    def to_dict(self) -> dict[str, list[Bin]]:
        """All bins as JSON types."""
        return {
            "position": self.by_position(),
            "frequency": self.by_frequency(),
            "norm": self.by_norm(),
            "massive": self.massive_bin(),
        }

    def _whole_number_bins(self, values: np.ndarray, base: int) -> list[Bin]:
        """0 alone, then from each power of `base` up to the next; bins without tokens left out."""
        bins, first, after = [], 0, 1
        while first <= values.max(initial=0):
            rows = np.flatnonzero((values >= first) & (values < after) & ~self.is_massive)
            if len(rows):
                bins.append(self._bin(rows, first, after - 1))
            first, after = after, after * base
        return bins

    def _bin(self, rows: np.ndarray, first: float, last: float) -> Bin:
        distance = float(self.squared_distances[rows].sum())
        return {
            "from": first,
            "to": last,
            "tokens": len(rows),
            "fvu": float(self.squared_errors[rows].sum()) / distance if distance > 0 else None,
            "cosine": float(self.cosines[rows].mean()),
        }


class GatheredErrors:
    """What is known of tokens, batch by batch; no reconstruction is kept for it."""

    def __init__(self):
        self._parts: list[tuple[torch.Tensor, ...]] = []
        """‖x‖, ‖x − x̂‖² and cos(x, x̂) of each batch, where it was"""

    def add(self, activations: torch.Tensor, reconstructions: torch.Tensor) -> None:
        """Both: [n_tokens, d_model], on the device of the batches before."""
        x, xhat = in_float64(activations), in_float64(reconstructions)
        self._parts.append((x.norm(dim=1), (x - xhat).square().sum(1), cosines(x, xhat)))

    def finished(
        self,
        batches: Callable[[], Iterable[torch.Tensor]],
        positions: np.ndarray,
        frequencies: np.ndarray | None,
        median_norm: float,
    ) -> TokenErrors:
        """batches: gives the activations again, as often as it is asked; positions, frequencies: of
        all tokens, [n_tokens]."""
        norms, errors, likeness = map(torch.cat, zip(*self._parts, strict=True))
        norms, errors, likeness = to_host(norms, errors, likeness)
        is_massive = massive(norms, median_norm)
        distances = self._distances(batches, is_massive)
        found = (
            of_tokens.numpy() for of_tokens in (norms, errors, distances, likeness, is_massive)
        )
        return TokenErrors(positions, frequencies, *found)

    def _distances(
        self, batches: Callable[[], Iterable[torch.Tensor]], is_massive: torch.Tensor
    ) -> torch.Tensor:
        """‖x − x̄‖² of each token, [n_tokens] float64 on the host."""
        lengths = [len(norms) for norms, *_ in self._parts]
        total = 0.0
        for x, leave in zip(batches(), is_massive.split(lengths), strict=True):
            rows = to_device((~leave).nonzero()[:, 0], x.device)
            total = total + in_float64(x[rows]).sum(0)
        mean = total / int((~is_massive).sum())
        distances = [(in_float64(x) - mean).square().sum(1) for x in batches()]
        return to_host(torch.cat(distances))[0]


def token_frequencies(
    model: Model,
    prompts: Sequence[Prompt],
    context_length: int,
    max_tokens: int = COUNTED_TOKENS,
) -> np.ndarray:
    """How often each token id occurs in the prompts, each cut to `context_length` tokens.

    Counts until `max_tokens` tokens are read. Returns [n_ids] int64, with a place for every id.
    """
    counts = np.zeros(max(model.tokenizer.get_vocab().values()) + 1, dtype=np.int64)
    for ids in _ids(model, prompts, context_length):
        room = max_tokens - int(counts.sum())
        if room < 1:
            break
        counts += np.bincount(ids[:room], minlength=len(counts))
    return counts


def _ids(model: Model, prompts: Sequence[Prompt], context_length: int) -> Iterable[np.ndarray]:
    """The token ids of the prompts, some prompts at a time."""
    for first in range(0, len(prompts), _COUNT_TOGETHER):
        texts = [prompt.text for prompt in prompts[first : first + _COUNT_TOGETHER]]
        yield np.concatenate([text.ids for text in model.tokenized(texts, context_length)])
