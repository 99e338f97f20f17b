"""The compiled inner loops of orthogonal matching pursuit on a CPU.

After t steps a token's correlations are c = c₀ − G_S a: those with its activation, less the rows
of the Gram matrix of the atoms taken times their least-squares coefficients. They are computed
anew at each step, n_atoms × t operations (see `kernel_sums`), so that errors don't add up over the
steps. The coefficients come from the inverse of the atoms' Cholesky factor, t² operations, and
nothing of length d_model is touched but the t products of a new atom with those before it.

As in `kernel_matching`, the rounding of G never decides which atom is taken: where more than one
atom may be the best, the residual itself is computed and correlated with each of them.
"""

from collections import namedtuple

import numpy as np

from itda_core.pursuit.kernel_matching import (
    BLOCK,
    PRODUCT_ERROR,
    ROUNDING,
    compiled,
    dot,
    largest,
    prefetch_row,
    strongest,
    subtract,
)
from itda_core.pursuit.kernel_sums import (
    BASE,
    FLOOR,
    REFINED,
    ROW,
    correlate,
    inlined,
    keep_row,
    refined,
)

MIN_NEW_PART = 1e-4
"""An atom whose part outside of those taken is shorter than this adds nothing but rounding."""
_CLEAN = 0.4
"""Below this length of the new part it is computed itself: 1 − Σ h² has lost digits, and what
follows would pass the error on."""
_ALONG, _CHANGE, _SOLVED, _WEIGHTS, _OF_BASE, _MOVED, _PRODUCTS = range(7)
"""Rows of `terms`, numbers for each atom taken: the newest atom's row of the Cholesky factor L,
what a second look adds to it, a vector in terms of the atoms, their coefficients, those with which
the base of the correlations was computed, the difference, a vector's products with the atoms."""

_Fit = namedtuple(  # of one token
    "_Fit",
    [
        "chosen",  # [l0, d_model] float32: the atoms taken
        "inverse",  # [l0, l0] float64: of L
        "terms",  # [7, l0] float64
        "rows",  # [n_blocks, l0 + 1, BLOCK] int16: of the Gram matrix
        "shares",  # [l0 + 1] int16: coefficients as whole numbers
        "base",  # [n_blocks × BLOCK] float32: exact correlations, those of some step
        "row",  # [n_blocks × BLOCK] float32: correlations with the residual
        "peaks",  # [n_blocks] float32: the largest |value| of each block of the row
        "slack",  # [4] float32
        "residual",  # [d_model] float32, where it is needed
        "part",  # [d_model] float32: of a new atom, outside of those taken, where it is short
    ],
)


@compiled
def pursue_orthogonally_rows(
    correlations, activations, gram, atoms, min_projection, latents, factor, projections
):
    """Orthogonal matching pursuit of each token.

    correlations: [n_tokens, n_atoms] float32; activations: [n_tokens, d_model] float32; gram:
    [≥ n_atoms, ≥ n_atoms] int16; atoms: [n_atoms, d_model] float32; min_projection: [n_tokens]
    float32, what is smaller is not taken; latents: [n_tokens, l0], projections: [n_tokens, l0] and
    factor: [n_tokens, l0, l0], zeros, filled; see codes.Codes. The factor of a term that is not
    taken is a row of the identity.
    """
    n_atoms, d_model = atoms.shape
    l0 = latents.shape[1]
    n_blocks = (n_atoms + BLOCK - 1) // BLOCK
    fit = _Fit(
        np.zeros((l0, d_model), np.float32),
        np.zeros((l0, l0), np.float64),
        np.zeros((7, l0), np.float64),
        np.zeros((n_blocks, l0 + 1, BLOCK), np.int16),
        np.zeros(l0 + 1, np.int16),
        np.zeros(n_blocks * BLOCK, np.float32),
        np.zeros(n_blocks * BLOCK, np.float32),
        np.zeros(n_blocks, np.float32),
        np.zeros(4, np.float32),
        np.zeros(d_model, np.float32),
        np.zeros(d_model, np.float32),
    )
    for token in range(len(latents)):
        for step in range(l0):
            factor[token, step, step] = 1
    results = latents, factor, projections
    _pursue(correlations, activations, gram, atoms, min_projection, results, fit)


