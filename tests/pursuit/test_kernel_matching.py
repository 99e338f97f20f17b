"""The pursuit at its edges: blocks, pairs of tokens, rounding, small and huge numbers."""

import numpy as np
import pytest
import torch

from itda_core.pursuit.codes import Codes
from itda_core.pursuit.gram import gram_matrix
from itda_core.pursuit.kernel_matching import pursue_rows
from itda_core.pursuit.matching import matching_pursuit
from tests.support.reference import (
    assert_is_the_pursuit,
    nearly_equal,
    slow_pursuit,
    take_path,
    unit_rows,
)


@pytest.fixture(params=["compiled", "torch", "direct"])
def any_path(request, monkeypatch):
    take_path(monkeypatch, request.param)


@pytest.fixture(autouse=True)
def one_thread():
    """So that neighbours take turns in one call of the kernel, on a machine of any size."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def compiled(x, atoms, l0):
    """The codes of the compiled path, also where another one would be taken by itself."""
    return matching_pursuit(x, atoms, l0, gram=gram_matrix(atoms.float()))


def draw_rows(n_rows, d_model, seed=0):
    draw = np.random.default_rng(seed)
    return torch.tensor(draw.normal(size=(n_rows, d_model)), dtype=torch.float32)


def draw_atoms(n_atoms, d_model, seed=1):
    return torch.nn.functional.normalize(draw_rows(n_atoms, d_model, seed), dim=1)


# Shapes


@pytest.mark.parametrize("n_atoms", [1, 2, 31, 127, 128, 129, 255, 256, 257])
@pytest.mark.parametrize(("d_model", "l0"), [(33, 6), (47, 1)])
def test_atoms_up_to_and_over_the_end_of_a_block(n_atoms, d_model, l0):
    atoms = draw_atoms(n_atoms, d_model)
    x = torch.cat([draw_rows(25, d_model), 30 * atoms[-1:] + draw_rows(2, d_model)])
    codes = compiled(x, atoms, l0)
    if n_atoms > 2:
        assert_is_the_pursuit(codes, x, atoms)
    assert (codes.latents[-2:, 0] == n_atoms - 1).all()  # the very last atom is looked at
    assert_is_the_pursuit(codes.prefix(1), x, atoms)


@pytest.mark.parametrize("d_model", [1, 2, 3, 15, 16, 17, 64, 65])
def test_any_width(d_model):
    atoms, x = draw_atoms(20, d_model), draw_rows(9, d_model)
    codes = compiled(x, atoms, 5)
    np.testing.assert_allclose(codes.reconstruct(atoms), slow_pursuit(x, atoms, 5)[2], atol=1e-5)
    assert_is_the_pursuit(codes.prefix(1), x, atoms)


@pytest.mark.parametrize("n_tokens", [1, 2, 3, 4, 5, 6, 7])
def test_any_number_of_tokens(n_tokens):
    atoms, x = draw_atoms(150, 20), draw_rows(n_tokens, 20)
    assert_is_the_pursuit(compiled(x, atoms, 7), x, atoms)


@pytest.mark.parametrize("n_tokens", [1, 2, 3, 5])
def test_only_the_rows_given_are_written(n_tokens):
    atoms, x = draw_atoms(150, 20), draw_rows(8, 20)
    correlations, residuals = (x @ atoms.T).numpy().copy(), x.numpy().copy()
    latents, coefficients = np.full((8, 4), -5), np.full((8, 4), -5, np.float32)
    own = [rows[:n_tokens] for rows in (correlations, residuals, latents, coefficients)]
    shared = gram_matrix(atoms).numpy(), atoms.numpy()
    pursue_rows(*own[:2], *shared, *own[2:])
    found, sizes, explained = slow_pursuit(x[:n_tokens], atoms, 4)
    assert np.array_equal(latents[:n_tokens], found)
    np.testing.assert_allclose(coefficients[:n_tokens], sizes, atol=1e-6)
    np.testing.assert_allclose(residuals[:n_tokens], x[:n_tokens] - explained, atol=1e-6)
    assert (latents[n_tokens:] == -5).all()
    assert (coefficients[n_tokens:] == -5).all()
    assert np.array_equal(residuals[n_tokens:], x[n_tokens:])
    assert np.array_equal(correlations[n_tokens:], (x @ atoms.T)[n_tokens:])


def test_tokens_that_take_turns_do_not_touch_each_other():
    """Each pair of a token that ends at once, early or never, in both orders."""
    atoms, x = draw_atoms(200, 24), draw_rows(3, 24)
    kinds = torch.stack([torch.zeros(24), 2 * atoms[190], atoms[7] + 1e-4 * x[0], *x[1:]])
    pairs = [(a, b) for a in range(5) for b in range(5)]
    alone = [compiled(kind[None], atoms, 12) for kind in kinds]
    for pair in pairs:
        codes = compiled(kinds[list(pair)], atoms, 12)
        for row, kind in enumerate(pair):
            assert torch.equal(codes.latents[row], alone[kind].latents[0])
            torch.testing.assert_close(codes.coefficients[row], alone[kind].coefficients[0])
    assert [int((codes.coefficients != 0).sum()) for codes in alone] == [0, 1, 12, 12, 12]


def test_fewer_atoms_than_steps():
    atoms, x = draw_atoms(5, 16), draw_rows(31, 16)
    codes = compiled(x, atoms, 400)
    latents, coefficients, explained = slow_pursuit(x, atoms, 400)
    np.testing.assert_allclose(codes.reconstruct(atoms), explained, atol=5e-5)
    counts = np.abs(coefficients) > 1e-4  # below that float32 rounding decides
    assert np.array_equal(codes.latents.numpy()[counts], latents[counts])
    np.testing.assert_allclose(codes.coefficients.numpy()[counts], coefficients[counts], atol=2e-6)


def test_what_no_atom_explains_is_left():
    x = torch.tensor([[0.0, 0.0, 2.0], [0.0, 3.0, 4.0], [1.0, 0.0, 0.0]])
    codes = compiled(x, torch.eye(3)[:2].contiguous(), 4)
    assert codes.latents.tolist() == [[0] * 4, [1, 0, 0, 0], [0] * 4]
    assert codes.coefficients.tolist() == [[0] * 4, [3, 0, 0, 0], [1, 0, 0, 0]]


def test_the_number_of_threads_does_not_matter():
    x, atoms = draw_rows(501, 32), draw_atoms(400, 32)
    codes = {}
    for number in (1, 2, 3):
        torch.set_num_threads(number)
        codes[number] = matching_pursuit(x, atoms, 12)
    for number in (2, 3):
        assert torch.equal(codes[number].latents, codes[1].latents)
        torch.testing.assert_close(codes[number].coefficients, codes[1].coefficients)
    assert_is_the_pursuit(codes[1], x, atoms)


# Ties and near-ties


def test_a_gram_matrix_holds_the_products_to_its_promised_error(any_path):
    atoms = draw_atoms(2_100, 16)  # three blocks of rows
    gram = gram_matrix(atoms)
    exact = atoms.double() @ atoms.double().T
    if gram.dtype == torch.int16:
        assert (gram.double() / 32_767 - exact).abs().max() <= 0.5 / 32_767 + 2e-6
    else:
        torch.testing.assert_close(gram.double(), exact, atol=1e-6, rtol=0)


@pytest.mark.parametrize("between", [0, 1, 127, 128, 500])
@pytest.mark.parametrize("sign", [1, -1])
def test_of_equal_atoms_the_lower_number_is_taken_however_far_apart(between, sign):
    atoms, x = draw_atoms(90, 33), draw_rows(101, 33)
    weak = torch.nn.functional.normalize(draw_atoms(between, 34, seed=3), dim=1)
    weak = torch.nn.functional.pad(weak[:, :1], (34, 0))  # explain nothing of the first 33
    weak[:, :33] = 0
    wide = torch.nn.functional.pad(atoms, (0, 2))
    both = torch.cat([wide, torch.nn.functional.normalize(weak, dim=1), sign * wide])
    codes = compiled(torch.nn.functional.pad(x, (0, 2)), both, 8)
    assert_is_the_pursuit(codes, x, atoms)


@pytest.mark.parametrize("first_is_larger", [True, False])
@pytest.mark.parametrize("apart", [1, 128, 300])
@pytest.mark.parametrize("gap", [1e-6, 1e-5])
def test_rounding_of_the_gram_matrix_never_decides(first_is_larger, apart, gap):
    x, atoms, _, larger = nearly_equal(gap, apart, first_is_larger)
    codes = compiled(x, atoms, 3)
    assert codes.latents[:, :2].tolist() == [[0, larger]] * 3
    assert_is_the_pursuit(codes, x.float(), atoms.float())


def test_products_that_all_round_alike_do_not_add_up_to_a_wrong_choice():
    """Atoms in a few dimensions lie close together, and each product is off by half a unit."""
    atoms, x = draw_atoms(3_000, 3), draw_rows(200, 3)
    codes = compiled(x, atoms, 3)
    assert_is_the_pursuit(codes.prefix(1), x, atoms)
    latents, _, explained = slow_pursuit(x, atoms, 3)
    assert (codes.latents.numpy() == latents).all(axis=1).mean() > 0.9  # gaps of 1e-7 are left
    np.testing.assert_allclose(codes.reconstruct(atoms), explained, atol=1e-3)


# Small residuals


@pytest.mark.parametrize("times", [1.0, 3.0, -1e-4])
def test_an_activation_that_is_an_atom_is_one_term(any_path, times):
    atoms = draw_atoms(300, 24)
    codes = matching_pursuit(times * atoms, atoms, 4)
    assert codes.latents.tolist() == [[number, 0, 0, 0] for number in range(300)]
    expected = torch.tensor([times, 0, 0, 0]).expand(300, 4)
    torch.testing.assert_close(codes.coefficients, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("small", [1e-3, 1e-4, 1e-5])
def test_what_is_small_beside_a_large_term_is_still_found(any_path, small):
    draw = np.random.default_rng(5)
    atoms = draw_atoms(300, 40)
    first, second = draw.integers(0, 300, size=(2, 101))
    rest = atoms[second] - (atoms[second] * atoms[first]).sum(1, keepdim=True) * atoms[first]
    x = 7 * (atoms[first] + small * rest)
    codes = matching_pursuit(x, atoms, 2)
    latents, coefficients, _ = slow_pursuit(x, atoms, 2)
    differs = torch.tensor(first != second)
    assert np.array_equal(codes.latents[differs].numpy(), latents[differs])
    # float32 keeps the small term to 1e-7 of the large one
    np.testing.assert_allclose(codes.coefficients[differs], coefficients[differs], atol=2e-6)


def test_the_pursuit_ends_at_a_millionth_of_the_activation(any_path):
    atoms = torch.eye(8)[:6].contiguous()
    sizes = torch.tensor([[1, 1e-3, 1e-5, 2e-6], [1, 1e-3, 1e-5, 6e-7], [1, 1e-5, 6e-7, 2e-7]])
    x = torch.nn.functional.pad(sizes, (1, 3))
    codes = matching_pursuit(x, atoms, 5)
    assert codes.latents.tolist() == [[1, 2, 3, 4, 0], [1, 2, 3, 0, 0], [1, 2, 0, 0, 0]]
    expected = torch.nn.functional.pad(sizes, (0, 1)) * (codes.latents > 0)
    torch.testing.assert_close(codes.coefficients, expected)


@pytest.mark.parametrize("scale", [1e-38, 1e-20, 1e-6, 1e4, 1e20, 1e36])
def test_the_scale_of_an_activation_does_not_matter(any_path, scale):
    x, atoms = draw_rows(60, 16), draw_atoms(100, 16)
    codes = matching_pursuit(x * scale, atoms, 5)
    assert torch.equal(codes.latents, matching_pursuit(x, atoms, 5).latents)
    assert_is_the_pursuit(codes, x.double().numpy() * scale, atoms)


def test_correlations_are_computed_anew_once_their_rounding_is_large_beside_them():
    atoms = draw_atoms(400, 64)
    first, rest = atoms[:9], draw_rows(9, 64)
    x = 3 * first + 1e-5 * rest
    residuals, latents, coefficients = x.numpy().copy(), np.zeros((9, 3), int), np.zeros((9, 3))
    correlations = (x @ atoms.T).numpy()
    own = latents, coefficients.astype(np.float32)
    pursue_rows(correlations, residuals, gram_matrix(atoms).numpy(), atoms.numpy(), *own)
    # Without that they would be off by 3 / 65,534, which is 5e-5, and nearly every atom would have
    # to be looked at. The last update may be left out, so any prefix of the terms will do.
    known = [x.double() - Codes(torch.tensor(own[0][:, :k]), torch.tensor(own[1][:, :k]))
             .reconstruct(atoms.double()) for k in (1, 2, 3)]  # fmt: skip
    off = [np.abs(correlations - (r @ atoms.double().T).numpy()).max() for r in known]
    assert min(off) < 1e-6


@pytest.mark.parametrize("small", [1e-2, 1e-3, 1e-4, 1e-5])
def test_many_terms_after_a_large_one(small):
    """A planted support in orthogonal directions, each half as large as the one before."""
    basis, _ = np.linalg.qr(np.random.default_rng(4).normal(size=(160, 160)))
    atoms = torch.tensor(basis, dtype=torch.float32)
    sizes = torch.tensor([1.0, *(small * 0.5**k for k in range(3))])
    planted = torch.stack([torch.randperm(160)[:4] for _ in range(51)])
    x = torch.einsum("k,tkd->td", sizes.double(), torch.tensor(basis)[planted])
    codes = compiled(x, atoms, 4)
    assert torch.equal(codes.latents, planted)
    torch.testing.assert_close(codes.coefficients, sizes.expand(51, 4), rtol=1e-4, atol=3e-7)


# Activations as models have them


@pytest.mark.parametrize("norm", [1e-6, 1.0, 1e4])
def test_atoms_with_a_large_common_component(norm):
    """Cosines of 0.9 to each other, as raw residual streams have."""
    common = draw_rows(1, 96, seed=8)
    rows = 3 * common + draw_rows(900, 96, seed=9)
    atoms = torch.tensor(unit_rows(rows[:500]), dtype=torch.float32)
    assert (atoms @ atoms.T).mean() > 0.88
    x = torch.tensor(unit_rows(rows[500:]) * norm, dtype=torch.float32)
    assert_is_the_pursuit(compiled(x, atoms, 16), x, atoms, share=0.995)


def test_one_dimension_a_thousand_times_larger_than_the_others():
    rows = draw_rows(900, 96)
    rows[:, 17] = 1_000 + draw_rows(900, 1, seed=4)[:, 0]
    atoms = torch.tensor(unit_rows(rows[:500]), dtype=torch.float32)
    codes = compiled(rows[500:], atoms, 3)
    _, _, explained = slow_pursuit(rows[500:], atoms, 3)
    assert_is_the_pursuit(codes, rows[500:], atoms, share=0.9)  # all cosines are 1 - 1e-4
    off = np.linalg.norm(codes.reconstruct(atoms).numpy() - explained, axis=1)
    assert (off < 0.2).mean() > 0.9
