"""Matching pursuit: activations and atoms in, codes out. Pure functions.

At each of `l0` steps the atom with the largest |correlation| with the residual is taken, its
signed correlation becomes a coefficient, and the term is subtracted (Mallat & Zhang 1993).

Up to GRAM_ATOMS atoms the residual itself is never formed. With C = X Dᵀ computed once and the
Gram matrix G = D Dᵀ, subtracting c·d_j from a residual changes its correlations by c·G[j], so a
step costs n_atoms instead of n_atoms × d_model. On the CPU one compiled pass updates a token's row
and finds the next maximum while the row is in cache; elsewhere the same is done with torch
operations.
"""

import functools
import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numba import njit

from itda_core.errors import InputError

_CORRELATION_BYTES = 256 * 2**20
"""Upper bound for one block of correlations."""
GRAM_ATOMS = 16_384
"""Above this many atoms no Gram matrix is made (1 GiB in float32); each step is a product then."""
_BLOCK = 128
"""Atoms searched together by the compiled kernel; the inner loops run over one block."""


@dataclass(frozen=True)
class Codes:
    """Decompositions of n_tokens activations into l0 terms each, in the order of pursuit."""

    latents: torch.Tensor
    """[n_tokens, l0] int64; an atom may be taken more than once"""
    coefficients: torch.Tensor
    """[n_tokens, l0] float32, signed; 0 where nothing was left to explain"""

    @property
    def l0(self) -> int:
        return self.latents.shape[1]

    def __len__(self) -> int:
        return self.latents.shape[0]

    def prefix(self, l0: int) -> "Codes":
        """The decomposition that a pursuit of only `l0` steps gives: the first terms."""
        return Codes(self.latents[:, :l0], self.coefficients[:, :l0])

    def reconstruct(self, atoms: torch.Tensor) -> torch.Tensor:
        """Sum of coefficient × atom, [n_tokens, d_model] float32. atoms: [n_atoms, d_model]."""
        if not self.latents.numel():  # no tokens, or the prefix of no terms
            return atoms.new_zeros(len(self), atoms.shape[1])
        return torch.nn.functional.embedding_bag(
            self.latents, atoms, per_sample_weights=self.coefficients.to(atoms.dtype), mode="sum"
        )


