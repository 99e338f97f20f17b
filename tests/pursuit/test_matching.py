"""Matching pursuit against a slow float64 reference, and its promises by property."""

import functools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from itda_core.errors import InputError
from itda_core.pursuit import blocks as blocks_module
from itda_core.pursuit import matching as pursuit
from itda_core.pursuit.codes import Codes, direction_errors, residual_norms
from itda_core.pursuit.gram import gram_bytes, gram_matrix
from itda_core.pursuit.matching import matching_pursuit
from tests.support.reference import assert_is_the_pursuit, slow_pursuit, take_path, unit_rows

CPU = torch.device("cpu")


@pytest.fixture(params=["compiled", "torch", "proposals", "direct"])
def path(request, monkeypatch):
    """Each of the ways that a pursuit may take."""
    take_path(monkeypatch, request.param)
    return request.param


def random_problem(n_tokens, n_atoms, d_model, seed=0):
    draw = np.random.default_rng(seed)
    atoms = unit_rows(draw.normal(size=(n_atoms, d_model)))
    x = draw.normal(size=(n_tokens, d_model)) * draw.uniform(0.1, 30, size=(n_tokens, 1))
    return torch.tensor(x, dtype=torch.float32), torch.tensor(atoms, dtype=torch.float32)


def exact_problem(n_tokens, n_atoms, seed=0):
    """Unit atoms of ±1/4 in 16 dimensions and integer activations: no product is rounded, so
    that ties are ties in every order of summation."""
    draw = np.random.default_rng(seed)
    atoms = draw.choice([-0.25, 0.25], size=(n_atoms, 16))
    x = draw.integers(-4, 5, size=(n_tokens, 16))
    return torch.tensor(x, dtype=torch.float32), torch.tensor(atoms, dtype=torch.float32)


def assert_same(codes, other):
    assert torch.equal(codes.latents, other.latents)
    torch.testing.assert_close(codes.coefficients, other.coefficients)


# Against the reference


@pytest.mark.parametrize(
    ("n_atoms", "d_model", "l0"),
    [(1, 4, 3), (5, 8, 1), (127, 32, 8), (128, 32, 8), (129, 32, 8), (300, 64, 20), (700, 48, 32)],
)
def test_equals_the_slow_reference_on_random_data(path, n_atoms, d_model, l0):
    x, atoms = random_problem(200, n_atoms, d_model, seed=n_atoms)
    codes = matching_pursuit(x, atoms, l0)
    latents, coefficients, reconstructions = slow_pursuit(x, atoms, l0)
    assert np.array_equal(codes.latents.numpy(), latents)
    scale = x.norm(dim=1, keepdim=True).numpy()
    np.testing.assert_allclose(codes.coefficients.numpy() / scale, coefficients / scale, atol=1e-4)
    np.testing.assert_allclose(
        codes.reconstruct(atoms).numpy() / scale, reconstructions / scale, atol=1e-4
    )
    assert codes.latents.dtype == torch.int64
    assert codes.coefficients.dtype == torch.float32


@pytest.mark.parametrize("l0", [1, 64])
def test_equals_the_slow_reference_on_activations_of_a_language_model(
    path, smollm2_activations, l0
):
    atoms = torch.nn.functional.normalize(smollm2_activations[:2_000], dim=1)
    x = smollm2_activations[2_000:]
    codes = matching_pursuit(x, atoms, l0, gram=None if path == "direct" else gram_matrix(atoms))
    # float32 rounding decides the other tokens
    assert_is_the_pursuit(codes, x, atoms, share=0.995, beside_the_norm=0)


def test_equals_the_reference_to_the_last_bit_where_nothing_is_rounded(path):
    x, atoms = exact_problem(500, 40)
    latents, coefficients, _ = slow_pursuit(x, atoms, 3)
    codes = matching_pursuit(x, atoms, 3)
    assert np.array_equal(codes.latents.numpy(), latents)
    assert np.array_equal(codes.coefficients.numpy(), coefficients)


