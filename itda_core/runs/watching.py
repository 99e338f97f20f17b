"""The digests of all runs, compared in the background while the explorer is open."""

import logging
import os
import threading
from pathlib import Path

from itda_core.events import tell, tell_error
from itda_core.runs.checks import by_digests
from itda_core.sealed import DIGESTS_FILE

_FIRST_SECONDS = 20.0
"""Until the first run is read, so that the first pages have the disk for themselves"""
_BETWEEN_SECONDS = 1.0
_IDLE_SECONDS = 60.0
Stamp = list[tuple[str, int, int]]
"""Name, size and time of each file of a run"""


class DigestWatch:
    """Compares the files of one run after another with their digests; a run whose files have kept
    their sizes and times is not read again."""

    def __init__(self, runs: Path):
        self._runs = runs
        self._seen: dict[str, Stamp] = {}
        self._found: dict[str, list[str]] = {}
        self._closed = threading.Event()

    @property
    def found(self) -> list[str]:
        """What is wrong with the files of runs, a sentence each."""
        return [said for _, told in sorted(self._found.items()) for said in told]

    def start(self) -> None:
        """Look at all runs, again and again, in a thread that ends with the process."""
        threading.Thread(target=self._watch, name="digests", daemon=True).start()

    def close(self) -> None:
        self._closed.set()

    def step(self) -> bool:
        """Look at the next run that is new or has changed; false where there is none."""
        there = {name: _stamp(self._runs / name) for name in _names(self._runs)}
        for name in self._seen.keys() - there.keys():
            del self._seen[name]
            self._found.pop(name, None)
        changed = [name for name, stamp in there.items() if self._seen.get(name) != stamp]
        if not changed:
            return False
        [name, *_] = changed
        self._found[name] = [str(error) for error in by_digests(self._runs / name)]
        self._seen[name] = there[name]
        if self._found[name]:
            tell("run-damaged", logging.WARNING, run=name, faults=len(self._found[name]))
        return True

    def _watch(self) -> None:
        seconds = _FIRST_SECONDS
        while not self._closed.wait(seconds):
            try:
                seconds = _BETWEEN_SECONDS if self.step() else _IDLE_SECONDS
            except OSError:  # the folder may be away for a while
                seconds = _IDLE_SECONDS
            except Exception as error:  # whatever one run holds, the others are looked after
                tell_error("watch-failed", error)
                seconds = _IDLE_SECONDS


def _names(runs: Path) -> list[str]:
    """The runs that have digests."""
    if not runs.is_dir():
        return []
    return sorted(path.parent.name for path in runs.glob(f"[!.]*/{DIGESTS_FILE}"))


def _stamp(directory: Path) -> Stamp:
    try:
        with os.scandir(directory) as entries:
            files = [(one.name, one.stat()) for one in entries if not one.name.startswith(".")]
    except OSError:  # it went meanwhile, or can't be looked into, which its check tells
        return []
    return sorted((name, status.st_size, status.st_mtime_ns) for name, status in files)
