"""Which data type of weights a device computes faster in."""

import functools
import math
import time

import torch

from itda_core.devices import kind_of

_PROBE_SHAPE = (512, 1_024, 1_024)
"""A product of an MLP's size, some milliseconds."""
_SMALL_SHAPE = (32, 1_024, 1_024)
"""What is tried before, since the other takes seconds where bfloat16 is only imitated."""
_WORTH_IT = 1.3
"""A gain in speed for which rounding to eight bits is accepted."""
_IMITATED = 10.0
"""How much slower bfloat16 is, at its best of three times, where no noise can be the reason."""


def resolved_dtype(dtype: str, device: str) -> torch.dtype:
    """What a setting such as "auto" comes to on a device."""
    if dtype == "auto":
        return torch.bfloat16 if _is_bfloat16_faster(device) else torch.float32
    return getattr(torch, dtype)


@functools.cache
def _is_bfloat16_faster(device: str) -> bool:
    """By a short probe: some processors have bfloat16 instructions, and some only imitate them or
    have none. An NVIDIA GPU has them from compute capability 8 on."""
    if kind_of(device) == "cuda":
        return bool(torch.version.hip) or torch.cuda.get_device_capability(device) >= (8, 0)
    try:
        seconds = _product_seconds(device)
    except (RuntimeError, TypeError):  # no such type there
        return False
    return seconds[torch.float32] > _WORTH_IT * seconds[torch.bfloat16]


def _product_seconds(device: str) -> dict[torch.dtype, float]:
    """How long a product takes in each type: a small one where that is enough to know."""
    seconds = _best_seconds(device, _SMALL_SHAPE, draws=3)
    if seconds[torch.bfloat16] > _IMITATED * seconds[torch.float32]:
        return seconds
    return _best_seconds(device, _PROBE_SHAPE, draws=5)


def _best_seconds(device: str, shape: tuple[int, int, int], draws: int) -> dict[torch.dtype, float]:
    """The shortest time of a product in each type, the types in turn. shape: its rows, what is
    summed over, its columns."""
    a, b = (
        torch.ones(shape[:2], dtype=torch.float32, device=device),
        torch.ones(shape[1:], dtype=torch.float32, device=device),
    )
    seconds = {torch.float32: math.inf, torch.bfloat16: math.inf}
    for _ in range(draws):
        for kind in seconds:
            x, y = a.to(kind), b.to(kind)
            started = time.perf_counter()
            float((x @ y)[0, 0])  # reading a value waits for the device
            seconds[kind] = min(seconds[kind], time.perf_counter() - started)
    return seconds
