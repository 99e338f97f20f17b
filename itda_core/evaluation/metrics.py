"""Measures of a reconstruction, each defined once. Sums over all tokens, divided once.

x: activations, x̂: their reconstructions, both [n_tokens, d_model]. Where the names are those of
SAEBench (Karvonen et al. 2025, arXiv 2503.09532) and SAELens, so are the definitions.
"""

import math
from dataclasses import dataclass

import torch

from itda_core.devices import in_float64
from itda_core.pursuit.codes import Codes

Sum = torch.Tensor | float
"""A sum stays on the device of what was added, as a float64 tensor without dimensions, so that
nothing waits for it before it is read."""
MIN_TERM_SHARE = 1e-5
"""A term this small against the token's largest is float32 rounding, not a use of a latent."""
_BINS_A_DECADE = 4


@dataclass
class ReconstructionSums:
    """Sums from which the measures come; they add up over batches.

    Σx is kept in float64: Σ‖x − x̄‖² is the difference of two large numbers.
    """

    tokens: int = 0
    squared_error: Sum = 0.0
    """Σ‖x − x̂‖²"""
    squared_norm: Sum = 0.0
    """Σ‖x‖²"""
    total: Sum = 0.0
    """Σx, [d_model]"""
    cosine_sum: Sum = 0.0
    """Σ cos(x, x̂)"""
    norm_ratio_sum: Sum = 0.0
    """Σ ‖x̂‖ / ‖x‖"""

    def add(self, activations: torch.Tensor, reconstructions: torch.Tensor) -> None:
        """Count a batch. Both: [n_tokens, d_model], on the device of the batches before."""
        x, xhat = in_float64(activations), in_float64(reconstructions)
        self.tokens += len(x)
        # Token by token first: a sum of all at once depends on how many threads share it.
        self.squared_error = self.squared_error + (x - xhat).square().sum(1).sum()
        self.squared_norm = self.squared_norm + x.square().sum(1).sum()
        self.total = self.total + x.sum(0)
        self.cosine_sum = self.cosine_sum + cosines(x, xhat).sum()
        self.norm_ratio_sum = self.norm_ratio_sum + norm_ratios(x, xhat).sum()

    def merge(self, sums: "ReconstructionSums") -> None:
        """Count what other sums have counted, as if its batch had been added here."""
        for name, more in vars(sums).items():
            setattr(self, name, getattr(self, name) + more)

    @property
    def fvu(self) -> float:
        """Fraction of variance unexplained: Σ‖x − x̂‖² / Σ‖x − x̄‖²; NaN without variance."""
        if not self.tokens:
            return float("nan")
        mean_part = float(self.total.square().sum()) / self.tokens
        variance = float(self.squared_norm) - mean_part
        return float(self.squared_error) / variance if variance > 0 else float("nan")

    @property
    def explained_variance(self) -> float:
        """1 − FVU: SAELens' `explained_variance`. SAEBench averages 1 − ‖x − x̂‖² / ‖x − x̄‖² over
        tokens instead, which SAELens now calls `explained_variance_legacy`."""
        return 1 - self.fvu

    @property
    def cosine(self) -> float:
        """Mean of cos(x, x̂) over tokens, `cossim` in SAEBench; NaN without tokens."""
        return float(self.cosine_sum) / self.tokens if self.tokens else float("nan")

    @property
    def norm_ratio(self) -> float:
        """Mean of ‖x̂‖ / ‖x‖ over tokens, `l2_ratio` in SAEBench; below 1 where reconstructions
        shrink. NaN without tokens."""
        return float(self.norm_ratio_sum) / self.tokens if self.tokens else float("nan")


def fvu(activations: torch.Tensor, reconstructions: torch.Tensor) -> float:
    """Fraction of variance unexplained of one batch: Σ‖x − x̂‖² / Σ‖x − x̄‖²."""
    sums = ReconstructionSums()
    sums.add(activations, reconstructions)
    return sums.fvu


