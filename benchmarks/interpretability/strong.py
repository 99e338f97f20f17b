"""Strong uses of a run for the comparison: told by the signs, or where these say nothing, by the
share of the squared coefficients that another run's strong uses hold."""

from typing import Any

import numpy as np

from itda_core.analysis.judged_tokens import ReadRun
from itda_core.evaluation.strong_uses import share_thresholds, strong_thresholds
from itda_core.runs.run import Run


def strong_uses(run: Run, share: float | None = None) -> dict[str, Any]:
    """What share of a run's uses outside the prompts of the titles is strong, what share of the
    squared coefficients they hold, and how many latents have a threshold.

    share: as in `detect`; None tells them by the signs.
    """
    read = ReadRun.of(run)
    latents = read.uses.latents[read.is_elsewhere]
    coefficients = read.uses.coefficients[read.is_elsewhere]
    of = latents, coefficients
    if share is None:
        cuts = strong_thresholds(*of, len(read.titles)).threshold
    else:
        cuts = share_thresholds(*of, share, len(read.titles))
    is_strong, squares = coefficients >= cuts[latents], coefficients.astype(np.float64) ** 2
    return {
        "by": "signs" if share is None else "share",
        "latents": int(np.isfinite(cuts).sum()),
        "uses": float(is_strong.mean()),
        "squares": float(squares[is_strong].sum() / squares.sum()),
    }
