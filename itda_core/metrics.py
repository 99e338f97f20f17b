"""Measures of a reconstruction, each defined once. Sums over all tokens, divided once."""

from dataclasses import dataclass

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
