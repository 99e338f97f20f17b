"""Names for contents: equal for equal contents, and short."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

_BLOCKS = 64
_BLOCK_BYTES = 65_536


def digest(content: str | bytes | memoryview | Iterable[str | bytes], size: int = 8) -> str:
    """The BLAKE2b of `content` in 2 · `size` hex digits. Text is taken as UTF-8, and several parts
    as the one that they make together, so that they need not be in memory at a time."""
    parts = [content] if isinstance(content, str | bytes | memoryview) else content
    state = hashlib.blake2b(digest_size=size)
    for part in parts:
        state.update(part.encode() if isinstance(part, str) else part)
    return state.hexdigest()


def sample_of(paths: Iterable[Path], blocks: int = _BLOCKS) -> Iterator[str | bytes]:
    """Names, sizes and some blocks of files that are too large to be read whole: what to make a
    digest of."""
    for path in paths:
        size = path.stat().st_size
        yield f"{path.name} {size}"
        with path.open("rb") as file:
            for block in range(blocks):
                file.seek(block * size // blocks)
                yield file.read(_BLOCK_BYTES)
