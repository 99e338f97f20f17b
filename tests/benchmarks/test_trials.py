"""The pursuit of the trials on all uses: that of the library, but for what its rules leave out."""

import numpy as np
import pytest
import torch

from benchmarks.interpretability.trials import Rule, reconstruct, take
from itda_core.pursuit.orthogonal import orthogonal_matching_pursuit


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).normal(size=(60, 24)).astype(np.float32)


@pytest.fixture(scope="module")
def atoms():
    found = np.random.default_rng(1).normal(size=(90, 24))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def test_without_a_rule_it_is_the_orthogonal_pursuit(x, atoms):
    taken = take(x, atoms, Rule(6))
    expected = orthogonal_matching_pursuit(torch.from_numpy(x), torch.from_numpy(atoms), 6)
    assert taken.latents.tolist() == expected.latents.tolist()
    np.testing.assert_allclose(taken.coefficients, expected.coefficients, atol=1e-4)
    whole = expected.reconstruct(torch.from_numpy(atoms)).numpy()
    np.testing.assert_allclose(reconstruct(taken, atoms), whole, atol=1e-4)


def test_a_small_projection_ends_it_as_in_the_library(x, atoms):
    taken = take(x, atoms, Rule(6, min_projection=1.2))
    atoms, x = torch.from_numpy(atoms), torch.from_numpy(x)
    expected = orthogonal_matching_pursuit(x, atoms, 6, min_projection=1.2)
    assert (taken.coefficients != 0).sum() == (expected.coefficients != 0).sum() < 6 * len(x)


def test_named_atoms_are_taken_from_their_correlation_up_alone(x, atoms):
    """The first one by its correlation with the activation itself."""
    named = np.arange(90) < 45
    admits = np.full(90, 2.0)
    taken = take(x, atoms, Rule(1, named, admits))
    products = x @ atoms.T
    for token, row in enumerate(products):
        allowed = np.where(named, np.where(row >= 2, row, -1), np.abs(row))
        assert taken.latents[token, 0] == allowed.argmax()
    assert named[taken.latents].any() and not named[taken.latents].all()
