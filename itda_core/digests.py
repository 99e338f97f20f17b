"""Names for contents: equal for equal contents, and short."""

import hashlib
from collections.abc import Iterable


def digest(content: str | bytes | memoryview | Iterable[str | bytes], size: int = 8) -> str:
    """The BLAKE2b of `content` in 2 · `size` hex digits. Text is taken as UTF-8, and several parts
    as the one that they make together, so that they need not be in memory at a time."""
    parts = [content] if isinstance(content, str | bytes | memoryview) else content
    state = hashlib.blake2b(digest_size=size)
    for part in parts:
        state.update(part.encode() if isinstance(part, str) else part)
    return state.hexdigest()
