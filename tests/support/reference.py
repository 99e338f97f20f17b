"""Slow and plain implementations of what the product does fast, in float64."""

import dataclasses
from collections import Counter

import numpy as np
import torch

from itda_core.pursuit import blocks, gram
from itda_core.pursuit import matching as pursuit


def unit_rows(x):
    """Rows divided by their norms, float64."""
    x = np.asarray(x, dtype=np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def slow_pursuit(activations, atoms, l0):
    """Matching pursuit as it is written down: the residuals themselves, step by step.

    activations: [n_tokens, d_model], atoms: [n_atoms, d_model] unit rows. Returns latents
    [n_tokens, l0], coefficients [n_tokens, l0] and the reconstructions [n_tokens, d_model].
    """
    residuals = np.array(activations, dtype=np.float64)
    atoms = np.asarray(atoms, dtype=np.float64)
    tokens = np.arange(len(residuals))
    latents = np.zeros((len(residuals), l0), dtype=np.int64)
    coefficients = np.zeros((len(residuals), l0))
    for step in range(l0):
        correlations = residuals @ atoms.T
        best = np.abs(correlations).argmax(axis=1)  # the first of equal ones
        latents[:, step] = best
        coefficients[:, step] = correlations[tokens, best]
        residuals -= coefficients[:, step, None] * atoms[best]
    return latents, coefficients, np.asarray(activations, dtype=np.float64) - residuals


def slow_orthogonal(activations, atoms, l0):
    """Least squares by numpy on all atoms taken, after each step, in float64: the latents,
    [n_tokens, l0], and the coefficients of the whole support."""
    atoms = np.asarray(atoms, np.float64)
    latents, coefficients = [], []
    for x in np.asarray(activations, np.float64):
        support, residual, solved = [], x, np.zeros(0)
        for _ in range(l0):
            support.append(int(np.abs(atoms @ residual).argmax()))
            solved = np.linalg.lstsq(atoms[support].T, x, rcond=None)[0]
            residual = x - solved @ atoms[support]
        latents.append(support)
        coefficients.append(solved)
    return np.array(latents), np.array(coefficients)


def assert_is_the_pursuit(codes, activations, atoms, share=1.0, beside_the_norm=3e-7):
    """The latents of `slow_pursuit` for at least `share` of the tokens, and there its coefficients,
    each to 1e-4 of itself plus `beside_the_norm` of the activation's norm, float32 rounding."""
    latents, coefficients, _ = slow_pursuit(activations, atoms, codes.l0)
    same = (codes.latents.numpy() == latents).all(axis=1)
    assert same.mean() >= share
    scale = np.linalg.norm(np.asarray(activations, np.float64), axis=1, keepdims=True)[same]
    scale[scale == 0] = 1
    found = codes.coefficients.numpy()[same]
    np.testing.assert_allclose(
        found / scale, coefficients[same] / scale, rtol=1e-4, atol=beside_the_norm
    )


def take_path(monkeypatch, path):
    """Let pursuits take one of the ways there are: compiled, direct, or the torch operations that
    other devices use, with their float32 Gram matrix or with proposals in 16 bits."""
    if path == "direct":
        monkeypatch.setattr(blocks, "affordable_gram", lambda *_: None)
    elif path == "proposals":
        way = pursuit._pursue_by_proposals
        ways = dataclasses.replace(pursuit._ways(), compiled=way, by_products=way)
        monkeypatch.setattr(pursuit, "_ways", lambda: ways)
    elif path == "torch":
        for module in (blocks, gram):
            monkeypatch.setattr(module, "gram_type", lambda _device: torch.float32)
        monkeypatch.setattr(pursuit, "_pursue_compiled", pursuit._pursue_torch)


def slow_errors(activations, reconstructions):
    """‖x/‖x‖ − x̂/‖x̂‖‖² of each token, [n_tokens]; x̂/‖x̂‖ is zero where x̂ is."""
    errors = []
    for x, xhat in zip(activations, reconstructions, strict=True):
        norm = np.linalg.norm(xhat)
        direction = xhat / norm if norm > 0 else np.zeros_like(xhat)
        errors.append(np.sum((x / np.linalg.norm(x) - direction) ** 2))
    return np.array(errors)


NEAR_TIE = 3e-5  # float32 may decide differently where an error is closer to the threshold


def slow_selection(batches, max_atoms, l0, threshold):
    """Numbers of the activations that become atoms, in order; what each batch did; the margin.

    Atoms are unit-normalised activations. The first d_model distinct activations seen become
    atoms, most frequent first within a batch, ties by order; after that, for each batch, every
    activation whose error under the dictionary as it stood at the start of the batch exceeds
    the threshold, in order of appearance, until there are max_atoms. The margin is the least
    distance of any error from the threshold.
    """
    d_model = len(batches[0][0])
    everything = np.concatenate(batches)
    chosen, offers, margin, start = [], [], np.inf, 0
    for batch in batches:
        numbers = range(start, start + len(batch))
        start += len(batch)
        if len(chosen) < min(d_model, max_atoms):
            known = {everything[number].tobytes() for number in chosen}
            counts = Counter(row.tobytes() for row in batch if row.tobytes() not in known)
            first = {}
            for number in numbers:
                first.setdefault(everything[number].tobytes(), number)
            order = sorted(counts, key=lambda row: (-counts[row], first[row]))
            new, error = [first[row] for row in order][: d_model - len(chosen)], None
        elif len(chosen) < max_atoms:
            atoms = unit_rows(everything[chosen])
            _, _, reconstructions = slow_pursuit(batch, atoms, l0)
            errors = slow_errors(batch.astype(np.float64), reconstructions)
            new = [
                number for number, error in zip(numbers, errors, strict=True) if error > threshold
            ]
            margin, error = min(margin, np.abs(errors - threshold).min()), errors.mean()
        else:
            new, error = [], None
        new = new[: max_atoms - len(chosen)]
        chosen += new
        offers.append((len(new), error))
    return chosen, offers, margin


def nearly_equal(gap, apart, first_is_larger):
    """Three equal activations, float64 atoms, and the numbers of the smaller and the larger of two.

    After the first term e0, those two are left with correlations that differ by `gap`. Their
    products with e0 lie just within ±half a unit of the 16 bits, so that the Gram matrix alone
    puts the smaller one ahead by 3e-5. apart: how far their numbers are.
    """
    unit, size = 1 / 32_767, 0.05
    products = np.array([1_000.49, 999.51]) * unit  # become 1,000 both: off by +0.49 and -0.49
    sines = np.sqrt(1 - products**2)
    smaller, larger = (1 + apart, 1) if first_is_larger else (1, 1 + apart)
    atoms = torch.zeros(2 + apart, 4 + apart, dtype=torch.float64)
    atoms[0, 0] = 1
    atoms[smaller, :3] = torch.tensor([products[0], sines[0], 0])
    atoms[larger, :3] = torch.tensor([products[1], 0, sines[1]])
    for number in set(range(1, 2 + apart)) - {smaller, larger}:
        atoms[number, 2 + number] = 1
    x = torch.zeros(3, 4 + apart, dtype=torch.float64)
    x[:, :3] = torch.tensor([1, size / sines[0], (size + gap) / sines[1]])
    return x, atoms, smaller, larger
