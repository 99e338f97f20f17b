"""Sums of Gram rows in whole numbers, by each way that a processor may multiply, against numpy."""

import numpy as np
import pytest
from numba import njit

from itda_core.pursuit import kernel_sums
from itda_core.pursuit.kernel_matching import BLOCK, GRAM_SCALE, PRODUCT_ERROR
from itda_core.pursuit.kernel_sums import BASE, REFINED, ROW, correlate, keep_row, refined

HOST = kernel_sums._features()
WAYS = {"as this machine does": HOST, "pairs of 256 bits": ["+avx2"], "one by one": []}


@pytest.fixture(params=list(WAYS))
def correlated(request, monkeypatch):
    """`correlate`, compiled anew for each way."""
    if request.param == "pairs of 256 bits" and "+avx2" not in HOST:
        pytest.skip("this processor has no such instruction")
    monkeypatch.setattr(kernel_sums, "_features", lambda: WAYS[request.param])
    inner = njit(correlate.py_func)

    @njit
    def run(*arguments):
        return inner(*arguments)

    return run


def problem(n_blocks, count, seed=0):
    """Unit vectors: their Gram rows in 16 bits, and a base that is the correlations of a vector."""
    draw = np.random.default_rng(seed)
    atoms = draw.normal(size=(n_blocks * BLOCK, 24))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    chosen = atoms[draw.choice(len(atoms), size=count, replace=False)]
    x = 5 * draw.normal(size=24)
    weights = np.linalg.lstsq(chosen.T, x, rcond=None)[0] if count else np.zeros(0)
    whole = np.rint(chosen @ atoms.T * GRAM_SCALE).astype(np.int16)
    return atoms @ x, whole, weights, np.linalg.norm(x)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 8, 17])
@pytest.mark.parametrize("n_blocks", [1, 3])
def test_a_row_is_right_to_its_slack(correlated, n_blocks, count):
    base, whole, weights, norm = problem(n_blocks, count, seed=count)
    rows = np.zeros((n_blocks, count + 2, BLOCK), np.int16)
    rows[:, count:] = 30_000  # of another token: not to be used
    for k, products in enumerate(whole):
        keep_row(rows, products, k)
    row, peaks = np.zeros(len(base), np.float32), np.zeros(n_blocks, np.float32)
    shares, slack = np.full(count + 1, 7, np.int16), np.zeros(4, np.float32)
    slack[BASE] = PRODUCT_ERROR * norm
    room = np.zeros(count + 1)
    room[:count] = weights
    correlated(row, peaks, base.astype(np.float32), rows, room, shares, slack, count)
    exact = base - weights @ (whole / GRAM_SCALE)
    assert np.abs(row - exact).max() <= slack[ROW]
    assert slack[ROW] < 1e-3 * norm + 1e-3 * np.abs(weights).sum()
    np.testing.assert_array_equal(peaks, np.abs(row).reshape(n_blocks, BLOCK).max(1))
    one = refined(5, base.astype(np.float32), rows, room, count)
    assert abs(one - exact[5]) <= slack[REFINED]


def test_sums_that_run_over_on_the_way_come_back(correlated):
    """Two large weights cancel: 30,000 × 30,000 × 4 does not fit into 32 bits, their sum does."""
    weights = np.array([1, 1, 1, 1, -1, -1, -1, -1.0])
    rows = np.zeros((1, 9, BLOCK), np.int16)
    rows[0, :8] = 30_000 - np.arange(8)[:, None]
    row, peaks = np.zeros(BLOCK, np.float32), np.zeros(1, np.float32)
    slack = np.array([0, 0, PRODUCT_ERROR * 0.9, 0], np.float32)
    base = np.zeros(BLOCK, np.float32)
    correlated(row, peaks, base, rows, weights, np.zeros(9, np.int16), slack, 8)
    np.testing.assert_allclose(row, -16 / GRAM_SCALE, atol=1e-6)


def test_a_row_is_kept_block_by_block():
    products = np.arange(300).astype(np.int16)
    rows = np.full((3, 4, BLOCK), -1, np.int16)
    keep_row(rows, products, 2)
    assert np.array_equal(rows[:, 2].ravel()[:300], products)
    assert (rows[:, [0, 1, 3]] == -1).all()
    assert (rows[2, 2, 300 - 2 * BLOCK :] == -1).all()
