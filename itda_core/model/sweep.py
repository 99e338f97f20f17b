"""Reading the parts of a model one after another: while one computes, the next is read ahead."""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from itda_core.model.rooms import Rooms
from itda_core.model.weights import Weights


@dataclass(frozen=True)
class Stage:
    """What is in memory together, beside what always is."""

    block: int | None
    """which runs; None where none does"""
    names: list[str]
    """of its tensors on disk"""


class Reading:
    """Puts the weights of one stage after another into the module."""

    def __init__(self, weights: Weights, stages: Sequence[Stage]):
        self._weights, self._stages = weights, list(stages)
        self._stop = threading.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="weights")
        self._next: Future | None = None
        self._rooms = Rooms()
        self.seconds = 0.0
        """spent reading"""
        self.waited = 0.0
        """in which nothing was computed, since the weights were not there yet"""

    def stages(self) -> Iterator[Stage]:
        """Each stage, its weights in place until the next one is asked for."""
        try:
            with self._thread:
                try:
                    self._begin(0)
                    for number, stage in enumerate(self._stages):
                        with self._in_place(number):
                            yield stage
                finally:
                    self._stop.set()
        finally:
            self._next = None
            self._rooms.clear()

    def _begin(self, number: int) -> None:
        """Read a stage ahead, where there is one more."""
        if number < len(self._stages):
            self._next = self._thread.submit(self._read, self._stages[number].names)

    def _read(self, names: list[str]) -> dict[str, torch.Tensor]:
        started = time.monotonic()
        found = self._weights.read(names, self._stop, self._rooms)
        self.seconds += time.monotonic() - started
        return found

    @contextmanager
    def _in_place(self, number: int) -> Iterator[None]:
        with self._kept_for(number + 1, self._weights.device.type != "cpu"):
            filled = self._weights.put_in(self._awaited())
        try:
            self._begin(number + 1)
            yield
        finally:
            with self._kept_for(number + 2, not self._is_converted(number + 1)):
                self._weights.take_out(filled)

    @contextmanager
    def _kept_for(self, number: int, is_kept: bool) -> Iterator[None]:
        """Within this context the memory of what is let go of is kept for a stage to come.

        On a device it is another memory than the one that is counted. On a CPU it counts: it is
        kept while nothing but what is put in place as it is takes memory.
        """
        if not is_kept:
            yield
            return
        with self._rooms.kept(self._weights.stored_sizes(self._names(number))):
            yield

    def _is_converted(self, number: int) -> bool:
        """Whether the weights of a stage take less memory in place than as they are read."""
        names = self._names(number)
        return self._weights.stored_bytes(names) > self._weights.bytes_of(names)

    def _names(self, number: int) -> list[str]:
        """Of a stage's tensors on disk; none after the last one."""
        return self._stages[number].names if number < len(self._stages) else []

    def _awaited(self) -> dict[str, torch.Tensor]:
        """What was read ahead; held by nothing else any more."""
        started = time.monotonic()
        found, self._next = self._next.result(), None
        self.waited += time.monotonic() - started
        return found
