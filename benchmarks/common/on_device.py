"""Measuring on whatever device there is: waiting for it, in turn within a time, memory, limits."""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import torch

from benchmarks.common.harness import ROUNDS, Spread

_LEAST = 0.02
"""Seconds that one measurement lasts at least: shorter work is repeated within it."""
_MOST_REPEATS = 1_000


class TimeIsUp(BaseException):
    """A part has used its time. Not an Exception, so that nothing on the way takes it for one of
    its own errors."""


def synchronize(device: torch.device) -> None:
    """Wait until a device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
    """How long `run` takes on an idle device, until the device is idle again."""
    synchronize(device)
    started = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - started


def in_turn_on(
    device: torch.device,
    contenders: Mapping[str, Callable[[], object]],
    seconds: float,
    rounds: int = ROUNDS,
) -> dict[str, Spread]:
    """Seconds of one call of each contender, measured alternately (A B A B …).

    Each is called twice before, which is not counted: the first call may compile. Then `rounds`
    rounds follow, fewer where `seconds` would be over, at least one. What is short is called
    several times in a measurement.
    """
    until = time.monotonic() + seconds
    repeats, once = {}, {}
    for name, run in contenders.items():
        first = seconds_of(run, device)
        once[name] = first if first > 1 else seconds_of(run, device)
        repeats[name] = min(_MOST_REPEATS, math.ceil(_LEAST / max(once[name], 1e-6)))
    one_round = sum(once[name] * repeats[name] for name in contenders)
    measured: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        if number and time.monotonic() + one_round > until:
            break
        for name, run in contenders.items():
            several = seconds_of(lambda r=run, n=repeats[name]: [r() for _ in range(n)], device)
            measured[name].append(several / repeats[name])
    return {name: Spread(tuple(values)) for name, values in measured.items()}


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Within this context TimeIsUp is raised after so many seconds, where the system has alarms and
    this is the main thread; work that a device has begun is waited for."""
    is_main = threading.current_thread() is threading.main_thread()
    if not (hasattr(signal, "setitimer") and is_main):
        yield
        return

    def ring(_number, _frame):
        raise TimeIsUp(f"stopped after {seconds:.3g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.01))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@dataclass
class Peak:
    """The most memory that was in use, beyond what was there before, in bytes."""

    host: int = 0
    device: int | None = None
    """None for a CPU, whose memory is the host's"""


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Peak]:
    """The peaks while the context lasts; they are there when it ends."""
    peak, process, done = Peak(), psutil.Process(), threading.Event()
    host_before, on_device_before = process.memory_info().rss, _allocated(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    highest = on_device_before

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.02):
            peak.host = max(peak.host, process.memory_info().rss - host_before)
            if device.type == "mps":
                highest = max(highest, _allocated(device))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()
        if device.type == "cuda":
            highest = torch.cuda.max_memory_allocated(device)
        if device.type != "cpu":
            peak.device = highest - on_device_before


def _allocated(device: torch.device) -> int:
    """Bytes of a device's memory that tensors hold."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return torch.mps.current_allocated_memory() if device.type == "mps" else 0
