"""How far a pass over many texts is, and what it has given; and passes that are begun anew with
fewer texts at once where memory was full."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import Generic, TypeVar

from itda_core.devices import FULL_MEMORY, free_cached_memory, what_was_full
from itda_core.errors import FullMemory

Value = TypeVar("Value")
Item = TypeVar("Item", bound=Sized)


@dataclass(frozen=True)
class Step(Generic[Value]):
    """One step of a pass over several batches of texts.

    A model in memory gives the values of one batch after another. One that is read block by block
    takes all batches through a block before it reads the next, and tells in between how far it is.
    """

    fraction: float
    """of the work of the whole call that is done, in [0, 1]"""
    number: int | None = None
    """of the batch or stream whose value this is; None where there is only progress"""
    value: Value | None = None


def last_value(steps: Iterable[Step[Value]]) -> Value:
    """The value of the last step of a pass, which is its result."""
    *_, last = steps
    return last.value


def in_halves(
    run: Callable[[Iterator[Item]], Iterator[Step[Value]]],
    items: Iterable[Item],
    halved: Callable[[Item], Sequence[Item]],
    say: Callable[[Item], str],
) -> Iterator[Step[tuple[Item, Value]]]:
    """One pass over items, whose steps have one value for each item, in their order.

    run: takes items one after another as their turn comes, or all of them at once. Where memory is
    full, it is begun anew with the items whose value is not there, those of more texts (`len`) than
    half of the largest one's halved, and later ones as small. Raises FullMemory with what `say`
    makes of an item where even one text does not fit. What goes wrong while the items themselves
    are made is raised on.
    """
    pending, reached, number = _Pending(items, halved), 0.0, 0
    while True:
        before = reached
        try:
            for step in run(pending.take()):
                reached = before + (1 - before) * step.fraction
                if step.number is None:
                    yield Step(reached)
                    continue
                yield Step(reached, number, (pending.waiting.popleft(), step.value))
                number += 1
            return
        except FULL_MEMORY as error:
            if pending.is_broken:
                raise
            full = what_was_full(error)
        pending.make_smaller(say, full)
        free_cached_memory()


class _Pending(Generic[Item]):
    """Items that a pass has taken and given no value for, and those that it has not taken."""

    def __init__(self, items: Iterable[Item], halved: Callable[[Item], Sequence[Item]]):
        self.waiting: deque[Item] = deque()
        self.is_broken = False
        """Whether an item could not be made: no pass can go on after that"""
        self._items, self._halved = iter(items), halved
        self._most: int | None = None
        """Texts that an item may have"""

    def take(self) -> Iterator[Item]:
        """Those without a value, then the others."""
        yield from tuple(self.waiting)
        while (item := self._next()) is not None:
            parts = self._small(item)
            self.waiting.extend(parts)
            yield from parts

    def make_smaller(self, say: Callable[[Item], str], full: str) -> None:
        """Raises FullMemory where the largest item can't be halved."""
        largest = max(self.waiting, key=len, default=None)
        if largest is None or len(largest) < 2:
            raise FullMemory(f"{say(largest)} ({full})" if largest else full)
        self._most = len(largest) // 2
        self.waiting = deque(part for item in self.waiting for part in self._small(item))

    def _next(self) -> Item | None:
        try:
            return next(self._items, None)
        except BaseException:
            self.is_broken = True
            raise

    def _small(self, item: Item) -> list[Item]:
        if self._most is None or len(item) <= self._most:
            return [item]
        return [part for half in self._halved(item) for part in self._small(half)]
