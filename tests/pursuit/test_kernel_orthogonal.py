"""The compiled orthogonal pursuit at its edges: ties, rounding, short new parts, early ends."""

import numpy as np
import pytest
import torch

from itda_core.pursuit.gram import gram_matrix
from itda_core.pursuit.kernel_orthogonal import pursue_orthogonally_rows
from itda_core.pursuit.orthogonal import orthogonal_matching_pursuit
from tests.support.reference import nearly_equal, slow_orthogonal, unit_rows


def compiled(x, atoms, l0, **more):
    return orthogonal_matching_pursuit(x, atoms, l0, gram=gram_matrix(atoms), **more)


def draw_rows(n_rows, d_model, seed=0):
    draw = np.random.default_rng(seed)
    return torch.tensor(draw.normal(size=(n_rows, d_model)), dtype=torch.float32)


def draw_atoms(n_atoms, d_model, seed=1):
    return torch.nn.functional.normalize(draw_rows(n_atoms, d_model, seed), dim=1)


def assert_is_orthogonal_pursuit(codes, x, atoms, share=1.0, atol=1e-5):
    """Latents of the slow pursuit for at least `share` of the tokens, and there its coefficients to
    `atol` of the activation's norm."""
    latents, coefficients = slow_orthogonal(x, atoms, codes.l0)
    same = (codes.latents.numpy() == latents).all(1)
    assert same.mean() >= share
    scale = np.linalg.norm(np.asarray(x, np.float64), axis=1, keepdims=True)[same]
    np.testing.assert_allclose(
        codes.coefficients.numpy()[same] / scale, coefficients[same] / scale, atol=atol
    )


@pytest.mark.parametrize("n_atoms", [1, 3, 64, 255, 256, 384, 400])
@pytest.mark.parametrize("d_model", [1, 5, 16, 67])
def test_any_number_of_atoms_and_any_width(n_atoms, d_model):
    x, atoms = draw_rows(12, d_model), draw_atoms(n_atoms, d_model)
    l0 = min(n_atoms, d_model, 9) if d_model > 5 else 1  # later steps are near ties in few numbers
    assert_is_orthogonal_pursuit(compiled(x, atoms, l0), x, atoms)


def test_the_number_of_threads_and_a_wider_gram_matrix_do_not_matter():
    x, atoms = draw_rows(101, 48), draw_atoms(300, 48)
    codes = compiled(x, atoms, 20)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    wide = gram_matrix(torch.cat([atoms, draw_atoms(60, 48, seed=3)]))
    other = orthogonal_matching_pursuit(x, atoms, 20, gram=wide)
    torch.set_num_threads(threads)
    assert torch.equal(codes.latents, other.latents)
    assert torch.equal(codes.coefficients, other.coefficients)
    assert_is_orthogonal_pursuit(codes, x, atoms)


@pytest.mark.parametrize("n_tokens", [1, 2, 3, 5])
def test_only_the_rows_given_are_written(n_tokens):
    atoms, x = draw_atoms(150, 20), draw_rows(8, 20)
    correlations, activations = (x @ atoms.T).numpy().copy(), x.numpy().copy()
    latents, projections = np.full((8, 4), -5), np.full((8, 4), -5, np.float32)
    factor, smallest = np.zeros((8, 4, 4), np.float32), np.zeros(8, np.float32)
    all_rows = (correlations, activations, smallest, latents, factor, projections)
    c, a, m, *results = [rows[:n_tokens] for rows in all_rows]
    pursue_orthogonally_rows(c, a, gram_matrix(atoms).numpy(), atoms.numpy(), m, *results)
    assert np.array_equal(latents[:n_tokens], slow_orthogonal(x[:n_tokens], atoms, 4)[0])
    assert (latents[n_tokens:] == -5).all()
    assert (projections[n_tokens:] == -5).all()
    assert not factor[n_tokens:].any()
    assert np.array_equal(activations, x)
    assert np.array_equal(correlations[n_tokens:], (x @ atoms.T)[n_tokens:])


# Ties and rounding


@pytest.mark.parametrize("between", [0, 1, 127, 128, 500])
@pytest.mark.parametrize("sign", [1, -1])
def test_of_equal_atoms_the_lower_number_is_taken_however_far_apart(between, sign):
    x, atoms = draw_rows(60, 33), draw_atoms(90, 33)
    weak = torch.eye(34)[-1:].expand(between, 34)  # explains nothing of the first 33
    wide = torch.nn.functional.pad(atoms, (0, 1))
    both = torch.cat([wide, weak, sign * wide])
    codes = compiled(torch.nn.functional.pad(x, (0, 1)), both, 8)
    assert_is_orthogonal_pursuit(codes, x, atoms)


@pytest.mark.parametrize("first_is_larger", [True, False])
@pytest.mark.parametrize("apart", [1, 128, 300])
@pytest.mark.parametrize("gap", [1e-6, 1e-5])
def test_rounding_of_the_gram_matrix_never_decides(first_is_larger, apart, gap):
    x, atoms, smaller, larger = nearly_equal(gap, apart, first_is_larger)
    codes = compiled(x.float(), atoms.float(), 3)
    assert codes.latents.tolist() == [[0, larger, smaller]] * 3
    assert_is_orthogonal_pursuit(codes, x, atoms)


