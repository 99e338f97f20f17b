"""What DuckDB says of its file, as a sentence with the remedy."""

import errno
import os
import re
from pathlib import Path

import duckdb

from itda_core.errors import (
    StoreDamagedError,
    StoreError,
    StoreInUseError,
    StoreNotOursError,
    first_line,
)

REBUILD = (
    "Make it anew from the run directories: Rebuild on the Overview page, or python -m itda_core "
    "rebuild. The file is kept beside it, and labels that are in it alone are written back where "
    "they can be read."
)
_OF_THE_FILE = (
    duckdb.FatalException,
    duckdb.InternalException,
    duckdb.IOException,
    duckdb.SerializationException,
)
"""Kinds of errors that no query of ours is to blame for"""
_OF_THE_MACHINE = {
    errno.EACCES: "Change its rights",
    errno.EPERM: "Change its rights",
    errno.EROFS: "Make its disk writable",
    errno.EMFILE: "Raise the limit of open files (ulimit -n)",
    errno.ENFILE: "Close other programs",
    errno.ENOSPC: "Free some space",
    errno.EDQUOT: "Free some space",
    errno.EFBIG: "Raise the limit on the size of files",
    errno.EIO: "Look after its disk",
    errno.ENOMEM: "Close other programs",
    errno.ESTALE: "Mount its disk again",
}
"""What ails the machine and not the file, with what to do"""


def why_not_opened(path: Path | str, message: str) -> StoreError:
    holder = re.search(r"PID (\d+)", message)
    if holder:
        return StoreInUseError(
            f"{path} is open in another process (pid {holder[1]}). Use the explorer that is "
            "running, close it, or start this one with ITDA_DATA=another/folder."
        )
    if unusable := _of_the_machine(path, message):
        return unusable
    if "serialized" in message or "newer version" in message or "version number" in message:
        return StoreNotOursError(
            f"{path} was written by a newer version of DuckDB. Update the explorer, or set "
            "ITDA_DATA to another folder."
        )
    return StoreDamagedError(
        f"{path} can't be opened as a database ({message.splitlines()[0]}). {REBUILD}"
    )


def _of_the_machine(path: Path | str, message: str) -> StoreNotOursError | None:
    """Where DuckDB's message ends as the system's own does: the file may well be whole."""
    for number, remedy in _OF_THE_MACHINE.items():
        if message.partition("\n")[0].endswith(f": {os.strerror(number)}"):
            return StoreNotOursError(
                f"{path} can't be used now ({os.strerror(number)}). It is left as it is. "
                f"{remedy}, or set ITDA_DATA to another folder, and try again."
            )
    return None


def why_newer(path: Path | str, version: int, known: int) -> StoreError:
    """version: of the file's format; known: the newest that can be read."""
    return StoreNotOursError(
        f"{path} was written by a newer version of the explorer (format {version}, this one knows "
        f"{known}). Update the explorer, or set ITDA_DATA to another folder."
    )


def why_damaged(path: Path | str, error: Exception) -> StoreError:
    """Any error of a file that holds what it should not."""
    return StoreDamagedError(f"{path} is damaged ({first_line(error)}). {REBUILD}")


def of_the_file(path: Path | str, error: duckdb.Error) -> StoreError | None:
    """The same of an error of a query, where the file is to blame; None where something else is: a
    full disk, another file that is read, or what is asked."""
    message = str(error)
    if isinstance(error, duckdb.ConnectionException) and "closed" in message:
        return StoreDamagedError(
            f"{path} is closed: it is being made anew, or that has failed. Reload the page; where "
            f"that does not help: {REBUILD}"
        )
    if isinstance(error, duckdb.IOException) and (unusable := _of_the_machine(path, message)):
        return None if ".parquet" in message else unusable
    is_other = ".parquet" in message or "No space left" in message or "Out of Memory" in message
    is_own = isinstance(error, _OF_THE_FILE) or "nvalidated" in message
    return why_damaged(path, error) if is_own and not is_other else None