def cosines(x: torch.Tensor, xhat: torch.Tensor) -> torch.Tensor:
    """cos(x, x̂) of each token, [n_tokens] in [−1, 1]; 0 where either is zero."""
    return torch.nn.functional.cosine_similarity(x, xhat, dim=1, eps=1e-30)


def norm_ratios(x: torch.Tensor, xhat: torch.Tensor) -> torch.Tensor:
    """‖x̂‖ / ‖x‖ of each token, [n_tokens]; ‖x̂‖ where x is zero."""
    norms = x.norm(dim=1)
    return xhat.norm(dim=1) / torch.where(norms > 0, norms, 1.0)


def used_terms(codes: Codes) -> torch.Tensor:
    """Which terms are uses of a latent rather than nothing or rounding, [n_tokens, l0] bool."""
    sizes = codes.coefficients.abs()
    if not sizes.numel():
        return torch.zeros_like(sizes, dtype=torch.bool)
    return sizes > MIN_TERM_SHARE * sizes.amax(1, keepdim=True)


@dataclass
class SparsitySums:
    """How many terms and latents a token uses, and how many tokens use a latent."""

    uses: torch.Tensor
    """Tokens that use each latent, [n_atoms] int64"""
    tokens: int = 0
    terms: torch.Tensor | int = 0

    @classmethod
    def of(cls, n_atoms: int, device: torch.device | str = "cpu") -> "SparsitySums":
        """device: that of the codes."""
        return cls(torch.zeros(n_atoms, dtype=torch.int64, device=device))

    def add(self, codes: Codes) -> None:
        """Count a batch of codes."""
        used = used_terms(codes)
        self.tokens += len(codes)
        self.terms = self.terms + used.sum()
        # In order of latents, those that are none first, a latent's first use differs from what is
        # before it.
        latents = torch.where(used, codes.latents, -1).sort(1).values
        is_first = latents >= 0
        is_first[:, 1:] &= latents[:, 1:] != latents[:, :-1]
        self.uses.index_add_(0, latents.clamp(min=0).flatten(), is_first.flatten().long())

    @property
    def mean_l0(self) -> float:
        """Mean number of terms that a token really uses; NaN without tokens."""
        return int(self.terms) / self.tokens if self.tokens else float("nan")

    @property
    def mean_latents(self) -> float:
        """Mean number of different latents that a token uses, `l0` in SAEBench, where a latent has
        one activation: matching pursuit may take an atom again. NaN without tokens."""
        return int(self.uses.sum()) / self.tokens if self.tokens else float("nan")

    @property
    def unused_share(self) -> float:
        """Share of the latents that no token uses, [0, 1]."""
        return float((self.uses.cpu() == 0).double().mean())

    @property
    def densities(self) -> torch.Tensor:
        """Share of the tokens that use each latent, [n_atoms] float64 in [0, 1], on the host;
        `feature_density` in SAEBench."""
        return self.uses.cpu().double() / max(self.tokens, 1)


def density_histogram(densities: torch.Tensor, tokens: int) -> list[dict[str, float | int]]:
    """How many latents have which density, in bins of log10: from, to (not included), latents.

    densities: [n_atoms] in [0, 1], over `tokens` tokens. The first bin holds the latents that one
    token uses, the last, which ends at 0, also those that all use; what none uses is in no bin.
    """
    logs = torch.log10(densities[densities > 0]) * _BINS_A_DECADE
    # What lies on an edge belongs above it, whatever the rounding of the logarithm.
    lowest = min(-1, math.floor(-math.log10(max(tokens, 1)) * _BINS_A_DECADE + 1e-9))
    numbers = (logs + 1e-9).floor().long().clamp(lowest, -1) - lowest
    counts = numbers.bincount(minlength=-lowest).tolist()
    return [
        {
            "from": (lowest + number) / _BINS_A_DECADE,
            "to": (lowest + number + 1) / _BINS_A_DECADE,
            "latents": count,
        }
        for number, count in enumerate(counts)
    ]
