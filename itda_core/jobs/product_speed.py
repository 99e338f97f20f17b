"""How fast this machine multiplies matrices: what estimates of time start from."""

import time
from statistics import median

import torch

from itda_core.devices import is_out_of_memory, kind_of
from itda_core.errors import InputError

_PROBE_SIZE = 1_024
_GPU_PROBE_SIZE = 4_096
"""Enough to keep a GPU busy: some milliseconds there"""
_SMALLEST_PROBE = 64
_DRAWS: dict[tuple[str, torch.dtype], list[tuple[float, float]]] = {}
"""By device and data type: when a product was timed, and what came out, oldest first"""
_DRAWS_KEPT = 15
_DRAWN_AFTER_SECONDS = 20.0
"""What a machine does beside makes one draw four times another: draws are collected, so that an
estimate neither jumps between two clicks nor holds to one bad moment"""


def product_speed(device: str, dtype: torch.dtype = torch.float32) -> float:
    """Floating-point operations a second of a plain product on a device: the median of the draws
    of the last minutes. Raises InputError where there is no room for one at all."""
    draws, now = _DRAWS.setdefault((device, dtype), []), time.monotonic()
    if not draws or now - draws[-1][0] > _DRAWN_AFTER_SECONDS:
        draws.append((now, _drawn_speed(device, dtype)))
        del draws[:-_DRAWS_KEPT]
    return median(speed for _, speed in draws)


def _drawn_speed(device: str, dtype: torch.dtype) -> float:
    """One draw; of a smaller product where the device's memory is nearly full."""
    size = _PROBE_SIZE if kind_of(device) == "cpu" else _GPU_PROBE_SIZE
    while True:
        try:
            return 2 * size**3 / _product_seconds(size, device, dtype)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if size <= _SMALLEST_PROBE:
                raise InputError(
                    f"The memory of {device} is full. End what fills it, or choose another device."
                ) from error
            size //= 2


def _product_seconds(size: int, device: str, dtype: torch.dtype) -> float:
    a = torch.ones(size, size, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(4):
        started = time.perf_counter()
        float((a @ a)[0, 0])  # reading a value waits for the device
        best = min(best, time.perf_counter() - started)
    return best
