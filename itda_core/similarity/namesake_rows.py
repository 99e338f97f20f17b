"""What the latents of two dictionaries come to on the same tokens: sums, and a row a pair."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csc_array

from itda_core.activations.alignment import RowNames, common_rows
from itda_core.errors import ComparisonError
from itda_core.runs.latent_comparisons import LATENT_COLUMNS, STRONG
from itda_core.similarity.correlations import only_strong
from itda_core.similarity.measures import MIN_TOKENS
from itda_core.similarity.namesakes import Namesakes, compare_namesakes

_PAIR = "latent_a", "latent_b"


@dataclass(frozen=True, eq=False)
class Coded:
    """What a dictionary makes of the tokens that one model read."""

    names: RowNames
    coefficients: csc_array
    """[n_rows, n_latents] float64"""
    massive: np.ndarray
    """[n_rows] bool"""
    tokenizer: str
    """its digest"""


def in_common(
    a: Coded,
    b: Coded,
    pairs: np.ndarray,
    max_tokens: int,
    seed: int,
    thresholds: Sequence[np.ndarray | None],
) -> dict[str, Any]:
    """The sums and the rows of what both make of the tokens that they have in common, of all uses
    and, where both have thresholds, of strong ones: `latents`, `strong`, and the numbers of ABOUT
    from `unit` on. pairs: [n_pairs, 2]; thresholds: of A's and of B's latents, None without scores.
    Raises ComparisonError where they have too few tokens in common."""
    unit = "token" if a.tokenizer == b.tokenizer else "word"
    rows = common_rows(a.names, b.names, unit, max_tokens, (a.massive, b.massive))
    if len(rows[0]) < MIN_TOKENS:
        raise ComparisonError(
            f"The two models have {len(rows[0])} {unit}s of these prompts in common, too few to "
            "compare by. Give more or longer prompts with --corpus."
        )
    codes = [side.coefficients.tocsr()[its].tocsc() for side, its in zip((a, b), rows, strict=True)]
    prompts = a.names.tokens[rows[0], 0]
    found = compare_namesakes(*codes, pairs, prompts, seed)
    latents, strong = _rows(pairs, found), None
    if all(one is not None for one in thresholds):
        codes = [only_strong(one, cuts) for one, cuts in zip(codes, thresholds, strict=True)]
        of_strong = compare_namesakes(*codes, pairs, prompts, seed)
        strong = sums(of_strong)
        latents = [
            row | {f"{STRONG}{name}": value for name, value in other.items() if name not in _PAIR}
            for row, other in zip(latents, _rows(pairs, of_strong), strict=True)
        ]
    return {
        "unit": unit,
        "tokens": len(prompts),
        "prompts": len(np.unique(prompts)),
        **{f"atoms_{side}": one.shape[1] for side, one in zip("ab", codes, strict=True)},
        "namesakes": len(pairs),
        **sums(found),
        "strong": strong,
        "latents": latents,
    }


def sums(found: Namesakes) -> dict[str, Any]:
    """What the pairs come to, as JSON types: the fields of `runs.latent_comparisons.SUMS`."""
    is_used = found.uses_a > 0, found.uses_b > 0
    uses = [int(one.sum()) for one in (found.uses_a, found.uses_b, found.uses_both)]
    return {
        "compared": int(found.is_compared.sum()),
        "only_a": int((is_used[0] & ~is_used[1]).sum()),
        "only_b": int((is_used[1] & ~is_used[0]).sum()),
        "unused": int((~is_used[0] & ~is_used[1]).sum()),
        **{f"best_{name}": value for name, value in asdict(found.best).items()},
        **{f"median_{name}": value for name, value in asdict(found.median).items()},
        "alone_a": 1 - uses[2] / uses[0] if uses[0] else None,
        "alone_b": 1 - uses[2] / uses[1] if uses[1] else None,
    }


def _rows(pairs: np.ndarray, found: Namesakes) -> list[dict[str, Any]]:
    table = pd.DataFrame(
        {
            **{name: pairs[:, side] for side, name in enumerate(_PAIR)},
            **{name: getattr(found, name) for name in LATENT_COLUMNS if name not in _PAIR},
        }
    )
    rows = table.to_dict("records")
    for row in rows:
        if not row["rank_a"]:
            row["correlation"] = row["rank_a"] = row["rank_b"] = row["chance"] = None
    return rows
