"""Correlations of latents and ranks: by hand, against dense numpy, over all permutations."""

import itertools

import numpy as np
import pytest
import torch
from scipy.sparse import csc_array

from itda_core.activations.alignment import RowNames
from itda_core.pursuit.codes import Codes
from itda_core.similarity import correlations
from itda_core.similarity.correlations import coefficient_matrix
from itda_core.similarity.namesake_rows import Coded, in_common
from itda_core.similarity.namesakes import GROUPS, compare_namesakes
from itda_core.similarity.same_latents import most_changed


def drawn(seed, n_tokens=300, n_latents=12, share=0.2):
    draw = np.random.default_rng(seed)
    values = draw.standard_normal((n_tokens, n_latents))
    return values * (draw.random((n_tokens, n_latents)) < share)


def alike(x, seed, noise=0.7):
    """Coefficients that have something of x in them."""
    return x + noise * drawn(seed, *x.shape)


def all_pairs(n):
    return np.stack([np.arange(n)] * 2, 1)


def compared(a, b, pairs=None, prompts=None, **options):
    pairs = all_pairs(a.shape[1]) if pairs is None else np.array(pairs)
    prompts = np.arange(len(a)) // 10 if prompts is None else prompts
    return compare_namesakes(csc_array(a), csc_array(b), pairs, prompts, **options)