def test_orthogonal_atoms_give_back_a_planted_support_largest_first():
    draw = np.random.default_rng(3)
    atoms, _ = np.linalg.qr(draw.normal(size=(64, 64)))
    planted = np.stack([draw.permutation(64)[:5] for _ in range(50)])
    sizes = draw.permuted(np.tile([9.0, -7.0, 5.0, -3.0, 1.0], (50, 1)), axis=1)
    x = np.einsum("tk,tkd->td", sizes, atoms[planted])
    codes = matching_pursuit(torch.tensor(x), torch.tensor(atoms), 5)
    order = np.argsort(-np.abs(sizes), axis=1)
    assert np.array_equal(codes.latents.numpy(), np.take_along_axis(planted, order, axis=1))
    np.testing.assert_allclose(
        codes.coefficients.numpy(), np.take_along_axis(sizes, order, axis=1), atol=1e-5
    )


def test_worked_by_hand(path):
    # From (3, 4): atom 1 = (0.6, 0.8) explains 5, all of it; of (2, -1) first atom 0 takes 2,
    # then atom 1 takes -0.8 of (0, -1), leaving (0.48, -0.36), of which atom 0 takes 0.48.
    atoms = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    codes = matching_pursuit(torch.tensor([[3.0, 4.0], [2.0, -1.0]]), atoms, 3)
    assert codes.latents[0, 0] == 1
    assert codes.latents[1].tolist() == [0, 1, 0]
    torch.testing.assert_close(codes.coefficients[0], torch.tensor([5.0, 0.0, 0.0]))
    torch.testing.assert_close(codes.coefficients[1], torch.tensor([2.0, -0.8, 0.48]))


# Paths that must agree


def spied(monkeypatch):
    """The (path, tokens of the block) of every block that is pursued from now on."""
    blocks = []
    ways = {name: getattr(pursuit, f"_pursue_{name}") for name in ("compiled", "torch", "directly")}

    def spy(name, room, residuals, *rest):
        blocks.append((name, len(residuals)))
        ways[name](room, residuals, *rest)

    for name in ways:
        monkeypatch.setattr(pursuit, f"_pursue_{name}", functools.partial(spy, name))
    return blocks


@pytest.mark.parametrize(
    ("memory", "takes"),
    [(0, "directly"), (20_000, "directly"), (239_000, "directly"), (240_000, "compiled"),
     (10**12, "compiled")],
)  # fmt: skip
def test_the_path_follows_from_the_memory_and_the_codes_do_not(memory, takes, monkeypatch):
    x, atoms = random_problem(40, 300, 32)  # a Gram matrix of 180,000 bytes, three quarters of 240k
    assert gram_bytes(300, CPU) == 180_000
    blocks = spied(monkeypatch)
    codes = matching_pursuit(x, atoms, 9, memory=memory)
    assert {name for name, _ in blocks} == {takes}
    assert_is_the_pursuit(codes, x, atoms)


def test_by_default_a_quarter_of_the_free_memory_is_used(monkeypatch):
    x, atoms = random_problem(40, 300, 32)
    blocks = spied(monkeypatch)
    for free, takes in [(4 * 239_000, "directly"), (4 * 240_000, "compiled")]:
        monkeypatch.setattr(blocks_module, "free_memory", lambda _device, free=free: free)
        blocks.clear()
        matching_pursuit(x, atoms, 9)
        assert {name for name, _ in blocks} == {takes}


def test_a_gram_matrix_is_made_only_where_it_saves_work(monkeypatch):
    x, atoms = random_problem(40, 300, 32)
    blocks = spied(monkeypatch)
    for tokens in (10, 11):  # 300 products with all atoms, against 10 or 11 tokens × 30 steps
        matching_pursuit(x[:tokens], atoms, 30)
    assert blocks == [("directly", 10), ("compiled", 11)]


@pytest.mark.parametrize(("n_atoms", "d_model"), [(16, 8), (4, 64)])
def test_many_tokens_are_taken_in_blocks_that_fit_the_memory(n_atoms, d_model, monkeypatch):
    x, atoms = random_problem(200_000, n_atoms, d_model)
    whole = matching_pursuit(x, atoms, 2)
    blocks, memory = spied(monkeypatch), 2**20
    assert_same(matching_pursuit(x, atoms, 2, memory=memory), whole)
    sizes = [tokens for _, tokens in blocks]
    assert sum(sizes) == 200_000
    gram = gram_bytes(n_atoms, CPU)
    assert max(sizes) * 4 * (n_atoms + 2 * d_model) + gram <= memory
    assert max(sizes) > 100


