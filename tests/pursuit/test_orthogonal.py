"""Orthogonal and refitted pursuit against scikit-learn, numpy's least squares, and by property."""

import numba
import numpy as np
import pytest
import torch
from sklearn.linear_model import orthogonal_mp_gram

from itda_core.errors import InputError
from itda_core.pursuit import blocks, gram, matching, orthogonal
from itda_core.pursuit.codes import residual_norms
from itda_core.pursuit.gram import gram_matrix
from itda_core.pursuit.matching import matching_pursuit
from itda_core.pursuit.orthogonal import (
    PURSUITS,
    compile_pursuit,
    orthogonal_matching_pursuit,
    refitted_pursuit,
)
from tests.support.reference import slow_orthogonal, slow_pursuit, unit_rows


@pytest.fixture(params=["compiled", "products", "proposals", "gram"])
def pursue(request, monkeypatch):
    """Each of the ways that an orthogonal pursuit may take."""
    if request.param != "compiled":
        way = getattr(orthogonal, f"pursue_by_{request.param}")
        monkeypatch.setattr(orthogonal, "_pursue_compiled", way)
        monkeypatch.setattr(gram, "gram_type", lambda _device: torch.float32)
        monkeypatch.setattr(blocks, "gram_type", lambda _device: torch.float32)
    return lambda x, atoms, l0, **more: orthogonal_matching_pursuit(
        x, atoms, l0, gram=gram_matrix(atoms), **more
    )


def random_problem(n_tokens, n_atoms, d_model, seed=0):
    draw = np.random.default_rng(seed)
    atoms = unit_rows(draw.normal(size=(n_atoms, d_model)))
    x = draw.normal(size=(n_tokens, d_model)) * draw.uniform(0.1, 30, size=(n_tokens, 1))
    return torch.tensor(x, dtype=torch.float32), torch.tensor(atoms, dtype=torch.float32)


def dense(codes, n_atoms):
    """Coefficients by atom, [n_tokens, n_atoms]."""
    out = torch.zeros(len(codes), n_atoms)
    return out.scatter_add_(1, codes.latents, codes.coefficients)


# Orthogonal pursuit


@pytest.mark.parametrize(("n_atoms", "d_model", "l0"), [(40, 24, 6), (127, 32, 8), (300, 64, 20)])
def test_equals_scikit_learn(pursue, n_atoms, d_model, l0):
    x, atoms = random_problem(60, n_atoms, d_model, seed=n_atoms)
    d64, x64 = atoms.double().numpy(), x.double().numpy()
    expected = orthogonal_mp_gram(d64 @ d64.T, d64 @ x64.T, n_nonzero_coefs=l0).T
    found = dense(pursue(x, atoms, l0), n_atoms).numpy()
    scale = np.linalg.norm(x64, axis=1, keepdims=True)
    np.testing.assert_allclose(found / scale, expected / scale, atol=2e-5)


@pytest.mark.parametrize("n_atoms", [1, 2, 127, 128, 129, 257])
def test_atoms_up_to_and_over_the_end_of_a_block(pursue, n_atoms):
    x, atoms = random_problem(21, n_atoms, 40, seed=n_atoms)
    l0 = min(n_atoms, 5)
    latents, coefficients = slow_orthogonal(x, atoms, l0)
    codes = pursue(x, atoms, l0)
    assert np.array_equal(codes.latents.numpy(), latents)
    scale = x.norm(dim=1, keepdim=True).numpy()
    np.testing.assert_allclose(codes.coefficients / scale, coefficients / scale, atol=1e-5)


@pytest.fixture(scope="module")
def of_a_language_model(smollm2_activations):
    """Activations, atoms, and the latents and coefficients of 32 steps by least squares."""
    x = smollm2_activations - smollm2_activations.mean(0)
    atoms, x = torch.nn.functional.normalize(x[:1_200], dim=1), x[2_540:]
    return x, atoms, *slow_orthogonal(x, atoms, 32)


def test_equals_the_reference_on_activations_of_a_language_model(pursue, of_a_language_model):
    x, atoms, latents, coefficients = of_a_language_model
    codes = pursue(x, atoms, 32)
    same = (codes.latents.numpy() == latents).all(1)
    assert same.mean() >= 0.99  # float32 rounding decides the others
    scale = x.norm(dim=1, keepdim=True).numpy()[same]
    np.testing.assert_allclose(
        codes.coefficients.numpy()[same] / scale, coefficients[same] / scale, atol=1e-4
    )


def test_a_prefix_is_the_pursuit_of_fewer_steps(pursue):
    x, atoms = random_problem(50, 200, 48)
    codes = pursue(x, atoms, 16)
    for l0 in (1, 2, 7, 16):
        fewer = pursue(x, atoms, l0)
        assert torch.equal(codes.prefix(l0).latents, fewer.latents)
        torch.testing.assert_close(
            codes.prefix(l0).coefficients, fewer.coefficients, atol=1e-4, rtol=1e-4
        )


