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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_NAMES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate"}
_FULL = {errno.ENOSPC, errno.EDQUOT}
_LETS_GO = {"os.remove", "os.rmdir", "os.truncate"}
"""What a full disk still does"""
_SERVER = multiprocessing.get_context("forkserver") if hasattr(os, "fork") else None
_PRELOADED = ["tests.support.dying", "tests.support.warm"]
"""What a child finds done"""
KILLED = -signal.SIGKILL if hasattr(signal, "SIGKILL") else -9


@dataclass(frozen=True)
class Trouble:
    """What happens at a moment of a command, in place of what it was about to do."""

    at: int
    """the moment, from 1"""
    error: int | None = None
    """what the system says (errno); None kills the process"""
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
    child.start()
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


def watch_moments(folder: Path, sender: Connection, trouble: Trouble | None) -> None:
    """Of a child: send the number of each moment from now on, with the trouble at its own."""
    inside, moments, is_full = f"{folder}{os.sep}", 0, False

    def come(name: str) -> None:
        nonlocal moments, is_full
        moments += 1
        sender.send(moments)
        if trouble is None or not (moments == trouble.at or is_full):
            return
        if trouble.error is None:
            os.kill(os.getpid(), signal.SIGKILL)
        if is_full and trouble.error in _FULL and name in _LETS_GO:
            return
        is_full = trouble.stays
        raise OSError(trouble.error, os.strerror(trouble.error), inside)

    sys.addaudithook(lambda event, told: come(event) if _is_moment(event, told, inside) else None)
    sync = os.fsync

    def watched(file: int) -> None:
        if _name_of(file).startswith(inside):
            come("os.fsync")
        sync(file)

    os.fsync = watched


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

    if prepare:
        prepare(folder)
    watch_moments(folder, sender, trouble)
    return main(texts)


def _is_moment(event: str, told: tuple, inside: str) -> bool:
    if event == "open":
        path, mode, flags = told
        writes = bool(flags & _WRITES) if isinstance(flags, int) else False
        writes = writes or (isinstance(mode, str) and any(letter in mode for letter in "wax+"))
    elif event in _NAMES:
        path, writes = told[0], True
    else:
        return False
    return writes and str(path).startswith(inside)
