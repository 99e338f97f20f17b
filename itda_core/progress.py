"""How far long work is: one Progress for trainings, imports, evaluations, probings, maps and
comparisons, so that one reader follows all of them."""

import dataclasses
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from itda_core.files.json_files import parse_json

MIN_FRACTION = 0.06
"""Of the work, before which nothing is said of how long the rest takes: the first of 16 windows of
a training"""
_NUMBER, _MAYBE = (int, float), type(None)
_LINE = {
    "stage": str, "training_id": str, "run_id": str, "layer": (int, _MAYBE), "block": (int, _MAYBE),
    "tokens": int, "total_tokens": int, "asked_tokens": int, "tokens_per_second": _NUMBER,
    "fraction": _NUMBER, "seconds_left": (*_NUMBER, _MAYBE), "atoms": dict, "max_atoms": int,
    "mean_error": dict, "skipped": dict, "finished": list, "trainings": list, "states": dict,
    "time": str,
}  # fmt: skip
"""What a line of a progress file says, and of which kind"""
_INSIDE = {
    "atoms": _NUMBER, "mean_error": (*_NUMBER, _MAYBE), "skipped": int, "states": int,
    "finished": str, "trainings": dict,
}  # fmt: skip
"""Of which kind is what they hold"""
_ROW = {"title": str, "state": str, "where": str, "fraction": _NUMBER}
"""Of a row of `trainings`, what pages ask for"""
PREPARING = ("loading", "opening", "reading", "compiling", "checking")
"""Stages before the work that a rate or the time that is left is told of"""
MAX_ROWS = 20
"""Trainings of a list, and runs that it has finished, that a line names before the last one"""


@dataclass
class Progress:
    """How far some work is; the last one has its results."""

    stage: str
    """loading (of a model) or opening (of a folder of activations), reading, compiling (of the
    pursuit), checking (of what an interrupted training has kept), what is done then, or done"""
    training_id: str = ""
    run_id: str = ""
    """the run whose turn it is"""
    layer: int | None = None
    """whose atoms are chosen or tokens encoded, where it is one layer's turn"""
    block: int | None = None
    """through which all texts go, where a model is read block by block"""
    tokens: int = 0
    """read or measured so far: per layer, of this run"""
    total_tokens: int = 0
    asked_tokens: int = 0
    """that the settings ask for, where there are fewer; else 0"""
    tokens_per_second: float = 0.0
    fraction: float = 0.0
    """of the whole work, in [0, 1]"""
    seconds_left: float | None = None
    atoms: dict[int, int] = field(default_factory=dict)
    """by layer"""
    max_atoms: int = 0
    mean_error: dict[int, float] = field(default_factory=dict)
    """by layer: mean ‖x/‖x‖ − x̂/‖x̂‖‖² of the newest step"""
    skipped: dict[str, int] = field(default_factory=dict)
    """what was left out, and how often"""
    notes: list[str] = field(default_factory=list)
    """sentences on what was left out, for the command line to say once"""
    finished: list[str] = field(default_factory=list)
    """ids of the runs that are written"""
    results: list[dict[str, Any]] = field(default_factory=list)
    """of what is measured, each as it is saved and printed"""
    trainings: list[dict[str, Any]] = field(default_factory=list)
    """of a list: a row each with number, title, state, where, fraction, stage and error"""

    def follow(self, done: float, before: float, share: float, seconds: float) -> None:
        """Take over how far a part of the work is.

        done: of this part; before: of the whole, what was done before it; share: its own part of
        the whole; all in [0, 1]. seconds: what it has taken so far. The parts that follow are
        taken to need as long.
        """
        self.fraction = min(1.0, before + share * done)  # thirds add up to a little more than one
        if done > 0:
            self.seconds_left = seconds / done * (1 - self.fraction) / share

    @property
    def likely_seconds_left(self) -> float | None:
        """`seconds_left`, once enough is done to tell: what comes first takes longer."""
        return self.seconds_left if self.fraction >= MIN_FRACTION else None

    def finish(self) -> None:
        """Everything is done."""
        self.stage, self.fraction, self.seconds_left = "done", 1.0, 0.0
        self.layer = self.block = None
        self.tokens_per_second = 0.0

    def to_dict(self) -> dict[str, Any]:
        """A line of a progress file: everything but the notes and results; where there is a list of
        trainings how many have which state as `states`, and of a long one those that run, then
        those that failed."""
        line = dataclasses.asdict(dataclasses.replace(self, results=[], trainings=[]))
        del line["results"], line["notes"], line["trainings"]
        if self.trainings:
            line["states"] = dict(Counter(row["state"] for row in self.trainings))
            line["trainings"] = self._told_rows()
            line["finished"] = self.finished if self.stage == "done" else self.finished[-MAX_ROWS:]
        return line

    @classmethod
    def read_line(cls, line: bytes) -> dict[str, Any] | None:
        """What a line of a progress file says, with what it leaves out as it is at first; None
        where it is none, such as one that is half written."""
        try:
            said = parse_json(line)
        except ValueError:
            return None
        if not isinstance(said, dict) or "stage" not in said:
            return None
        known = {name: value for name, value in said.items() if name in _LINE}
        if not all(_is_kind(value, _LINE[name]) for name, value in known.items()):
            return None
        whole = {**cls("").to_dict(), **known}
        return whole if _is_sound(whole) else None

    def _told_rows(self) -> list[dict[str, Any]]:
        """As many as a file can take twice a second for days."""
        if len(self.trainings) <= MAX_ROWS:
            return [*self.trainings]
        first = ("running", "failed", "waiting", "done")
        return sorted(self.trainings, key=lambda row: first.index(row["state"]))[:MAX_ROWS]


def _is_sound(line: dict[str, Any]) -> bool:
    """Whether what a line holds inside can be shown, too."""
    for name, kind in _INSIDE.items():
        inside = line.get(name, [])
        values = inside.values() if isinstance(inside, dict) else inside
        if not all(isinstance(value, kind) and not isinstance(value, bool) for value in values):
            return False
    rows = line.get("trainings", [])
    is_whole = all(_is_kind(row.get(name), kind) for row in rows for name, kind in _ROW.items())
    return is_whole and 0 <= line["fraction"] <= 1


def _is_kind(value: Any, kind: type | tuple[type, ...]) -> bool:
    """A number that is none, or not finite, would end in an error where it is shown."""
    if isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value)):
        return False
    return isinstance(value, kind)