@inlined
def _pursue(correlations, activations, gram, atoms, min_projection, results, fit):
    latents, factor, projections = results
    n_tokens, l0 = latents.shape
    for token in range(n_tokens):
        x = activations[token]
        _start(x, correlations[token], fit)
        for step in range(l0):
            atom = _next_atom(x, atoms, fit, step)
            if atom < 0:
                break
            prefetch_row(atoms[atom])
            prefetch_row(gram[atom][: len(atoms)])
            _copy(fit.chosen[step], atoms[atom])
            size, taken = _new_direction(x, fit.base[atom], fit, step)
            if size < MIN_NEW_PART or abs(taken) < min_projection[token]:
                break
            latents[token, step], projections[token, step] = atom, taken
            _copy(factor[token, step], fit.terms[_ALONG, :step])
            factor[token, step, step] = size
            if step + 1 < l0:  # else nothing is looked for any more
                keep_row(fit.rows, gram[atom][: len(atoms)], step)
                _refit(size, taken, fit, step)


@inlined
def _start(x, correlations, fit):
    norm = np.sqrt(dot(x, x))
    fit.slack[BASE] = PRODUCT_ERROR * norm
    fit.slack[FLOOR] = np.float32(ROUNDING) * norm
    _copy(fit.base, correlations)
    fit.terms[:] = 0


@inlined
def _next_atom(x, atoms, fit, step):
    """The atom with the largest |correlation|, -1 where only rounding is left to explain."""
    moved = fit.terms[_MOVED]
    for k in range(step):
        moved[k] = fit.terms[_WEIGHTS, k] - fit.terms[_OF_BASE, k]
    correlate(fit.row, fit.peaks, fit.base, fit.rows, moved, fit.shares, fit.slack, step)
    atom = _clear_best(fit, step)
    return _best_by_residual(x, atoms, fit, step) if atom < 0 else atom


@inlined
def _clear_best(fit, step):
    """The atom with the largest |correlation|, -1 where their errors leave that open."""
    row, peaks, slack = fit.row, fit.peaks, fit.slack
    top = largest(peaks)
    if np.float32(4) * slack[ROW] >= top or top <= slack[FLOOR] + slack[ROW]:
        return -1
    low = top - np.float32(2) * slack[ROW]
    best = _only_one(row, peaks, low)
    if best >= 0:
        return best
    value, second = np.float32(-1), np.float32(0)
    for block in range(len(peaks)):
        if peaks[block] >= low:
            for atom in range(block * BLOCK, (block + 1) * BLOCK):
                if abs(row[atom]) >= low:
                    other = abs(refined(atom, fit.base, fit.rows, fit.terms[_MOVED], step))
                    second = max(second, min(value, other))
                    if other > value:
                        best, value = atom, other
    return best if value - second > np.float32(2) * slack[REFINED] else -1


@inlined
def _only_one(row, peaks, low):
    """The atom whose |correlation| reaches `low`, -1 where there are several."""
    count, total = np.int32(0), np.int32(0)  # of such atoms, and of their numbers: no branches
    for block in range(len(peaks)):
        if peaks[block] >= low:
            first = np.int32(block * BLOCK)
            for i in range(BLOCK):
                reaches = np.int32(abs(row[first + i]) >= low)
                count += reaches
                total += reaches * (first + np.int32(i))
    return np.int64(total) if count == 1 else -1


@inlined
def _best_by_residual(x, atoms, fit, step):
    """The atom whose correlation with the residual is largest, -1 where only rounding is left."""
    row, slack = fit.row[: len(atoms)], fit.slack
    before = slack[ROW]
    _find_residual(x, fit, step)
    if np.float32(4) * before >= largest(fit.peaks):  # so small that its own rounding counts
        _clean(fit.residual, fit, step)
    atom = strongest(row, fit.peaks, fit.residual, atoms, slack, slack[FLOOR:], ROW)
    if slack[ROW] != before:  # the row was computed anew: a better base than the old one
        _copy(fit.base, row)
        _copy(fit.terms[_OF_BASE], fit.terms[_WEIGHTS])
        slack[BASE] = slack[ROW]
    return atom


@inlined
def _new_direction(x, base_value, fit, step):
    """Length of the part of the newest chosen atom outside of the others, and the residual along
    that part. terms[_ALONG] becomes the atom's row of the factor."""
    along, products, terms = fit.terms[_ALONG], fit.terms[_PRODUCTS], fit.terms
    _multiply_all(products, fit.chosen[step], fit.chosen, step + 1)
    _solve(along, fit.inverse, products, step)
    square, correlation = products[step], np.float64(base_value)
    for k in range(step):
        square -= along[k] * along[k]
        correlation -= products[k] * (terms[_WEIGHTS, k] - terms[_OF_BASE, k])
    if square < _CLEAN * _CLEAN:
        return _short_direction(x, fit, step)
    size = np.sqrt(square)
    return np.float32(size), np.float32(correlation / size)


