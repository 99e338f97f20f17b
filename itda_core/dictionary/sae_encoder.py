"""The encoder of a sparse autoencoder (SAE), in the place that a pursuit has in other dictionaries.

An SAE writes an activation as Σ aᵢ·wᵢ + b, where aᵢ ≥ 0 is what the encoder gives and wᵢ a row of
the decoder. With unit atoms wᵢ/‖wᵢ‖ the coefficients are aᵢ·‖wᵢ‖, so that its codes read like those
of a pursuit: a term's coefficient is the length of what it adds.
"""

from dataclasses import dataclass, fields, replace

import torch

from itda_core.errors import InputError
from itda_core.pursuit.codes import Codes
from itda_core.pursuit.products import products

ARCHITECTURES = ("standard", "topk", "jumprelu")
MAX_TERMS = 1_024
"""Terms of one token, at most; where more latents are active, the weakest are left out."""
DENSE_VALUES = 1 << 24
"""Pre-activations computed together, 64 MB of float32."""


@dataclass(frozen=True)
class SaeEncoder:
    """From activations to codes by one product and a rule for which latents stay."""

    architecture: str
    """standard: those above 0. jumprelu: those above `threshold`, if above 0. topk: the `k`
    largest pre-activations, if above 0"""
    weight: torch.Tensor
    """[d_model, n_atoms] float32"""
    bias: torch.Tensor
    """[n_atoms] float32"""
    center: torch.Tensor
    """[d_model] float32, subtracted before the product: the decoder's bias, or zero"""
    norms: torch.Tensor
    """[n_atoms] float32, lengths of the decoder's rows"""
    k: int | None = None
    threshold: torch.Tensor | None = None
    """[n_atoms] float32"""

    def __len__(self) -> int:
        return len(self.bias)

    def to(self, device: torch.device | str) -> "SaeEncoder":
        """The same encoder with its tensors on a device."""
        own = {part.name: getattr(self, part.name) for part in fields(self)}
        moved = {name: one.to(device) for name, one in own.items() if torch.is_tensor(one)}
        return replace(self, **moved)

    def pre_activations(self, x: torch.Tensor) -> torch.Tensor:
        """What the rule decides on, [n_tokens, n_atoms] float32. x: [n_tokens, d_model]."""
        return products(x.float() - self.center, self.weight) + self.bias

    def coefficients(self, pre: torch.Tensor) -> torch.Tensor:
        """Coefficients on unit atoms, [n_tokens, n_atoms] float32, 0 where a latent is not
        active. pre: what `pre_activations` gives."""
        active = pre.relu()
        if self.architecture == "topk":
            largest = pre.topk(min(self.k, len(self)), dim=1)
            active = torch.zeros_like(pre).scatter_(1, largest.indices, largest.values.relu())
        elif self.architecture == "jumprelu":
            active *= pre > self.threshold
        return active * self.norms

    def nearness(self, pre: torch.Tensor) -> torch.Tensor:
        """How far each latent is from being active, [n_tokens, n_atoms]; larger is nearer."""
        return pre if self.threshold is None else pre - self.threshold

    def encode(self, x: torch.Tensor, l0: int | None = None) -> Codes:
        """Codes with the largest coefficients first.

        x: activations, [n_tokens, d_model]. As many terms as the token with most active latents
        has, at most `l0`, by default MAX_TERMS; other tokens are filled up with latent 0 and
        coefficient 0. Raises InputError for activations that don't fit or are not finite.
        """
        self._check(x, l0)
        limit = min(l0 or MAX_TERMS, len(self))
        rows = max(1, DENSE_VALUES // len(self))
        blocks = [self._terms(x[first : first + rows], limit) for first in range(0, len(x), rows)]
        width = max([1, *(block.l0 for block in blocks)])
        latents = torch.zeros(len(x), width, dtype=torch.int64, device=x.device)
        coefficients = torch.zeros(len(x), width, dtype=torch.float32, device=x.device)
        for number, block in enumerate(blocks):
            place = slice(number * rows, number * rows + len(block)), slice(0, block.l0)
            latents[place], coefficients[place] = block.latents, block.coefficients
        return Codes(latents, coefficients)

    def _terms(self, x: torch.Tensor, limit: int) -> Codes:
        """The codes of one block, as wide as its token with most active latents."""
        dense = self.coefficients(self.pre_activations(x))
        width = min(limit, max(1, int((dense > 0).sum(1).max())))
        largest = dense.topk(width, dim=1)
        return Codes(largest.indices * (largest.values > 0), largest.values)

    def _check(self, x: torch.Tensor, l0: int | None) -> None:
        if x.ndim != 2 or x.shape[1] != len(self.center):
            raise InputError(
                f"This dictionary takes activations [n_tokens, {len(self.center)}], got "
                f"{list(x.shape)}."
            )
        if l0 is not None and l0 < 1:
            raise InputError(f"l0 must be at least 1, got {l0}.")
        if not torch.isfinite(x).all():
            raise InputError("Some activations are not finite: leave those tokens out first.")

    def tensors(self) -> dict[str, torch.Tensor]:
        """What a dictionary file keeps of it, beside architecture and k."""
        center = self.center.clone()  # the dictionary's offset may be the same memory
        parts = {"weight": self.weight, "bias": self.bias, "center": center}
        parts |= {"norms": self.norms, "threshold": self.threshold}
        return {f"encoder.{name}": tensor for name, tensor in parts.items() if tensor is not None}

    @classmethod
    def of_tensors(
        cls, architecture: str, k: int | None, tensors: dict[str, torch.Tensor]
    ) -> "SaeEncoder":
        """The inverse of `tensors`. Raises KeyError or ValueError for what does not fit."""
        if architecture not in ARCHITECTURES:
            raise ValueError(f"no encoder of the kind {architecture!r} is known")
        encoder = cls(
            architecture=architecture,
            weight=tensors["encoder.weight"],
            bias=tensors["encoder.bias"],
            center=tensors["encoder.center"],
            norms=tensors["encoder.norms"],
            k=k,
            threshold=tensors["encoder.threshold"] if architecture == "jumprelu" else None,
        )
        n_atoms, d_model = len(encoder.bias), len(encoder.center)
        vectors = [encoder.bias, encoder.norms, encoder.threshold]
        if encoder.weight.shape != (d_model, n_atoms) or any(
            vector is not None and vector.shape != (n_atoms,) for vector in vectors
        ):
            raise ValueError("the encoder's tensors do not fit each other")
        if architecture == "topk" and not (isinstance(k, int) and k >= 1):
            raise ValueError(f"a TopK encoder needs k of at least 1, got {k!r}")
        return encoder
