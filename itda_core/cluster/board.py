"""Where the trainings of a list tell how far they are, and hear that they are to stop: an actor
beside the command that started them."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Attempt:
    """One time that a training was begun."""

    node: str
    """Ray's name of the machine"""
    process: str
    """as the holder of a training is called"""


@dataclass
class _Place:
    attempts: list[Attempt] = field(default_factory=list)
    line: dict[str, Any] = field(default_factory=dict)


class Board:
    """Of one list; each training has a number."""

    def __init__(self) -> None:
        self._places: dict[int, _Place] = {}
        self._is_stopped = False

    def begin(self, number: int, node: str, process: str) -> list[Attempt]:
        """A training begins; the times that it was begun before."""
        place = self._places.setdefault(number, _Place())
        before = [*place.attempts]
        place.attempts.append(Attempt(node, process))
        return before

    def follow(self, number: int, line: dict[str, Any]) -> bool:
        """line: of the training's progress. Whether it is to stop."""
        self._places.setdefault(number, _Place()).line = line
        return self._is_stopped

    def is_stopped(self) -> bool:
        return self._is_stopped

    def stop(self) -> None:
        """Every training is to stop where its state is whole."""
        self._is_stopped = True

    def look(self) -> dict[int, tuple[Attempt, dict[str, Any]]]:
        """Of each that was begun: where it was begun last, and its newest line."""
        return {
            number: (place.attempts[-1], place.line)
            for number, place in self._places.items()
            if place.attempts
        }
