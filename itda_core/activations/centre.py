"""Where the activations of a layer lie: their mean, which is taken off, and their usual norm."""

from dataclasses import dataclass

import torch

from itda_core.activations.massive import massive
from itda_core.devices import has_float64, to_device, to_host

_SUMMED = 1_024
"""Activations added up in float32 where a device has no float64."""


@dataclass(frozen=True)
class Centre:
    """Where the activations of a layer lie."""

    mean: torch.Tensor
    """[d_model] float32, massive activations left out"""
    median_norm: float
    """of the activations as they are"""


def centre_of(activations: torch.Tensor) -> Centre:
    """Mean and median norm of [n_tokens, d_model] finite activations."""
    [norms] = to_host(activations.norm(dim=1))
    median = float(norms.median()) if len(norms) else 0.0
    is_massive = massive(norms, median)
    usual = (
        activations[to_device((~is_massive).nonzero()[:, 0], activations.device)]
        if is_massive.any()
        else activations
    )
    mean = _mean(usual) if len(usual) else activations.new_zeros(activations.shape[1])
    return Centre(mean, median)


def _mean(x: torch.Tensor) -> torch.Tensor:
    """Mean of [n, d_model], summed in float64, [d_model] float32 on the same device."""
    if has_float64(x.device):
        return x.mean(0, dtype=torch.float64).float()
    [sums] = to_host(torch.stack([part.sum(0) for part in x.split(_SUMMED)]))
    return (sums.sum(0, dtype=torch.float64) / len(x)).float().to(x.device)