def test_a_pursuit_in_blocks_of_tokens_gives_the_same(path, monkeypatch):
    x, atoms = random_problem(100, 50, 16)
    whole = matching_pursuit(x, atoms, 6)
    for tokens in (1, 7, 99):
        monkeypatch.setattr(blocks_module, "_CORRELATION_BYTES", 4 * 50 * tokens)
        assert_same(matching_pursuit(x, atoms, 6), whole)


def test_a_gram_matrix_with_room_to_grow_gives_the_same(path, monkeypatch):
    x, atoms = random_problem(60, 80, 16)
    expected = matching_pursuit(x, atoms, 6)
    gram = gram_matrix(atoms)
    unused = float("nan") if gram.is_floating_point() else -12_345
    roomy = torch.full((120, 120), unused, dtype=gram.dtype)
    roomy[:80, :80] = gram
    assert_same(matching_pursuit(x, atoms, 6, gram=roomy), expected)


def test_callers_in_several_threads_get_what_each_would_get_alone():
    x, atoms = random_problem(2_000, 400, 32)
    parts = x.split(97)
    alone = [matching_pursuit(part, atoms, 12) for part in parts]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda part: matching_pursuit(part, atoms, 12), parts * 3))
    for codes, expected in zip(together, alone * 3, strict=True):
        assert_same(codes, expected)


def test_the_first_terms_are_the_pursuit_of_fewer_steps():
    x, atoms = random_problem(100, 90, 16)
    whole = matching_pursuit(x, atoms, 12)
    for l0 in (1, 5, 12):
        assert_same(whole.prefix(l0), matching_pursuit(x, atoms, l0))
        assert whole.prefix(l0).l0 == l0


# Edges


def test_of_equal_correlations_the_lower_number_is_taken(path):
    x, atoms = exact_problem(300, 150)
    twice = torch.cat([atoms, atoms, -atoms])
    codes = matching_pursuit(x, twice, 3)
    expected, _, _ = slow_pursuit(x, atoms, 3)
    assert np.array_equal(codes.latents.numpy(), expected)


def test_a_zero_vector_gets_latent_0_with_coefficient_0(path):
    x, atoms = random_problem(5, 200, 16)
    x[[0, 1, 3]] = 0
    codes = matching_pursuit(x, atoms, 60)  # enough steps for a Gram matrix
    assert not codes.latents[[0, 1, 3]].any()
    assert not codes.coefficients[[0, 1, 3]].any()
    assert not codes.reconstruct(atoms)[[0, 1, 3]].any()
    assert_is_the_pursuit(codes.prefix(6), x, atoms)


def test_fewer_atoms_than_steps_take_atoms_again(path):
    x, atoms = random_problem(50, 3, 8)
    codes = matching_pursuit(x, atoms, 20)
    assert_is_the_pursuit(codes.prefix(4), x, atoms)
    assert codes.latents.max() <= 2
    # What remains is what three atoms can't explain: the distance to the space they span.
    basis, _ = torch.linalg.qr(atoms.T.double())
    unexplained = x.double() - x.double() @ basis @ basis.T
    torch.testing.assert_close(
        x - codes.reconstruct(atoms), unexplained.float(), rtol=1e-2, atol=1e-2
    )


