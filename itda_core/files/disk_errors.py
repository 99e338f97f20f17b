"""What the operating system says of disks, rights and memory, as sentences."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from itda_core.errors import ItdaError, RunError, first_line, is_of_memory

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
