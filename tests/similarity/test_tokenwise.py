"""Relative representations, neighbours, source resemblance: against loops and other libraries."""

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from itda_core.similarity import tokenwise
from tests.support.alike import centred64, noise, related, shuffled, turned


def relative(a, b, **options):
    forms = [tokenwise.relative_form(x, **options) for x in (a, b)]
    return tokenwise.relative_likeness(*forms)


def mutual(a, b, **options):
    forms = [tokenwise.neighbours_form(x, **options) for x in (a, b)]
    return tokenwise.mutual_neighbours(*forms)


def forms(a, b, **options):
    return [tokenwise.resemblance_form(x, **options) for x in (a, b)]


def resemblance(a, b, **options):
    return tokenwise.source_resemblance(*forms(a, b, **options))


ALL = [relative, mutual, resemblance]
ROUNDING = 2e-5

# References in plain loops


def unit(v):
    return v / np.linalg.norm(v)


def spread(n, count):
    return [round(i * (n - 1) / (count - 1)) for i in range(count)]


def described(rows, sources, weight):
    """Each token by its likeness to the sources, of length 1; its own entry is 0."""
    rows = [unit(row) for row in rows]
    return [
        unit(np.array([0 if t == s else weight(rows[t] @ rows[s]) for s in sources]))
        for t in range(len(rows))
    ]


def damped_by_svd(x, power):
    u, scales, _ = np.linalg.svd(centred64(x), full_matrices=False)
    kept = scales > 1e-5 * scales[0]
    return u[:, kept] * scales[kept] / scales[kept] ** power


def resemblance_in_loops(a, b, sources=500, temperature=0.4, damping=0.4):
    sources = spread(len(a), min(sources, len(a)))
    a, b = (
        described(damped_by_svd(x, damping), sources, lambda cos: math.exp(cos / temperature))
        for x in (a, b)
    )
    n = len(a)
    found = sum(a[t] @ b[t] for t in range(n)) / n
    expected = sum(a[t] @ b[s] for t in range(n) for s in range(n)) / n**2
    return (found - expected) / (1 - expected)


# Rows that are sources


@pytest.mark.parametrize(("n_rows", "count"), [(10, 4), (100, 7), (1_000, 999), (50, 50)])
def test_source_rows_are_spread_evenly_and_distinct(n_rows, count):
    found = tokenwise.spread_rows(n_rows, count).tolist()
    assert found == spread(n_rows, count)
    assert len(set(found)) == count


def test_fewer_rows_than_sources_are_all_sources():
    assert tokenwise.spread_rows(5, 500).tolist() == [0, 1, 2, 3, 4]


def test_the_last_of_many_millions_of_rows_is_exact():
    assert tokenwise.spread_rows(100_000_001, 3).tolist() == [0, 50_000_000, 100_000_000]


# Relative representations


def test_relative_likeness_is_that_of_plain_loops():
    a, b = related(n_tokens=60)
    left, right = (described(centred64(x), spread(60, 20), float) for x in (a, b))
    expected = np.mean([u @ v for u, v in zip(left, right, strict=True)])
    assert relative(a, b, anchors=20) == pytest.approx(expected, abs=ROUNDING)


def test_relative_likeness_of_four_tokens_is_worked_by_hand():
    a = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    b = a[[0, 2, 1, 3]]
    # cosines to the others, own entry 0. Of a: (0,0,-1,0), (0,0,0,-1), (-1,0,0,0), (0,-1,0,0);
    # of b: (0,-1,0,0), (-1,0,0,0), (0,0,0,-1), (0,0,-1,0): no token has an anchor in common
    assert relative(a, a) == pytest.approx(1)
    assert relative(a, b) == pytest.approx(0, abs=1e-6)
    assert relative(a, a[[2, 1, 0, 3]]) == pytest.approx(1)


# Neighbours


