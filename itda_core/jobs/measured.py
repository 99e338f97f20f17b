"""What jobs took on this machine, from which the next ones are estimated."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import islice
from pathlib import Path
from statistics import median

from itda_core.files.json_files import newest_lines
from itda_core.jobs.job import Job
from itda_core.jobs.process import PROGRESS_FILE
from itda_core.progress import PREPARING, Progress

NEWEST = 5
"""Jobs that are measured by, the newest: what a machine does beside changes"""
_MIN_WORK_SECONDS = 2.0
"""What took less says nothing of a rate"""
_MAX_FIRST_SHARE = 0.25
"""Of a training's tokens: where the first line tells of more, it went on from a checkpoint"""
_FIRST_LINES = 200


@dataclass(frozen=True)
class Measured:
    """What a job took, in seconds."""

    start: float
    """until its work began: process, imports, model, corpus"""
    work: float
    """the rest"""
    tokens: int = 0
    """that a training has read; 0 of other jobs"""


@lru_cache(4_096)
def measured(job: Job, folder: Path) -> Measured | None:
    """What a job took; None where that can't be told: it is not done, an earlier version ran it,
    it went on from a checkpoint, or it was over at once. folder: of the job, with its progress.

    Known once asked for: a page asks of all jobs each time it is drawn, and what is done stays.
    """
    if job.state != "done" or job.started is None:
        return None
    try:
        with (folder / PROGRESS_FILE).open("rb") as file:
            lines = filter(None, map(Progress.read_line, islice(file, _FIRST_LINES)))
            first = next((line for line in lines if line["stage"] not in PREPARING), None)
        last = Progress.read_line(newest_lines(folder / PROGRESS_FILE)[-1])
        if first is None or last is None:
            return None
        began, ended = (datetime.fromisoformat(line["time"]).timestamp() for line in (first, last))
    except (OSError, ValueError, KeyError, IndexError, OverflowError):
        return None
    tokens, total, rate = (first.get(name) or 0 for name in _OF_FIRST)
    if last["stage"] != "done" or (total and tokens > _MAX_FIRST_SHARE * total):
        return None
    began -= tokens / rate if rate else 0.0  # the first line tells of work that is done
    start, work = began - job.started, ended - began
    if start < 0 or work < _MIN_WORK_SECONDS:
        return None
    return Measured(start, work, last.get("total_tokens") or 0)


_OF_FIRST = ("tokens", "total_tokens", "tokens_per_second")


def measured_jobs(
    jobs: Sequence[Job], folder: Path, kind: str, device: str
) -> list[tuple[Job, Measured]]:
    """The newest jobs of a kind that a device of this machine has done, and what they took. jobs:
    of the queue in `folder`; device: where one ran that does not say it is the only one."""
    found = []
    for job in reversed(jobs):
        if job.kind == kind and not job.ray and job.place in ("", device):
            with contextlib.suppress(OSError):
                if took := measured(job, folder / job.job_id):
                    found.append((job, took))
        if len(found) == NEWEST:
            break
    return found


def by_measured(seconds: float, start: float, done: Sequence[tuple[float, Measured]]) -> float:
    """An estimate made from what jobs of its kind took.

    seconds: the estimate by the speed of a plain product, `start` of it before the work begins;
    done: of each job such an estimate of its work, by the same speed, and what it took. Their work
    took so many times as long as that: the median is taken of these factors. Of starts the
    shortest, since what the first one unpacks is there for the others.
    """
    factors = [took.work / work for work, took in done if work > 0]
    if not factors:
        return seconds
    return min(took.start for _, took in done) + max(0.0, seconds - start) * median(factors)
