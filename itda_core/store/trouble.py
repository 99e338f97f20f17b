"""What DuckDB says of its file, as a sentence with the remedy."""

import re
from pathlib import Path

import duckdb

from itda_core.errors import (
    StoreDamagedError,
    StoreError,
    StoreInUseError,
    StoreNotOursError,
    StoreOutOfReachError,
    first_line,
    speaks_of_memory,
)
from itda_core.files.disk_errors import disk_error_in

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


def why_not_opened(path: Path | str, message: str) -> StoreError:
    holder = re.search(r"PID (\d+)", message)
    if holder:
        return StoreInUseError(
            f"{path} is open in another process (pid {holder[1]}). Use the explorer that is "
            "running, close it, or start this one with ITDA_DATA=another/folder."
        )
    if "serialized" in message or "newer version" in message or "version number" in message:
        return StoreNotOursError(
            f"{path} was written by a newer version of DuckDB. Update the explorer, or set "
            "ITDA_DATA to another folder."
        )
    if failed := out_of_reach(path, message):
        return failed
    return StoreDamagedError(
        f"{path} can't be opened as a database ({message.splitlines()[0]}). {REBUILD}"
    )


def out_of_reach(path: Path | str, message: str) -> StoreError | None:
    """Where the disk of the database refuses, its rights do, or the memory is full: what DuckDB
    passes on of that."""
    if speaks_of_memory(message):
        return StoreOutOfReachError(
            f"There is not enough memory to use {path} ({message.splitlines()[0]}). It is left as "
            "it is: close other programs, and try again."
        )
    told = None if ".parquet" in message else disk_error_in(message, Path(path).absolute().parent)
    return StoreOutOfReachError(str(told)) if told else None


def why_newer(path: Path | str, version: int, known: int) -> StoreError:
    """version: of the file's format; known: the newest that can be read."""
    return StoreNotOursError(
        f"{path} was written by a newer version of the explorer (format {version}, this one knows "
        f"{known}). Update the explorer, or set ITDA_DATA to another folder."
    )


def why_no_name(path: Path | str) -> StoreError:
    """Of a path that DuckDB takes for another one, or none."""
    return StoreOutOfReachError(
        f"{path} can't be opened: a database can't lie in a folder whose name has a question mark "
        "or a backslash, or is no text in UTF-8. Rename that folder, or set ITDA_DATA to another "
        "one."
    )


def why_damaged(path: Path | str, error: Exception) -> StoreError:
    """Any error of a file that holds what it should not."""
    return StoreDamagedError(f"{path} is damaged ({first_line(error)}). {REBUILD}")


def of_the_file(path: Path | str, error: duckdb.Error) -> StoreError | None:
    """The same of an error of a query, where the file is to blame; None where something else is:
    another file that is read, or what is asked."""
    message = str(error)
    if isinstance(error, duckdb.ConnectionException) and "closed" in message:
        return StoreDamagedError(
            f"{path} is closed: to make it anew has failed, or the explorer ends. Reload the page; "
            f"where that does not help: {REBUILD}"
        )
    if failed := out_of_reach(path, message):
        return failed
    is_other = ".parquet" in message
    is_own = isinstance(error, _OF_THE_FILE) or "nvalidated" in message
    return why_damaged(path, error) if is_own and not is_other else None
