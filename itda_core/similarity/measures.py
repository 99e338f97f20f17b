"""The measures of likeness between layers, by name: what each is called, its range, what it says.

All but the Jaccard index compare two matrices of activations of the same tokens. That one compares
dictionaries, in dictionaries.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from itda_core.devices import check_same_device, has_float64
from itda_core.errors import ComparisonError
from itda_core.glossary import GLOSSARY
from itda_core.similarity import layer_namesakes, linear, tokenwise

MIN_TOKENS = 20
"""With fewer none of the measures says anything"""


@dataclass(frozen=True)
class Measure:
    """One measure of likeness between two layers, as tables and pages speak of it."""

    name: str
    title: str
    low: float
    high: float
    """the range in which its values are drawn"""
    explanation: str
    """what it says and what it can't, in plain words"""
    is_symmetric: bool = True


@dataclass(frozen=True)
class ActivationMeasure(Measure):
    """A measure of two matrices of activations."""

    prepare: Callable[[torch.Tensor], Any] = field(kw_only=True)
    """what is done once for a matrix, [n_tokens, d_model]"""
    compare: Callable[[Any, Any], float] = field(kw_only=True)
    """of two prepared matrices"""


JACCARD = Measure(
    "jaccard",
    "Jaccard of sources",
    0.0,
    1.0,
    GLOSSARY["Jaccard index"],
)

MEASURES = {
    measure.name: measure
    for measure in (
        ActivationMeasure(
            "source_resemblance",
            "Source resemblance",
            0.0,
            1.0,
            "Whether both models find the same tokens like the same source tokens. 0 is what "
            "unrelated tokens would give. It does not say whether the models use this likeness.",
            prepare=tokenwise.resemblance_form,
            compare=tokenwise.source_resemblance,
        ),
        ActivationMeasure(
            "cka",
            "CKA",
            0.0,
            1.0,
            "Whether tokens lie to each other in both models as they do after a rotation. Large "
            "directions decide, and values are too high with few tokens.",
            prepare=linear.cka_form,
            compare=linear.cka,
        ),
        ActivationMeasure(
            "cka_unbiased",
            "CKA, unbiased",
            0.0,
            1.0,
            "CKA without what few tokens add to it: about 0 for unrelated activations. Large "
            "directions decide.",
            prepare=linear.unbiased_cka_form,
            compare=linear.unbiased_cka,
        ),
        ActivationMeasure(
            "svcca",
            "SVCCA",
            0.0,
            1.0,
            "How well the directions that hold 99 % of the variance of one can be found in those "
            "of the other. All of these count alike, however small they are.",
            prepare=linear.svcca_form,
            compare=linear.mean_cca,
        ),
        ActivationMeasure(
            "mean_cca",
            "Mean CCA",
            0.0,
            1.0,
            "How well all directions of one can be found in the other, each counting alike. It is "
            "1 for everything where there are fewer tokens than dimensions.",
            prepare=linear.cca_form,
            compare=linear.mean_cca,
        ),
        ActivationMeasure(
            "procrustes",
            "Procrustes",
            0.0,
            1.0,
            "How near one comes to the other by the best rotation and scale.",
            prepare=linear.procrustes_form,
            compare=linear.procrustes,
        ),
        ActivationMeasure(
            "relative",
            "Relative representations",
            0.0,
            1.0,
            "Whether tokens have the same cosines to the same anchor tokens. Not corrected for "
            "chance.",
            prepare=tokenwise.relative_form,
            compare=tokenwise.relative_likeness,
        ),
        ActivationMeasure(
            "regression",
            "Linear regression, R²",
            0.0,
            1.0,
            "How much of B's variance a linear map of A predicts on other tokens. From A to B "
            "and from B to A are two values.",
            prepare=linear.regression_form,
            compare=linear.regression_r2,
            is_symmetric=False,
        ),
        ActivationMeasure(
            "mutual_knn",
            "Mutual nearest neighbours",
            0.0,
            1.0,
            "Which share of a token's 10 nearest tokens, among 1,000, are the same in both. It "
            "says nothing of far tokens.",
            prepare=tokenwise.neighbours_form,
            compare=tokenwise.mutual_neighbours,
        ),
        ActivationMeasure(
            "best_partners",
            "Best partners",
            0.0,
            1.0,
            "How many latents of a dictionary that is moved to both are used most like their own "
            "namesake, among all latents of the other. Layers that are near each other all have "
            "many.",
            prepare=layer_namesakes.namesakes_form,
            compare=layer_namesakes.best_partners,
        ),
        ActivationMeasure(
            "namesake_correlation",
            "Correlation of namesakes",
            -1.0,
            1.0,
            "How alike the latents of a dictionary that is moved to both are used, token by token: "
            "the median over them. 0 is what unrelated layers would give.",
            prepare=layer_namesakes.namesakes_form,
            compare=layer_namesakes.namesake_correlation,
        ),
    )
}
"""By name, those that a job computes from activations"""
ALL_MEASURES = {JACCARD.name: JACCARD, **MEASURES}


def prepare(name: str, activations: torch.Tensor) -> Any:
    """A matrix as a measure takes it, on the activations' device, or on the host where that device
    lacks what measures need. activations: [n_tokens, d_model], at least 20 tokens.

    Raises ComparisonError for a name that no measure has, too few tokens, or values that are not
    finite.
    """
    if name not in MEASURES:
        raise ComparisonError(f"There is no measure {name!r}: take one of {', '.join(MEASURES)}.")
    if activations.ndim != 2 or not activations.shape[1]:
        raise ComparisonError(
            f"Activations have the shape {list(activations.shape)}: give [n_tokens, d_model]."
        )
    if len(activations) < MIN_TOKENS:
        raise ComparisonError(
            f"{len(activations)} tokens are too few to compare by: take {MIN_TOKENS} or more."
        )
    if not bool(torch.isfinite(activations.float()).all()):
        raise ComparisonError(
            "Some activations are not finite numbers, so nothing compares: leave these tokens out."
        )
    fits = has_float64(activations.device)
    return MEASURES[name].prepare(activations if fits else activations.cpu())


def measure_matrix(
    name: str, rows: Sequence[torch.Tensor], columns: Sequence[torch.Tensor] | None = None
) -> np.ndarray:
    """Every row compared with every column, [n_rows, n_columns] float64; without columns, every
    row with every row. Of a measure that is not symmetric, from row to column.

    rows, columns: activations of the same tokens, [n_tokens, d_model] each, on one device, which
    compares them. Its memory holds what `prepare` makes of each of them. Raises ComparisonError
    where the tokens are not as many, InputError where they are on several devices.
    """
    for x in [*rows, *(columns or ())]:
        check_same_device(rows=rows[0], others=x)
    lengths = {len(x) for x in [*rows, *(columns or ())]}
    if len(lengths) > 1:
        raise ComparisonError("The matrices have different numbers of tokens: give the same ones.")
    is_square = columns is None
    left = [prepare(name, x) for x in rows]
    right = left if is_square else [prepare(name, x) for x in columns]
    measure = MEASURES[name]
    values = np.empty((len(left), len(right)))
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            is_mirrored = is_square and measure.is_symmetric and j < i
            values[i, j] = values[j, i] if is_mirrored else measure.compare(a, b)
    return values
