"""A file that several processes write, one after another: the system's lock on it, which is gone
with the process that has it."""

import errno
import os
import time
from pathlib import Path

from itda_core.errors import ItdaError

_PATIENCE_SECONDS = 20.0
_PAUSE_SECONDS = 0.005
_TAKEN = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
_FAR = 2**31 - 2
"""Where the lock of Windows lies, which is of bytes and keeps others from reading them: no file of
ours comes so far"""


def lock_opened(opened: int, path: Path) -> None:
    """Wait until no other one has a file's lock, and have it until the file is closed. File systems
    without locks have none. opened: of a file that may be written to; where it is read next may
    change. Raises ItdaError where another process doesn't let go.

    The library `filelock`, which this project uses elsewhere, locks files of its own alone, which
    it may remove."""
    until = time.monotonic() + _PATIENCE_SECONDS
    while not _try(opened):
        if time.monotonic() > until:
            raise ItdaError(
                f"{path} is being written by another process, which has not ended for "
                f"{_PATIENCE_SECONDS:.0f} seconds. Nothing was changed: try again."
            )
        time.sleep(_PAUSE_SECONDS)


def _try(opened: int) -> bool:
    """False where another one has it."""
    try:
        if os.name == "nt":
            _lock_far_byte(opened)
        else:
            import fcntl

            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _TAKEN
    return True


def _lock_far_byte(opened: int) -> None:
    import msvcrt

    os.lseek(opened, _FAR, os.SEEK_SET)
    msvcrt.locking(opened, msvcrt.LK_NBLCK, 1)
