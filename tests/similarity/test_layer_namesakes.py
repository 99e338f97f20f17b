"""Layers compared by a dictionary that is moved to both: against dense matrices of the codes."""

import numpy as np
import pytest
import torch

from itda_core.pursuit.orthogonal import orthogonal_matching_pursuit
from itda_core.similarity.correlations import CodedTokens
from itda_core.similarity.layer_namesakes import (
    SpreadCodes,
    best_partners,
    namesake_correlation,
    namesakes_form,
)
from itda_core.similarity.measures import MEASURES
from tests.support.alike import noise, related


def dense(x, sources, terms):
    """[n_tokens − sources, sources]: each other token written by the source tokens, evenly
    spread."""
    x = x.float() - x.float().mean(0)
    numbers = [round(place * (len(x) - 1) / (sources - 1)) for place in range(sources)]
    others = [row for row in range(len(x)) if row not in numbers]
    atoms = x[numbers] / x[numbers].norm(dim=1, keepdim=True)
    codes = orthogonal_matching_pursuit(x[others], atoms, terms)
    found = np.zeros((len(others), sources))
    np.put_along_axis(found, codes.latents.numpy(), codes.coefficients.numpy(), 1)
    return found


def test_both_values_are_those_of_dense_matrices():
    x, y = related(n_tokens=300)
    a, b = (dense(one, 40, 3) for one in (x, y))
    correlations = np.corrcoef(a.T, b.T)[:40, 40:]
    best = [correlations.argmax(axis) == np.arange(40) for axis in (0, 1)]
    forms = [namesakes_form(one, sources=40, terms=3) for one in (x, y)]
    assert best_partners(*forms) == pytest.approx(np.mean(best))
    assert namesake_correlation(*forms) == pytest.approx(np.median(np.diag(correlations)), abs=1e-5)


def test_the_correlation_looks_at_no_other_latents(monkeypatch):
    forms = [namesakes_form(one, sources=40, terms=3) for one in related(n_tokens=300)]
    expected = namesake_correlation(*forms)
    monkeypatch.setattr(CodedTokens, "blocks", None)
    assert namesake_correlation(*forms) == expected


def test_opposite_layers_correlate_negatively_within_the_range_of_the_measure():
    """Where each latent of one is used as the negative of its namesake."""
    form = namesakes_form(related(n_tokens=300)[0], sources=40, terms=3)
    value = namesake_correlation(form, SpreadCodes(-form.coefficients))
    assert value == pytest.approx(-1)
    assert MEASURES["namesake_correlation"].low <= value


def test_unrelated_layers_have_what_chance_gives():
    forms = [namesakes_form(noise(4_000, 32, seed), sources=200) for seed in range(2)]
    assert best_partners(*forms) < 0.05
    assert abs(namesake_correlation(*forms)) < 0.02


def test_at_most_half_of_the_tokens_are_sources():
    assert namesakes_form(noise(21, 4, 0)).coefficients.shape == (11, 10)


def test_a_source_token_that_is_the_mean_is_used_by_none():
    half = noise(20, 6, 0)
    x = torch.cat([torch.zeros(1, 6, dtype=half.dtype), half, -half])  # its mean is 0 exactly
    form = namesakes_form(x, sources=10)
    assert form.coefficients[:, [0]].nnz == 0
    assert best_partners(form, form) == 1
    assert torch.isfinite(torch.tensor(namesake_correlation(form, form)))
