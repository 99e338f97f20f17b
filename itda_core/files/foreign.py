"""Files that others wrote: known to be files, and no larger than what they are taken for, before
they are read."""

import contextlib
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from itda_core.errors import first_line

MOST_JSON_BYTES = 2**26
"""Of what is kept as JSON a thousandth is usual"""
_KINDS = (
    (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"),
)  # fmt: skip
_UNFOLDED_BYTES, _UNFOLDED_RATIO = 2**30, 100
"""What is packed may hold so much, or be so many times larger than its file, but not both"""
_UNFOLDED_ROWS, _ROWS_A_BYTE = 10**8, 1_000
_LONGEST_FOOTER = 2**26


def open_foreign(path: Path, most_bytes: int | None = None) -> BinaryIO:
    """A file that this program has not written, opened to be read, once it is known to be one: a
    pipe would be waited for and a device has no end. Raises ValueError, with what is wrong, where
    it is none, larger than `most_bytes`, or mostly holes; OSError where it can't be read."""
    _check_status(path, path.stat(), most_bytes)  # a socket can't be opened
    opened = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        _check_status(path, os.fstat(opened), most_bytes)
        return os.fdopen(opened, "rb")
    except BaseException:
        os.close(opened)
        raise


def check_foreign(path: Path, most_bytes: int | None = None) -> None:
    """The same check of a file that another library opens."""
    _check_status(path, path.stat(), most_bytes)


def read_foreign(path: Path, most_bytes: int | None = MOST_JSON_BYTES) -> bytes:
    """What a file holds that this program has not written. Raises as `open_foreign` does."""
    with open_foreign(path, most_bytes) as file:
        return file.read()


def check_within(path: Path, folder: Path) -> None:
    """Raises ValueError where a file of a folder is a link that leads out of it."""
    if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{path.name} is a link that leads out of the folder")


def _check_status(path: Path, status: os.stat_result, most_bytes: int | None) -> None:
    for is_kind, name in _KINDS:
        if is_kind(status.st_mode):
            raise ValueError(f"{path.name} is {name} and not a file")
    if most_bytes is not None and status.st_size > most_bytes:
        raise ValueError(f"{path.name} has {status.st_size:,} bytes, of at most {most_bytes:,}")
    there = 512 * getattr(status, "st_blocks", status.st_size)
    may_be_holes = status.st_size > _UNFOLDED_BYTES and there * _UNFOLDED_RATIO < status.st_size
    if may_be_holes and _has_hole(path, status.st_size):
        raise ValueError(f"{path.name} says to have {status.st_size:,} bytes, most of them holes")


def _has_hole(path: Path, size: int) -> bool:
    """Whether the file system knows of one: many that lie behind a network count no blocks."""
    opened = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        return os.lseek(opened, 0, os.SEEK_HOLE) < size
    except OSError:  # it knows nothing of holes
        return False
    finally:
        os.close(opened)


def check_unfolding(name: str, packed: int, unfolded: int, always: int = _UNFOLDED_BYTES) -> None:
    """Raises ValueError where something packed unfolds to so much more that it can only be meant
    to fill the memory. packed, unfolded: bytes; always: what it may unfold to in any case."""
    if unfolded > always and unfolded > _UNFOLDED_RATIO * packed:
        raise ValueError(f"{name} unfolds from {packed:,} bytes to {unfolded:,} and more")


@contextlib.contextmanager
def damage_as_one_error() -> Iterator[None]:
    """Turns what Arrow and pandas raise of a damaged table, which has a dozen kinds, into
    ValueError; errors of the disk and of memory stay what they are."""
    try:
        yield
    except (OSError, MemoryError, ValueError):
        raise
    except Exception as error:
        raise ValueError(first_line(error)) from error


def check_parquet(file: Path | bytes, name: str) -> None:
    """Raises ValueError where a Parquet file unfolds to much more than it holds, by what its footer
    says, or is none; OSError where it can't be read."""
    import pyarrow.parquet as pq

    if isinstance(file, Path):
        check_foreign(file)
        size = file.stat().st_size
        with open_foreign(file) as opened:
            opened.seek(max(0, size - 8))
            end = opened.read()
    else:
        size, end = len(file), file[-8:]
    if _LONGEST_FOOTER < int.from_bytes(end[:4], "little") < size:
        raise ValueError(f"the footer of {name} is too long")
    with damage_as_one_error():
        about = pq.read_metadata(file if isinstance(file, Path) else io.BytesIO(file))
    if about.num_rows > _UNFOLDED_ROWS and about.num_rows > _ROWS_A_BYTE * size:
        raise ValueError(f"{name} has {about.num_rows:,} rows in {size:,} bytes")
    groups = (about.row_group(number) for number in range(about.num_row_groups))
    check_unfolding(name, size, sum(group.total_byte_size for group in groups))
