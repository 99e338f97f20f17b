"""JSON files, and the last lines of files that grow."""

import json
import os
from pathlib import Path
from typing import Any

from itda_core.files.foreign import MOST_JSON_BYTES, read_foreign
from itda_core.files.writing import write_atomically

_NEWEST_BYTES = 2**18


def read_json(path: Path) -> Any:
    """What a JSON file of this program's kinds holds. Raises OSError where it can't be read, and
    ValueError, with what is wrong, where it is no file, too large to be what it should, or as
    `parse_json` does."""
    return parse_json(read_foreign(path))


def parse_json(content: bytes | str) -> Any:
    """What JSON says. Raises ValueError where it is not text, not JSON, nested too deeply, or has a
    whole number of more than 64 bits, which no field takes and whose arithmetic would fail."""
    try:
        return json.loads(content, parse_int=_whole_number)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _whole_number(digits: str) -> int:
    value = int(digits)
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"no number here has {len(digits)} digits")
    return value


def write_json(path: Path, content: Any) -> None:
    """Readable JSON, written atomically."""
    write_atomically(path, json_bytes(content))


def json_bytes(content: Any) -> bytes:
    """Readable JSON."""
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def newest_lines(path: Path, n_bytes: int = _NEWEST_BYTES) -> list[bytes]:
    """The last lines of a file that grows, as many as `n_bytes` hold and the newest whole one at
    least, unless that is longer than any line is; none where it is not there, or is no file, which
    might be waited for."""
    if not path.is_file():
        return []
    with path.open("rb") as file:
        start = max(0, file.seek(0, os.SEEK_END) - n_bytes)
        file.seek(start)
        lines = file.read().splitlines(keepends=True)
    if start == 0:
        return lines
    whole = lines[1:]  # the first one has lost its beginning
    is_enough = any(line.endswith(b"\n") for line in whole)
    if is_enough or n_bytes >= MOST_JSON_BYTES:
        return whole
    return newest_lines(path, 4 * n_bytes)
