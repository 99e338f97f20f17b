"""Files written whole or not at all, and what the disk refuses as a sentence."""

import contextlib
import errno
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from itda_core.errors import ItdaError, RunError
from itda_core.leftovers import temporary_name

_NEWEST_BYTES = 2**18
_MOST_JSON_BYTES = 2**26
"""Of what is kept as JSON a thousandth is usual"""


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
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


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
    opened = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError as error:
        # Some file systems, of networks mostly, have nothing to sync of a folder.
        if not is_folder or error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(opened)


@contextlib.contextmanager
def disk_errors_as_sentences(folder: Path) -> Iterator[None]:
    """Turns the operating system's errors about disk space and rights into sentences."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ItdaError(
                f"There is no space left on the disk of {folder}. What was stored before is "
                "unharmed. Free some space and resume."
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise ItdaError(
                f"{folder} can't be written to. Change its rights, or set ITDA_DATA to another "
                "folder."
            ) from error
        if error.errno in (errno.EEXIST, errno.ENOTDIR) and not folder.is_dir():
            raise ItdaError(f"{folder} is not a folder. Choose another place.") from error
        raise


def why_unreadable(path: Path, error: Exception, remedy: str) -> RunError:
    """What reading a file of a run raised, as a sentence: damaged only where its content is to
    blame, and not the disk or its rights. remedy: what to do with a damaged one."""
    if isinstance(error, OSError) and error.errno is not None:
        return RunError(
            f"{path} can't be read ({error.strerror or error}). It is left as it is: make it "
            "readable, and try again."
        )
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return RunError(f"{path} is damaged ({reason}). {remedy}")


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises OSError where it can't be read, and ValueError, with what is
    wrong, where it is no file, too large to be what it should, not text, not JSON or nested too
    deeply."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
        raise ValueError(f"{path.name} is not a file")
    if status.st_size > _MOST_JSON_BYTES:
        raise ValueError(f"{path.name} has {status.st_size:,} bytes")
    try:
        return json.loads(path.read_bytes())
    except RecursionError as error:
        raise ValueError(f"{path.name} is nested too deeply") from error


def write_json(path: Path, content: Any) -> None:
    """Readable JSON, written atomically."""
    write_atomically(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def newest_lines(path: Path, n_bytes: int = _NEWEST_BYTES) -> list[bytes]:
    """The last lines of a file that grows, as many as `n_bytes` hold and the newest whole one at
    least; none where it is not there."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        start = max(0, file.seek(0, os.SEEK_END) - n_bytes)
        file.seek(start)
        lines = file.read().splitlines(keepends=True)
    if start == 0:
        return lines
    whole = lines[1:]  # the first one has lost its beginning
    is_enough = any(line.endswith(b"\n") for line in whole)
    return whole if is_enough else newest_lines(path, 4 * n_bytes)
