"""Memory that tensors are read into: given back to the system, or kept for the next of that size.

A system hands out memory page by page and empties each first. For what is read block by block that
takes several times as long as reading, and the next block has tensors of the same sizes.
"""

import mmap
import threading
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch

_PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
"""What makes memory the process's own, where systems tell that from shared memory"""


class Rooms:
    """Memory for tensors, by their size in bytes.

    What is let go of goes back to the system as soon as nobody holds it, but for what `kept` says.
    """

    def __init__(self):
        self._lock = threading.RLock()  # what is let go of comes in the middle of anything
        self._free: dict[int, list[mmap.mmap]] = {}
        self._wanted: Counter[int] = Counter()

    def take(self, n_bytes: int) -> torch.Tensor:
        """Bytes that nobody else holds, [n_bytes] uint8, with whatever was in them before."""
        if not n_bytes:
            return torch.empty(0, dtype=torch.uint8, device="cpu")
        with self._lock:
            free = self._free.get(n_bytes)
            pages = free.pop() if free else None
        if pages is None:
            # An ordinary allocation may stay with the process once it is freed: another thread
            # than the one that frees it has asked for it.
            pages = mmap.mmap(-1, n_bytes, **_PRIVATE)
        view = memoryview(pages)  # held by the tensor, and ends with it
        weakref.finalize(view, self._returned, n_bytes, pages).atexit = False
        return torch.frombuffer(view, dtype=torch.uint8)

    @contextmanager
    def kept(self, sizes: Iterable[int]) -> Iterator[None]:
        """Within this context what is let go of is kept for tensors of these sizes, together with
        what is kept already no more than for those."""
        with self._lock:
            wanted = Counter(sizes)
            for size, free in self._free.items():
                del free[wanted[size] :]
                wanted[size] -= len(free)
            self._wanted = wanted
        try:
            yield
        finally:
            with self._lock:
                self._wanted = Counter()

    def clear(self) -> None:
        """Give back what is kept."""
        with self._lock:
            self._free.clear()

    def _returned(self, n_bytes: int, pages: mmap.mmap) -> None:
        with self._lock:
            if self._wanted[n_bytes] > 0:
                self._wanted[n_bytes] -= 1
                self._free.setdefault(n_bytes, []).append(pages)
