"""Sums of rows of a 16-bit Gram matrix, in whole numbers.

A row of correlations less such a sum is most of what an orthogonal pursuit does. Coefficients are
rounded to 16 bits too, as finely as their sum fits into 32: a processor multiplies and adds pairs
of 16 bits several times as fast as it turns them into floating point. What the rounding may have
changed is added up beside the sum, and `refined` is one correlation without it.
"""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils, config
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic

from itda_core.pursuit.kernel_matching import BLOCK, GRAM_ERROR, GRAM_SCALE, PRODUCT_ERROR

_LARGEST_SUM = 65_000
"""Of whole coefficients times products of unit vectors: 2¹⁶ would not fit into 32 bits."""
_LARGEST_SHARE = 32_767
"""The largest whole coefficient."""
ROW, REFINED, BASE, FLOOR = range(4)
"""Entries of `slack`: how far the row of correlations may be off, how far one of them refined, and
how far their base; the size below which a residual is rounding."""

inlined = njit(
    nogil=True,
    cache=True,
    forceinline=True,
    _nrt=False,  # nothing is allocated; counting references took a tenth of the time
    fastmath={"nnan", "ninf", "nsz", "reassoc", "contract"},
)


@inlined
def keep_row(rows, products, k):
    """rows[:, k] = a row of the Gram matrix, [n_atoms] int16, block by block."""
    for block in range(len(rows)):
        first = block * BLOCK
        for i in range(min(BLOCK, len(products) - first)):
            rows[block, k, i] = products[first + i]


@inlined
def correlate(row, peaks, base, rows, weights, shares, slack, count):
    """row = base − Σ weight × row of the Gram matrix, over the first `count`, to slack[ROW];
    peaks: the largest |value| of each block of the row.

    row, base: [n_blocks × BLOCK] float32; rows: [n_blocks, > count, BLOCK] int16, so that a block
    of all rows lies together; weights: [≥ count] float64; shares: [> count] int16, filled with the
    weights as whole numbers.
    """
    unit, size, lost = _round_weights(shares, weights, slack[BASE] / PRODUCT_ERROR, count)
    slack[REFINED] = slack[BASE] + np.float32(size) * GRAM_ERROR
    slack[ROW] = slack[REFINED] + np.float32(lost)
    scale, pairs = np.float32(-unit / GRAM_SCALE), (count + 1) // 2
    for block in range(len(peaks)):
        peaks[block] = _block(row, base, rows, shares, scale, pairs, block)


