"""Files written whole or not at all, and what the disk refuses as a sentence."""

import errno
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from itda_core.errors import ItdaError, RunError


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` under a temporary name and rename: the file is there whole or not at all."""
    temporary = path.with_name(f".{path.name}-{os.getpid()}-{threading.get_ident()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
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


def write_json(path: Path, content: Any) -> None:
    """Readable JSON, written atomically."""
    write_atomically(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
