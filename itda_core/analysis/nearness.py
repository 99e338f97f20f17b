"""How near tokens are to titles in the embedding of another model, read once for runs that have
their prompts in common."""

from collections.abc import Iterator

import numpy as np

from itda_core.evaluation.detection import Nearness, embed
from itda_core.model.model import Model
from itda_core.runs.latent_uses import ReadTokens

_KEPT_TOKENS = 1 << 17
"""Of prompts with so many all tokens are embedded and kept for the next run"""


class Judge:
    """Embeds tokens by a model, and keeps those of the prompts that were read last."""

    def __init__(self, embedder: Model):
        self._embedder = embedder
        self._kept: tuple[str, Nearness] | None = None

    def reads_all(self, tokens: ReadTokens) -> bool:
        """Whether all of these are embedded, however few are needed."""
        return len(tokens.words) <= _KEPT_TOKENS

    def read(
        self, prompts: str, tokens: ReadTokens, needed: np.ndarray
    ) -> Iterator[tuple[float, Nearness | None]]:
        """How far it is, in [0, 1], and at the end the nearness of the tokens `needed` (sorted).

        prompts: names them, equal for equal ones.
        """
        if self._kept and self._kept[0] == prompts:
            yield 1.0, self._kept[1]
            return
        keeps = self.reads_all(tokens)
        needed = np.flatnonzero(tokens.words >= 0) if keeps else needed
        n_prompts = max(1, len(np.unique(tokens.prompts[needed])))
        vectors = np.zeros((len(needed), self._embedder.d_model), np.float32)
        for done, rows, some in embed(self._embedder, tokens, needed):
            vectors[rows] = some
            yield done / n_prompts, None
        found = Nearness(needed, vectors)
        self._kept = (prompts, found) if keeps else None
        yield 1.0, found
