"""What principal components leave of the very tokens that they are fitted to: a line to read a
dictionary's FVU against. No k directions that all tokens share leave less."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from itda_core.devices import in_float64

MAX_WIDTH = 2_048
"""d_model up to which components are found: on two cores this takes some seconds there."""


@dataclass(frozen=True)
class PcaErrors:
    """FVU by number of components, from 0: each [max_components + 1], empty without variance."""

    fvu: list[float]
    fvu_without_massive: list[float]
    """of the tokens that are not massive, fitted to them alone"""

    def to_dict(self) -> dict[str, list[float]]:
        return {"fvu": self.fvu, "fvu_without_massive": self.fvu_without_massive}


def pca_errors(
    batches: Callable[[], Iterable[torch.Tensor]],
    is_massive: Sequence[torch.Tensor],
    max_components: int,
) -> PcaErrors:
    """batches: gives activations, each [n_tokens, d_model], anew at each call; is_massive: which
    of their tokens are massive, [n_tokens] bool on the host."""
    everything = pca_fvu(batches(), max_components)
    if not any(bool(massive.any()) for massive in is_massive):
        return PcaErrors(everything, everything)
    usual = (x[(~massive).to(x.device)] for x, massive in zip(batches(), is_massive, strict=True))
    return PcaErrors(everything, pca_fvu(usual, max_components))


def pca_fvu(activations: Iterable[torch.Tensor], max_components: int) -> list[float]:
    """FVU of the mean and 0, 1 … `max_components` principal components, fitted to these tokens.

    activations: batches, each [n_tokens, d_model]. The squared error of k components is the sum of
    the covariance's eigenvalues but for the k largest. Empty without variance.
    """
    tokens, total, products = 0, 0.0, 0.0
    for batch in activations:
        x = in_float64(batch)
        tokens += len(x)
        total = total + x.sum(0)
        products = products + x.T @ x
    if not tokens:
        return []
    scatter = products - torch.outer(total, total) / tokens  # [d_model, d_model]
    eigenvalues = torch.linalg.eigvalsh(scatter.cpu()).clamp(min=0).flip(0)  # the largest first
    variance = float(eigenvalues.sum())
    # Rounding leaves some variance of equal tokens.
    if variance <= 1e-12 * float(products.trace()):
        return []
    left = (eigenvalues.sum() - eigenvalues.cumsum(0)).clamp(min=0) / variance
    found = [1.0, *left.tolist()][: max_components + 1]
    return found + [0.0] * (max_components + 1 - len(found))
