"""How far the trainings of a list are, each by itself and all together."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from itda_core.progress import Progress
from itda_core.training.training_list import ListedTraining

_TOLD_FROM = 0.02
"""Before so much is done, nothing is said of how long the rest takes"""


@dataclass
class _Row:
    training: ListedTraining
    state: str = "waiting"
    """waiting, running, done, failed"""
    where: str = ""
    """the machine, on a cluster"""
    progress: dict[str, Any] = field(default_factory=dict)
    """the newest line of its own progress"""
    error: str = ""

    @property
    def fraction(self) -> float:
        return 1.0 if self.state in ("done", "failed") else self.progress.get("fraction", 0.0)

    def to_dict(self) -> dict[str, Any]:
        return {
            "number": self.training.number,
            "title": self.training.title,
            "state": self.state,
            "where": self.where,
            "fraction": self.fraction,
            "stage": self.progress.get("stage", ""),
            "error": self.error,
        }


def failure_told(number: int, title: str, error: str) -> str:
    """A training that failed, in a line."""
    return f"Training {number} ({title}) failed: {error}"


class Standing:
    """The trainings of a list: which wait, run, are done or failed, and how far they are."""

    def __init__(self, trainings: Sequence[ListedTraining]):
        self._rows = {one.number: _Row(one) for one in trainings}
        self._started = time.monotonic()
        self._failed_before = 0.0
        """Share of the list that failed before any training began, in no time"""
        self._notes: list[str] = []

    def begins(self, number: int, where: str = "") -> None:
        row = self._rows[number]
        row.state, row.where = "running", where

    def waits(self, number: int) -> None:
        """It has lost its place, and begins again where there is another."""
        self._rows[number].state = "waiting"

    def follows(self, number: int, line: dict[str, Any]) -> None:
        """line: of its own progress."""
        self._rows[number].progress = line

    def ends(self, number: int, finished: Sequence[str], notes: Sequence[str] = ()) -> None:
        """finished: the ids of its runs, which are all written."""
        row = self._rows[number]
        row.state, row.progress = "done", {**row.progress, "finished": [*finished]}
        self._notes += [note for note in notes if note not in self._notes]

    def fails(self, number: int, error: str, is_told: bool = False) -> None:
        """is_told: whether it fails before any begins, which is said at once and not at the end
        alone."""
        row = self._rows[number]
        row.state, row.error = "failed", error
        if is_told:
            self._failed_before += 1 / len(self._rows)
            self._notes.append(failure_told(number, row.training.title, error))

    @property
    def _fraction(self) -> float:
        """Of the whole list, in [0, 1]."""
        return sum(row.fraction for row in self._rows.values()) / len(self._rows)

    @property
    def is_over(self) -> bool:
        return all(row.state in ("done", "failed") for row in self._rows.values())

    def progress(self, stage: str = "training") -> Progress:
        """Of all together. The last one has the stage done where none failed."""
        rows = [*self._rows.values()]
        count = Counter(row.state for row in rows)
        fraction = self._fraction
        running = [row.progress for row in rows if row.state == "running"]
        is_done = count["done"] == len(rows)
        return Progress(
            "done" if is_done else stage,
            tokens=sum(row.progress.get("tokens", 0) for row in rows),
            tokens_per_second=sum(line.get("tokens_per_second", 0.0) for line in running),
            fraction=1.0 if is_done else fraction,
            seconds_left=0.0 if self.is_over else self._seconds_left(fraction),
            notes=[*self._notes],
            finished=[name for row in rows for name in row.progress.get("finished", ())],
            trainings=[row.to_dict() for row in rows],
        )

    def _seconds_left(self, fraction: float) -> float | None:
        done = fraction - self._failed_before
        if done < _TOLD_FROM:
            return None
        return (time.monotonic() - self._started) / done * (1 - fraction)
