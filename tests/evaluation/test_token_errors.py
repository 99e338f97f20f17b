"""Bins of tokens against cases worked by hand, and what holds for all of them together."""

import numpy as np
import pytest
import torch

from itda_core.corpus.corpus import Prompt
from itda_core.evaluation.metrics import ReconstructionSums
from itda_core.evaluation.token_errors import TokenErrors, token_frequencies


def made(positions, frequencies=None, x=None, xhat=None, median_norm=1e9):
    n = len(positions)
    x = torch.arange(2.0 * n).reshape(n, 2) if x is None else x
    xhat = torch.zeros_like(x) if xhat is None else xhat
    counts = None if frequencies is None else np.array(frequencies)
    return TokenErrors.of(x, xhat, np.array(positions), counts, median_norm)


def edges(bins):
    return [(found["from"], found["to"], found["tokens"]) for found in bins]


def test_a_bin_worked_by_hand():
    # The mean is (2, 1). Distances from it: 1 + 1, 1 + 1, 0. Errors: 1, 0, 4.
    x = torch.tensor([[1.0, 0.0], [3.0, 2.0], [2.0, 1.0]])
    xhat = torch.tensor([[0.0, 0.0], [3.0, 2.0], [2.0, 3.0]])
    first, second = made([1, 2, 3], x=x, xhat=xhat).by_position()
    assert first == {"from": 1, "to": 1, "tokens": 1, "fvu": 1 / 2, "cosine": 0}
    cosine = (1 + 7 / np.sqrt(5 * 13)) / 2
    assert second == pytest.approx(
        {"from": 2, "to": 3, "tokens": 2, "fvu": 4 / 2, "cosine": cosine}
    )


def test_positions_double_from_bin_to_bin():
    assert edges(made([0, 1, 2, 3, 4, 7, 8, 15, 16, 100]).by_position()) == [
        (0, 0, 1), (1, 1, 1), (2, 3, 2), (4, 7, 2), (8, 15, 2), (16, 31, 1), (64, 127, 1)
    ]  # fmt: skip


def test_frequencies_grow_tenfold_from_bin_to_bin():
    counts = [0, 0, 1, 9, 10, 99, 100, 100_000]
    assert edges(made(range(8), counts).by_frequency()) == [
        (0, 0, 2), (1, 9, 2), (10, 99, 2), (100, 999, 1), (100_000, 999_999, 1)
    ]  # fmt: skip
    assert made(range(8)).by_frequency() == []


def test_norms_fall_into_ten_bins_of_equally_many_tokens():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(1_000, 4, generator=draw)
    bins = made([1] * 1_000, x=x).by_norm()
    norms = x.double().norm(dim=1).sort()[0]
    assert edges(bins) == [
        (float(norms[100 * number]), float(norms[100 * number + 99]), 100) for number in range(10)
    ]
    assert edges(made([1] * 3).by_norm()) == [
        (found, found, 1) for found in made([1] * 3).norms.tolist()
    ]


def test_a_massive_activation_is_in_no_bin_but_its_own():
    x = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 900.0]])
    errors = made([1, 1, 1], [5, 5, 5], x=x, median_norm=3.0)
    [by_position], [by_frequency] = errors.by_position(), errors.by_frequency()
    assert (by_position["tokens"], by_frequency["tokens"]) == (2, 2)
    assert by_position["fvu"] == (1 + 9) / (1 + 1)  # the mean of the two is (2, 0)
    assert edges(errors.by_norm()) == [(1, 1, 1), (3, 3, 1)]
    assert edges(errors.massive_bin()) == [(900, 900, 1)]
    assert made([1, 2]).massive_bin() == []


@pytest.mark.parametrize("kind", ["position", "frequency", "norm"])
def test_the_bins_together_give_the_fvu_without_massive_activations(kind):
    draw = np.random.default_rng(0)
    x = torch.tensor(draw.normal(size=(400, 8)) + 3)
    x[::50] *= 1_000
    xhat = x + torch.tensor(draw.normal(size=x.shape))
    errors = made(
        draw.integers(1, 128, 400), draw.integers(0, 9_999, 400), x, xhat, median_norm=12.0
    )
    usual = ~errors.is_massive
    sums = ReconstructionSums()
    sums.add(x[usual], xhat[usual])
    bins = errors.to_dict()[kind]
    assert sum(found["tokens"] for found in bins) == sums.tokens == 392
    # Weights of the bins: their part of Σ‖x − x̄‖².
    inside = [rows_of(errors, kind, found) for found in bins]
    weights = np.array([errors.squared_distances[rows].sum() for rows in inside])
    shares = np.array([found["fvu"] for found in bins])
    assert (shares * weights).sum() / weights.sum() == pytest.approx(sums.fvu, rel=1e-9)


def rows_of(errors, kind, found):
    values = {
        "position": errors.positions, "frequency": errors.frequencies, "norm": errors.norms
    }[kind]  # fmt: skip
    return (values >= found["from"]) & (values <= found["to"]) & ~errors.is_massive


def test_frequencies_are_those_of_the_tokenizer(tiny_model, tiny_texts):
    prompts = [Prompt(str(number), text) for number, text in enumerate(tiny_texts[:20])]
    ids = [tiny_model.tokenizer(prompt.text)["input_ids"][:12] for prompt in prompts]
    counts = token_frequencies(tiny_model, prompts, context_length=12)
    flat = [one for text in ids for one in text]
    assert counts.sum() == len(flat)
    assert all(counts[one] == flat.count(one) for one in range(len(counts)))
    assert len(counts) >= len(tiny_model.tokenizer)
    few = token_frequencies(tiny_model, prompts, context_length=12, max_tokens=30)
    assert few.sum() == 30
    assert all(few[one] == flat[:30].count(one) for one in range(len(few)))
    assert token_frequencies(tiny_model, [], context_length=12).sum() == 0
