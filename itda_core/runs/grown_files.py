"""Files of lines that mostly grow: what was read of one before is not read again, once its bytes
are known to be the same."""

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

_MOST_FILES = 4
"""That are remembered"""
T = TypeVar("T")


@dataclass(frozen=True)
class _Read(Generic[T]):
    """What the whole lines of a file say."""

    said: T
    digest: Any = field(default_factory=hashlib.blake2b)
    """of their bytes; to be copied"""
    n_bytes: int = 0
    n_lines: int = 0
    begun: object = field(default_factory=object)


class GrownFiles(Generic[T]):
    """Remembers what files said. Safe to use from several threads."""

    def __init__(self, nothing: T, add: Callable[[T, bytes, int], T]):
        """nothing: what no lines say; add: what lines say after others, which it must not change;
        its arguments are what those say, the bytes, and how many lines there were before."""
        self._nothing, self._add = nothing, add
        self._known: dict[Path, _Read[T]] = {}
        self._lock = threading.Lock()

    def read(self, file: Path, content: bytes) -> tuple[T, object]:
        """What a file says, whose bytes are `content`; and what is one and the same object for as
        long as the file has only grown by whole lines."""
        with self._lock:
            read = self._of_whole_lines(file.absolute(), content)
        if rest := content[read.n_bytes :]:  # half a line may still become another one
            return self._add(read.said, rest, read.n_lines), object()
        return read.said, read.begun

    def _of_whole_lines(self, file: Path, content: bytes) -> _Read[T]:
        end = content.rfind(b"\n") + 1
        read = self._known.pop(file, None)
        if read is None or not _begins_with(content, end, read):
            read = _Read(self._nothing)
        if added := content[read.n_bytes : end]:
            digest = read.digest.copy()
            digest.update(added)
            said = self._add(read.said, added, read.n_lines)
            n_lines = read.n_lines + len(added.splitlines())
            read = _Read(said, digest, end, n_lines, read.begun)
        self._known[file] = read
        while len(self._known) > _MOST_FILES:
            del self._known[next(iter(self._known))]
        return read


def _begins_with(content: bytes, end: int, read: _Read) -> bool:
    """Whether what was read is what the file begins with still."""
    if read.n_bytes > end:
        return False
    return hashlib.blake2b(memoryview(content)[: read.n_bytes]).digest() == read.digest.digest()
