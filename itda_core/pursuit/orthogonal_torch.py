"""Orthogonal matching pursuit in torch operations, all tokens of a block together.

Three ways, none of which waits for the device within its steps:
by products: the pursuit as it is defined, one product of residuals and atoms a step;
by proposals: the same, with that product in 16 bits and its winners decided in float32;
by the Gram matrix: correlations once, and after each step C − a G_S anew, with the coefficients a
from the products of the atoms taken. Nothing then adds up from step to step, and no vector of
d_model numbers is touched.
The last two are fast where all is clear. What they can't tell (which of two atoms is the larger,
how little an atom adds, whether only rounding is left) they leave, and once at the end of a block
those tokens are pursued by products.
"""

import functools

import torch

from itda_core.pursuit.blocks import pursue_anew
from itda_core.pursuit.codes import weighted_sums
from itda_core.pursuit.kernel_matching import ROUNDING
from itda_core.pursuit.kernel_orthogonal import MIN_NEW_PART
from itda_core.pursuit.products import Proposed, Strongest, products

_CLEAR_PART = 0.1
"""An atom's part outside of those taken that is longer than this needs no second look: rounding
has left little of the others in it."""
_CLEAR_CORRELATION = 1e-3
"""A correlation above this share of the activation's norm is far above rounding in C − a G_S."""


def pursue_by_products(
    min_projection, room, residuals, atoms, _gram, scale, projections, latents, factor
) -> None:
    """The pursuit as it is defined, an orthonormal basis for each token."""
    results = projections, latents, factor
    find = Strongest(atoms, room)
    _pursue(find, 2, MIN_NEW_PART, residuals, atoms, min_projection / scale[:, 0], results)


def pursue_by_proposals(
    min_projection, _room, residuals, atoms, _gram, scale, projections, latents, factor
) -> None:
    """The same with 16 bits that propose."""
    x, results, least = residuals.clone(), (projections, latents, factor), min_projection / scale
    unclear = _pursue(Proposed(atoms), 1, _CLEAR_PART, residuals, atoms, least[:, 0], results)
    careful = functools.partial(pursue_by_products, min_projection)
    pursue_anew(unclear, careful, x, atoms, scale, results)


def _pursue(find, passes, least_part, residuals, atoms, least, results) -> torch.Tensor:
    """Take atoms that `find` gives, until nothing is left. Returns the tokens, bool, that ended
    where `find` was not sure or an atom's new part was shorter than `least_part`.

    passes: how often the part of an atom along those taken is taken off: each time rounding
    leaves a little; least: [n_tokens], the smallest projection.
    """
    projections, latents, _ = results
    n_tokens, l0 = latents.shape
    basis = residuals.new_zeros(n_tokens, l0, residuals.shape[1])
    floor = ROUNDING * residuals.norm(dim=1)
    more = torch.ones_like(floor, dtype=torch.bool)
    unclear = torch.zeros_like(more)
    for step in range(l0):
        best, is_sure = find(residuals)
        new, along = _outside(atoms[best], basis[:, :step], passes)
        size = new.norm(dim=1)
        more = more & (residuals.norm(dim=1) > floor)
        is_clear = is_sure & (size > least_part)
        unclear |= more & ~is_clear
        new = new / size.clamp(min=least_part)[:, None]
        taken = (residuals * new).sum(1)
        more = more & is_clear & (taken.abs() >= least)
        _write(step, best, taken, along, size, more, results)
        basis[:, step] = new * more[:, None]
        residuals -= projections[:, step, None] * basis[:, step]
    return unclear


def _outside(new, basis, passes) -> tuple[torch.Tensor, torch.Tensor]:
    """The part of vectors [n_tokens, d_model] outside of a basis [n_tokens, t, d_model], and their
    products with it, [n_tokens, t]."""
    along = new.new_zeros(basis.shape[:2])
    for _ in range(passes if basis.shape[1] else 0):
        part = products(basis, new[..., None])[..., 0]
        new = new - products(part[:, None], basis)[:, 0]
        along += part
    return new, along


def _write(step, best, taken, along, size, more, results) -> None:
    """Write down one term of each token; a row of the identity where there is no more."""
    projections, latents, factor = results
    latents[:, step] = best * more
    projections[:, step] = taken * more
    factor[:, step, :step] = along * more[:, None]
    factor[:, step, step] = torch.where(more, size, 1.0)


def pursue_by_gram(
    min_projection, _room, residuals, atoms, gram, scale, projections, latents, factor
) -> None:
    """The pursuit on products alone: those of the activation with atoms, and of atoms."""
    results, least = (projections, latents, factor), (min_projection / scale)[:, 0]
    gram = gram[: len(atoms), : len(atoms)]
    whole, norm = products(residuals, atoms.T), residuals.norm(dim=1)
    more, unclear = norm > 0, torch.zeros_like(norm, dtype=torch.bool)
    inverse = torch.zeros_like(factor)  # of the factor, row by row
    for step in range(latents.shape[1]):
        largest, best = _left(step, whole, gram, inverse, results).abs_().max(1)
        along = gram[latents[:, :step], best[:, None]]
        along = products(inverse[:, :step, :step], along[..., None])[..., 0]
        part = gram[best, best] - along.square().sum(1)  # squared, outside of the atoms taken
        is_clear = (largest > _CLEAR_CORRELATION * norm) & (part > _CLEAR_PART**2)
        unclear |= more & ~is_clear
        size = part.clamp(min=_CLEAR_PART**2).sqrt()
        taken = whole.gather(1, best[:, None])[:, 0] - (along * projections[:, :step]).sum(1)
        taken /= size
        more = more & is_clear & (taken.abs() >= least)
        _write(step, best, taken, along, size, more, results)
        _extend_inverse(step, along, size, more, inverse)
    careful = functools.partial(pursue_by_products, min_projection)
    pursue_anew(unclear, careful, residuals, atoms, scale, results)


def _extend_inverse(step, along, size, more, inverse) -> None:
    """One more row of L⁻¹, from the new row `along`, `size` of L; zeros where there is no more."""
    share = more / size
    above = products(along[:, None], inverse[:, :step, :step])[:, 0]
    inverse[:, step, :step] = -share[:, None] * above
    inverse[:, step, step] = share


def _left(taken, whole, gram, inverse, results) -> torch.Tensor:
    """Correlations with what the first `taken` terms leave, [n_tokens, n_atoms]."""
    projections, latents, _ = results
    if not taken:
        return whole.clone()
    solved = products(projections[:, None, :taken], inverse[:, :taken, :taken])[:, 0]
    explained = weighted_sums(latents[:, :taken], solved, gram)
    return torch.sub(whole, explained, out=explained)