def test_residual_norms_are_the_norms_of_the_residuals(pursue):
    x, atoms = random_problem(30, 100, 32)
    codes = pursue(x, atoms, 10)
    norms = residual_norms(x, codes)
    for l0 in range(11):
        left = x - codes.prefix(l0).reconstruct(atoms)
        torch.testing.assert_close(norms[:, l0], left.norm(dim=1), atol=1e-3, rtol=1e-4)


def test_never_takes_an_atom_twice_and_beats_plain_pursuit(pursue):
    x, atoms = random_problem(80, 150, 32)
    codes, plain = pursue(x, atoms, 12), matching_pursuit(x, atoms, 12)
    assert all(len(set(row)) == 12 for row in codes.latents.tolist())
    left = (x - codes.reconstruct(atoms)).square().sum()
    assert left < 0.9 * (x - plain.reconstruct(atoms)).square().sum()


def test_ends_where_nothing_is_left_or_nothing_can_be_added(pursue):
    atoms = torch.eye(6)[:3]  # half of the space is out of reach
    x = torch.tensor(
        [[3.0, -2, 1, 0, 0, 0], [0, 0, 0, 1, 2, 3], [0, 0, 0, 0, 0, 0], [5, 0, 0, 7, 0, 0]]
    )
    codes = pursue(x, atoms, 5)
    assert torch.isfinite(codes.coefficients).all()
    torch.testing.assert_close(codes.reconstruct(atoms)[:, :3], x[:, :3], atol=1e-5, rtol=0)
    assert codes.latents[0, :3].tolist() == [0, 1, 2]
    assert not codes.coefficients[0, 3:].any()
    assert not codes.coefficients[1:3].any()


def test_equal_and_nearly_equal_atoms_give_finite_coefficients(pursue):
    x, atoms = random_problem(40, 30, 16)
    near = torch.nn.functional.normalize(atoms + 1e-4 * torch.randn(30, 16), dim=1)
    doubled = torch.cat([atoms, atoms, near])
    codes = pursue(x, doubled, 16)
    assert torch.isfinite(codes.coefficients).all()
    # 16 independent atoms span the space, so that nothing need be left
    assert (x - codes.reconstruct(doubled)).norm() < 0.02 * x.norm()


def test_ends_before_the_first_step_that_takes_less_than_is_asked_for(pursue):
    x, atoms = random_problem(60, 120, 32)
    whole = pursue(x, atoms, 16)
    taken = whole.gains.sqrt()
    min_projection = float(taken.median())
    codes = pursue(x, atoms, 16, min_projection=min_projection)
    lengths = (
        (taken < min_projection).long().cumsum(1).eq(0).sum(1)
    )  # steps before the first small one
    assert len(set(lengths.tolist())) > 3
    for row, length in enumerate(lengths.tolist()):
        expected = whole.prefix(max(1, length)).coefficients[row] if length else torch.zeros(0)
        torch.testing.assert_close(codes.coefficients[row, :length], expected[:length])
        assert not codes.coefficients[row, length:].any()
        assert torch.equal(codes.latents[row, :length], whole.latents[row, :length])
    left = (x - codes.reconstruct(atoms)).norm(dim=1)
    torch.testing.assert_close(residual_norms(x, codes)[:, -1], left, rtol=1e-3, atol=1e-3)


def test_a_planted_support_is_recovered(pursue):
    # Unit vectors and Walsh functions in 64 dimensions: no two products exceed 1/8, and then OMP
    # finds any four atoms (Tropp 2004: fewer than (1 + 8) / 2).
    walsh = torch.ones(1, 1, dtype=torch.float32)
    for _ in range(6):
        walsh = torch.cat([torch.cat([walsh, walsh], 1), torch.cat([walsh, -walsh], 1)])
    atoms = torch.cat([torch.eye(64), walsh / 8])
    draw = np.random.default_rng(2)
    planted = np.stack([draw.permutation(128)[:4] for _ in range(60)])
    sizes = draw.choice([-1, 1], (60, 4)) * draw.uniform(0.5, 20, (60, 4))
    x = torch.tensor(np.einsum("tk,tkd->td", sizes, atoms.numpy()[planted]), dtype=torch.float32)
    codes = pursue(x, atoms, 4)
    assert np.array_equal(np.sort(codes.latents.numpy()), np.sort(planted))
    expected = np.zeros((60, 128), np.float32)
    np.put_along_axis(expected, planted, sizes.astype(np.float32), axis=1)
    np.testing.assert_allclose(dense(codes, 128), expected, atol=1e-4)


