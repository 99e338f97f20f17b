"""Names for what is half written, by which the next start knows whether anybody still writes it.

A temporary name ends with the machine, the process and when that began: `.writing-a-L07.` and
`5f1d2c3a.4711.987654`; what DuckDB keeps beside such a file has `.wal` after it. What no living
process owns is removed; what another machine owns stays, since nobody here can ask for its
processes.
"""

import contextlib
import functools
import hashlib
import itertools
import os
import re
import shutil
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil
from filelock import FileLock

_MARK = re.compile(r"\.[^/]*\.([0-9a-f]{8})\.(\d{1,10})\.(\d{1,20})(?:\.\d+)?(?:\.wal)?")
_UNMARKED = re.compile(r"\.writing-.+|\.deleted-.+")
"""Of earlier versions, and what is being deleted: nobody's, once nothing was written for a day"""
_SILENT_SECONDS = 86_400.0
_DATA_FOLDERS = ("runs", "jobs", "comparisons", "corpora", "texts", "cache")
"""All that a data folder has of the explorer's own"""
_PROC = Path("/proc")
_numbers = itertools.count()


def temporary_name(name: str) -> str:
    """A hidden name for what will be `name`, which says who writes it; each time another."""
    return f".{name}.{_machine()}.{os.getpid()}.{_begun(os.getpid()) or 0}.{next(_numbers)}"


def remove_leftovers(folder: Path, depth: int = 4) -> list[Path]:
    """Remove from a folder what `leftovers` finds, and return it; what can't be removed stays."""
    found = leftovers(folder, depth)
    remove(found)
    return found


def remove(found: Iterable[Path]) -> None:
    """Remove what `leftovers` or `leftovers_of_data` found; what can't be removed stays."""
    for path in found:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()


def leftovers(folder: Path, depth: int = 4, name: str = "") -> list[Path]:
    """What was half written by processes that have ended. Links are not followed. depth: of folders
    that are looked into, 1 for this one alone; name: of `temporary_name`, where nothing else is
    looked at, as in a folder in which other people write."""
    begins = f".{name}." if name else ""
    found = _hidden(folder, depth)
    return [path for path in found if path.name.startswith(begins) and _is_leftover(path)]


def leftovers_of_data(data: Path) -> list[Path]:
    """The same of a data folder: of what else lies there, in a home say, nothing is looked into."""
    folders = [leftovers(data / name, depth=3) for name in _DATA_FOLDERS]
    return [*leftovers(data, depth=1), *itertools.chain.from_iterable(folders)]


def _hidden(folder: Path, depth: int) -> Iterator[Path]:
    """Temporary names; nothing within what has one."""
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return
    for entry in found:
        if _MARK.fullmatch(entry.name) or _UNMARKED.fullmatch(entry.name):
            yield Path(entry.path)
        elif depth > 1 and entry.is_dir(follow_symlinks=False):
            yield from _hidden(Path(entry.path), depth - 1)


def _is_leftover(path: Path) -> bool:
    if (mark := _MARK.fullmatch(path.name)) is None:
        if path.is_symlink() or not path.is_dir():  # those were folders
            return False
        has_lock = (path / "lock").exists()  # of a training that can't be resumed
        return _is_free(path / "lock") if has_lock else _silent(path) > _SILENT_SECONDS
    machine, pid, begun = mark.groups()
    return machine == _machine() and _begun(int(pid)) not in (None, int(begun))


def _is_free(lock: Path) -> bool:
    try:
        with FileLock(lock, timeout=0):
            return True
    except OSError:  # which a Timeout is, too
        return False


def _silent(path: Path) -> float:
    """How many seconds ago anything of it was written."""
    times = []
    for one in [path, *path.rglob("*")]:
        with contextlib.suppress(OSError):
            times.append(one.lstat().st_mtime)
    return time.time() - max(times, default=time.time())


@functools.cache
def _machine() -> str:
    """A digest of its name, and of the container, since each numbers its processes anew and may
    have the machine's name. After a start anew other processes have the numbers, with other
    beginnings."""
    said = [socket.gethostname()]
    with contextlib.suppress(OSError):
        said.append(str((_PROC / "self/ns/pid").readlink()))
    return hashlib.blake2b(" ".join(said).encode(), digest_size=4).hexdigest()


def _begun(pid: int) -> int | None:
    """When a process began, in a number that setting the clock does not change; 1 where the system
    has no such number, 0 where the process has ended, and None where neither can be told."""
    if not (_PROC / "self").is_dir():
        return int(_is_there(pid))
    try:
        # proc(5): the 22nd field, ticks since the machine was started; names may hold spaces.
        stat = (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
        return 0 if stat[0] in (b"Z", b"X") else int(stat[19])
    except (OSError, ValueError, IndexError):  # of another user, where the system hides those
        return None if _is_there(pid) else 0


def _is_there(pid: int) -> bool:
    """Whether any process has a number."""
    if os.name == "nt":  # os.kill would end it
        return psutil.pid_exists(pid)
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True