def matching_pursuit(
    activations: torch.Tensor, atoms: torch.Tensor, l0: int, gram: torch.Tensor | None = None
) -> Codes:
    """Decompose each activation into `l0` signed atoms.

    activations: [n_tokens, d_model], any float type; atoms: [n_atoms, d_model], unit rows;
    gram: atoms @ atoms.T where the caller has it already, float32, at least [n_atoms, n_atoms]
    (more rows and columns, as a growing dictionary has them, are not looked at).

    Of equal correlations the atom with the lower number is taken. A zero vector gets latent 0
    with coefficient 0. Raises InputError for shapes that don't fit and for values that are not
    finite.
    """
    _check(activations, atoms, l0)
    x, atoms = activations.detach().float(), atoms.detach().float()
    rows = max(1, _CORRELATION_BYTES // (4 * len(atoms)))
    latents = torch.zeros(len(x), l0, dtype=torch.int64, device=x.device)
    coefficients = torch.zeros(len(x), l0, device=x.device)
    # A Gram matrix costs n_atoms products of a token, the direct way l0 of them for each token.
    if gram is None and len(atoms) <= GRAM_ATOMS and len(x) * l0 > len(atoms):
        gram = atoms @ atoms.T
    for first in range(0, len(x), rows):
        block = slice(first, first + rows)
        if gram is None:
            _pursue_directly(x[block], atoms, latents[block], coefficients[block])
        else:
            pursue = _pursue_compiled if x.device.type == "cpu" else _pursue_torch
            pursue(x[block] @ atoms.T, gram, latents[block], coefficients[block])
    return Codes(latents, coefficients)


def residual_norms(activations: torch.Tensor, codes: Codes) -> torch.Tensor:
    """‖x − x̂‖ after each step, [n_tokens, l0 + 1] float32, the whole norm first.

    Each step takes the residual's whole component along a unit atom, so the squared norm falls
    by the squared coefficient. Exact for codes of matching pursuit on these activations only.
    """
    total = activations.double().square().sum(1, keepdim=True)
    explained = codes.coefficients.double().square().cumsum(1)
    return torch.cat([total, total - explained], 1).clamp(min=0).sqrt().float()


def direction_errors(activations: torch.Tensor, reconstructions: torch.Tensor) -> torch.Tensor:
    """‖x/‖x‖ − x̂/‖x̂‖‖² of each token, [n_tokens] in [0, 4]; 1 where x̂ is zero."""
    x = torch.nn.functional.normalize(activations.float(), dim=1)
    return (x - torch.nn.functional.normalize(reconstructions.float(), dim=1)).square().sum(1)


def _check(activations: torch.Tensor, atoms: torch.Tensor, l0: int) -> None:
    if activations.ndim != 2 or atoms.ndim != 2 or activations.shape[1] != atoms.shape[1]:
        raise InputError(
            "matching_pursuit takes activations [n_tokens, d_model] and atoms [n_atoms, d_model], "
            f"got {list(activations.shape)} and {list(atoms.shape)}."
        )
    if l0 < 1:
        raise InputError(f"l0 must be at least 1, got {l0}.")
    if not len(atoms):
        raise InputError("The dictionary has no atoms: train it on at least one token first.")
    if not torch.isfinite(activations).all():
        raise InputError("Some activations are not finite: leave those tokens out first.")


def _pursue_directly(x, atoms, latents, coefficients) -> None:
    """The pursuit as it is defined, with the residual itself; needs no Gram matrix."""
    residual = x.clone()
    for step in range(latents.shape[1]):
        correlations = residual @ atoms.T
        best = correlations.abs().argmax(1)
        latents[:, step] = best
        coefficients[:, step] = correlations.gather(1, best[:, None])[:, 0]
        residual -= coefficients[:, step, None] * atoms[best]


def _pursue_torch(correlations, gram, latents, coefficients) -> None:
    """The pursuit in torch operations; the outputs are filled, the correlations used up."""
    n_atoms = correlations.shape[1]
    for step in range(latents.shape[1]):
        best = correlations.abs().argmax(1)
        latents[:, step] = best
        coefficients[:, step] = correlations.gather(1, best[:, None])[:, 0]
        correlations -= coefficients[:, step, None] * gram[best, :n_atoms]


def _pursue_compiled(correlations, gram, latents, coefficients) -> None:
    """The pursuit by the compiled kernel, the tokens shared out among torch's threads."""
    c, g = correlations.numpy(), gram.numpy()
    out_latents, out_coefficients = latents.numpy(), coefficients.numpy()
    bounds = np.linspace(0, len(c), min(torch.get_num_threads(), len(c)) + 1).astype(int)
    parts = [
        (c[a:b], g, out_latents[a:b], out_coefficients[a:b]) for a, b in itertools.pairwise(bounds)
    ]
    if len(parts) == 1:
        _pursue_rows(*parts[0])
    else:
        list(_threads().map(lambda part: _pursue_rows(*part), parts))


@functools.cache
def _threads() -> ThreadPoolExecutor:
    """Plain threads rather than numba's own: those abort the process when two callers meet."""
    return ThreadPoolExecutor(torch.get_num_threads(), thread_name_prefix="pursuit")


@njit(nogil=True, cache=True, fastmath={"nnan", "ninf", "nsz", "reassoc", "contract"})
def _pursue_rows(correlations, gram, latents, coefficients):
    n_tokens, n_atoms = correlations.shape
    n_blocks = (n_atoms + _BLOCK - 1) // _BLOCK
    peaks = np.empty(n_blocks, np.float32)
    for token in range(n_tokens):
        row = correlations[token]
        for block in range(n_blocks):
            peak = np.float32(0.0)
            for atom in range(block * _BLOCK, min(n_atoms, block * _BLOCK + _BLOCK)):
                peak = max(peak, abs(row[atom]))
            peaks[block] = peak
        for step in range(latents.shape[1]):
            best_block = 0
            for block in range(1, n_blocks):
                if peaks[block] > peaks[best_block]:
                    best_block = block
            best = best_block * _BLOCK
            while best < n_atoms - 1 and abs(row[best]) < peaks[best_block]:
                best += 1
            coefficient = row[best]
            latents[token, step] = best
            coefficients[token, step] = coefficient
            gram_row = gram[best]
            for block in range(n_blocks):
                peak = np.float32(0.0)
                for atom in range(block * _BLOCK, min(n_atoms, block * _BLOCK + _BLOCK)):
                    value = row[atom] - coefficient * gram_row[atom]
                    row[atom] = value
                    peak = max(peak, abs(value))
                peaks[block] = peak