@pytest.mark.parametrize("small", [1e-3, 1e-4, 1e-5])
def test_what_is_small_beside_a_large_term_is_still_found(small):
    """So small beside it that the correlations have to be computed anew after the first step."""
    atoms, rest = draw_atoms(300, 40), draw_rows(30, 40, seed=7)
    x = 3 * atoms[:30] + small * rest
    codes = compiled(x, atoms, 6)
    latents, _ = slow_orthogonal(x, atoms, 6)
    assert np.array_equal(codes.latents.numpy(), latents)
    chosen = atoms[latents].double()
    left = x.double() - (codes.coefficients.double()[..., None] * chosen).sum(1)
    assert (chosen @ left[..., None]).abs().max() < 2e-6  # orthogonal to all atoms taken


@pytest.mark.parametrize("norm", [1e-6, 1.0, 1e4])
def test_atoms_with_a_large_common_component(norm):
    """Cosines of 0.9, as raw residual streams have: large coefficients that cancel."""
    rows = 3 * draw_rows(1, 96, seed=8) + draw_rows(700, 96, seed=9)
    atoms = torch.tensor(unit_rows(rows[:500]), dtype=torch.float32)
    x = torch.tensor(unit_rows(rows[500:]) * norm, dtype=torch.float32)
    assert_is_orthogonal_pursuit(compiled(x, atoms, 24), x, atoms, share=0.995)


# New parts that are short, and ends


@pytest.mark.parametrize("apart", [0.9, 0.3, 0.05, 0.01, 1e-3])
def test_an_atom_close_to_one_taken_gets_its_own_direction(apart):
    """Planes at right angles hold two atoms each, e and (e + apart·f) / ‖·‖. What is left of an
    activation after the first of each plane is along f, to which the second adds a part of length
    apart / √(1 + apart²)."""
    axes = np.linalg.qr(np.random.default_rng(3).normal(size=(64, 64)))[0]
    e, f = axes[:30], axes[30:60]
    atoms = torch.tensor(unit_rows(np.concatenate([e, e + apart * f])), dtype=torch.float32)
    along_e = np.array([[64.0, 16, 4]])
    x = torch.tensor(along_e @ e[[5, 20, 11]] + [[-8.0, 2, 0.5]] @ f[[5, 20, 11]])
    codes = compiled(x.float(), atoms, 6)
    assert sorted(codes.latents[0].tolist()) == [5, 11, 20, 35, 41, 50]
    chosen = atoms[codes.latents].double()
    factor = torch.linalg.cholesky(chosen @ chosen.mT)
    torch.testing.assert_close(codes.factor.double(), factor, atol=1e-6, rtol=1e-4)
    exact = torch.linalg.solve_triangular(factor, chosen @ x[..., None], upper=False)[..., 0]
    torch.testing.assert_close(codes.projections.double(), exact, atol=1e-5 / apart, rtol=0)
    assert (codes.reconstruct(atoms) - x).norm() < 1e-4 * x.norm()


def test_an_atom_that_adds_nothing_but_rounding_ends_the_pursuit():
    """Closer than MIN_NEW_PART to one taken, though the residual is along the difference."""
    atoms = torch.eye(3)[:2].clone()
    atoms[1] = torch.tensor([1.0, 5e-5, 0])
    codes = compiled(torch.tensor([[1.0, 0.5, 0], [1.0, 0.5, 0.2]]), atoms, 2)
    assert (codes.coefficients != 0).sum(1).tolist() == [1, 1]
    assert torch.equal(codes.factor, torch.eye(2).expand(2, 2, 2))


def test_ends_when_the_whole_space_is_spanned():
    x, atoms = draw_rows(25, 8), draw_atoms(300, 8)
    codes = compiled(x, atoms, 20)
    assert not codes.coefficients[:, 8:].any()
    assert not codes.latents[:, 9:].any()
    eye = torch.eye(20).expand(25, 20, 20)
    assert torch.equal(codes.factor[:, 9:], eye[:, 9:])
    assert (x - codes.reconstruct(atoms)).norm() < 1e-5 * x.norm()


def test_a_token_that_ends_leaves_nothing_to_the_next_one():
    atoms, rows = draw_atoms(200, 24), draw_rows(2, 24)
    kinds = torch.stack([torch.zeros(24), 2 * atoms[190], atoms[7] + 1e-4 * rows[0], *rows])
    alone = [compiled(kind[None], atoms, 12) for kind in kinds]
    order = [a for pair in [(a, b) for a in range(5) for b in range(5)] for a in pair]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    codes = compiled(kinds[order], atoms, 12)
    torch.set_num_threads(threads)
    for row, kind in enumerate(order):
        assert torch.equal(codes.latents[row], alone[kind].latents[0])
        torch.testing.assert_close(codes.coefficients[row], alone[kind].coefficients[0])
    assert [int((one.coefficients != 0).sum()) for one in alone] == [0, 1, 12, 12, 12]
