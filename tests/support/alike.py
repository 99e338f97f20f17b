"""Activations that are alike to a known degree, and what maps them, for the tests of measures."""

import numpy as np
import torch


def noise(n_tokens, d, seed):
    return torch.randn(n_tokens, d, generator=torch.Generator().manual_seed(seed))


def related(n_tokens=200, d_a=8, d_b=6, seed=0):
    """Two matrices of the same tokens that share four directions, with scales that differ."""
    shared = noise(n_tokens, 4, seed)
    pair = []
    for d, own in ((d_a, 1), (d_b, 2)):
        mixed = shared @ noise(4, d, seed + 10 * own) + noise(n_tokens, d, seed + own)
        pair.append(mixed * torch.linspace(0.5, 2, d) + 3)
    return pair


def turned(x, seed=5):
    """Rotated, scaled and shifted."""
    rotation = np.linalg.qr(noise(x.shape[1], x.shape[1], seed).double().numpy())[0]
    return (x.double() @ torch.from_numpy(rotation) * 7 - 2).float()


def mapped(x, seed=6):
    """By an invertible map that is no rotation, and shifted."""
    d = x.shape[1]
    return x @ (torch.eye(d) + 0.4 * noise(d, d, seed) / d**0.5) * torch.linspace(1, 4, d) + 1


def shuffled(x, seed=7):
    return x[torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))]


def centred64(x):
    x = x.double().numpy()
    return x - x.mean(0)
