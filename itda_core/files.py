"""Files written whole or not at all, and what the disk refuses as a sentence."""

import contextlib
import errno
import io
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from itda_core.errors import ItdaError, RunError, first_line, is_of_memory
from itda_core.leftovers import temporary_name
from itda_core.write_lock import lock_opened

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


_FULL = {errno.ENOSPC, errno.EDQUOT}
_CLOSED = {errno.EACCES, errno.EPERM, errno.EROFS}
_BROKEN = {
    number
    for number, name in errno.errorcode.items()
    if name in ("EIO", "ESTALE", "ENXIO", "ENODEV", "EREMOTEIO", "ETIMEDOUT", "ENOTCONN")
}
"""What disks and file servers say that answer no more"""
_MANY_OPEN = {errno.EMFILE, errno.ENFILE}


_LONGEST_SHOWN = 300
"""Characters of a path that a sentence can hold"""


@contextlib.contextmanager
def disk_errors_as_sentences(folder: Path) -> Iterator[None]:
    """Turns what the operating system says of disks and rights into sentences."""
    try:
        yield
    except OSError as error:
        if told := disk_error(error, folder):
            raise told from error
        if error.errno in (errno.EEXIST, errno.ENOTDIR) and not folder.is_dir():
            raise ItdaError(f"{folder} is not a folder. Choose another place.") from error
        raise


def disk_error(error: OSError, folder: Path) -> ItdaError | None:
    """What the operating system says of the disk of a folder, as a sentence; None where it speaks
    of something else."""
    what = error.strerror or str(error)
    if error.errno in _FULL:
        return ItdaError(
            f"There is no space left on the disk of {folder}. What was stored before is "
            "unharmed. Free some space and resume."
        )
    if error.errno in _CLOSED:
        return ItdaError(
            f"{folder} can't be written to ({what}). Change its rights, or set ITDA_DATA to "
            "another folder."
        )
    if error.errno == errno.EFBIG:
        return ItdaError(
            f"A file in {folder} may not become so large ({what}). What was stored before is "
            "unharmed. Raise the limit on the size of files, or set ITDA_DATA to a folder on "
            "another disk."
        )
    if error.errno in _BROKEN:
        return ItdaError(
            f"The disk of {folder} does not answer as it should ({what}). What was stored before "
            "is left as it is. See to the disk, and try again."
        )
    if error.errno in _MANY_OPEN:
        return ItdaError(
            f"More files are open than the system allows ({what}). What was stored before is "
            "unharmed. Close other programs, or raise the limit (ulimit -n), and try again."
        )
    if error.errno == errno.ELOOP:
        return ItdaError(f"The links of {folder} lead in a circle ({what}). Mend them.")
    if error.errno == errno.ENAMETOOLONG:
        shown = str(folder) if len(str(folder)) < _LONGEST_SHOWN else f"{folder!s:.100}…"
        return ItdaError(
            f"The system can't follow a path so long ({what}): {shown}. Choose a shorter one; "
            "ITDA_DATA says where all is kept."
        )
    return None


def why_closed(folder: Path) -> str:
    """Why nothing can be kept in a folder that is there and can be read, a sentence; "" of any
    other."""
    if not os.access(folder, os.R_OK | os.X_OK) or os.access(folder, os.W_OK | os.X_OK):
        return ""
    is_read_only = hasattr(os, "statvfs") and os.statvfs(folder).f_flag & os.ST_RDONLY
    what = os.strerror(errno.EROFS if is_read_only else errno.EACCES)
    return (
        f"{folder} can't be written to ({what}): what is there can be looked at, and nothing can "
        "be kept. Change its rights, or set ITDA_DATA to another folder, and start the explorer "
        "again."
    )


def system_error(error: BaseException, folder: Path) -> ItdaError | None:
    """What the operating system refused where nobody expected it, as a sentence: memory, or the
    disk of the file that the error names, else of `folder`. None where it is something else."""
    if is_of_memory(error) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        said = first_line(error)
        why = "" if said in ("", "MemoryError") else f" ({said.rstrip('.')})"
        return ItdaError(
            f"There is not enough memory{why}. What was stored before is unharmed. Close other "
            "programs, or ask for less at once, and try again."
        )
    if not isinstance(error, OSError):
        return None
    named = isinstance(error.filename, str) and error.filename
    return disk_error(error, Path(error.filename).absolute().parent if named else folder)


def disk_error_in(message: str, folder: Path) -> ItdaError | None:
    """`disk_error` of what a library passes on of the operating system's words."""
    for number in sorted({*_FULL, *_CLOSED, *_BROKEN, *_MANY_OPEN, errno.EFBIG}):
        if os.strerror(number) in message:
            return disk_error(OSError(number, os.strerror(number)), folder)
    return None


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


def read_foreign(path: Path, most_bytes: int | None = _MOST_JSON_BYTES) -> bytes:
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


def check_parquet(file: Path | bytes, name: str) -> None:
    """Raises ValueError where a Parquet file unfolds to much more than it holds, by what its footer
    says; another library's errors where it is none."""
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
    about = pq.read_metadata(file if isinstance(file, Path) else io.BytesIO(file))
    if about.num_rows > _UNFOLDED_ROWS and about.num_rows > _ROWS_A_BYTE * size:
        raise ValueError(f"{name} has {about.num_rows:,} rows in {size:,} bytes")
    groups = (about.row_group(number) for number in range(about.num_row_groups))
    check_unfolding(name, size, sum(group.total_byte_size for group in groups))


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises OSError where it can't be read, and ValueError, with what is
    wrong, where it is no file, too large to be what it should, not text, not JSON or nested too
    deeply."""
    content = read_foreign(path)
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError(f"{path.name} is nested too deeply") from error


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
    if is_enough or n_bytes >= _MOST_JSON_BYTES:
        return whole
    return newest_lines(path, 4 * n_bytes)