@inlined
def _short_direction(x, fit, step):
    """`_new_direction` from the part itself, from which what rounding left is taken off again."""
    _copy(fit.part, fit.chosen[step])
    fit.terms[_ALONG, :step] = 0
    for _ in range(2):
        _clean(fit.part, fit, step)
        for k in range(step):
            fit.terms[_ALONG, k] += fit.terms[_CHANGE, k]
    size = max(np.sqrt(dot(fit.part, fit.part)), np.float32(1e-30))
    _find_residual(x, fit, step)
    return size, dot(fit.residual, fit.part) / size


@inlined
def _find_residual(x, fit, step):
    _copy(fit.residual, x)
    _subtract_all(fit.residual, fit.terms[_WEIGHTS], fit.chosen, step)


@inlined
def _clean(vector, fit, step):
    """Take the atoms' span off the vector; terms[_CHANGE] becomes what it had along them."""
    _multiply_all(fit.terms[_PRODUCTS], vector, fit.chosen, step)
    _solve(fit.terms[_CHANGE], fit.inverse, fit.terms[_PRODUCTS], step)
    _solve_back(fit.terms[_SOLVED], fit.inverse, fit.terms[_CHANGE], step)
    _subtract_all(vector, fit.terms[_SOLVED], fit.chosen, step)


@inlined
def _refit(size, taken, fit, step):
    """Take the atom in: the inverse of the factor gets a row, along which the weights change."""
    inverse, terms = fit.inverse, fit.terms
    _solve_back(terms[_SOLVED], inverse, terms[_ALONG], step)
    for k in range(step):
        inverse[step, k] = -terms[_SOLVED, k] / size
    inverse[step, step] = 1 / np.float64(size)
    for k in range(step + 1):
        terms[_WEIGHTS, k] += taken * inverse[step, k]


@inlined
def _solve(out, inverse, products, step):
    """out[:step] = L⁻¹ × products."""
    for row in range(step):
        total = 0.0
        for k in range(row + 1):
            total += inverse[row, k] * products[k]
        out[row] = total


@inlined
def _solve_back(out, inverse, values, step):
    """out[:step] = values × L⁻¹: in terms of the atoms taken, the vector that has `values` along
    them, orthogonalised one after another."""
    out[:step] = 0
    for row in range(step):
        value = values[row]
        for k in range(row + 1):
            out[k] += value * inverse[row, k]


@inlined
def _multiply_all(out, vector, chosen, count):
    """out[:count] = the products of the first `count` chosen atoms with the vector; four in a pass
    read it once."""
    whole = count // 4 * 4
    for k in range(0, whole, 4):
        sum0 = sum1 = sum2 = sum3 = np.float32(0)
        for i in range(len(vector)):
            sum0 += vector[i] * chosen[k, i]
            sum1 += vector[i] * chosen[k + 1, i]
            sum2 += vector[i] * chosen[k + 2, i]
            sum3 += vector[i] * chosen[k + 3, i]
        out[k], out[k + 1], out[k + 2], out[k + 3] = sum0, sum1, sum2, sum3
    for k in range(whole, count):
        out[k] = dot(vector, chosen[k])


@inlined
def _subtract_all(vector, weights, chosen, count):
    """vector −= Σ weight × atom over the first `count` chosen atoms."""
    whole = count // 4 * 4
    for k in range(0, whole, 4):
        weight0, weight1 = np.float32(weights[k]), np.float32(weights[k + 1])
        weight2, weight3 = np.float32(weights[k + 2]), np.float32(weights[k + 3])
        for i in range(len(vector)):
            near = weight0 * chosen[k, i] + weight1 * chosen[k + 1, i]
            vector[i] -= near + (weight2 * chosen[k + 2, i] + weight3 * chosen[k + 3, i])
    for k in range(whole, count):
        subtract(vector, np.float32(weights[k]), chosen[k])


@inlined
def _copy(out, values):
    """The first of `out` become the values. Assigning to a slice would look at every index."""
    for i in range(len(values)):
        out[i] = values[i]
