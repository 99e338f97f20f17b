"""The workers of a training on a cluster: what each does, and what becomes of those that are lost.

Ray's own queues would do for calls that are alike. Here a call that failed for want of disk has to
go to another machine, a model that is read block by block takes its whole share in one call, and a
machine that is lost leaves its calls to the others: so each worker is an actor, and the calls are
given out here.
"""

import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from itda_core.cluster.connection import Shared, Size
from itda_core.cluster.machine import check_packages, environment, packages
from itda_core.cluster.messages import Arrival, Failure, Greeting, Orders
from itda_core.cluster.worker import Worker
from itda_core.errors import InputError, ItdaError, first_line

_TICK = 0.5
"""Seconds, at most, until it is told that nothing has happened"""
_ATTEMPTS = 3
"""How often a call is made, where the worker or its disk fails"""
_MOST_SILENT = 600
"""Ticks without a worker that is ready, once there was one, until it is given up"""
_ROOM_SECONDS = 30.0
"""A worker that the cluster has not started by then is told to wait for room"""
_GREET = "greet"


@dataclass(eq=False)
class Call:
    """A method of a worker, and its arguments."""

    method: str
    arguments: tuple = field(repr=False)
    failed: int = 0


@dataclass(eq=False)
class _Member:
    """A worker, and the calls that it has been given, the one under way first."""

    actor: Any
    calls: deque[tuple[Call, Any]] = field(default_factory=deque)
    """with the stream of what each gives"""
    machine: str = ""
    """where it is; nothing before its model is there"""
    started: float = field(default_factory=time.monotonic)
    has_room: bool = False
    """whether its process runs"""

    @property
    def undone(self) -> list[Call]:
        """What another has to do in its place, the newest first."""
        return [call for call, _ in reversed(self.calls) if call.method != _GREET]

    def give(self, call: Call) -> None:
        streaming = self.actor.work.options(num_returns="streaming")
        self.calls.append((call, streaming.remote(call.method, call.arguments)))


