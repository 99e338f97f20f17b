"""Measures that compare how tokens lie to each other: relative representations, neighbours, and
source resemblance, which is this project's own.

A token is described by its likeness to other tokens of the same model, so that models of any width
compare without a map between them. Like the latents of a dictionary, these others are known by
name: they are the same source tokens in both models.
"""

from dataclasses import dataclass

import torch
from torch.nn.functional import normalize

from itda_core.similarity.linear import centred

ANCHORS = 300
"""Of the relative representations"""
NEIGHBOURS = 10
_BLOCK = 1_000
"""Tokens among which neighbours are looked for"""
SOURCES = 500
TEMPERATURE = 0.4
DAMPING = 0.4
_RANK = 1e-5
"""Scales below this share of the largest one count as zero"""


def spread_rows(n_rows: int, count: int) -> torch.Tensor:
    """At most `count` row numbers, evenly spread over all rows, int64 and ascending, on the
    host."""
    return torch.linspace(0, n_rows - 1, min(count, n_rows), dtype=torch.float64).round().long()


# Relative representations


@dataclass(frozen=True)
class Descriptions:
    """Each token's likeness to the source tokens, of unit length."""

    rows: torch.Tensor
    """[n_tokens, n_sources] float32; a token is not described by itself"""
    mean: torch.Tensor
    """[n_sources] float64: the mean description"""


def relative_form(x: torch.Tensor, anchors: int = ANCHORS) -> Descriptions:
    """anchors: how many rows, evenly spread, are the tokens that others are described by."""
    return _described(_directions(centred(x)), anchors, lambda cosines: cosines)


def relative_likeness(a: Descriptions, b: Descriptions) -> float:
    """Mean over tokens of the cosine of their relative representations, in [−1, 1]: each token's
    cosines to the anchors, the same tokens in both models (Moschella et al. 2023), of centred
    activations. Not corrected for chance. NaN for constant activations."""
    return float((a.rows * b.rows).sum(1).double().mean())


# Neighbours


@dataclass(frozen=True)
class Neighbours:
    """The nearest tokens of each token within its block."""

    numbers: torch.Tensor
    """[n_tokens, k] int64; of constant activations, no columns"""


def neighbours_form(x: torch.Tensor, k: int = NEIGHBOURS) -> Neighbours:
    """k: how many neighbours count, by cosine of centred activations, or all others where a block
    has fewer. They are looked for in blocks of at most 1,000 tokens, every m-th token in the same
    block, so that time grows with the tokens and not with their square."""
    unit = _directions(centred(x))
    n_blocks = -(-len(unit) // _BLOCK)
    k = min(k, len(unit) // n_blocks - 1) if bool(torch.isfinite(unit).all()) else 0
    numbers = torch.empty(len(unit), k, dtype=torch.int64, device=x.device)
    for first in range(n_blocks):
        block = unit[first::n_blocks]
        products = block @ block.T
        products.fill_diagonal_(-torch.inf)
        numbers[first::n_blocks] = products.topk(k, 1).indices
    return Neighbours(numbers)


def mutual_neighbours(a: Neighbours, b: Neighbours) -> float:
    """Mean share of a token's k nearest neighbours that it has in both models, in [0, 1] (Huh et
    al. 2024). By chance k of the others in its block, of which there are 500 to 999, or
    n_tokens − 1 with fewer tokens. NaN for constant activations."""
    if not min(a.numbers.shape[1], b.numbers.shape[1]):
        return float("nan")
    same = (a.numbers[:, :, None] == b.numbers[:, None, :]).sum((1, 2))
    return float(same.double().mean() / a.numbers.shape[1])


# Source resemblance


def resemblance_form(
    x: torch.Tensor,
    sources: int = SOURCES,
    temperature: float = TEMPERATURE,
    damping: float = DAMPING,
) -> Descriptions:
    """Each token by its likeness to the source tokens, near ones counting most.

    sources: how many rows, evenly spread, are source tokens; temperature: of exp(cosine /
    temperature); damping: the power by which the scale of each principal direction is divided, 0
    for none and 1 for whitening, so that the few directions that all layers share don't decide.
    """
    unit = _directions(damped(x, damping))
    return _described(unit, sources, lambda cosines: (cosines / temperature).exp())


def source_resemblance(a: Descriptions, b: Descriptions) -> float:
    """How alike two models describe the same tokens by the same source tokens: (v − e) / (1 − e),
    v the mean cosine of a token's two descriptions, e the mean over all pairs of tokens. 1 for the
    same descriptions, 0 for what unrelated tokens would give. NaN for constant activations.
    docs/method.md has the formula."""
    return float(token_resemblance(a, b).mean())


def token_resemblance(a: Descriptions, b: Descriptions) -> torch.Tensor:
    """The same by token, [n_tokens] float64: the mean of these is the source resemblance."""
    expected = a.mean @ b.mean
    if not expected < 1:
        return expected.new_full((len(a.rows),), torch.nan)
    return ((a.rows * b.rows).sum(1).double() - expected) / (1 - expected)


def damped(x: torch.Tensor, damping: float) -> torch.Tensor:
    """Centred rows in their principal directions, each divided by its scale to the power of
    `damping`, up to a common factor, [n_tokens, rank] float32."""
    x = centred(x).double()
    squares, directions = torch.linalg.eigh(x.T @ x)
    counts = squares > _RANK**2 * squares[-1].clamp(min=1e-30)
    scales = (squares[counts] / squares[-1]).sqrt()
    return (x @ (directions[:, counts] / scales**damping)).float()


def _directions(x: torch.Tensor) -> torch.Tensor:
    """Rows of unit length. A row of zeros stays one, but if all are, nothing can be said: NaN."""
    return normalize(x, dim=1) if bool(x.any()) else x.new_full((len(x), 1), torch.nan)


def _described(unit: torch.Tensor, count: int, likeness) -> Descriptions:
    """likeness: of the cosines, [n_tokens, n_sources], which it may overwrite."""
    sources = spread_rows(len(unit), count).to(unit.device)
    rows = likeness(unit @ unit[sources].T)
    own = torch.arange(len(sources), device=unit.device)
    rows[sources, own] = 0  # a token says nothing by being like itself
    rows = normalize(rows, dim=1)
    return Descriptions(rows, rows.mean(0, dtype=torch.float64))
