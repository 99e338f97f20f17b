"""The compiled inner loops of orthogonal matching pursuit on a CPU.

For each token an orthonormal basis q_1 … q_t of the atoms taken is kept, and the image D q_s of
each of its vectors. The correlations with the residual then change by ⟨r, q_t⟩ · D q_t, and
D q_t = (G[j] − Σ h_s D q_s) / ‖·‖ follows from the images before it: n_atoms × t operations in
the nearest cache instead of n_atoms × d_model. As in `kernels`, G is kept in 16 bits, and its
rounding never decides which atom is taken.
"""

import numpy as np

from itda_core.pursuit.kernel_matching import (
    BLOCK,
    GRAM_ERROR,
    GRAM_SCALE,
    PRODUCT_ERROR,
    ROUNDING,
    compiled,
    dot,
    find_peaks,
    maximum,
    strongest,
    subtract,
)

MIN_NEW_PART = 1e-4
"""An atom whose part outside of those taken is shorter than this adds nothing but rounding."""
_CLEAN = np.float32(0.1)
"""Below this length of the new part, what rounding left of the others is taken off once more."""


@compiled
def pursue_orthogonally_rows(
    correlations, residuals, gram, atoms, min_projection, latents, factor, projections
):
    """Orthogonal matching pursuit of each token.

    correlations: [n_tokens, n_atoms] float32, used up; residuals: [n_tokens, d_model] float32,
    the activations, left as what is not explained; gram: [≥ n_atoms, ≥ n_atoms] int16; atoms:
    [n_atoms, d_model] float32; min_projection: [n_tokens] float32, what is smaller is not taken;
    latents: [n_tokens, l0], projections: [n_tokens, l0] and factor:
    [n_tokens, l0, l0], zeros, filled; see codes.Codes. The factor of a term that is not taken
    is a row of the identity.
    """
    n_tokens, n_atoms = correlations.shape
    l0 = latents.shape[1]
    basis = np.empty((l0, atoms.shape[1]), np.float32)
    images = np.empty((l0, n_atoms), np.float32)
    errors = np.empty(l0, np.float32)
    peaks = np.empty((n_atoms + BLOCK - 1) // BLOCK, np.float32)
    slack, floor = np.empty(1, np.float32), np.empty(1, np.float32)
    for token in range(n_tokens):
        row, residual, along = correlations[token], residuals[token], factor[token]
        norm = np.sqrt(dot(residual, residual))
        floor[0], slack[0] = np.float32(ROUNDING) * norm, PRODUCT_ERROR * norm
        for step in range(l0):
            along[step, step] = 1
        find_peaks(row, peaks)
        atom = strongest(row, peaks, residual, atoms, slack, floor, 0)
        for step in range(l0):
            if atom < 0:
                break
            size = _new_direction(atoms[atom], basis, along[step], step)
            taken = dot(residual, basis[step])
            if size < MIN_NEW_PART or abs(taken) < min_projection[token]:
                along[step, :step] = 0
                break
            along[step, step] = size
            latents[token, step] = atom
            projections[token, step] = taken
            subtract(residual, taken, basis[step])
            if step + 1 == l0:  # nothing is looked for any more
                break
            errors[step] = _image_error(along[step], errors, step)
            slack[0] += abs(taken) * errors[step] + PRODUCT_ERROR * abs(taken)
            _update(row, peaks, taken, gram[atom], along[step], images, step)
            atom = strongest(row, peaks, residual, atoms, slack, floor, 0)


@compiled
def _new_direction(atom, basis, along, step):
    """basis[step] becomes the unit vector along the part of `atom` outside of the basis so far,
    along[:step] its products with the basis; returns the part's length."""
    new = basis[step]
    new[:] = atom
    size = np.float32(1)
    for _ in range(2):
        for earlier in range(step):
            part = dot(new, basis[earlier])
            along[earlier] += part
            subtract(new, part, basis[earlier])
        size = np.sqrt(dot(new, new))
        if size > _CLEAN:
            break
    if size >= MIN_NEW_PART:
        for i in range(len(new)):
            new[i] /= size
    return size


@compiled
def _image_error(along, errors, step):
    """How far the image of the newest basis vector may be off, as its formula passes it on."""
    total = GRAM_ERROR
    for earlier in range(step):
        total += abs(along[earlier]) * errors[earlier]
    return total / along[step]


@compiled
def _update(row, peaks, taken, gram_row, along, images, step):
    """images[step] by its formula, row −= taken × images[step], and the largest |value| of each
    block of the row, block by block."""
    unit = np.float32(1) / (np.float32(GRAM_SCALE) * along[step])
    for block in range(len(peaks)):
        first = block * BLOCK
        part = row[first : first + BLOCK]
        image = images[step, first : first + len(part)]
        products = gram_row[first : first + len(part)]
        for i in range(len(part)):
            image[i] = unit * np.float32(products[i])
        for earlier in range(step):
            share = along[earlier] / along[step]
            earlier_image = images[earlier, first : first + len(part)]
            for i in range(len(part)):
                image[i] -= share * earlier_image[i]
        peak = np.float32(0)
        for i in range(len(part)):
            value = part[i] - taken * image[i]
            part[i] = value
            peak = maximum(peak, abs(value))
        peaks[block] = peak
