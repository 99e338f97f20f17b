"""Many at once, or one alone."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Gate:
    """Around something that many threads use, and that one of them may replace: it waits until the
    others have ended, and who comes meanwhile waits for it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._is_shut = False
        self._own = threading.local()

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Use it. Who is inside already, or alone, may come in again."""
        depth = getattr(self._own, "depth", 0)
        with self._changed:
            self._changed.wait_for(lambda: depth or not self._is_shut)
            self._inside += 1
        self._own.depth = depth + 1
        try:
            yield
        finally:
            self._own.depth = depth
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Replace it. Not for who is inside: it would wait for itself."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_shut)
            self._is_shut = True  # nobody else comes in from here on
        try:
            with self._changed:
                self._changed.wait_for(lambda: not self._inside)
            self._own.depth = 1
            yield
        finally:
            self._own.depth = 0
            with self._changed:
                self._is_shut = False
                self._changed.notify_all()
