"""Which latents a phrase uses: run through the model, its tokens decomposed."""

import numpy as np
import pandas as pd

from itda_core.analysis.decomposition import Decomposition
from itda_core.evaluation.strong_uses import is_strong

BEFORE = ". "
"""What a phrase is read behind: the first position of a text carries no content"""


def behind_a_stop(phrase: str) -> str:
    """The text whose decomposition `phrase_latents` takes."""
    return BEFORE + phrase.strip()


def _is_of_phrase(result: Decomposition, positions: np.ndarray) -> np.ndarray:
    """Which tokens have a character of the phrase, [n] bool."""
    return result.tokens.spans[0][positions, 1] > len(BEFORE)


def unexplained_of_phrase(result: Decomposition) -> tuple[int, float]:
    """How many tokens of a phrase were decomposed, and what all their terms leave of them:
    Σ‖x − x̂‖² / Σ‖x − offset‖², in [0, 1] for pursuits; NaN of none. result: as in
    `phrase_latents`."""
    rows = _is_of_phrase(result, result.positions)
    squares = np.square(result.residuals[rows].astype(np.float64))
    whole = squares[:, 0].sum()
    return int(rows.sum()), float(squares[:, -1].sum() / whole) if whole else np.nan


def pieces_of_phrase(result: Decomposition) -> list[str]:
    """The tokens that were decomposed of a phrase, as the text has them. result: as in
    `phrase_latents`."""
    positions = result.positions[_is_of_phrase(result, result.positions)]
    spans = result.tokens.spans[0][positions].tolist()
    return [result.text[start:end].strip() for start, end in spans]


def phrase_latents(result: Decomposition, thresholds: np.ndarray | None = None) -> pd.DataFrame:
    """The latents that the tokens of a phrase use, the strongest on it first: latent, squares (the
    sum of its squared coefficients), tokens (how many use it), and of the one with its largest
    |coefficient| position, token and coefficient.

    result: of `behind_a_stop(phrase)`; thresholds: [n_latents], of strong uses, which alone count
    then; NaN where every use of a latent does.
    """
    table = result.table()[["position", "token", "latent", "coefficient"]]
    table = table[_is_of_phrase(result, table["position"].to_numpy())]
    uses = table.groupby(["latent", "position", "token"], as_index=False)["coefficient"].sum()
    if thresholds is not None:
        uses = uses[is_strong(uses["coefficient"], thresholds[uses["latent"]])]
    uses = uses.assign(squares=uses["coefficient"].astype(float) ** 2)
    largest = uses.sort_values(["squares", "position"], ascending=[False, True])
    largest = largest.drop_duplicates("latent").drop(columns="squares")
    sums = uses.groupby("latent", as_index=False).agg(
        squares=("squares", "sum"), tokens=("position", "size")
    )
    found = sums.merge(largest, on="latent")
    return found.sort_values(["squares", "latent"], ascending=[False, True], ignore_index=True)
