"""Files and folders that are on the disk whole, or not at all."""

import contextlib
import errno
import os
from pathlib import Path

from itda_core.leftovers import temporary_name
from itda_core.write_lock import lock_opened


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` under a temporary name and rename: the file is there whole or not at all,
    after a loss of power as well."""
    temporary = path.with_name(temporary_name(path.name))
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):  # why it failed is what counts
            temporary.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def append_lines(path: Path, content: bytes) -> None:
    """Add whole lines to the end of a file that may not be there yet, and bring them to the disk:
    all of them, or nothing where the disk refuses. One process after another; what a crash has cut
    short before does not swallow them. Raises ItdaError where another process doesn't let go."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
    opened = os.open(path, flags, 0o666)
    try:
        lock_opened(opened, path)
        before = os.fstat(opened).st_size
        content = content if _ends_a_line(opened, before) else b"\n" + content
        _append(opened, before, content)
    finally:
        os.close(opened)  # which lets go of it, too
    if not before:  # its name, too
        _sync(path.parent)


def _ends_a_line(opened: int, size: int) -> bool:
    """Whether what is added begins a line of its own."""
    if not size:
        return True
    os.lseek(opened, size - 1, os.SEEK_SET)
    return os.read(opened, 1) == b"\n"


def _append(opened: int, before: int, content: bytes) -> None:
    """All of it, or nothing: what was written is taken back, unless a program that knows nothing of
    the lock has written behind it. before: bytes that were there."""
    left = memoryview(content)
    try:
        while left:
            left = left[os.write(opened, left) :]
        os.fsync(opened)
    except BaseException:
        with contextlib.suppress(OSError):
            os.lseek(opened, before, os.SEEK_SET)
            if content.startswith(os.read(opened, len(content) + 1)):
                os.ftruncate(opened, before)
        raise


def rename_whole(temporary: Path, folder: Path) -> None:
    """Give a folder that was written under a temporary name its own: all that lies in it is on the
    disk before, so that after a loss of power it is there whole or not at all."""
    for path in temporary.rglob("*"):
        _sync(path)
    _sync(temporary)
    temporary.rename(folder)
    _sync(folder.parent)


def _sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    is_folder = path.is_dir()
    if os.name == "nt" and is_folder:
        return  # Windows opens no folders
    try:
        opened = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    except PermissionError:
        if is_folder:  # may be written to, and not be read
            return
        raise
    try:
        os.fsync(opened)
    except OSError as error:
        # Some file systems, of networks mostly, have nothing to sync of a folder.
        if not is_folder or error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(opened)