def test_mutual_neighbours_are_those_of_sklearn():
    a, b = related(n_tokens=150)

    def nearest(x):
        # fitted rows are not asked about themselves
        search = NearestNeighbors(n_neighbors=10, metric="cosine").fit(centred64(x))
        return [set(row) for row in search.kneighbors(return_distance=False)]

    shares = [len(u & v) / 10 for u, v in zip(nearest(a), nearest(b), strict=True)]
    assert mutual(a, b) == pytest.approx(np.mean(shares))


def test_many_tokens_are_compared_in_blocks_of_every_mth_token(monkeypatch):
    monkeypatch.setattr(tokenwise, "_BLOCK", 50)
    a, b = related(n_tokens=130)  # three blocks, of 44, 43 and 43

    def nearest(x):
        x, found = centred64(x), {}
        for t in range(130):
            others = [s for s in range(t % 3, 130, 3) if s != t]
            others.sort(key=lambda s: -(unit(x[t]) @ unit(x[s])))
            found[t] = {(s - t % 3) // 3 for s in others[:10]}
        return found

    left, right = nearest(a), nearest(b)
    expected = np.mean([len(left[t] & right[t]) / 10 for t in range(130)])
    assert mutual(a, b) == pytest.approx(expected)


def test_neighbours_of_points_on_a_circle_are_worked_by_hand():
    def circle(*degrees):
        angles = torch.deg2rad(torch.tensor([*degrees, *(d + 180 for d in degrees)]))
        return torch.stack([angles.cos(), angles.sin()], 1)  # opposite points: the mean is 0

    # token by token, the nearest of 0°, 10°, 50° are tokens 1, 0, 1
    assert mutual(circle(0.0, 10, 50), circle(0.0, 10, 50), k=1) == 1
    # of 0°, 70°, 10° they are 2, 2, 0; of 0°, 70°, 50° they are 2, 2, 1
    assert mutual(circle(0.0, 10, 50), circle(0.0, 70, 10), k=1) == 0
    assert mutual(circle(0.0, 10, 50), circle(0.0, 70, 50), k=1) == pytest.approx(1 / 3)
    # of 0°, 45°, 50° they are 1, 2, 1
    assert mutual(circle(0.0, 10, 50), circle(0.0, 45, 50), k=1) == pytest.approx(2 / 3)


def test_more_neighbours_than_tokens_in_a_block_are_all_of_them(monkeypatch):
    monkeypatch.setattr(tokenwise, "_BLOCK", 20)
    assert tokenwise.neighbours_form(noise(21, 5, 0), k=15).numbers.shape == (21, 9)


@pytest.mark.parametrize("n_tokens", [20, 999, 1_000, 1_001])
def test_a_token_is_not_its_own_neighbour(n_tokens):
    numbers = tokenwise.neighbours_form(noise(n_tokens, 4, 0)).numbers
    n_blocks = -(-n_tokens // 1_000)
    own = torch.arange(n_tokens) // n_blocks
    assert numbers.shape == (n_tokens, 10)
    assert not bool((numbers == own[:, None]).any())


# Source resemblance


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sources": 15},
        {"temperature": 0.1},
        {"damping": 0.0},
        {"damping": 1.0, "sources": 20},
    ],
)
def test_source_resemblance_is_that_of_plain_loops(options):
    a, b = related(n_tokens=60)
    expected = resemblance_in_loops(a, b, **options)
    assert resemblance(a, b, **options) == pytest.approx(expected, abs=ROUNDING)


def test_source_resemblance_of_four_tokens_is_worked_by_hand():
    a = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    b = a[[0, 2, 1, 3]]
    # Scales are equal, so damping does nothing. With temperature 1 weights are 1 at a right angle
    # and w = 1/e to the opposite token. a: (0,1,w,1), (1,0,1,w), (w,1,0,1), (1,w,1,0);
    # b: (0,w,1,1), (w,0,1,1), (1,1,0,w), (1,1,w,0); all of square length 2 + w².
    w = math.exp(-1)
    length = 2 + w * w
    found = (1 + 2 * w) / length  # every token: once 1 · 1, twice 1 · w
    expected = 4 * ((2 + w) / 4) ** 2 / length  # both means are (2 + w) / 4 in all entries
    value = (found - expected) / (1 - expected)
    assert resemblance(a, b, temperature=1.0) == pytest.approx(value, abs=ROUNDING)


