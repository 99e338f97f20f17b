"""The compiled inner loops of matching pursuit on a CPU.

A step subtracts c·G[j] from a token's row of correlations and looks for the next maximum. Both
happen in one pass, and what limits the pass is fetching G[j]: no cache holds the Gram matrix. So

- G is kept in 16 bits, half the traffic. Winners are correlated with the residual itself, which
  makes coefficients exact, and so are the atoms whose correlation lies within the rounding of the
  largest one: rounding never decides which atom is taken;
- two tokens take turns, and the pass of one fetches what the other needs next.
"""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

GRAM_SCALE = 32_767
"""A Gram matrix holds round(d_i · d_j × GRAM_SCALE) as int16: unit atoms, products in [-1, 1]."""
ROUNDING = 1e-6
"""A residual this small against its activation is rounding: the pursuit ends there."""
GRAM_ERROR = np.float32(0.5 / GRAM_SCALE + 2e-6)
"""Largest error of a product read from the Gram matrix, the float32 product's own included."""
PRODUCT_ERROR = np.float32(4e-6)
"""Error of a float32 correlation, relative to the norm of what is correlated."""
_LANES = 2
"""Tokens that take turns."""
BLOCK = 128
"""Atoms searched together; the inner loops run over one block."""
_LINE = 64
"""Bytes that come from memory together."""

compiled = njit(nogil=True, cache=True, fastmath={"nnan", "ninf", "nsz", "reassoc", "contract"})