def dense(a, b):
    """[n_a, n_b], NaN where there is none."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.corrcoef(a.T, b.T)[: a.shape[1], a.shape[1] :]


def share_of_best(a, b, pairs):
    found, kept = dense(a, b), []
    for i, j in pairs:
        row, column = np.delete(found[i], j), np.delete(found[:, j], i)
        if not np.isnan(found[i, j]):
            kept += [[found[i, j] > np.nanmax(row), found[i, j] > np.nanmax(column)]]
    return np.mean(kept)


def test_three_tokens_by_hand():
    a = np.array([[2.0, 0], [0, 1], [0, 0]])
    b = np.array([[1.0, 0], [1, 0], [0, 3]])
    found = compared(a, b)
    # (2,0,0) with (1,1,0): ½ of a standard deviation's product; (0,1,0) with (0,0,3): −½
    assert found.correlation == pytest.approx([0.5, -0.5])
    # (0,1,0) is nearer to (1,1,0), and (0,0,3) is as far from (2,0,0): the tie counts against it
    assert found.rank_a.tolist() == [1, 2]
    assert found.rank_b.tolist() == [2, 2]
    assert [found.uses_a.tolist(), found.uses_b.tolist()] == [[1, 1], [2, 1]]
    assert found.uses_both.tolist() == [1, 0]
    assert found.best.value == pytest.approx((1 / 2 + 0) / 2)
    assert found.median.value == pytest.approx(0)


def test_strong_uses_by_hand():
    """40 tokens. Latent 0: strong uses of 8 on five tokens of either, four of them the same, and
    filler of ±4 on twenty, of the other sign in B. Latent 1: filler of one sign, but strong uses on
    other tokens. Latent 2 has no threshold, and is the same in both."""
    a, b = np.zeros((2, 40, 3))
    filler = 4.0 * (-1.0) ** np.arange(20)
    a[:5, 0], b[[0, 1, 2, 3, 5], 0] = 8, 8
    a[10:30, 0], b[10:30, 0] = filler, -filler
    a[30:35, 1], b[35:40, 1] = 8, 8
    a[10:30, 1] = b[10:30, 1] = filler
    a[:, 2] = b[:, 2] = np.arange(40) % 2
    names = RowNames(np.stack([np.zeros(40, np.int64), np.arange(40)], 1), -np.ones((40, 2)))
    sides = [Coded(names, csc_array(x), np.zeros(40, bool), "one") for x in (a, b)]
    cuts = np.array([5, 5, np.nan], np.float32)
    found = in_common(*sides, all_pairs(3), 40, 0, [cuts, cuts])
    rows = found["latents"]
    # Of all uses Σxy − (Σx)²/40 over Σx² − (Σx)²/40, with Σx = 40 and Σx² = 640
    assert rows[0]["correlation"] == pytest.approx((4 * 64 - 320 - 40) / 600)
    assert rows[1]["correlation"] == pytest.approx((320 - 40) / 600)
    # Of strong ones, on one token in eight
    assert rows[0]["strong_correlation"] == pytest.approx((4 / 40 - 1 / 64) / (1 / 8 - 1 / 64))
    assert rows[1]["strong_correlation"] == pytest.approx((0 - 1 / 64) / (1 / 8 - 1 / 64))
    assert rows[2]["strong_correlation"] == rows[2]["correlation"] == pytest.approx(1)
    uses = [[row[f"{of}uses_{side}"] for row in rows] for of in ("", "strong_") for side in "ab"]
    assert uses == [[25, 25, 20], [25, 25, 20], [5, 5, 20], [5, 5, 20]]
    assert [row["strong_uses_both"] for row in rows] == [4, 0, 20]
    assert [row["latent_a"] for row in most_changed(rows)] == [0, 1, 2]
    assert [row["latent_a"] for row in most_changed(rows, of_strong=True)] == [1, 0, 2]
    assert found["strong"]["alone_a"] == pytest.approx(1 - (4 + 0 + 20) / (5 + 5 + 20))
    assert found["strong"]["median_value"] == rows[0]["strong_correlation"]
    without = in_common(*sides, all_pairs(3), 40, 0, [cuts, None])
    assert without["strong"] is None
    assert "strong_uses_a" not in without["latents"][0]


def test_correlations_ranks_and_uses_are_those_of_dense_matrices():
    a = drawn(0)
    b = np.concatenate([alike(a[:, ::-1], 1), drawn(2, n_latents=5)], axis=1)
    pairs = np.array([[i, 11 - i] for i in (7, 0, 3, 11)])
    found, expected = compared(a, b, pairs), dense(a, b)
    for row, (i, j) in enumerate(pairs):
        assert found.correlation[row] == pytest.approx(expected[i, j])
        assert found.rank_a[row] == 1 + (np.delete(expected[i], j) >= expected[i, j]).sum()
        assert found.rank_b[row] == 1 + (np.delete(expected[:, j], i) >= expected[i, j]).sum()
        assert found.uses_a[row] == np.count_nonzero(a[:, i])
        assert found.uses_b[row] == np.count_nonzero(b[:, j])
        assert found.uses_both[row] == np.count_nonzero(a[:, i] * b[:, j])
        assert min(abs(expected[i, pairs[:, 1]] - found.chance[row])) < 1e-9
    assert found.best.value == pytest.approx(share_of_best(a, b, pairs))
    assert found.median.value == pytest.approx(np.median([expected[i, j] for i, j in pairs]))


def test_the_same_by_blocks(monkeypatch):
    a = drawn(0)
    b = alike(a, 1, noise=8)
    whole = compared(a, b)
    monkeypatch.setattr(correlations, "_BLOCK_BYTES", 8 * 12 * 5)  # five latents of twelve
    parts = compared(a, b)
    for name in ("correlation", "rank_a", "rank_b"):
        assert getattr(parts, name).tolist() == getattr(whole, name).tolist()
    assert (parts.best, parts.median) == (whole.best, whole.median)
    assert 0 < whole.best.value < 1


def test_a_latent_that_is_not_used_or_always_the_same_has_no_correlation():
    a = drawn(0)
    b = alike(a, 1)
    a[:, 2], b[:, 4], b[:, 6], a[:, 8], b[:, 8] = 0, 0, 0.1, 0, 0
    found = compared(a, b)
    without = [2, 4, 6, 8]
    assert np.flatnonzero(np.isnan(found.correlation)).tolist() == without
    assert np.flatnonzero(np.isnan(found.chance)).tolist() == without
    assert np.flatnonzero(~found.is_compared).tolist() == without
    assert found.rank_b[without].tolist() == [0, 0, 0, 0]
    assert found.uses_b[6] == len(b)
    others = [pair for pair in all_pairs(12) if pair[0] not in without]
    assert found.best.value == pytest.approx(share_of_best(a, b, others))
    none = compared(np.zeros((30, 2)), drawn(1, 30, 2))
    assert none.best.value is none.best.chance is none.median.value is none.median.chance is None


def test_a_latent_of_the_opposite_sign_is_no_partner():
    a = drawn(0)
    b = a.copy()
    b[:, 3] *= -1
    found = compared(a, b)
    assert found.correlation[3] == pytest.approx(-1)
    assert found.rank_a[3] == found.rank_b[3] == 12
    assert found.best.value == pytest.approx(11 / 12)


def test_chance_is_the_mean_over_all_permutations_of_the_sources():
    a = drawn(0, n_latents=5)
    b = np.concatenate([alike(a, 1, noise=3), drawn(2, n_latents=2)], axis=1)
    a[:, 4] = 0  # without a correlation, and so without a share in it
    best, medians = [], []
    for order in itertools.permutations(range(4)):
        pairs = np.stack([np.arange(4), order], 1)
        best.append(share_of_best(a[:, :4], b, pairs))
        medians.append(np.median([dense(a, b)[i, j] for i, j in pairs]))
    found = compared(a, b, all_pairs(5))
    assert found.best.chance == pytest.approx(np.mean(best))
    # 100 permutations are drawn: a mean of them, within four standard errors
    assert found.median.chance == pytest.approx(np.mean(medians), abs=4 * np.std(medians) / 10)
    again = compared(a, b, all_pairs(5), seed=1)
    assert again.median.chance != found.median.chance
    assert compared(a, b, all_pairs(5)).median == found.median


def test_what_has_several_best_partners_is_given_none_of_them_by_chance():
    a = drawn(0, n_latents=3)
    b = a[:, [0, 1, 1]]
    found = compared(a, b)
    # of B's: 1 and 2 are alike, so that A's 1 has no best partner, and A's 2 may have 0 or none
    best = [share_of_best(a, b, np.stack([np.arange(3), p], 1))
            for p in itertools.permutations(range(3))]  # fmt: skip
    assert found.best.chance == pytest.approx(np.mean(best))


def test_intervals_leave_one_group_of_prompts_out_after_another():
    a = drawn(0)
    b = alike(a, 1, noise=2)
    prompts = np.repeat(np.arange(25), 12)
    found, pairs = compared(a, b, prompts=prompts), all_pairs(12)
    shares, medians = [], []
    for group in np.array_split(np.arange(25), GROUPS):
        kept = ~np.isin(prompts, group)
        shares.append(share_of_best(a[kept], b[kept], pairs))
        medians.append(np.median(np.diag(dense(a[kept], b[kept]))))
    for value, without, lowest in ((found.best, shares, 0), (found.median, medians, -1)):
        error = np.sqrt((GROUPS - 1) * np.mean((without - np.mean(without)) ** 2))
        assert value.low == pytest.approx(max(lowest, value.value - 2.262 * error), abs=1e-4)
        assert value.high == pytest.approx(min(1, value.value + 2.262 * error), abs=1e-4)
    few = compared(a, b, prompts=np.repeat(np.arange(GROUPS - 1), 34)[: len(a)])
    assert few.best.low is few.median.high is None
    assert few.best.value == found.best.value


def test_the_interval_holds_what_more_prompts_give():
    """Of 40 samples at most a fifth may miss the value of all of them together."""
    a = drawn(0, n_tokens=24_000)
    b = alike(a, 1, noise=3)
    whole, missed = np.median(np.diag(dense(a, b))), 0
    for first in range(0, 24_000, 600):
        part = slice(first, first + 600)
        median = compared(a[part], b[part], prompts=np.arange(600) // 20).median
        missed += not median.low <= whole <= median.high
    assert missed <= 8


def test_codes_become_one_coefficient_a_latent():
    codes = Codes(
        torch.tensor([[2, 0, 2], [1, 1, 0]], dtype=torch.int64),
        torch.tensor([[1.0, -0.5, 0.25], [2.0, -2.0, 0.0]], dtype=torch.float32),
    )
    found = coefficient_matrix(codes, 4)
    assert found.toarray().tolist() == [[-0.5, 0, 1.25, 0], [0, 0, 0, 0]]
    assert found.nnz == 2
