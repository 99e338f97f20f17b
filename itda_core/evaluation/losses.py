"""What a model loses when other activations are put in: cross-entropy and divergence."""

from dataclasses import dataclass

from itda_core.evaluation.metrics import Sum


def ce_loss_score(model: float, zeroed: float, spliced: float) -> float:
    """(H_zero − H_spliced) / (H_zero − H_model), H in nats: 1 = nothing lost, 0 = all lost.

    `ce_loss_score` in SAEBench. NaN where zeroing costs nothing.
    """
    return (zeroed - spliced) / (zeroed - model) if zeroed != model else float("nan")


@dataclass
class Losses:
    """Sums over predictions, in nats: cross-entropy, and divergence from the model as it is."""

    predictions: int = 0
    cross_entropy: Sum = 0.0
    divergence: Sum = 0.0
    """Σ KL(model as it is ‖ spliced)"""

    def add(self, other: "Losses") -> None:
        self.predictions += other.predictions
        self.cross_entropy = self.cross_entropy + other.cross_entropy
        self.divergence = self.divergence + other.divergence

    @property
    def kl(self) -> float:
        """Mean over predictions of Σ_v p(v) (log p(v) − log q(v)), p of the model as it is and q
        spliced, in nats; `kl_div_with_sae` in SAEBench. NaN without predictions."""
        return float(self.divergence) / self.predictions if self.predictions else float("nan")

    @property
    def mean_cross_entropy(self) -> float:
        """Mean over predictions of −log p(next token), in nats; NaN without predictions."""
        return float(self.cross_entropy) / self.predictions if self.predictions else float("nan")

    def score(self, plain: "Losses", zeroed: "Losses") -> float:
        """The CE loss score; NaN without predictions."""
        return ce_loss_score(*(float(of.cross_entropy) for of in (plain, zeroed, self)))
