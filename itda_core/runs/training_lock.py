"""Who holds the directory of a training: one process, on one machine."""

import contextlib
import os
import shutil
import socket
import time
from pathlib import Path

from filelock import FileLock, Timeout

from itda_core.files.foreign import read_foreign

_PATIENCE = 0.1
"""Seconds to try for a lock: whoever asks only whether it is held has it for less, and whoever
takes it has said by then who it is"""


def this_process() -> str:
    """Its id, and its machine, as the holder of a training is called."""
    return f"{os.getpid()} on {socket.gethostname()}"


def holder_of(directory: Path) -> str:
    """The process that holds a training, or held it last; empty where nothing is known. Earlier
    versions wrote its id alone."""
    with contextlib.suppress(OSError, ValueError):
        return read_foreign(directory / "holder").decode()
    return ""


def elsewhere(host: str) -> str:
    """On which machine, where it is not this one."""
    return f" on {host}" if host not in ("", socket.gethostname()) else ""


def if_gone(host: str, directory: Path) -> str:
    """What to do where another machine can't be asked any more."""
    if not elsewhere(host):
        return ""
    return f" If {host} is gone for good, delete {lock_file(directory)}."


def silent_seconds(directory: Path) -> float:
    """How long nothing has been written for a training."""
    newest = 0.0
    for path in directory.rglob("*"):
        with contextlib.suppress(OSError):
            newest = max(newest, path.stat().st_mtime)
    return time.time() - newest


def break_lock(directory: Path) -> None:
    """Take a training from a machine that is gone, whose lock a file server may keep for it: a
    new lock file is none that it holds."""
    with contextlib.suppress(FileNotFoundError):
        lock_file(directory).unlink()


def lock_file(directory: Path) -> Path:
    return directory / "lock"


def lock_of(directory: Path) -> FileLock:
    """The lock on a training's directory, to be let go of by whatever thread ends the training."""
    return FileLock(lock_file(directory), timeout=_PATIENCE, thread_local=False)


def remove_if_free(directory: Path, lock: FileLock | None = None) -> None:
    """Remove the directory of a training, unless another process has taken it up meanwhile. lock:
    that of who may hold it already."""
    with contextlib.suppress(OSError), lock or lock_of(directory):  # a Timeout is an OSError, too
        shutil.rmtree(directory, ignore_errors=True)


def is_held(directory: Path) -> bool:
    """Whether a living process works on a training. What an earlier version wrote into a lock file
    does not count."""
    if not lock_file(directory).exists():
        return False
    try:
        with lock_of(directory):
            if not (directory / "config.json").exists():  # it ended meanwhile: this made it anew
                shutil.rmtree(directory, ignore_errors=True)
            return False
    except Timeout:
        return True
    except OSError:  # a folder that can only be read: nobody trains in it
        return False
