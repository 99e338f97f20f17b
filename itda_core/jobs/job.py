"""A job: one command of the command line, its state, and what it is about."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import takewhile
from pathlib import Path
from typing import Any

from itda_core.digests import digest
from itda_core.errors import InputError

STATES = ("queued", "running", "done", "failed", "cancelled", "interrupted")
ANY = "any"
"""The device of a job that leaves it to the queue"""
_KINDS = {
    "train": "training",
    "move": "move",
    "evaluate": "evaluation",
    "probe": "probing",
    "map": "map",
    "score": "scoring",
    "measure": "comparison",
    "compare-latents": "comparison of latents",
}
"""Of jobs, by their command"""
_KINDS_OF = {
    str: (str,),
    float: (int, float),
    float | None: (int, float, type(None)),
    int | None: (int, type(None)),
    tuple[str, ...]: (tuple,),
}
"""What JSON has for a field's type"""
_LAST_SECOND = 253_402_300_799
"""Of the year 9999, after which there is no date"""
_RANGES = {
    **dict.fromkeys(("created", "started", "ended"), (0, _LAST_SECOND)),
    "pid": (1, 2**31 - 1),
    "memory": (0, 2**63 - 1),
}
"""Of a job's numbers; whatever else a file says would end in an error where it is used"""
_SHORT = ("map", "score")
"""Commands that take seconds"""


@dataclass(frozen=True)
class Job:
    """One command as the queue sees it."""

    job_id: str
    state: str
    """queued, running, done, failed, cancelled, or interrupted (the machine or app went down)"""
    title: str
    created: float
    """seconds since 1970, like `started` and `ended`"""
    started: float | None = None
    ended: float | None = None
    pid: int | None = None
    error: str = ""
    """why it failed, as a sentence"""
    command: str = "train"
    """of `python -m itda_core`; the first version knew trainings only and wrote none"""
    arguments: tuple[str, ...] = ()
    """its own; the folder of runs, progress, configuration and device come to them"""
    device: str = ANY
    """where it may run: on "any" device, one of a kind such as "cuda", or one such as "cuda:1" """
    place: str = ""
    """the device that it was given, at its last start; empty where the machine has but one, or it
    took the one that goes without saying"""
    memory: int | None = None
    """bytes that its model may use; None is what goes without saying"""
    ray: str = ""
    """address of the Ray cluster that it runs on; empty where this machine does"""
    then: tuple[str, ...] = ()
    """of a training: the commands that follow it, on what it has made"""
    folder: str = ""
    """its `mark` of the folder that it was queued in, or let run in; earlier versions wrote none"""

    @classmethod
    def from_dict(cls, said: Any) -> "Job":
        """What a job's file says. Raises InputError where it says something else than a job."""
        if not isinstance(said, dict):
            raise InputError("A job is a JSON object.")
        lists = {name: tuple(_words(said.get(name, []))) for name in ("arguments", "then")}
        said = {**said, **lists}
        kinds = {field.name: _KINDS_OF[field.type] for field in fields(cls)}
        unknown = set(said) - set(kinds)
        lacking = {"job_id", "state", "title", "created"} - set(said)
        if unknown or lacking:
            raise InputError(f"A job has no {', '.join(sorted(unknown | lacking))}.")
        words = [value for value in said.values() if isinstance(value, str)]
        if not all(_is_word(word) for word in [*words, *lists["arguments"], *lists["then"]]):
            raise InputError("A job has a word that no command line can have.")
        for name, value in said.items():
            is_kind = isinstance(value, kinds[name]) and not isinstance(value, bool)
            if not is_kind or not _is_in_range(name, value):
                raise InputError(f"{name} of a job can't be {value!r:.60}.")
        if said["state"] not in STATES:
            raise InputError(f"A job can't be {said['state']!r:.60}.")
        return cls(**said)

    def mark(self, folder: str, contents: Sequence[bytes]) -> str:
        """By what a folder knows again that it was queued there, or let run, to do just what it
        says: who may write to the folder, or had it once, can't give a mark to another command.
        folder: its `folder_mark`; contents: of the files that say what it does. "" where the
        folder has none."""
        what = [self.command, self.arguments, self.device, self.memory, self.ray, self.then]
        said = json.dumps([folder, *what, *map(len, contents)])
        return digest([said, *contents]) if folder else ""

    @property
    def is_short(self) -> bool:
        """Whether it takes seconds, and so goes ahead of those that take minutes."""
        return self.command in _SHORT

    @property
    def kind(self) -> str:
        """training, move, evaluation, probing, map, scoring, comparison, comparison of latents; of
        other commands their name."""
        return _KINDS.get(self.command, self.command)

    @property
    def run_ids(self) -> tuple[str, ...]:
        """The runs that the command is given; none of a training."""
        directories = takewhile(lambda argument: not argument.startswith("--"), self.arguments)
        return tuple(Path(directory).name for directory in directories)

    @property
    def where(self) -> str:
        """The device or cluster that it was given, in words; empty where it goes without saying."""
        if not self.ray:
            return self.place
        return "this machine's Ray cluster" if self.ray == "auto" else f"the Ray cluster {self.ray}"

    @property
    def measures(self) -> tuple[str, ...]:
        """By which measures a comparison compares its runs; none of other jobs."""
        if "--measures" not in self.arguments:
            return ()
        return tuple(self.arguments[self.arguments.index("--measures") + 1].split(","))

    @property
    def is_active(self) -> bool:
        return self.state in ("queued", "running")

    @property
    def keeps_checkpoints(self) -> bool:
        """Whether it goes on where it stopped; other commands begin anew."""
        return self.kind in ("training", "move")


def _is_in_range(name: str, value: Any) -> bool:
    """Of a number, which may be none; what is no number has no range."""
    least, most = _RANGES.get(name, (None, None))
    return least is None or value is None or least <= value <= most


def _is_word(word: str) -> bool:
    """Whether a command line can have it: no lone surrogate, and no NUL."""
    return "\0" not in word and word.encode("utf-8", "ignore").decode() == word


def _words(said: Any) -> list[str]:
    if not isinstance(said, list) or not all(isinstance(word, str) for word in said):
        raise InputError("The arguments of a job are a list of words.")
    return said
