"""The compiled inner loops of orthogonal matching pursuit on a CPU.

After t steps a token's correlations are c = c₀ − G_S a: those with its activation, less the rows
of the Gram matrix of the atoms taken times their least-squares coefficients. They are computed
anew at each step, n_atoms × t operations: the sums stay in registers, a row of 16 bits is half the
traffic of an image in 32, and errors don't add up over the steps. The coefficients come from the
inverse of the atoms' Cholesky factor, t² operations, and nothing of length d_model is touched but
the t products of a new atom with those before it.

As in `kernel_matching`, the rounding of G never decides which atom is taken: where more than one
atom may be the best, the residual itself is computed and correlated with each of them.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from itda_core.pursuit.kernel_matching import (
    BLOCK,
    GRAM_ERROR,
    GRAM_SCALE,
    PRODUCT_ERROR,
    ROUNDING,
    compiled,
    dot,
    find_peaks,
    largest,
    prefetch_row,
    strongest,
)

MIN_NEW_PART = 1e-4
"""An atom whose part outside of those taken is shorter than this adds nothing but rounding."""
_CLEAN = 0.5
"""Below this length of the new part it is computed itself: 1 − Σ h² has lost digits, and what
follows would pass the error on."""
_SUM_ERROR = np.float32(6e-8)
"""Rounding of one float32 addition."""
_TOGETHER = 4
"""Atoms taken that are multiplied in one pass."""
_WIDTH = 16
"""Numbers in a vector of the inner loop; LLVM splits it where the machine has narrower ones."""

_ALONG, _CHANGE, _SOLVED, _WEIGHTS, _OF_BASE, _PRODUCTS = range(6)
"""Rows of `terms`, numbers for each atom taken: the newest atom's row of the Cholesky factor L,
what a second look adds to it, a vector in terms of the atoms, their coefficients, those with which
the base of the correlations was computed, a vector's products with the atoms."""
_NOW, _BASE, _FLOOR = range(3)
"""Entries of `slack`: how far the row of correlations may be off, how far its base may be, and the
size below which a residual is rounding."""


