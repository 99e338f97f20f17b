"""Pursuits whose coefficients are fitted together by least squares.

`orthogonal_matching_pursuit` (Pati et al. 1993) refits after every step, so that the residual is
orthogonal to all atoms taken and each choice is made on what they can't explain together.
`refitted_pursuit` chooses as plain matching pursuit does and refits once, at the end.
"""

import functools

import torch

from itda_core.pursuit.blocks import check_input, in_blocks, in_threads
from itda_core.pursuit.codes import Codes
from itda_core.pursuit.kernel_matching import ROUNDING
from itda_core.pursuit.kernel_orthogonal import MIN_NEW_PART, pursue_orthogonally_rows
from itda_core.pursuit.matching import matching_pursuit

_REFIT_TOGETHER = 2_048
"""Tokens refitted at once: their atoms are copied out, [n_tokens, l0, d_model]."""
_JITTER = 1e-6
"""Added to the diagonal of unit atoms' products, so that equal atoms share a term; more where
rounding needs it."""


def orthogonal_matching_pursuit(
    activations: torch.Tensor,
    atoms: torch.Tensor,
    l0: int,
    gram: torch.Tensor | None = None,
    memory: int | None = None,
    min_projection: float = 0.0,
) -> Codes:
    """Decompose each activation into `l0` signed atoms, refitting all coefficients at each step.

    Arguments, ties, zeros and errors are those of `matching_pursuit`. No atom is taken twice. The
    pursuit of a token ends early where no atom adds anything to those taken, and before the first
    step whose projection would be smaller than `min_projection`, in units of the activations.
    """
    check_input(activations, atoms, l0, gram)
    n_tokens, device = len(activations), activations.device
    latents = torch.zeros(n_tokens, l0, dtype=torch.int64, device=device)
    projections = torch.zeros(n_tokens, l0, device=device, dtype=torch.float32)
    factor = torch.zeros(n_tokens, l0, l0, device=device, dtype=torch.float32)
    results = (projections, latents, factor)
    in_blocks(
        functools.partial(_way, min_projection), activations, atoms, l0, results, gram, memory
    )
    return Codes.fitted(latents, factor, projections)


def refitted_pursuit(
    activations: torch.Tensor,
    atoms: torch.Tensor,
    l0: int,
    gram: torch.Tensor | None = None,
    memory: int | None = None,
) -> Codes:
    """Matching pursuit, then least squares on the atoms that it chose.

    Arguments and errors are those of `matching_pursuit`. An atom that was chosen twice keeps one
    coefficient, its first; the later term is 0.
    """
    codes = matching_pursuit(activations, atoms, l0, gram, memory)
    return refit(activations, atoms, codes.latents, codes.coefficients != 0)


def refit(
    activations: torch.Tensor, atoms: torch.Tensor, latents: torch.Tensor, used: torch.Tensor
) -> Codes:
    """Least squares on given atoms: codes with `latents`, where `used` says which terms count.

    activations: [n_tokens, d_model]; latents: [n_tokens, l0]; used: [n_tokens, l0] bool.
    """
    shape = (*latents.shape, latents.shape[1])
    factor = torch.zeros(shape, device=atoms.device, dtype=torch.float32)
    projections = torch.zeros(latents.shape, device=atoms.device, dtype=torch.float32)
    for first in range(0, len(latents), _REFIT_TOGETHER):
        block = slice(first, first + _REFIT_TOGETHER)
        chosen = atoms[latents[block]] * _first_uses(latents[block], used[block])[..., None]
        products = chosen @ chosen.mT
        diagonal = products.diagonal(dim1=1, dim2=2)
        diagonal += torch.where(diagonal > 0, _JITTER, 1.0)  # a term left out: 1, so that L exists
        factor[block] = _factored(products)
        along = chosen @ activations[block, :, None].float()
        solved = torch.linalg.solve_triangular(factor[block], along, upper=False)
        projections[block] = solved[..., 0]
    return Codes.fitted(latents, factor, projections)


def _factored(products: torch.Tensor) -> torch.Tensor:
    """Cholesky factors of [n_tokens, l0, l0]; where rounding has left a matrix that has none, of
    one with a larger diagonal."""
    factor, failed = torch.linalg.cholesky_ex(products)
    jitter = _JITTER
    while failed.any():
        jitter *= 10
        rows = failed.nonzero()[:, 0]
        eye = torch.eye(products.shape[1], device=products.device, dtype=torch.float32)
        factor[rows], failed[rows] = torch.linalg.cholesky_ex(products[rows] + jitter * eye)
    return factor


def _first_uses(latents: torch.Tensor, used: torch.Tensor) -> torch.Tensor:
    """[n_tokens, l0] bool: terms that count and whose atom no earlier term has."""
    same = (latents[:, :, None] == latents[:, None, :]) & used[:, None, :]
    return used & ~same.tril(-1).any(2)


def _way(min_projection: float, has_gram: bool, on_cpu: bool):
    pursue = _pursue_compiled if has_gram and on_cpu else _pursue_by_products
    return functools.partial(pursue, min_projection)


def _pursue_compiled(
    min_projection, correlations, residuals, atoms, gram, scale, projections, latents, factor
) -> None:
    """The pursuit by the compiled kernel."""
    torch.mm(residuals, atoms.T, out=correlations)
    own = (correlations, residuals, (min_projection / scale)[:, 0], latents, factor, projections)
    shared = gram.numpy(), atoms.numpy()
    in_threads(lambda c, r, *own: pursue_orthogonally_rows(c, r, *shared, *own), own)


def _pursue_by_products(
    min_projection, room, residuals, atoms, _gram, scale, projections, latents, factor
) -> None:
    """The pursuit as it is defined, one product a step, an orthonormal basis for each token."""
    n_tokens, l0 = latents.shape
    basis = residuals.new_zeros(n_tokens, l0, residuals.shape[1])
    floor = ROUNDING * residuals.norm(dim=1)
    more = torch.ones_like(floor, dtype=torch.bool)
    for step in range(l0):
        best = torch.mm(residuals, atoms.T, out=room).abs_().argmax(1)
        new = atoms[best]
        along = torch.zeros_like(projections)
        for _ in range(2):  # once more, since rounding leaves a little behind
            part = (basis @ new[..., None])[..., 0]
            new = new - (part[:, None] @ basis)[:, 0]
            along += part
        size = new.norm(dim=1)
        more = more & (residuals.norm(dim=1) > floor) & (size > MIN_NEW_PART)
        new = new / size.clamp(min=MIN_NEW_PART)[:, None]
        more = more & ((residuals * new).sum(1).abs() >= min_projection / scale[:, 0])
        basis[:, step] = new * more[:, None]
        factor[:, step] = along * more[:, None]
        factor[:, step, step] = torch.where(more, size, 1.0)
        latents[:, step] = best * more
        projections[:, step] = (residuals * basis[:, step]).sum(1)
        residuals -= projections[:, step, None] * basis[:, step]


PURSUITS = {
    "matching": matching_pursuit,
    "refit": refitted_pursuit,
    "orthogonal": orthogonal_matching_pursuit,
}
"""By the name that configurations and dictionaries use."""
