"""The folder of runs that all machines reach, and how each knows that it is that one."""

import contextlib
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from itda_core.cluster.machine import machine_name
from itda_core.config import slug
from itda_core.errors import InputError
from itda_core.files.disk_errors import disk_errors_as_sentences

_PATIENCE = 5.0
"""Seconds to lock a new file, which who cleans up may hold for a moment"""


@contextmanager
def shared(runs: Path) -> Iterator[str]:
    """Make the folder, and hold a file in it which other machines look for; gives its name. What a
    process of this machine left that was killed goes. Raises ItdaError where the disk refuses."""
    with disk_errors_as_sentences(runs):
        runs.mkdir(parents=True, exist_ok=True)
        _clean(runs)
        token = f"{_start()}{uuid.uuid4().hex}"
        # To be let go of by whatever thread ends the training.
        lock = FileLock(runs / token, timeout=_PATIENCE, thread_local=False)
        lock.acquire()
    try:
        yield token
    finally:
        for path in runs.glob(f"{token}*"):
            path.unlink(missing_ok=True)
        lock.release()


def check_shared(runs: Path, token: str) -> None:
    """Raises ItdaError where the folder is not here, or another one, or can't be written to."""
    if not (runs / token).exists():
        raise InputError(
            f"The folder {runs} is not the one of the machine that starts the training, or it is "
            f"not there, on {machine_name()}. Put ITDA_DATA, or --runs, on a disk that all "
            "machines reach under the same path."
        )
    with disk_errors_as_sentences(runs):
        trial = runs / f"{token}-{machine_name()}-{os.getpid()}"
        trial.touch()
        trial.unlink(missing_ok=True)


def _start() -> str:
    """Of the names of this machine's files: of others nobody here knows which are held."""
    return f".shared-{slug(machine_name())}-"


def _clean(runs: Path) -> None:
    """Remove the files of processes that have ended: nobody holds them any more."""
    mine = re.compile(re.escape(_start()) + "[0-9a-f]{32}")
    for path in runs.glob(f"{_start()}*"):
        if not mine.fullmatch(path.name):
            continue  # of a machine whose name begins like this one's
        with contextlib.suppress(OSError), FileLock(path, timeout=0):  # a Timeout is an OSError
            path.unlink(missing_ok=True)