def test_one_token_and_no_token(path):
    x, atoms = random_problem(2, 30, 8)
    both = matching_pursuit(x, atoms, 4)
    one = matching_pursuit(x[:1], atoms, 4)
    assert torch.equal(one.latents, both.latents[:1])
    none = matching_pursuit(x[:0], atoms, 4)
    assert none.latents.shape == none.coefficients.shape == (0, 4)
    assert len(none) == 0
    assert none.reconstruct(atoms).shape == (0, 8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_are_taken_at_their_float32_value(path, dtype):
    x, atoms = random_problem(40, 60, 16)
    assert_same(
        matching_pursuit(x.to(dtype), atoms.to(dtype), 5),
        matching_pursuit(x.to(dtype).float(), atoms.to(dtype).float(), 5),
    )


def test_memory_layout_and_gradients_do_not_matter(path):
    x, atoms = random_problem(40, 60, 16)
    expected = matching_pursuit(x, atoms, 5)
    strided = x.T.contiguous().T, atoms.repeat_interleave(2, dim=0)[::2]
    assert not strided[0].is_contiguous()
    assert_same(matching_pursuit(*strided, 5), expected)
    wanted = matching_pursuit(x.clone().requires_grad_(), torch.nn.Parameter(atoms), 5)
    assert_same(wanted, expected)


def test_the_arguments_are_left_as_they_were():
    x, atoms = random_problem(40, 60, 16)
    gram = gram_matrix(atoms)
    before = [tensor.clone() for tensor in (x, atoms, gram)]
    matching_pursuit(x, atoms, 5, gram=gram)
    assert all(map(torch.equal, (x, atoms, gram), before))


GOOD = torch.ones(2, 4)


@pytest.mark.parametrize(
    ("x", "atoms", "l0", "says"),
    [
        (torch.ones(4), GOOD, 1, r"\[4\]"),
        (torch.ones(2, 3), GOOD, 1, r"\[2, 3\].*\[2, 4\]"),
        (GOOD, torch.ones(4), 1, r"\[4\]"),
        (torch.ones(1, 2, 4), GOOD, 1, r"\[1, 2, 4\]"),
        (GOOD, GOOD, 0, "l0 must be at least 1, got 0"),
        (GOOD, GOOD, -3, "got -3"),
        (GOOD, torch.ones(0, 4), 1, "no atoms"),
        (torch.tensor([[1.0, float("nan"), 0, 0]]), GOOD, 1, "not finite"),
        (torch.tensor([[1.0, float("inf"), 0, 0]]), GOOD, 1, "not finite"),
    ],
)
def test_what_can_not_be_decomposed_is_refused_with_the_reason(x, atoms, l0, says):
    with pytest.raises(InputError, match=says):
        matching_pursuit(x, atoms, l0)


@pytest.mark.parametrize(
    "gram", [torch.eye(40), torch.eye(39, dtype=torch.int16), torch.zeros(99, 39).short()]
)
def test_a_gram_matrix_of_another_kind_or_size_is_refused(gram):
    x, atoms = random_problem(40, 40, 16)
    with pytest.raises(InputError, match=r"gram has to be gram_matrix\(atoms\) of all 40 atoms"):
        matching_pursuit(x, atoms, 3, gram=gram)


# Codes


def test_reconstruct_sums_coefficient_times_atom_and_counts_repeats():
    atoms = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    codes = Codes(torch.tensor([[0, 1, 0]]), torch.tensor([[2.0, -1.0, 0.5]]))
    torch.testing.assert_close(codes.reconstruct(atoms), torch.tensor([[1.9, -0.8]]))


def test_residual_norms_are_the_norms_of_the_residuals():
    x, atoms = random_problem(60, 100, 24)
    codes = matching_pursuit(x, atoms, 10)
    norms = residual_norms(x, codes)
    assert norms.shape == (60, 11)
    for steps in range(11):
        residual = x.double() - codes.prefix(steps).reconstruct(atoms).double()
        torch.testing.assert_close(
            norms[:, steps], residual.norm(dim=1).float(), rtol=1e-4, atol=1e-4
        )
    assert (norms.diff(dim=1) <= 1e-5).all()


def test_direction_errors_worked_by_hand():
    # (3, 4) and (4, 3) point along (0.6, 0.8) and (0.8, 0.6): 0.04 + 0.04.
    x = torch.tensor([[3.0, 4.0], [3.0, 4.0], [3.0, 4.0], [3.0, 4.0], [1.0, 0.0]])
    xhat = torch.tensor([[4.0, 3.0], [30.0, 40.0], [-3.0, -4.0], [0.0, 0.0], [0.0, 2.0]])
    expected = torch.tensor([0.08, 0.0, 4.0, 1.0, 2.0])
    torch.testing.assert_close(direction_errors(x, xhat), expected)
