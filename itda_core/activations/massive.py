"""Tokens that are left out: massive activations, and those that are zero or not finite."""

import numpy as np
import torch

from itda_core.devices import to_host

MASSIVE = 10.0
"""A token whose norm is over so many times the median norm is a massive activation (Sun et al.
2024, arXiv 2402.17762): a few of them can outweigh all others in a sum of squares."""


def massive(norms: torch.Tensor, median_norm: float) -> torch.Tensor:
    """Which tokens are massive activations, [n_tokens] bool: ‖x‖ > 10 × the median norm."""
    return norms > MASSIVE * median_norm


def massive_rows(activations: torch.Tensor) -> np.ndarray:
    """[n_rows] bool: tokens whose norm is more than 10 times the median. A handful of them would
    decide every measure that squares."""
    [norms] = to_host(activations.norm(dim=1))
    return massive(norms, float(norms.nanmedian())).numpy()


def usable(activations: torch.Tensor) -> torch.Tensor:
    """[n_tokens] bool: finite and not zero."""
    norms = activations.norm(dim=1)
    return torch.isfinite(norms) & (norms > 0)
