"""Commands that are killed at a chosen moment.

A command runs in a child that is forked from a server with everything imported, so that a try takes
the time of the work alone. The moments are the times at which Python opens a file of the data
folder to write it, or makes, renames or removes a name in it: a kill before each of them leaves
every state that a folder can be in, as far as names go. Python's own audit events tell them, so
that the code that is tried knows nothing of it. What libraries write by themselves is reached by
kills at a time.
"""

import contextlib
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
_SERVER = multiprocessing.get_context("forkserver") if hasattr(os, "fork") else None
_PRELOADED = [
    "tests.support.dying", "itda_core.cli.commands", "itda_core.cli.measure",
    "itda_core.cli.latents", "itda_core.cli.exchange", "itda_core.training.moving",
    "itda_core.store.store",
    "sklearn.linear_model", "transformers.models.llama.modeling_llama",
]  # fmt: skip
"""What a child finds imported"""
KILLED = -signal.SIGKILL if hasattr(signal, "SIGKILL") else -9


@dataclass
class Life:
    """How a child ended."""

    code: int
    """its exit code; KILLED where it was killed"""
    told: list[int]
    """the moments that it saw, or what a function of its own sent"""
    printed: str


def run(arguments: list[object], folder: Path, kill_at: int | None = None) -> Life:
    """Run a command on a data folder. kill_at: the moment, from 1, at which it is killed; None to
    let it end."""
    texts = [str(argument) for argument in arguments]
    return live(_command, folder, texts, kill_at)


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
    import numba
    import torch

    os.environ["ITDA_DATA"] = str(folder)
    output = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    torch.set_num_threads(1)  # tests run side by side
    numba.set_num_threads(1)
    code = function(folder, sender, *arguments)
    sys.stdout.flush()
    os._exit(code or 0)


def _command(folder: Path, sender: Connection, texts: list[str], kill_at: int | None) -> int:
    from itda_core.cli.main import main

    inside, moments = f"{folder}{os.sep}", 0

    def look(event: str, told: tuple) -> None:
        nonlocal moments
        if not _is_moment(event, told, inside):
            return
        moments += 1
        sender.send(moments)
        if moments == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)
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
