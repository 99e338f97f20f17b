"""Which device a job gets: one that it may run on, with no other job on it."""

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from itda_core.jobs.job import ANY, Job
from itda_core.model.process_lock import PROCESS_LOCK


@dataclass(frozen=True)
class Places:
    """The devices of this machine, by their names."""

    names: tuple[str, ...] = ("cpu",)
    """the fastest kind first, the CPU last"""
    setting: str = ""
    """the device that computes where nothing is said; empty where that is the fastest kind"""

    @property
    def usual(self) -> tuple[str, ...]:
        """Those for jobs that name none: the one that is set, else all of the fastest kind."""
        if self.setting:
            return (self.setting,)
        return tuple(name for name in self.names if _kind(name) == _kind(self.names[0]))

    def of(self, job: Job) -> str:
        """Where a job runs that has been started."""
        return job.place or self.usual[0]

    def allowed(self, job: Job) -> tuple[str, ...]:
        """Where a job may run. One that ran before may run anywhere once its kind of device is
        gone; none where what it names was never there."""
        if job.device == ANY:
            return self.usual
        found = tuple(name for name in self.names if job.device in (name, _kind(name)))
        return found or (self.usual if job.place else ())

    def free(self, job: Job, busy: Collection[str], memory: Callable[[str], int]) -> str | None:
        """Where a job can run now: where it ran before, else where most memory is free. None where
        it has to wait. busy: devices with a job on them; memory: bytes that are free on one."""
        open_now = [name for name in self.allowed(job) if name not in busy]
        if job.place in open_now:
            return job.place
        return max(open_now, key=memory) if len(open_now) > 1 else next(iter(open_now), None)

    def missing(self, job: Job) -> str:
        """What to say of a job that may run nowhere."""
        return f"There is no device {job.device!r} here. There is: {', '.join(self.names)}."


def again(job: Job) -> Job:
    """A job to be queued once more: on its device if that is free, else on another of the same
    kind, which computes the same numbers."""
    return replace(job, device=_kind(job.place)) if job.place else job


def places_here() -> Places:
    """The devices of this machine; imports torch."""
    with PROCESS_LOCK:
        from itda_core.devices import device_names, numbered

        return Places(tuple(device_names()), numbered(os.environ.get("ITDA_DEVICE", "")))


def free_bytes(name: str) -> int:
    """What is free on a device; 0 where it does not say."""
    from itda_core.devices import described

    try:
        return described(name).free
    except RuntimeError:
        return 0


def _kind(name: str) -> str:
    """cpu, cuda, mps … (devices.py says the same, and imports torch)"""
    return name.partition(":")[0]
