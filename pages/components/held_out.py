"""What a dictionary's training measured at its end, on tokens that no atom was chosen from."""

import contextlib
import math
from dataclasses import dataclass
from typing import Any

from itda_core.errors import RunError
from pages.components.cached import loaded_run


@dataclass(frozen=True)
class HeldOut:
    """How much a dictionary leaves unexplained, as lists of dictionaries say it."""

    fvu: float = math.nan
    """without massive activations, since a few of them can hold nearly all of the variance; NaN
    where nothing was measured"""
    tokens: int = 0
    """that it was measured on"""
    massive: int | None = None
    """held-out tokens that are left out of it; None where an earlier version did not tell them
    from the others, so that they count"""
    fvu_of_all: float = math.nan
    """with massive activations"""

    @property
    def is_without(self) -> bool:
        """Whether there are massive activations, and the FVU is without them."""
        return bool(self.massive)

    @property
    def note(self) -> str:
        """ "with 6 massive activations 0.006", or that they count; "" where there are none."""
        if self.is_without:
            many = f"{self.massive:,} massive activation{'s' * (self.massive != 1)}"
            return f"with {many} {fvu_text(self.fvu_of_all)}"
        is_unknown = self.massive is None and self.tokens
        return "massive activations count, if there are any" if is_unknown else ""

    def in_words(self) -> str:
        """ "held-out FVU 0.373 (with 6 massive activations 0.006)"."""
        return f"held-out FVU {fvu_text(self.fvu)}" + (f" ({self.note})" if self.note else "")


def held_out(directory: str) -> HeldOut:
    """Of the run in a directory; where it has gone, of which the list will know soon, nothing."""
    with contextlib.suppress(RunError):
        return held_out_in(loaded_run(directory).metrics)
    return HeldOut()


def held_out_in(metrics: dict[str, Any]) -> HeldOut:
    """metrics: of metrics.json, as `Run.metrics`."""
    tokens, of_all = metrics.get("held_out_tokens") or 0, _number(metrics["fvu"])
    massive = metrics.get("massive_held_out_tokens")
    if massive is None or "fvu_without_massive" not in metrics:
        return HeldOut(of_all, tokens, None, of_all)
    left = max(0, tokens - massive)
    return HeldOut(_number(metrics["fvu_without_massive"]), left, massive, of_all)


def fvu_text(fvu: float) -> str:
    """With three decimals; a dash where there is none."""
    return "–" if math.isnan(fvu) else f"{fvu:.3f}"


def _number(value: float | None) -> float:
    return math.nan if value is None else value
