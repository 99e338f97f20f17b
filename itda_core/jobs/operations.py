"""What trainings and measures compute, in operations of a plain product, and how fast a device does
it."""

import functools

import torch

from itda_core.config import TrainConfig
from itda_core.devices import kind_of
from itda_core.jobs.product_speed import product_speed
from itda_core.model.data_types import resolved_dtype

_FORWARD_EFFICIENCY = 0.45
"""Share of a plain product's speed that a transformer's forward pass reaches."""
_BFLOAT16_GAIN = 2.0
"""How much faster a forward pass is in bfloat16 on a CPU, where that is taken; 2 to 4 were seen."""
_PURSUIT_FLOPS_SHARE = 0.15
"""Share of a plain product's speed that a pursuit's row updates reach."""
_PURSUIT_COSTS = {"matching": 1.0, "refit": 3.3, "orthogonal": 3.7}
"""Time of a pursuit against plain matching pursuit's, with 2,048 atoms and L0 32."""
START_SECONDS = 12.0
"""Starting the process, importing, loading the model."""


class Speed:
    """Floating-point operations a second of a device."""

    def __init__(self, device: str):
        self._device = device
        self.product = product_speed(device)
        """of a plain product in float32"""
        self._product = functools.cache(functools.partial(product_speed, device))

    def forward(self, config: TrainConfig) -> float:
        """Of a forward pass, in the data type that it is made in."""
        if kind_of(self._device) == "cpu":
            return self.product * _FORWARD_EFFICIENCY * _gain(config, self._device)
        dtype = resolved_dtype(config.model.dtype, self._device)
        return _FORWARD_EFFICIENCY * self._product(dtype)


def _gain(config: TrainConfig, device: str) -> float:
    """How much faster than in float32 a CPU's forward pass is with the data type it is made in."""
    chosen, fastest = (resolved_dtype(name, device) for name in (config.model.dtype, "auto"))
    gains = chosen is torch.bfloat16 and fastest is torch.bfloat16
    return _BFLOAT16_GAIN if gains else 1.0


def pursuit_operations(
    tokens: int, atoms: int, d_model: int, terms: int, pursuit: str = "matching"
) -> float:
    """A pursuit's work, counted in operations of a plain product."""
    row = 2 * atoms * (d_model + terms / _PURSUIT_FLOPS_SHARE)
    return _PURSUIT_COSTS[pursuit] * row * tokens
