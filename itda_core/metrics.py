"""Measures of a reconstruction, each defined once. Sums over all tokens, divided once."""

from dataclasses import dataclass

import numpy as np
import torch


@dataclass
class ReconstructionSums:
    """Sums from which FVU comes; they add up over batches.

    Σx is kept in float64: Σ‖x − x̄‖² is the difference of two large numbers.
    """

    tokens: int = 0
    squared_error: float = 0.0
    """Σ‖x − x̂‖²"""
    squared_norm: float = 0.0
    """Σ‖x‖²"""
    total: torch.Tensor | float = 0.0
    """Σx, [d_model]"""

    def add(self, activations: torch.Tensor, reconstructions: torch.Tensor) -> None:
        """Count a batch. Both: [n_tokens, d_model]."""
        x, xhat = activations.double(), reconstructions.double()
        self.tokens += len(x)
        self.squared_error += float((x - xhat).square().sum())
        self.squared_norm += float(x.square().sum())
        self.total = self.total + x.sum(0)

    @property
    def fvu(self) -> float:
        """Fraction of variance unexplained: Σ‖x − x̂‖² / Σ‖x − x̄‖²; NaN without variance."""
        if not self.tokens:
            return float("nan")
        variance = self.squared_norm - float(self.total.square().sum()) / self.tokens
        return self.squared_error / variance if variance > 0 else float("nan")


def fvu(activations: torch.Tensor, reconstructions: torch.Tensor) -> float:
    """Fraction of variance unexplained of one batch: Σ‖x − x̂‖² / Σ‖x − x̄‖²."""
    sums = ReconstructionSums()
    sums.add(activations, reconstructions)
    return sums.fvu


def ce_loss_score(model: float, zeroed: float, spliced: float) -> float:
    """(H_zero − H_spliced) / (H_zero − H_model), H in nats: 1 = nothing lost, 0 = all lost."""
    return (zeroed - spliced) / (zeroed - model)


def densities(latents: np.ndarray, n_latents: int) -> np.ndarray:
    """Share of tokens that use each latent, [n_latents] in [0, 1].

    latents: [n_tokens, l0], the codes' latents, −1 for a term with coefficient 0. A latent that
    one token uses twice counts once.
    """
    by_token = np.sort(latents, axis=1)
    first_use = np.ones_like(by_token, dtype=bool)
    first_use[:, 1:] = by_token[:, 1:] != by_token[:, :-1]
    used = by_token[first_use & (by_token >= 0)]
    return np.bincount(used, minlength=n_latents) / max(1, len(latents))