def test_the_mean_over_tokens_is_the_source_resemblance():
    a, b = forms(*related())
    values = tokenwise.token_resemblance(a, b)
    assert values.shape == (200,)
    assert float(values.mean()) == pytest.approx(tokenwise.source_resemblance(a, b), abs=1e-9)


def test_a_token_that_moved_in_one_model_has_the_least_resemblance():
    a = noise(300, 6, 0)
    b = a.clone()
    b[17] = -b[17]
    assert int(tokenwise.token_resemblance(*forms(a, b)).argmin()) == 17


@pytest.mark.parametrize("power", [0.0, 0.4, 1.0])
def test_damping_divides_principal_directions_by_a_power_of_their_scale(power):
    x, _ = related()
    found = tokenwise.damped(x, power).double().numpy()
    expected = damped_by_svd(x, power)
    # directions come in another order and sign, and with a common factor: products tell no less
    found, expected = (y @ y.T / np.linalg.norm(y) ** 2 for y in (found, expected))
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_damping_by_one_is_whitening():
    white = tokenwise.damped(related()[0], 1.0)
    products = white.T @ white
    torch.testing.assert_close(products / products[0, 0], torch.eye(8), atol=1e-4, rtol=0)


def test_shuffled_tokens_have_no_source_resemblance():
    a = related(n_tokens=2_000)[0]
    values = [resemblance(a, shuffled(a, seed)) for seed in range(5)]
    assert max(abs(value) for value in values) < 0.02


# All of them


@pytest.mark.parametrize("measure", ALL)
def test_rotation_scale_and_shift_change_nothing(measure):
    a, b = related()
    # a neighbour may change where two are equally near up to rounding
    assert measure(turned(a), turned(b, 9)) == pytest.approx(measure(a, b), abs=1e-3)


@pytest.mark.parametrize("measure", ALL)
def test_a_rotated_scaled_and_shifted_copy_is_the_same(measure):
    a, _ = related()
    assert measure(a, turned(a)) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("measure", ALL)
def test_they_are_symmetric(measure):
    a, b = related()
    assert measure(a, b) == pytest.approx(measure(b, a), abs=1e-9)


@pytest.mark.parametrize("measure", ALL)
@pytest.mark.parametrize("value", [0.0, 0.1, 1234.567])
def test_constant_activations_have_no_value(measure, value):
    a, _ = related()
    constant = torch.full((len(a), 5), value)
    assert math.isnan(measure(a, constant))
    assert math.isnan(measure(constant, constant))


@pytest.mark.parametrize("measure", ALL)
def test_a_constant_column_changes_nothing(measure):
    a, b = related()
    wider = torch.cat([a, torch.full((len(a), 1), 0.1)], 1)
    assert measure(wider, b) == pytest.approx(measure(a, b), abs=1e-4)


@pytest.mark.parametrize("measure", ALL)
@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_tiny_and_huge_values_neither_vanish_nor_overflow(measure, scale):
    a, b = related()
    assert measure(a * scale, b * scale) == pytest.approx(measure(a, b), abs=1e-3)


@pytest.mark.parametrize("measure", ALL)
def test_half_precision_is_computed_in_single(measure):
    a, b = (x.half() for x in related())
    assert measure(a, b) == measure(a.float(), b.float())


@pytest.mark.parametrize("measure", ALL)
@pytest.mark.parametrize("copies", [1, 4])
def test_few_and_repeated_tokens_give_a_finite_value(measure, copies):
    a, b = (noise(20, d, d).repeat_interleave(copies, 0) for d in (50, 40))
    assert -1 <= measure(a, b) <= 1


@pytest.mark.parametrize("measure", [relative, resemblance])
def test_a_token_at_the_mean_does_no_harm(measure):
    a = noise(40, 3, 0)
    a = torch.cat([a, -a, torch.zeros(1, 3)])
    assert measure(a, turned(a)) > 0.97