class Pool:
    """Workers on the machines of a cluster."""

    def __init__(self, ray: ModuleType, orders: Orders, size: Size):
        self._ray, self._orders, self._size = ray, orders, size
        self._members: list[_Member] = []
        self._first: Greeting | None = None
        self._silent = 0
        self.lost: Counter[str] = Counter()
        """How often a worker of each machine was lost"""
        self.notes: list[str] = []
        """What a person has to know of the machines, a sentence each"""

    @property
    def machines(self) -> Counter[str]:
        """How many workers are ready on each machine."""
        return Counter(member.machine for member in self._members if member.machine)

    @property
    def workers(self) -> int:
        """How many there are to be."""
        return self._size.workers

    @property
    def without_room(self) -> list[str]:
        """A sentence, where workers wait for long until the cluster has room for them."""
        latest = time.monotonic() - _ROOM_SECONDS
        count = sum(not one.has_room and one.started < latest for one in self._members)
        if not count:
            return []
        return [
            f"The cluster has no room yet for {count} of {len(self._members)} workers of "
            f"{self._size.in_words} each: other work holds it (ray status), or a machine is gone. "
            "They begin when there is room."
        ]

    def enlist(self, orders: Orders, count: int | None = None) -> None:
        """Start workers until there are `count`, by default all. orders: for those to come."""
        self._orders = orders
        for _ in range(len(self._members), self._size.workers if count is None else count):
            self._start()

    def _start(self) -> None:
        options = {**self._size.resources, "max_restarts": 0, "scheduling_strategy": "SPREAD"}
        options["runtime_env"] = {"env_vars": environment()}
        member = _Member(self._ray.remote(Worker).options(**options).remote(self._orders))
        member.give(Call(_GREET, ()))
        self._members.append(member)

    def share(self, what: Any) -> Shared:
        """Put something into the cluster's memory once, for all calls."""
        return Shared(self._ray.put(what))

    def run(self, calls: Iterable[Call], ahead: int = 1) -> Iterator[tuple[Call, Any] | None]:
        """Do calls, in the order in which workers are free: each with what it yields, one by one;
        None now and then while nothing comes. A call of a worker that is lost is made again by
        another.

        ahead: calls given to a worker at a time, so that it need not wait for the next one. Raises
        ItdaError with what a call said, or with why no worker is left.
        """
        waiting, coming = deque(), iter(calls)
        while True:
            self._hand_out(waiting, coming, ahead)
            if not waiting and not self._is_busy():
                return
            yield from self._heard(waiting)

    def _is_busy(self) -> bool:
        return any(call.method != _GREET for member in self._members for call, _ in member.calls)

    def _hand_out(self, waiting: deque[Call], coming: Iterator[Call], ahead: int) -> None:
        """To the ready workers in turn, those with the fewest calls first."""
        while ready := [m for m in self._members if m.machine and len(m.calls) < ahead]:
            call = waiting.popleft() if waiting else next(coming, None)
            if call is None:
                return
            min(ready, key=lambda member: len(member.calls)).give(call)
        if not waiting and (call := next(coming, None)) is not None:
            waiting.append(call)  # so that it is known that there is more to do

    def _heard(self, waiting: deque[Call]) -> Iterator[tuple[Call, Any] | None]:
        """What comes next of the calls under way."""
        self._check_alive()
        streams = {member.calls[0][1]: member for member in self._members if member.calls}
        ready, _ = self._ray.wait(list(streams), timeout=_TICK)
        if not ready:
            yield None
        for stream in ready:
            member = streams[stream]
            call = member.calls[0][0]
            try:
                event = self._ray.get(next(stream))
            except StopIteration:
                member.calls.popleft()
                continue
            except self._ray.exceptions.RayTaskError as error:
                raise _own_error(error) from error
            except self._ray.exceptions.RayError as error:
                self._lose(member, waiting, error)
                continue
            if isinstance(event, Failure):
                self._dismiss(member, call, event, waiting)
            elif isinstance(event, Arrival):
                member.has_room = True
            elif isinstance(event, Greeting):
                self._welcome(member, event)
            else:
                yield call, event

    def _check_alive(self) -> None:
        """Raises ItdaError where workers are gone and none has come for long."""
        if not self._members:
            raise ItdaError("No machine of the cluster is left to work." + self._stays)
        is_gone = self._first is not None and not self.machines
        self._silent = self._silent + 1 if is_gone else 0
        if self._silent > _MOST_SILENT:
            raise ItdaError("No machine of the cluster has been there for minutes." + self._stays)

    _stays = " What is written stays: start the training again when there are machines."

    def _welcome(self, member: _Member, greeting: Greeting) -> None:
        """Raises InputError where a worker would compute other numbers than the first."""
        self._first = self._first or greeting
        _check_same(greeting, self._first)
        member.machine = greeting.machine

    def _lose(self, member: _Member, waiting: deque[Call], error: Exception) -> None:
        """A worker that has ended, or can't be reached: others make its calls again."""
        machine = member.machine or "one that was starting"
        self.lost[machine] += 1
        self._remove(member)
        waiting.extendleft(member.undone)
        first = member.calls[0][0]
        first.failed += 1
        if first.failed >= _ATTEMPTS or self.lost[machine] > _ATTEMPTS * self.workers:
            raise ItdaError(
                f"Workers end while they do the same work, the last one on the machine {machine}: "
                f"{first_line(error)} Memory may be full there.{self._stays}"
            ) from error
        self.notes.append(
            f"A worker on the machine {machine} was lost. Others make again what it had not "
            "written."
        )
        self._start()

    def _dismiss(self, member: _Member, call: Call, failure: Failure, waiting: deque[Call]) -> None:
        """A worker whose disk is full gets no more to do; raises what else a call said."""
        kind = InputError if failure.is_input else ItdaError
        if not failure.is_disk:
            raise kind(f"The machine {failure.machine} says: {failure.sentence}")
        call.failed += 1
        self._remove(member)
        waiting.extendleft(member.undone)
        if call.failed >= _ATTEMPTS or not self._members:
            raise ItdaError(
                f"{failure.sentence} (on the machine {failure.machine}). What is written stays: "
                "free some space, and start the training again."
            )
        self.notes.append(f"The machine {failure.machine} works no more: {failure.sentence}.")

    def _remove(self, member: _Member) -> None:
        self._members.remove(member)
        self._ray.kill(member.actor)

    def close(self) -> None:
        """End all workers, whatever they do."""
        for member in [*self._members]:
            self._remove(member)


def _own_error(error: Exception) -> Exception:
    """What a worker raised, as this process would have raised it."""
    if "No module named 'itda_core" in str(error):  # or, of an earlier version, a part of it
        return InputError(
            "A machine of the cluster has no itda-explorer, or another version. Install the "
            'same on all: pip install "itda-explorer[ray]"'
        )
    return error.as_instanceof_cause()


def _check_same(greeting: Greeting, first: Greeting) -> None:
    """Raises InputError where a worker's numbers could be others than those of the first."""
    check_packages(greeting.machine, greeting.packages, packages())
    same_model = (greeting.identity, greeting.tokenizer) == (first.identity, first.tokenizer)
    if not same_model:
        raise InputError(
            f"The model on the machine {greeting.machine} is another one ({greeting.identity}) "
            f"than on {first.machine} ({first.identity}). Put the same files on all machines."
        )
    if greeting.is_swept != first.is_swept:
        by_block, whole = (greeting, first) if greeting.is_swept else (first, greeting)
        raise InputError(
            f"The machine {by_block.machine} has to read the model block by block, and "
            f"{whole.machine} loads it. Say with --memory what it may use on each."
        )
    if greeting.device_type != first.device_type:
        raise InputError(
            f"The machine {greeting.machine} computes on {greeting.device_type}, {first.machine} "
            f"on {first.device_type}. Set ITDA_DEVICE to the same on all machines."
        )