@compiled
def pursue_orthogonally_rows(
    correlations, activations, gram, atoms, min_projection, latents, factor, projections
):
    """Orthogonal matching pursuit of each token.

    correlations: [n_tokens, n_atoms] float32, used up; activations: [n_tokens, d_model] float32;
    gram: [≥ n_atoms, ≥ n_atoms] int16, its rows without gaps; atoms: [n_atoms, d_model] float32;
    min_projection: [n_tokens] float32, what is smaller is not taken; latents: [n_tokens, l0],
    projections: [n_tokens, l0] and factor: [n_tokens, l0, l0], zeros, filled; see codes.Codes. The
    factor of a term that is not taken is a row of the identity.
    """
    n_atoms, d_model = atoms.shape
    l0 = latents.shape[1]
    chosen = np.zeros((l0 + _TOGETHER - 1, d_model), np.float32)
    terms = np.zeros((6, len(chosen)), np.float64)
    inverse = np.zeros((l0, l0), np.float64)  # of the factor L
    numbers = np.zeros(l0, np.int64)  # of the atoms taken
    row = np.empty(n_atoms, np.float32)
    peaks = np.empty((n_atoms + BLOCK - 1) // BLOCK, np.float32)
    room = np.empty((2, d_model), np.float32)
    slack = np.empty(3, np.float32)
    for token in range(len(latents)):
        x, base, along = activations[token], correlations[token], factor[token]
        norm = np.sqrt(dot(x, x))
        slack[_NOW] = slack[_BASE] = PRODUCT_ERROR * norm
        slack[_FLOOR] = np.float32(ROUNDING) * norm
        terms[:] = 0
        for step in range(l0):
            along[step, step] = 1
        for step in range(l0):
            _correlate(row, peaks, base, gram, numbers, terms, slack, step)
            atom = _next_atom(x, base, row, peaks, atoms, chosen, inverse, terms, room, slack, step)
            if atom < 0:
                break
            _copy(chosen[step], atoms[atom])
            prefetch_row(gram[atom][:n_atoms])
            size, taken = _new_direction(x, base[atom], chosen, inverse, terms, room, step)
            if size < MIN_NEW_PART or abs(taken) < min_projection[token]:
                break
            latents[token, step] = atom
            projections[token, step] = taken
            for earlier in range(step):
                along[step, earlier] = terms[_ALONG, earlier]
            along[step, step] = size
            numbers[step] = atom
            _refit(size, taken, inverse, terms, step)


@compiled
def _next_atom(x, base, row, peaks, atoms, chosen, inverse, terms, room, slack, step):
    """The atom with the largest |correlation|, -1 where only rounding is left to explain."""
    before, top = slack[_NOW], largest(peaks)
    if top > np.float32(4) * before and top > slack[_FLOOR] + before:
        atom = _only_one(row, peaks, top - np.float32(2) * before)
        if atom >= 0:
            return atom
    _find_residual(room[0], x, chosen, inverse, terms, step)
    atom = strongest(row, peaks, room[0], atoms, slack, slack[_FLOOR:], 0)
    if slack[_NOW] != before:  # the row was computed anew: a better base than the old one
        _copy(base, row)
        _copy(terms[_OF_BASE], terms[_WEIGHTS])
        slack[_BASE] = slack[_NOW]
    return atom


@compiled
def _only_one(row, peaks, low):
    """The atom whose |correlation| reaches `low`, -1 where there are several."""
    found = -1
    for block in range(len(peaks)):
        if peaks[block] >= low:
            part = row[block * BLOCK : (block + 1) * BLOCK]
            for i in range(len(part)):
                if abs(part[i]) >= low:
                    if found >= 0:
                        return -1
                    found = block * BLOCK + i
    return found


@compiled
def _new_direction(x, base_value, chosen, inverse, terms, room, step):
    """Length of the part of the newest chosen atom outside of the others, and the residual along
    that part. terms[_ALONG] becomes the atom's row of the factor."""
    along, products = terms[_ALONG], terms[_PRODUCTS]
    _multiply_all(products, chosen[step], chosen, step + 1)
    _solve(along, inverse, products, step)
    square, correlation = products[step], np.float64(base_value)
    for k in range(step):
        square -= along[k] * along[k]
        correlation -= products[k] * (terms[_WEIGHTS, k] - terms[_OF_BASE, k])
    if square < _CLEAN * _CLEAN:
        return _short_direction(x, chosen, inverse, terms, room, step)
    size = np.sqrt(square)
    return np.float32(size), np.float32(correlation / size)


@compiled
def _short_direction(x, chosen, inverse, terms, room, step):
    """`_new_direction` from the part itself, from which what rounding left is taken off again."""
    residual, part = room
    along, change = terms[_ALONG], terms[_CHANGE]
    _copy(part, chosen[step])
    along[:] = 0
    for _ in range(2):
        _clean(part, chosen, inverse, terms, step)
        for k in range(step):
            along[k] += change[k]
    size = max(np.sqrt(dot(part, part)), np.float32(1e-30))
    _find_residual(residual, x, chosen, inverse, terms, step)
    return size, dot(residual, part) / size


@compiled
def _find_residual(residual, x, chosen, inverse, terms, step):
    _copy(residual, x)
    _subtract_all(residual, terms[_WEIGHTS], chosen, step)
    _clean(residual, chosen, inverse, terms, step)


@compiled
def _clean(vector, chosen, inverse, terms, step):
    """Take the atoms' span off the vector; terms[_CHANGE] becomes what it had along them."""
    _multiply_all(terms[_PRODUCTS], vector, chosen, step)
    _solve(terms[_CHANGE], inverse, terms[_PRODUCTS], step)
    _solve_back(terms[_SOLVED], inverse, terms[_CHANGE], step)
    _subtract_all(vector, terms[_SOLVED], chosen, step)


@compiled
def _refit(size, taken, inverse, terms, step):
    """Take the atom in: the inverse of the factor gets a row, along which the weights change."""
    solved, weights, new = terms[_SOLVED], terms[_WEIGHTS], inverse[step]
    _solve_back(solved, inverse, terms[_ALONG], step)
    for k in range(step):
        new[k] = -solved[k] / size
    new[step] = 1 / np.float64(size)
    for k in range(step + 1):
        weights[k] += taken * new[k]


@compiled
def _solve(out, inverse, products, step):
    """out[:step] = L⁻¹ × products."""
    for row in range(step):
        total = 0.0
        for k in range(row + 1):
            total += inverse[row, k] * products[k]
        out[row] = total


@compiled
def _solve_back(out, inverse, values, step):
    """out = values × L⁻¹: in terms of the atoms taken, the vector that has `values` along them,
    orthogonalised one after another. Zeros after the first `step`."""
    out[:] = 0
    for row in range(step):
        value, own = values[row], inverse[row]
        for k in range(row + 1):
            out[k] += value * own[k]


@compiled
def _multiply_all(out, vector, chosen, count):
    """out = the products of the first `count` chosen atoms with the vector."""
    for first in range(0, count, _TOGETHER):
        atom0, atom1, atom2, atom3 = _four(chosen, first)
        sum0 = sum1 = sum2 = sum3 = np.float32(0)
        for i in range(len(vector)):
            sum0 += vector[i] * atom0[i]
            sum1 += vector[i] * atom1[i]
            sum2 += vector[i] * atom2[i]
            sum3 += vector[i] * atom3[i]
        out[first], out[first + 1], out[first + 2], out[first + 3] = sum0, sum1, sum2, sum3


@compiled
def _subtract_all(vector, weights, chosen, count):
    """vector −= the sum of weight × atom; weights after the first `count` are zero."""
    for first in range(0, count, _TOGETHER):
        atom0, atom1, atom2, atom3 = _four(chosen, first)
        weight0, weight1 = np.float32(weights[first]), np.float32(weights[first + 1])
        weight2, weight3 = np.float32(weights[first + 2]), np.float32(weights[first + 3])
        for i in range(len(vector)):
            near = weight0 * atom0[i] + weight1 * atom1[i]
            vector[i] -= near + (weight2 * atom2[i] + weight3 * atom3[i])


@compiled
def _copy(out, values):
    """Assigning to a slice compiles to a loop that looks at every index."""
    for i in range(len(out)):
        out[i] = values[i]


@compiled
def _four(rows, first):
    return rows[first], rows[first + 1], rows[first + 2], rows[first + 3]


@compiled
def _correlate(row, peaks, base, gram, numbers, terms, slack, count):
    """row = base − G_S (a − a of the base), the largest |value| of each block, the slack."""
    shares, change = terms[_PRODUCTS], 0.0
    for k in range(count):
        weight = terms[_WEIGHTS, k] - terms[_OF_BASE, k]
        shares[k] = -weight / GRAM_SCALE
        change += abs(weight)
    error = GRAM_ERROR + _SUM_ERROR * np.float32(count)
    slack[_NOW] = slack[_BASE] + np.float32(change) * error
    whole = len(row) // BLOCK
    for block in range(whole):
        peaks[block] = _block(row, base, gram, numbers, shares, count, block * BLOCK)
    if whole < len(peaks):
        first = whole * BLOCK
        _last_block(row[first:], base[first:], gram[:, first:], numbers, shares, count)
        find_peaks(row[first:], peaks[whole:])


@compiled
def _last_block(row, base, gram, numbers, shares, count):
    """`_block` for fewer atoms than a whole one."""
    _copy(row, base)
    for k in range(count):
        share, products = np.float32(shares[k]), gram[numbers[k]]
        for i in range(len(row)):
            row[i] += share * np.float32(products[i])


@intrinsic
def _block(_context, row, base, gram, numbers, shares, count, first):  # noqa: ARG001
    """row = base + Σ share × row of the Gram matrix, for the BLOCK atoms from `first` on; returns
    the largest |value|. Written in LLVM's terms: its vectoriser stores the sums after each row."""

    def generate(context, builder, signature, arguments):
        def at(number, index, kind=None):
            array = context.make_array(signature.args[number])(context, builder, arguments[number])
            place = builder.gep(array.data, [index])
            return builder.bitcast(place, kind.as_pointer()) if kind else place

        parts = range(0, BLOCK, _WIDTH)
        gram_array = context.make_array(signature.args[2])(context, builder, arguments[2])
        width = cgutils.unpack_tuple(builder, gram_array.shape)[1]
        rounded = {"flags": ("contract", "nsz")}
        index = [builder.add(arguments[6], arguments[6].type(part)) for part in parts]
        sums = [cgutils.alloca_once(builder, _FLOATS) for _ in parts]
        for place, total in zip(index, sums, strict=True):
            builder.store(builder.load(at(1, place, _FLOATS), align=4), total)
        with cgutils.for_range(builder, arguments[5]) as loop:
            share = builder.fptrunc(builder.load(at(4, loop.index)), ir.FloatType())
            share = _in_each_lane(builder, share)
            start = builder.mul(builder.load(at(3, loop.index)), width)
            for place, total in zip(index, sums, strict=True):
                pointer = at(2, builder.add(start, place), _SHORTS)
                products = builder.sext(builder.load(pointer, align=2), _INTEGERS)
                term = builder.fmul(builder.sitofp(products, _FLOATS), share, **rounded)
                builder.store(builder.fadd(builder.load(total), term, **rounded), total)
        peak = ir.Constant(_FLOATS, None)
        for place, total in zip(index, sums, strict=True):
            value = builder.load(total)
            builder.store(value, at(0, place, _FLOATS), align=4)
            size = _call(builder, "fabs", _FLOATS, value)
            peak = _call(builder, "maxnum", _FLOATS, peak, size)
        return _call(builder, "vector.reduce.fmax", ir.FloatType(), peak)

    return types.float32(row, base, gram, numbers, shares, types.intp, types.intp), generate


_FLOATS = ir.VectorType(ir.FloatType(), _WIDTH)
_INTEGERS = ir.VectorType(ir.IntType(32), _WIDTH)
_SHORTS = ir.VectorType(ir.IntType(16), _WIDTH)


def _in_each_lane(builder, value):
    nothing = ir.Constant(_FLOATS, ir.Undefined)
    first = builder.insert_element(nothing, value, ir.IntType(32)(0))
    return builder.shuffle_vector(first, nothing, ir.Constant(_INTEGERS, None))


def _call(builder, name, returns, *vectors):
    """An operation of LLVM on vectors of float32."""
    kind = ir.FunctionType(returns, [_FLOATS] * len(vectors))
    name = f"llvm.{name}.v{_WIDTH}f32"
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(function, vectors, fastmath=("nnan", "nsz"))