@inlined
def refined(atom, base, rows, weights, count):
    """One correlation, to slack[REFINED]."""
    total = 0.0
    for k in range(count):
        total += weights[k] * np.float64(rows[atom // BLOCK, k, atom % BLOCK])
    return np.float32(np.float64(base[atom]) - total / GRAM_SCALE)


@inlined
def _round_weights(shares, weights, norm, count):
    """shares × unit ≈ weights; returns the unit, Σ |weight| and Σ |weight − share × unit|.

    norm: of the residual that the base belongs to. The sum is what a projection of that residual
    has along an atom, so that it is no larger, whatever the sums on the way to it: those may run
    over, since 32 bits count in a circle.
    """
    size, largest, lost = 0.0, 0.0, 0.0
    for k in range(count):
        size += abs(weights[k])
        largest = max(largest, abs(weights[k]))
    room = _LARGEST_SUM - count  # each share is rounded, by up to a half
    unit = max((norm + 2 * GRAM_ERROR * size) / room, largest / _LARGEST_SHARE, 1e-30)
    for k in range(count):
        share = np.rint(weights[k] / unit)
        lost += abs(weights[k] - share * unit)
        shares[k] = np.int16(share)
    shares[count] = 0
    return unit, size, lost


_LANES = 16
"""32-bit numbers in a vector of the inner loop; LLVM splits it where the machine's are narrower."""
_FLOATS = ir.VectorType(ir.FloatType(), _LANES)
_SUMS = ir.VectorType(ir.IntType(32), _LANES)
_SHORTS = ir.VectorType(ir.IntType(16), 2 * _LANES)


@intrinsic
def _block(_context, row, base, rows, shares, scale, pairs, block):  # noqa: ARG001
    """A block of row = base + scale × Σ share × rows, over `pairs` of rows; returns the largest
    |value|. In LLVM's own terms: its vectoriser would neither keep the sums in registers nor
    multiply in pairs."""

    def generate(context, builder, signature, arguments):
        def array(number):
            return context.make_array(signature.args[number])(context, builder, arguments[number])

        def load(place, index, kind):
            place = builder.bitcast(builder.gep(place, [index]), kind.as_pointer())
            return builder.load(place, align=2)

        number = arguments[6].type
        row, base, rows, shares = [array(n).data for n in range(4)]
        together = cgutils.unpack_tuple(builder, array(2).shape)[1]
        start = builder.mul(builder.mul(arguments[6], together), number(BLOCK))
        parts = range(0, BLOCK, 2 * _LANES)
        sums = [[cgutils.alloca_once_value(builder, _SUMS(None)) for _ in "lh"] for _ in parts]
        with cgutils.for_range(builder, arguments[5]) as loop:
            share = load(shares, builder.mul(loop.index, number(2)), ir.IntType(32))
            share = builder.bitcast(_in_each_lane(builder, share), _SHORTS)
            first = builder.add(start, builder.mul(loop.index, number(2 * BLOCK)))
            for part, halves in zip(parts, sums, strict=True):
                pair = [
                    load(rows, builder.add(first, number(part + other)), _SHORTS)
                    for other in (0, BLOCK)
                ]
                for half, order in zip(halves, _PAIRED, strict=True):
                    term = _multiplied(builder, _shuffled(builder, *pair, order), share)
                    builder.store(builder.add(builder.load(half), term), half)
        factor, peak = _in_each_lane(builder, arguments[4]), _FLOATS(None)
        for part, halves in zip(parts, sums, strict=True):
            halves = [builder.load(half) for half in halves]
            for order, lane in zip(_UNPAIRED, (part, part + _LANES), strict=True):
                place = builder.add(builder.mul(arguments[6], number(BLOCK)), number(lane))
                total = builder.sitofp(_shuffled(builder, *halves, order), _FLOATS)
                value = builder.fmul(total, factor, flags=("contract",))
                value = builder.fadd(load(base, place, _FLOATS), value, flags=("contract",))
                target = builder.bitcast(builder.gep(row, [place]), _FLOATS.as_pointer())
                builder.store(value, target, align=4)
                size = _of_floats(builder, "fabs", _FLOATS, value)
                peak = _of_floats(builder, "maxnum", _FLOATS, peak, size)
        return _of_floats(builder, "vector.reduce.fmax", ir.FloatType(), peak)

    kinds = row, base, rows, shares, types.float32, types.intp, types.intp
    return types.float32(*kinds), generate


def _pairing():
    """Orders that put the entries of two vectors side by side, in each 128 bits by itself, which
    is how machines do it, first the lower ones and then the higher; and those that bring sums of
    such pairs into the order of the vectors."""
    low = [n + k for first in range(0, 2 * _LANES, 8) for k in range(first, first + 4)
           for n in (0, 2 * _LANES)]  # fmt: skip
    high = [number + 4 for number in low]
    back = [first + k + n for first in range(0, _LANES, 4) for n in (0, _LANES) for k in range(4)]
    return (low, high), (back[:_LANES], back[_LANES:])


_PAIRED, _UNPAIRED = _pairing()


def _multiplied(builder, pairs, shares):
    """Products of the entries of two _SHORTS, neighbours added: _SUMS. On processors of x86 there
    is an instruction for it, which LLVM does not find by itself."""
    features = _features()
    if "+avx512bw" in features:
        return _call(builder, "llvm.x86.avx512.pmaddw.d.512", _SUMS, pairs, shares)
    halves = []
    for first in (0, _LANES):
        half = range(first, first + _LANES)
        a, b = [_shuffled(builder, v, v, half) for v in (pairs, shares)]
        if "+avx2" in features:
            kind = ir.VectorType(ir.IntType(32), _LANES // 2)
            halves.append(_call(builder, "llvm.x86.avx2.pmadd.wd", kind, a, b))
        else:
            wide = [builder.sext(v, _SUMS) for v in (a, b)]
            products = builder.mul(*wide)
            even, odd = [
                _shuffled(builder, products, products, range(n, _LANES, 2)) for n in (0, 1)
            ]
            halves.append(builder.add(even, odd))
    return _shuffled(builder, *halves, range(_LANES))


def _features():
    """What numba compiles for, by LLVM's names."""
    told = config.CPU_FEATURES  # by NUMBA_CPU_FEATURES; none where NUMBA_CPU_NAME is generic
    return (get_host_cpu_features() if told is None else told).split(",")


def _in_each_lane(builder, value):
    nothing = ir.VectorType(value.type, _LANES)(ir.Undefined)
    first = builder.insert_element(nothing, value, ir.IntType(32)(0))
    return _shuffled(builder, first, nothing, [0] * _LANES)


def _shuffled(builder, a, b, order):
    """The entries of a and b, as if one vector, that `order` numbers."""
    kind = ir.VectorType(ir.IntType(32), len(order))
    return builder.shuffle_vector(a, b, kind(list(order)))


def _of_floats(builder, name, returns, *vectors):
    """An operation of LLVM on _FLOATS, none of them NaN."""
    return _call(builder, f"llvm.{name}.v{_LANES}f32", returns, *vectors, fast=("nnan", "nsz"))


def _call(builder, name, returns, *vectors, fast=()):
    kind = ir.FunctionType(returns, [vector.type for vector in vectors])
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(function, vectors, fastmath=fast)
