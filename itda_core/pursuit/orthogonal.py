"""Pursuits whose coefficients are fitted together by least squares.

`orthogonal_matching_pursuit` (Pati et al. 1993) refits after every step, so that the residual is
orthogonal to all atoms taken and each choice is made on what they can't explain together.
`refitted_pursuit` chooses as plain matching pursuit does and refits once, at the end.
"""

import functools

import torch

from itda_core.devices import check_same_device, halving
from itda_core.pursuit.blocks import Ways, check_input, in_blocks, in_threads
from itda_core.pursuit.codes import Codes
from itda_core.pursuit.gram import orthogonal_traffic
from itda_core.pursuit.kernel_orthogonal import pursue_orthogonally_rows
from itda_core.pursuit.matching import matching_pursuit
from itda_core.pursuit.orthogonal_torch import (
    pursue_by_gram,
    pursue_by_products,
    pursue_by_proposals,
)
from itda_core.pursuit.products import products

_REFIT_TOGETHER = 2_048
"""Tokens refitted at once: their atoms are copied out, [n_tokens, l0, d_model]."""
_JITTER = 1e-6
"""Added to the diagonal of unit atoms' products, so that equal atoms share a term."""
_MORE_JITTER = (1e-5, 1e-4, 1e-3, 1e-2)
"""Tried in turn where rounding has left a matrix without a factor. Rounding of products in float32
stays below the last by far."""


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
    latents = torch.empty(n_tokens, l0, dtype=torch.int64, device=device)
    projections = torch.empty(n_tokens, l0, device=device, dtype=torch.float32)
    factor = torch.empty(n_tokens, l0, l0, device=device, dtype=torch.float32)
    results = (projections, latents, factor)
    in_blocks(_ways(min_projection, l0), activations, atoms, l0, results, gram, memory)
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
    check_same_device(activations=activations, atoms=atoms, latents=latents)
    shape = (*latents.shape, latents.shape[1])
    factor = torch.zeros(shape, device=atoms.device, dtype=torch.float32)
    projections = torch.zeros(latents.shape, device=atoms.device, dtype=torch.float32)

    def fit(first: int, last: int) -> None:
        block = slice(first, last)
        chosen = atoms[latents[block]] * _first_uses(latents[block], used[block])[..., None]
        squares = products(chosen, chosen.mT)
        diagonal = squares.diagonal(dim1=1, dim2=2)
        diagonal += torch.where(diagonal > 0, _JITTER, 1.0)  # a term left out: 1, so that L exists
        factor[block] = _factored(squares)
        along = products(chosen, activations[block, :, None].float())
        solved = torch.linalg.solve_triangular(factor[block], along, upper=False)
        projections[block] = solved[..., 0]

    for _ in halving(fit, len(latents), _REFIT_TOGETHER, _FULL.format(latents.shape[1])):
        pass
    return Codes.fitted(latents, factor, projections)


_FULL = (
    "Not even one token fits into the memory for least squares on {} atoms: free some there, or "
    "take a smaller L0 or another device."
)


def _factored(squares: torch.Tensor) -> torch.Tensor:
    """Cholesky factors of [n_tokens, l0, l0]; where rounding has left a matrix that has none, of
    one with a larger diagonal. Waits for the device once."""
    factor, failed = torch.linalg.cholesky_ex(squares)
    rows = failed.nonzero()[:, 0]
    if not len(rows):
        return factor
    eye = torch.eye(squares.shape[1], device=squares.device, dtype=torch.float32)
    again, failed = factor[rows], failed[rows]
    for jitter in _MORE_JITTER:
        tried, tried_failed = torch.linalg.cholesky_ex(squares[rows] + jitter * eye)
        again = torch.where(failed[:, None, None] != 0, tried, again)
        failed = torch.where(failed != 0, tried_failed, failed)
    factor[rows] = again
    return factor


def _first_uses(latents: torch.Tensor, used: torch.Tensor) -> torch.Tensor:
    """[n_tokens, l0] bool: terms that count and whose atom no earlier term has."""
    same = (latents[:, :, None] == latents[:, None, :]) & used[:, None, :]
    return used & ~same.tril(-1).any(2)


def _ways(min_projection: float, l0: int) -> Ways:
    ways = _pursue_compiled, pursue_by_gram, pursue_by_products, pursue_by_proposals
    return Ways(*(functools.partial(way, min_projection) for way in ways), orthogonal_traffic(l0))


def _pursue_compiled(
    min_projection, correlations, residuals, atoms, gram, scale, projections, latents, factor
) -> None:
    """The pursuit by the compiled kernel."""
    products(residuals, atoms.T, out=correlations)
    own = (correlations, residuals, (min_projection / scale)[:, 0], latents, factor, projections)
    shared = gram.numpy(), atoms.numpy()
    in_threads(lambda c, r, *own: pursue_orthogonally_rows(c, r, *shared, *own), own)


PURSUITS = {
    "matching": matching_pursuit,
    "refit": refitted_pursuit,
    "orthogonal": orthogonal_matching_pursuit,
}
"""By the name that configurations and dictionaries use."""


def compile_pursuit(name: str) -> None:
    """Have what a pursuit runs on a CPU compiled, half a minute the first time on a machine, and
    read from the disk after that; else the first tokens would wait for it."""
    activations, atoms = torch.ones(4, 4, dtype=torch.float32), torch.eye(4, dtype=torch.float32)
    PURSUITS[name](activations, atoms, l0=2)