def test_more_steps_than_atoms_take_each_atom_once_and_end(pursue):
    x, atoms = random_problem(40, 3, 8)
    codes = pursue(x, atoms, 10)
    assert all(sorted(row) == [0, 1, 2] for row in codes.latents[:, :3].tolist())
    assert not codes.coefficients[:, 3:].any()
    solved = np.linalg.lstsq(atoms.double().T.numpy(), x.double().T.numpy(), rcond=None)[0].T
    np.testing.assert_allclose(dense(codes, 3), solved, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "view",
    [
        lambda gram: gram[:300, :300],
        lambda gram: gram[:, :300],
        lambda gram: gram[:300, :300].mT,
        lambda gram: gram.repeat_interleave(2, dim=1)[:300, ::2],
    ],
    ids=["a part", "columns", "transposed", "every other column"],
)
def test_a_gram_matrix_may_be_a_view_of_another(view):
    x, atoms = random_problem(60, 400, 32)
    gram, atoms = view(gram_matrix(atoms)), atoms[:300]
    latents, coefficients = slow_orthogonal(x, atoms, 6)
    codes = orthogonal_matching_pursuit(x, atoms, 6, gram=gram)
    assert np.array_equal(codes.latents.numpy(), latents)
    scale = x.norm(dim=1, keepdim=True).numpy()
    np.testing.assert_allclose(codes.coefficients / scale, coefficients / scale, atol=1e-5)
    plain, _, _ = slow_pursuit(x, atoms, 6)
    for pursuit in (matching_pursuit, refitted_pursuit):
        assert np.array_equal(pursuit(x, atoms, 6, gram=gram).latents.numpy(), plain)


def test_huge_and_tiny_activations(pursue):
    x, atoms = random_problem(10, 60, 20)
    codes = pursue(x, atoms, 6)
    for factor in (2.0**60, 2.0**-60):
        scaled = pursue(x * factor, atoms, 6)
        assert torch.equal(scaled.latents, codes.latents)
        torch.testing.assert_close(scaled.coefficients / factor, codes.coefficients)


@pytest.mark.parametrize("pursuit", list(orthogonal.PURSUITS.values()))
def test_what_can_not_be_decomposed_is_refused(pursuit):
    atoms = torch.eye(4)
    with pytest.raises(InputError, match="l0 must be at least 1"):
        pursuit(torch.ones(2, 4), atoms, 0)
    with pytest.raises(InputError, match=r"\[n_atoms, d_model\]"):
        pursuit(torch.ones(2, 3), atoms, 1)
    with pytest.raises(InputError, match="not finite"):
        pursuit(torch.full((2, 4), torch.nan), atoms, 1)
    assert len(pursuit(torch.zeros(0, 4), atoms, 2)) == 0


# Refitted pursuit


def test_refitting_is_least_squares_on_the_support_of_the_plain_pursuit():
    x, atoms = random_problem(60, 90, 32)
    codes = refitted_pursuit(x, atoms, 14)
    latents, _, _ = slow_pursuit(x, atoms, 14)
    assert np.array_equal(codes.latents.numpy(), latents)
    assert any(len(set(row)) < 14 for row in latents.tolist())  # some atoms were taken twice
    for row, support in enumerate(latents):
        first = list(dict.fromkeys(support.tolist()))
        chosen = atoms[first].double().numpy()
        solved = np.linalg.lstsq(chosen.T, x[row].double().numpy(), rcond=None)[0]
        np.testing.assert_allclose(
            codes.reconstruct(atoms)[row], solved @ chosen, atol=2e-4 * float(x[row].norm())
        )
        assert np.count_nonzero(codes.coefficients[row]) == len(first)


def test_refitting_leaves_nothing_more_than_the_plain_pursuit():
    x, atoms = random_problem(60, 90, 32)
    plain, fitted = matching_pursuit(x, atoms, 14), refitted_pursuit(x, atoms, 14)
    errors = [(x - codes.reconstruct(atoms)).square().sum(1) for codes in (plain, fitted)]
    assert (errors[1] <= errors[0] + 1e-4 * x.square().sum(1)).all()
    torch.testing.assert_close(
        residual_norms(x, fitted)[:, -1], errors[1].sqrt(), atol=1e-2, rtol=1e-3
    )


def test_refitting_nearly_equal_atoms_ends_in_finite_coefficients_that_explain():
    draw = torch.Generator().manual_seed(0)
    direction = torch.nn.functional.normalize(torch.randn(1, 48, generator=draw), dim=1)
    for noise in (1e-3, 1e-4, 1e-6, 0.0):
        atoms = direction + noise * torch.randn(32, 48, generator=draw)
        atoms = torch.nn.functional.normalize(atoms, dim=1)
        latents = torch.arange(32).expand(20, 32)
        x = 5 * direction + 0.1 * torch.randn(20, 48, generator=draw)
        codes = orthogonal.refit(x, atoms, latents, torch.ones(20, 32, dtype=torch.bool))
        assert torch.isfinite(codes.coefficients).all()
        assert ((x - codes.reconstruct(atoms)).norm(dim=1) < 0.3 * x.norm(dim=1)).all()


@pytest.mark.parametrize("name", PURSUITS)
def test_a_pursuit_that_was_compiled_ahead_needs_nothing_more(name, monkeypatch):
    types = set()  # which a kernel is compiled for
    for module, kernel in [(matching, "pursue_rows"), (orthogonal, "pursue_orthogonally_rows")]:
        real = getattr(module, kernel)

        def spy(*arguments, real=real):
            types.add((real, *map(numba.typeof, arguments)))
            return real(*arguments)

        monkeypatch.setattr(module, kernel, spy)
    compile_pursuit(name)
    ahead = types.copy()
    assert ahead
    PURSUITS[name](*random_problem(300, 40, 24), l0=6)
    assert types == ahead
