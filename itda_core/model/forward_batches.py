"""How many tokens go through a model at once: enough to keep the device busy, and no more than
memory has room for."""

from collections.abc import Iterator

import numpy as np

FORWARD_TOKENS = {"cpu": 1_024, "mps": 8_192, "cuda": 16_384}
"""Tokens of one forward pass, padding included: enough to keep the device busy."""
_TRY_MORE_AFTER = 64
"""Forward passes after one that filled memory, until more is tried"""


class ForwardBatches:
    """Texts in batches of one forward pass. Remembers what had room after memory was full."""

    def __init__(self) -> None:
        self._fitting: int | None = None
        """Tokens of a pass, padding included, that memory had room for after it was full"""
        self._passes = 0
        """Passes that had room since then"""

    def of(self, lengths: np.ndarray, device: str) -> Iterator[np.ndarray]:
        """The numbers of the texts in batches of similar length, so that little is padded. lengths:
        tokens of each text; device: its kind, such as "cuda"."""
        order = np.argsort(-lengths, kind="stable")
        together = FORWARD_TOKENS.get(device, FORWARD_TOKENS["cpu"])
        while len(order):
            most = min(together, self._fitting or together)  # one before may have been too large
            count = max(1, most // max(1, lengths[order[0]]))
            yield order[:count]
            order = order[count:]

    def remember(self, fitted: list[int]) -> None:
        """Keep to what had room after memory was full, and try twice as much now and then: what
        filled it may be gone. fitted: tokens of each pass that a batch took."""
        if len(fitted) > 1:
            self._fitting, self._passes = fitted[-2], 0  # the last one may be a small rest
        elif self._fitting is not None:
            self._passes += 1
            if self._passes % _TRY_MORE_AFTER == 0:
                self._fitting *= 2
                if self._fitting >= max(FORWARD_TOKENS.values()):
                    self._fitting = None
