"""Whose a job is: the process that does it says so itself.

An app that is killed between the start of a process and its note leaves a process that the job's
file does not know. So the process takes a lock in the job's folder before anything else, and writes
its number beside it; the lock is the operating system's, and free when the process has ended.
"""

import contextlib
import os
from pathlib import Path

from filelock import FileLock, Timeout

from itda_core.errors import ItdaError
from itda_core.files.json_files import read_json, write_json

_VARIABLE = "ITDA_JOB"
_PATIENCE = 5.0
"""Seconds to try for a lock: who looks whether a job is claimed has it for a moment"""
_held: list[FileLock] = []


def claiming(directory: Path) -> dict[str, str]:
    """The environment variable that tells a process which job it does."""
    return {_VARIABLE: str(directory.absolute())}


def claim_job() -> None:
    """Of a process that was started for a job: it is this process's until it ends. Raises ItdaError
    where another one has it. Programs that this one starts do no job."""
    if not (said := os.environ.pop(_VARIABLE, "")):
        return
    directory = Path(said)
    lock = _lock_of(directory, _PATIENCE)
    try:
        lock.acquire()
    except Timeout:
        raise ItdaError(
            f"Job {directory.name} is already under way (pid {_pid(directory) or 'unknown'})."
        ) from None
    except OSError as error:
        raise ItdaError(f"Job {directory.name} can't be begun: {error}.") from error
    _held.append(lock)
    write_json(directory / "claim.json", {"pid": os.getpid()})


def claimed_by(directory: Path) -> int | None:
    """The number of the living process that does a job; None where there is none."""
    if not (directory / "claim.json").exists():
        return None
    try:
        with _lock_of(directory, 0):
            return None
    except Timeout:
        return _pid(directory)
    except OSError:  # a folder that can only be read: nobody works in it
        return None


def was_claimed(directory: Path) -> bool:
    """Whether a process has ever begun a job."""
    return (directory / "claim.json").exists()


def _pid(directory: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        pid = read_json(directory / "claim.json")["pid"]
        return pid if isinstance(pid, int) and not isinstance(pid, bool) else None
    return None


def _lock_of(directory: Path, patience: float) -> FileLock:
    return FileLock(directory / "claim", timeout=patience, thread_local=False)
