"""Slow and plain implementations of what the product does fast, in float64."""

import numpy as np


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


def slow_errors(activations, reconstructions):
    """‖x/‖x‖ − x̂/‖x̂‖‖² of each token, [n_tokens]; x̂/‖x̂‖ is zero where x̂ is."""
    errors = []
    for x, xhat in zip(activations, reconstructions, strict=True):
        norm = np.linalg.norm(xhat)
        direction = xhat / norm if norm > 0 else np.zeros_like(xhat)
        errors.append(np.sum((x / np.linalg.norm(x) - direction) ** 2))
    return np.array(errors)
