"""Matching pursuit: activations and atoms in, codes out. Pure functions.

At each of `l0` steps the atom with the largest |correlation| with the residual is taken, its
signed correlation becomes a coefficient, and the term is subtracted (Mallat & Zhang 1993).

With C = X Dᵀ computed once and the Gram matrix G = D Dᵀ, subtracting c·d_j from a residual changes
its correlations by c·G[j], so a step costs n_atoms instead of n_atoms × d_model. Which way is
taken, and in what blocks, follows from shapes, device and memory; the codes are the same to float32
rounding. On a GPU the product is often faster than fetching rows of G, see `products`.
"""

import torch

from itda_core.pursuit.blocks import Ways, check_input, in_blocks, in_threads, pursue_anew
from itda_core.pursuit.codes import Codes
from itda_core.pursuit.gram import MATCHING_TRAFFIC
from itda_core.pursuit.kernel_matching import ROUNDING, pursue_rows
from itda_core.pursuit.products import Proposed, Strongest, products


def matching_pursuit(
    activations: torch.Tensor,
    atoms: torch.Tensor,
    l0: int,
    gram: torch.Tensor | None = None,
    memory: int | None = None,
) -> Codes:
    """Decompose each activation into `l0` signed atoms.

    activations: [n_tokens, d_model], any float type; atoms: [n_atoms, d_model], unit rows;
    gram: `gram_matrix(atoms)` where the caller has it already (more rows and columns, as a growing
    dictionary has them, are not looked at); memory: bytes that the call may use beyond its result,
    by default a quarter of what is free.

    Of equal correlations the atom with the lower number is taken. Where the residual is down to
    rounding (1e-6 of the activation), the remaining terms are latent 0 with coefficient 0, and so
    are all terms of a zero vector. Raises InputError for shapes that don't fit and for values that
    are not finite.
    """
    check_input(activations, atoms, l0, gram)
    x = activations
    latents = torch.empty(len(x), l0, dtype=torch.int64, device=x.device)
    coefficients = torch.empty(len(x), l0, device=x.device, dtype=torch.float32)
    in_blocks(_ways(), x, atoms, l0, (coefficients, latents), gram, memory)
    return Codes(latents, coefficients)


def _ways() -> Ways:
    return Ways(
        compiled=_pursue_compiled,
        by_gram=_pursue_torch,
        by_products=_pursue_directly,
        by_proposals=_pursue_by_proposals,
        gram_traffic=MATCHING_TRAFFIC,
    )


def _pursue_directly(room, residuals, atoms, _gram, _scale, coefficients, latents) -> None:
    """The pursuit as it is defined, one product a step; needs no Gram matrix."""
    _pursue(Strongest(atoms, room), residuals, atoms, coefficients, latents)


def _pursue_by_proposals(_room, residuals, atoms, _gram, scale, coefficients, latents) -> None:
    """The same with 16 bits that propose; tokens for which they can't tell are pursued directly."""
    x = residuals.clone()
    unclear = _pursue(Proposed(atoms), residuals, atoms, coefficients, latents)
    pursue_anew(unclear, _pursue_directly, x, atoms, scale, (coefficients, latents))


def _pursue(find, residuals, atoms, coefficients, latents) -> torch.Tensor:
    """Take the atoms that `find` gives. Returns the tokens, bool, where it was not always sure."""
    floor = ROUNDING * residuals.norm(dim=1)
    unclear = torch.zeros_like(floor, dtype=torch.bool)
    for step in range(latents.shape[1]):
        best, is_sure = find(residuals)
        unclear |= _take(step, best, floor, residuals, atoms, latents, coefficients) & ~is_sure
    return unclear


def _pursue_torch(_room, residuals, atoms, gram, _scale, coefficients, latents) -> None:
    """The pursuit by the Gram matrix in torch operations, for devices that the compiled kernel is
    not for. Nothing in the loop waits for the device."""
    floor = ROUNDING * residuals.norm(dim=1)
    gram = gram[: len(atoms), : len(atoms)]
    correlations = products(residuals, atoms.T)
    for step in range(latents.shape[1]):
        best = correlations.abs().argmax(1)
        _take(step, best, floor, residuals, atoms, latents, coefficients)
        correlations.addcmul_(gram[best], coefficients[:, step, None], value=-1)


def _take(step, best, floor, residuals, atoms, latents, coefficients) -> torch.Tensor:
    """Write down one term of each token and subtract it; nothing where only rounding is left.
    Returns where there was more, [n_tokens] bool."""
    chosen = atoms[best]
    more = residuals.norm(dim=1) > floor
    latents[:, step] = best * more
    coefficients[:, step] = (residuals * chosen).sum(1) * more
    residuals -= coefficients[:, step, None] * chosen
    return more


def _pursue_compiled(correlations, residuals, atoms, gram, _scale, coefficients, latents) -> None:
    """The pursuit by the compiled kernel."""
    products(residuals, atoms.T, out=correlations)
    own = (correlations, residuals, latents, coefficients)
    in_threads(lambda c, r, *out: pursue_rows(c, r, gram.numpy(), atoms.numpy(), *out), own)
