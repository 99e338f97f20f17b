"""What an evaluation found of one dictionary, by L0."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from itda_core.devices import in_float64, to_host
from itda_core.evaluation.losses import Losses
from itda_core.evaluation.metrics import ReconstructionSums, SparsitySums, density_histogram
from itda_core.evaluation.pca import PcaErrors
from itda_core.evaluation.token_errors import TokenErrors
from itda_core.pursuit.codes import Codes


def number_or_none(value: float) -> float | None:
    """None, which JSON can say, in place of NaN."""
    return None if math.isnan(value) else value


@dataclass
class AtL0:
    """What one L0 gives: sums over the tokens so far."""

    sparsity: SparsitySums
    everything: ReconstructionSums = field(default_factory=ReconstructionSums)
    usual: ReconstructionSums = field(default_factory=ReconstructionSums)
    """without massive activations"""
    spliced: Losses = field(default_factory=Losses)
    squared_errors: list[torch.Tensor] = field(default_factory=list)
    """‖x − x̂‖² of the tokens of each batch, where it was"""
    median_unexplained: float = math.nan
    """‖x − x̂‖² / ‖x − x̄‖² of the median token; there once all tokens are measured"""

    def add(self, codes: Codes, x: torch.Tensor, xhat: torch.Tensor, usual: torch.Tensor) -> None:
        """Count a batch: codes, activations and reconstructions. usual: the numbers of the rows
        that are not massive."""
        self.sparsity.add(codes)
        self.everything.add(x, xhat)
        self.usual.add(x[usual], xhat[usual])
        self.squared_errors.append((in_float64(x) - in_float64(xhat)).square().sum(1))

    def finish(self, squared_distances: np.ndarray) -> None:
        """All batches are counted. squared_distances: ‖x − x̄‖² of every token, [n_tokens], with x̄
        the mean of those that are not massive, whose share a massive one would decide."""
        [errors] = to_host(torch.cat(self.squared_errors))
        varies = squared_distances > 0
        if varies.any():
            shares = errors.numpy()[varies] / squared_distances[varies]
            self.median_unexplained = float(np.median(shares))

    def to_dict(self, plain: Losses, zeroed: Losses) -> dict[str, float | None]:
        """Every measure by name; None where there is nothing to divide by."""
        has_losses = self.spliced.predictions > 0
        measures = {
            "mean_l0": self.sparsity.mean_l0,
            "mean_latents": self.sparsity.mean_latents,
            "fvu": self.everything.fvu,
            "fvu_without_massive": self.usual.fvu,
            "median_unexplained": self.median_unexplained,
            "explained_variance": self.everything.explained_variance,
            "cosine": self.everything.cosine,
            "norm_ratio": self.everything.norm_ratio,
            "ce_loss_score": self.spliced.score(plain, zeroed) if has_losses else math.nan,
            "kl": self.spliced.kl,
            "cross_entropy": self.spliced.mean_cross_entropy,
        }
        return {name: number_or_none(value) for name, value in measures.items()}


@dataclass
class Evaluation:
    """Measures of one dictionary by L0, over the tokens so far; the last one is the result."""

    total_tokens: int
    prompts: int
    """how many are read"""
    at: dict[int, AtL0]
    """by L0"""
    capture_share: float
    """of the whole work, in [0, 1]"""
    captured: float = 0.0
    """share of the capture that is done, in [0, 1]"""
    measured: float = 0.0
    """share of what follows that is done, in [0, 1]"""
    median_norm: float | None = None
    """‖x‖ from which massive activations are told: of the training tokens where the dictionary
    knows it, else of these"""
    massive_tokens: int = 0
    plain: Losses = field(default_factory=Losses)
    zeroed: Losses = field(default_factory=Losses)
    why_no_losses: str = ""
    """why there is no cross-entropy; empty where there is"""
    errors: TokenErrors | None = None
    """at the dictionary's own L0; there once all tokens are measured"""
    pca: PcaErrors | None = None
    """of the same tokens; there once all are measured, where it is cheap"""
    stage = "evaluating"

    @property
    def tokens(self) -> int:
        """Those that are reconstructed so far."""
        return self._largest.everything.tokens

    @property
    def fraction(self) -> float:
        """How much of the work is done, in [0, 1]."""
        return self.capture_share * self.captured + (1 - self.capture_share) * self.measured

    @property
    def _largest(self) -> AtL0:
        return self.at[max(self.at)]

    def by_l0(self) -> list[dict[str, float | int | None]]:
        """l0 and each measure of metrics.py for each L0; None where there is no next token, or
        no variance. kl and cross_entropy (with the reconstruction put in) are in nats."""
        return [{"l0": l0, **sums.to_dict(self.plain, self.zeroed)} for l0, sums in self.at.items()]

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON types; density and errors are those at the largest L0."""
        sparsity = self._largest.sparsity
        return {
            "tokens": self.tokens,
            "prompts": self.prompts,
            "by_l0": self.by_l0(),
            "model_cross_entropy": number_or_none(self.plain.mean_cross_entropy),
            "zeros_cross_entropy": number_or_none(self.zeroed.mean_cross_entropy),
            "pca": self.pca.to_dict() if self.pca else {},
            "median_norm": self.median_norm,
            "massive_tokens": self.massive_tokens,
            "unused_share": sparsity.unused_share,
            "density": density_histogram(sparsity.densities, sparsity.tokens),
            "errors": self.errors.to_dict() if self.errors else {},
            **({"why_no_losses": self.why_no_losses} if self.why_no_losses else {}),
        }
