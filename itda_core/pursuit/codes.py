"""Codes: activations written as short signed sums of atoms, and what such sums leave."""

import dataclasses
from dataclasses import dataclass

import torch

from itda_core.devices import check_same_device


@dataclass(frozen=True)
class Codes:
    """Decompositions of n_tokens activations into l0 terms each, in the order of pursuit."""

    latents: torch.Tensor
    """[n_tokens, l0] int64; plain matching pursuit may take an atom more than once"""
    coefficients: torch.Tensor
    """[n_tokens, l0] float32, signed; 0 where nothing was left to explain"""
    factor: torch.Tensor | None = None
    """[n_tokens, l0, l0] float32, lower triangular, where coefficients are fitted together by
    least squares: the Cholesky factor L of the chosen atoms' products. None where each
    coefficient was final once taken."""
    projections: torch.Tensor | None = None
    """[n_tokens, l0] float32 with `factor`: the activation along what each atom adds to the ones
    before it; the squares are what the steps explain"""

    @classmethod
    def fitted(
        cls, latents: torch.Tensor, factor: torch.Tensor, projections: torch.Tensor
    ) -> "Codes":
        """Codes whose coefficients solve Lᵀ c = z: least squares on all chosen atoms."""
        solved = torch.linalg.solve_triangular(factor.mT, projections[..., None], upper=True)
        return cls(latents, solved[..., 0], factor, projections)

    @property
    def l0(self) -> int:
        return self.latents.shape[1]

    def __len__(self) -> int:
        return self.latents.shape[0]

    def to(self, device: torch.device | str) -> "Codes":
        """The same codes on a device; these where they are there already."""
        if self.latents.device == torch.device(device):
            return self
        own = {part.name: getattr(self, part.name) for part in dataclasses.fields(self)}
        return Codes(**{name: one if one is None else one.to(device) for name, one in own.items()})

    def rows(self, rows: slice) -> "Codes":
        """The decompositions of some tokens."""
        own = {part.name: getattr(self, part.name) for part in dataclasses.fields(self)}
        return Codes(**{name: one if one is None else one[rows] for name, one in own.items()})

    @property
    def gains(self) -> torch.Tensor:
        """What each step takes off the squared norm of what is left, [n_tokens, l0] float64
        (float32 on MPS).

        A step of plain matching pursuit leaves ‖r‖² − c²; a step of an orthogonal one ‖r‖² − z².
        """
        taken = self.coefficients if self.projections is None else self.projections
        return _precise(taken).square()

    def prefix(self, l0: int) -> "Codes":
        """The decomposition that only `l0` steps give: the first terms, fitted anew where
        coefficients are fitted together."""
        if self.factor is None or l0 >= self.l0:
            return dataclasses.replace(
                self, latents=self.latents[:, :l0], coefficients=self.coefficients[:, :l0]
            )
        return Codes.fitted(
            self.latents[:, :l0], self.factor[:, :l0, :l0], self.projections[:, :l0]
        )

    def reconstruct(self, atoms: torch.Tensor) -> torch.Tensor:
        """Sum of coefficient × atom, [n_tokens, d_model] float32. atoms: [n_atoms, d_model]."""
        if not self.latents.numel():  # no tokens, or the prefix of no terms
            return atoms.new_zeros(len(self), atoms.shape[1])
        check_same_device(codes=self.latents, atoms=atoms)
        return weighted_sums(self.latents, self.coefficients.to(atoms.dtype), atoms)


def weighted_sums(numbers: torch.Tensor, weights: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Sums of weight × row without copying the rows out first, [n_tokens, width].

    numbers, weights: [n_tokens, terms], numbers of rows and what each is multiplied by, of the
    type of rows; rows: [n_rows, width].
    """
    return torch.nn.functional.embedding_bag(numbers, rows, per_sample_weights=weights, mode="sum")


def tokens_together(l0: int) -> int:
    """How many tokens to encode at once: their factors take l0² numbers each, 128 MiB in all."""
    return max(64, 2**25 // l0**2)


def residual_norms(activations: torch.Tensor, codes: Codes) -> torch.Tensor:
    """‖x − x̂‖ after each step, [n_tokens, l0 + 1] float32, the whole norm first.

    For codes of a pursuit on these activations only: the norms follow from the gains. On MPS, which
    has no float64, a norm below about 1e-3 of the whole is rounding.
    """
    check_same_device(activations=activations, codes=codes.latents)
    total = _precise(activations).square().sum(1, keepdim=True)
    explained = codes.gains.cumsum(1)
    return torch.cat([total, total - explained], 1).clamp(min=0).sqrt().float()


def direction_errors(activations: torch.Tensor, reconstructions: torch.Tensor) -> torch.Tensor:
    """‖x/‖x‖ − x̂/‖x̂‖‖² of each token, [n_tokens] in [0, 4]; 1 where x̂ is zero."""
    check_same_device(activations=activations, reconstructions=reconstructions)
    x = torch.nn.functional.normalize(activations.float(), dim=1)
    return (x - torch.nn.functional.normalize(reconstructions.float(), dim=1)).square().sum(1)


def _precise(x: torch.Tensor) -> torch.Tensor:
    """In float64, in float32 on MPS, which has none."""
    return x.float() if x.device.type == "mps" else x.double()
