"""Commands that are killed, or refused by the disk, at a chosen moment.

A command runs in a child that is forked from a server with everything imported and tried once
(`warm`), so that a try takes the time of the work alone. The moments are the times at which Python
opens a file of the data folder to write it, brings one to the disk, or makes, renames or removes a
name in it: a kill before each of them leaves every state that a folder can be in, as far as names
go. Python's own audit events tell them, so that the code that is tried knows nothing of it. What
libraries write by themselves is reached by kills at a time, and by disks that are really full
(`confined`).
"""

import contextlib
import errno
import itertools
import multiprocessing
import os
import random
import signal
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from unittest import mock

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_NAMES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate"}
_FULL = {errno.ENOSPC, errno.EDQUOT}
_LETS_GO = {"os.remove", "os.rmdir", "os.truncate"}
"""What a full disk still does"""
_SERVER = multiprocessing.get_context("forkserver") if hasattr(os, "fork") else None
_PRELOADED = ["tests.support.dying", "tests.support.warm"]
"""What a child finds done"""
KILLED = -signal.SIGKILL if hasattr(signal, "SIGKILL") else -9
PATIENCE = 900
"""seconds: a command of a child that takes longer hangs, and ends by SIGALRM"""


@dataclass(frozen=True)
class Trouble:
    """What happens at a moment of a command, in place of what it was about to do."""

    at: int
    """the moment, from 1"""
    error: int | None = None
    """what the system says (errno; of memory Python's own error); None kills the process"""
    stays: bool = False
    """at all later moments as well; but a full disk lets names go"""


@dataclass
class Life:
    """How a child ended."""

    code: int
    """its exit code; KILLED where it was killed"""
    told: list[int]
    """the moments that it saw, or what a function of its own sent"""
    printed: str


def run(
    arguments: list[object],
    folder: Path,
    trouble: Trouble | None = None,
    prepare: Callable[[Path], None] | None = None,
) -> Life:
    """Run a command on a data folder; without trouble to its end. prepare: what the child does
    with the folder first."""
    texts = [str(argument) for argument in arguments]
    return live(_command, folder, texts, trouble, prepare)


def live(
    function: Callable, folder: Path, *arguments: object, kill_after: int | None = None
) -> Life:
    """Run function(folder, connection, *arguments) in a child; what it sends are numbers.
    kill_after: how many of them are received before the child is killed, wherever it is by then."""
    assert _SERVER is not None
    _SERVER.set_forkserver_preload(_PRELOADED)
    printed = folder.with_name(f"{folder.name}-printed.txt")
    receiver, sender = _SERVER.Pipe(duplex=False)
    child = _SERVER.Process(target=_begin, args=(function, folder, sender, printed, arguments))
    with mock.patch.dict(sys.modules, {"__main__": ModuleType("__main__")}):
        child.start()  # which would run the main program anew; a page that was tried is one
    sender.close()
    told = []
    with contextlib.suppress(EOFError):
        while True:
            told.append(receiver.recv())
            if len(told) == kill_after:
                child.kill()
    child.join()
    assert child.exitcode is not None
    return Life(child.exitcode, told, printed.read_text(encoding="utf-8", errors="replace"))


def chosen(n_moments: int, n_kills: int, seed: int = 0) -> Iterator[int]:
    """Moments spread over all of them: one drawn from each of `n_kills` equal parts, or all."""
    draw = random.Random(seed)
    edges = [1 + round(part * n_moments / n_kills) for part in range(n_kills + 1)]
    for first, end in itertools.pairwise(edges):
        if first < end:
            yield draw.randrange(first, end)


def _begin(
    function: Callable, folder: Path, sender: Connection, printed: Path, arguments: tuple
) -> None:
    os.environ["ITDA_DATA"] = str(folder)
    output = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    code = function(folder, sender, *arguments)
    sys.stdout.flush()
    os._exit(code or 0)


class Moments:
    """Of a child: counts the moments from now on, and has the trouble come at its own."""

    def __init__(
        self,
        folder: Path,
        tell: Callable[[int], None] = lambda _number: None,
        others: Collection[str] = (),
    ):
        """tell: is told the number of each, from 1; others: audit events that are moments, too."""
        self._inside, self._tell, self._others = f"{folder}{os.sep}", tell, others
        self._is_full = False
        self.count, self.trouble = 0, None
        self.came = ""
        """at what the trouble has come"""
        sys.addaudithook(self._look)
        os.fsync = self._watched

    def begin(self, trouble: Trouble | None) -> None:
        """Count anew, with another trouble or none."""
        self.count, self.trouble, self._is_full, self.came = 0, trouble, False, ""

    def _look(self, event: str, told: tuple) -> None:
        if event in self._others or _is_moment(event, told, self._inside):
            self._come(event)

    def _watched(self, file: int) -> None:
        name = _name_of(file)
        if f"{name}{os.sep}".startswith(self._inside):
            self._come("os.fsync of a folder" if Path(name).is_dir() else "os.fsync")
        # No power is lost here: that nothing waits for the disk makes a try much shorter.

    def _come(self, name: str) -> None:
        self.count += 1
        self._tell(self.count)
        trouble = self.trouble
        if trouble is None or not (self.count == trouble.at or self._is_full):
            return
        self.came = self.came or name
        if trouble.error is None:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._is_full and trouble.error in _FULL and name in _LETS_GO:
            return
        self._is_full = trouble.stays
        if trouble.error == errno.ENOMEM:
            raise MemoryError
        raise OSError(trouble.error, os.strerror(trouble.error), self._inside)


def _name_of(file: int) -> str:
    """Of an open one, where the system tells it."""
    with contextlib.suppress(OSError):
        return str(Path(f"/proc/self/fd/{file}").readlink())
    return ""


def _command(
    folder: Path,
    sender: Connection,
    texts: list[str],
    trouble: Trouble | None,
    prepare: Callable[[Path], None] | None,
) -> int:
    from itda_core.cli.main import main

    signal.alarm(PATIENCE)
    if prepare:
        prepare(folder)
    Moments(folder, sender.send).begin(trouble)
    return main(texts)


def _named(event: str, told: tuple) -> str | os.PathLike:
    """The name that an event is about, which may be told by what is open."""
    if isinstance(told[0], int):
        return _name_of(told[0])
    if event in ("os.remove", "os.rmdir") and told[1] >= 0:
        return Path(_name_of(told[1])) / told[0]
    return told[0]


def _is_moment(event: str, told: tuple, inside: str) -> bool:
    if event == "open":
        path, mode, flags = told
        writes = bool(flags & _WRITES) if isinstance(flags, int) else False
        writes = writes or (isinstance(mode, str) and any(letter in mode for letter in "wax+"))
    elif event in _NAMES:
        path, writes = _named(event, told), True
    else:
        return False
    return writes and str(path).startswith(inside)