@compiled
def pursue_rows(correlations, residuals, gram, atoms, latents, coefficients):
    """Matching pursuit of each token, one after another.

    correlations: [n_tokens, n_atoms] float32, used up; residuals: [n_tokens, d_model] float32,
    the activations, left as what is not explained; gram: [≥ n_atoms, ≥ n_atoms] int16, see
    GRAM_SCALE; atoms: [n_atoms, d_model] float32; latents, coefficients: [n_tokens, l0], zeros,
    filled. All in C order. Where a residual is down to rounding, the rest stays zero.
    """
    n_tokens, n_atoms = correlations.shape
    peaks = np.empty((_LANES, (n_atoms + BLOCK - 1) // BLOCK), np.float32)
    best = np.empty(_LANES, np.int64)
    slack = np.empty(_LANES, np.float32)
    floor = np.empty(_LANES, np.float32)
    for first in range(0, n_tokens, _LANES):
        lanes = min(_LANES, n_tokens - first)
        for lane in range(lanes):
            token = first + lane
            norm = np.sqrt(dot(residuals[token], residuals[token]))
            floor[lane] = np.float32(ROUNDING) * norm
            slack[lane] = PRODUCT_ERROR * norm
            find_peaks(correlations[token], peaks[lane])
            best[lane] = strongest(
                correlations[token], peaks[lane], residuals[token], atoms, slack, floor, lane
            )
        for step in range(latents.shape[1]):
            for lane in range(lanes):
                atom, token = best[lane], first + lane
                if atom < 0:
                    continue
                residual = residuals[token]
                coefficient = dot(residual, atoms[atom])
                latents[token, step] = atom
                coefficients[token, step] = coefficient
                subtract(residual, coefficient, atoms[atom])
                if step + 1 == latents.shape[1]:  # nothing is looked for any more
                    continue
                slack[lane] += abs(coefficient) * GRAM_ERROR
                upcoming = max(best[lanes - 1 - lane], 0)
                prefetch_row(atoms[upcoming])
                scaled = coefficient / np.float32(GRAM_SCALE)
                row = correlations[token]
                _update(row, peaks[lane], scaled, gram[atom], gram[upcoming])
                best[lane] = strongest(row, peaks[lane], residual, atoms, slack, floor, lane)


@compiled
def strongest(row, peaks, residual, atoms, slack, floor, lane):
    """The atom with the largest |correlation|, -1 where only rounding is left to explain.

    `row` may be off by slack[lane]. Once that is no longer small against the largest correlation,
    the row is computed anew. A correlation above the floor shows without the residual's norm that
    there is more than rounding: atoms are unit vectors.
    """
    top = largest(peaks)
    unclear = np.float32(4) * slack[lane] >= top
    if unclear or top <= floor[lane] + slack[lane]:
        norm = np.sqrt(dot(residual, residual))
        if norm <= floor[lane]:
            return -1
    if unclear:
        for atom in range(len(atoms)):
            row[atom] = dot(residual, atoms[atom])
        find_peaks(row, peaks)
        slack[lane] = PRODUCT_ERROR * norm
        top = largest(peaks)
    return _exact_best(row, peaks, residual, atoms, top - np.float32(2) * slack[lane])


@compiled
def _exact_best(row, peaks, residual, atoms, low):
    """Of the atoms whose correlation reaches `low`, the one that truly has the largest."""
    best = -1
    value = np.float32(-1)
    for block in range(len(peaks)):
        if peaks[block] >= low:
            part = row[block * BLOCK : (block + 1) * BLOCK]
            for i in range(len(part)):
                if abs(part[i]) >= low:
                    candidate = block * BLOCK + i
                    if best < 0:
                        best = candidate
                        continue
                    if value < 0:
                        value = abs(dot(residual, atoms[best]))
                    other = abs(dot(residual, atoms[candidate]))
                    if other > value:
                        best, value = candidate, other
    return best


@compiled
def _update(row, peaks, scaled, gram_row, upcoming):
    """row -= scaled × gram_row and the largest |value| of each block, in one pass, while
    `upcoming`, the other token's row of the Gram matrix, is on its way from memory."""
    for block in range(len(peaks)):
        part = row[block * BLOCK : (block + 1) * BLOCK]
        products = gram_row[block * BLOCK : block * BLOCK + len(part)]
        for i in range(0, len(part), _LINE // 2):
            _prefetch(upcoming, block * BLOCK + i)
        peak = np.float32(0)
        for i in range(len(part)):
            value = part[i] - scaled * np.float32(products[i])
            part[i] = value
            peak = maximum(peak, abs(value))
        peaks[block] = peak


@compiled
def find_peaks(row, peaks):
    for block in range(len(peaks)):
        part = row[block * BLOCK : (block + 1) * BLOCK]
        peak = np.float32(0)
        for i in range(len(part)):
            peak = maximum(peak, abs(part[i]))
        peaks[block] = peak


@compiled
def largest(values):
    top = np.float32(0)
    for i in range(len(values)):
        top = maximum(top, values[i])
    return top


@compiled
def dot(a, b):
    total = np.float32(0)
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


@compiled
def subtract(residual, coefficient, atom):
    for i in range(len(residual)):
        residual[i] -= coefficient * atom[i]


@compiled
def prefetch_row(row):
    for i in range(0, len(row), _LINE // row.itemsize):
        _prefetch(row, i)


@intrinsic
def maximum(_context, a, b):  # noqa: ARG001
    """The larger of two float32. Numba's own max compiles to a branch, and LLVM then leaves the
    loop around it scalar."""

    def generate(_target, builder, _signature, arguments):
        kind = arguments[0].type
        signature = ir.FunctionType(kind, [kind, kind])
        function = builder.module.declare_intrinsic("llvm.maxnum", [kind], signature)
        return builder.call(function, arguments, fastmath=("nnan", "nsz"))

    return types.float32(types.float32, types.float32), generate


@intrinsic
def _prefetch(_context, array, index):  # noqa: ARG001
    """Ask for the cache line of array[index] (one dimension, C order) without waiting for it."""

    def generate(target, builder, signature, arguments):
        data = target.make_array(signature.args[0])(target, builder, arguments[0]).data
        pointer = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        kinds = ir.FunctionType(ir.VoidType(), [pointer.type, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [pointer.type], kinds)
        for_reading, into_l2, data_cache = number(0), number(2), number(1)
        builder.call(function, [pointer, for_reading, into_l2, data_cache])
        return target.get_dummy_value()

    return types.void(array, types.intp), generate
