"""Processes of the command line, one at a time on a device: started, watched, cancelled, resumed.

The jobs are kept in directories, so that a queue survives the app (kept.py).
"""

import contextlib
import itertools
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from itda_core.errors import ItdaError, RunError
from itda_core.events import tell_error
from itda_core.jobs.claim import claimed_by, was_claimed
from itda_core.jobs.job import ANY, Job
from itda_core.jobs.kept import KeptJobs, Work
from itda_core.jobs.places import Places, again, free_bytes, places_here
from itda_core.jobs.process import (
    PATIENCE_SECONDS,
    begin,
    command_of,
    is_of_job,
    terminate,
)
from itda_core.jobs.submissions import submit_evaluation, submit_map, submit_scores
from itda_core.runs.latent_scores import SCORES_FILE
from itda_core.runs.run import read_run

_POLL_SECONDS = 0.5
_IDLE_POLLS = 10
"""While no job runs, every tenth look is passed on: runs can come from the command line too."""
_UNTIL_ASKED_SECONDS = 5.0
"""Which devices there are is asked of torch, whose import the first page must not wait for. Until
then one job runs, on the device that goes without saying."""


class JobQueue(KeptJobs):
    """The jobs of one data folder. One runs at a time on each device; the others wait, short
    ones (maps, scores) first.

    A job may name its device: "any" (one of the fastest kind, or the one that ITDA_DEVICE says), a
    kind such as "cuda", or one such as "cuda:1".
    """

    def __init__(
        self,
        folder: Path,
        runs: Path,
        on_change: Callable[[], Any] = lambda: None,
        scores: bool = False,
        closed: str = "",
    ):
        """on_change: called from the queue's thread about twice a second while a job runs, and
        every few seconds otherwise; scores: whether the runs of a training that ends are scored,
        by a job of its own; closed: why nothing can be kept in the folder. Then its jobs, of
        another explorer perhaps, are shown and left alone, and what would write raises that."""
        super().__init__(folder, closed)
        self.runs, self.on_change, self._scores = runs, on_change, scores
        self._processes: dict[str, subprocess.Popen] = {}
        self._places: Places | None = None
        self._opened = time.monotonic()
        self._closed = threading.Event()
        if not closed:
            self._take_over()
        self._thread = threading.Thread(target=self._watch, name="jobs", daemon=True)
        self._thread.start()

    def waits_for(self, job: Job) -> str:
        """What a queued job waits for, in words; "" where it is only its turn."""
        others = [one for one in self.jobs() if one.state == "running" or _is_stopping(one)]
        if self._work(job) in [self._work(one) for one in others]:
            return "the same work, which is under way"
        here = [one.place for one in others if not one.ray]
        taken = {part for place in here for part in (place, place.partition(":")[0])}
        if job.ray:
            return "its start"
        if job.device in taken:
            return f"a free {job.device}"
        if self._places is None and not _takes_what_comes(job):
            return "the devices of this machine to be looked up"
        return ""

    def command_line(self, job: Job) -> str:
        """What a job runs, as one would type it."""
        command = command_of(job, self.folder / job.job_id, self.runs)
        return shlex.join(["python", *command[1:]])

    def active(self) -> list[Job]:
        """The jobs that run, then those that wait, in the order in which they start; not those from
        elsewhere, which wait to be let in."""
        jobs = self.jobs()
        running = [job for job in jobs if job.state == "running"]
        return [*running, *self._waiting(jobs)]

    def ahead(self, job: Job) -> int:
        """How many jobs a queued one comes after: those that run and those that wait before it, as
        far as they are for a device that it may have."""
        if job.ray:
            return 0
        others = [one for one in self.jobs() if not one.ray and one.job_id != job.job_id]
        active = [one for one in others if one.state == "running" or _is_stopping(one)]
        waiting = in_turn([*self._waiting(others), job])
        before = [*active, *waiting[: waiting.index(job)]]
        if self._places is None:
            return len(before)
        wanted = set(self._places.allowed(job))
        return sum(bool(wanted & self._may_have(one)) for one in before)

    def _waiting(self, jobs: Sequence[Job]) -> list[Job]:
        """Those of some jobs that wait for their turn, in the order in which they start."""
        queued = [job for job in jobs if job.state == "queued"]
        return in_turn([job for job in queued if not self.is_from_elsewhere(job)])

    def _may_have(self, job: Job) -> set[str]:
        """The device that a job has, or those that it may get."""
        assert self._places is not None
        is_placed = job.state != "queued"
        return {self._places.of(job)} if is_placed else set(self._places.allowed(job))

    def cancel(self, job_id: str) -> None:
        """Take a job out of the queue, or stop its process; a training keeps a checkpoint."""
        with self._lock, self._written():
            job = self._get(job_id)
            if job.state == "queued":
                self._save(replace(job, state="cancelled", ended=time.time()))
            elif job.state == "running" and job.pid:
                self._save(replace(job, state="cancelled"))
                if process := self._processes.get(job_id):
                    terminate(process.pid)
                elif self._is_ours(job):
                    terminate(job.pid)

    def resume(self, job_id: str) -> Job:
        """Queue a job's command again, on the same device if that is free, else on one of its
        kind; a training goes on from its checkpoint. One from elsewhere waits to be let in. Raises
        InputError where its settings can't be used."""
        earlier = self._get(job_id)
        job = again(earlier)
        names = ("command", "arguments", "device", "place", "memory", "ray", "then")
        kept = {name: getattr(job, name) for name in names}
        anew = Job("", "queued", job.title, time.time(), **kept)
        folder = None if self._is_ours(earlier) else job.folder
        return self._enqueue(anew, self._read_config(job), self._list(job), folder)

    def close(self) -> None:
        """Stop watching and stop the running processes; the next queue goes on with their jobs.
        Closed again it does nothing: they are that queue's by then."""
        self._closed.set()
        self._thread.join(PATIENCE_SECONDS)
        with self._lock:
            running = [job for job in self.jobs() if job.state == "running" and job.pid]
            ours = [job for job in running if job.job_id in self._processes]
            for job in ours:
                terminate(self._processes[job.job_id].pid)
            for job in ours:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._processes[job.job_id].wait(PATIENCE_SECONDS)
                self._save(replace(job, state="queued", started=None, pid=None))
            self._processes.clear()

    # The thread

    def _watch(self) -> None:
        for count in itertools.count():
            if self._closed.wait(_POLL_SECONDS):
                return
            try:
                if self._step() or count % _IDLE_POLLS == 0:
                    self._tell()
            except Exception as error:  # whatever it was, the jobs that wait need this thread
                tell_error("queue-failed", error)

    def _tell(self) -> None:
        """Call on_change; its troubles are not the queue's."""
        try:
            self.on_change()
        except Exception as error:
            tell_error("queue-failed", error)

    def _step(self) -> bool:
        """Notice the ends of jobs, start the next ones; true where there is anything to show."""
        if self._refusal:
            return False
        queued = [job for job in self._waiting(self.jobs()) if not job.ray]
        places = self._known_places(is_asked=bool(queued))
        memory = self._free_memory(queued, places)
        with self._lock:
            begun = [job for job in self.jobs() if job.pid and job.ended is None]
            # Those of this queue's own processes, whatever has become of their files.
            running = [job for job in begun if job.job_id in self._processes or self._is_ours(job)]
            for job in running:
                code = self._exit_code(job)
                if code is not None:
                    self._tell()  # first its runs, then its end: a page may look in between
                    self._finish(job, code)
            waiting, under_way = self._waiting(self.jobs()), [self._work(job) for job in running]
            self._start_on_clusters([job for job in waiting if job.ray], under_way)
            asked = {job.job_id for job in queued}  # what has come since waits for the next look
            ready = [job for job in waiting if job.job_id in asked]
            if places is not None:
                self._start_waiting(ready, running, under_way, places, memory.get)
            elif all(job.ray for job in running):  # what runs may be on any device; what names one
                free = [job for job in ready if _takes_what_comes(job)]  # waits for it
                self._start_waiting(free, running, under_way, Places(), free_bytes)
            return bool(running or waiting)

    def _known_places(self, is_asked: bool) -> Places | None:
        """The devices of this machine. is_asked: whether a job waits for one. None before torch is
        here, or the first page has had the time to be drawn without it."""
        is_time = time.monotonic() > self._opened + _UNTIL_ASKED_SECONDS or "torch" in sys.modules
        if is_time and is_asked and self._places is None:
            self._places = places_here()
        return self._places

    def _free_memory(self, queued: list[Job], places: Places | None) -> dict[str, int]:
        """What is free on the devices that jobs may choose between. Asked without the lock: it
        takes a while to open a GPU."""
        allowed = [places.allowed(job) for job in queued] if places else []
        several = {name for names in allowed if len(names) > 1 for name in names}
        return {name: free_bytes(name) for name in several}

    def _start_on_clusters(self, waiting: list[Job], under_way: list[Work]) -> None:
        """Start all at once what a cluster gives devices to: it has its own queue. under_way: what
        jobs do already, to which comes what is started."""
        for job in waiting:
            if self._work(job) not in under_way and self._has_started(job):
                under_way.append(self._work(job))

    def _start_waiting(
        self,
        waiting: list[Job],
        running: list[Job],
        under_way: list[Work],
        places: Places,
        memory: Callable[[str], int],
    ) -> None:
        """Start what can run now, in order; what has no device yet keeps no other waiting."""
        busy = {places.of(job) for job in running if not job.ray}
        for job in waiting:
            if not places.allowed(job):
                refused = replace(job, state="failed", error=places.missing(job))
                self._save(replace(refused, ended=time.time()))
                continue
            place = places.free(job, busy, memory)
            # The same work at once: a training that goes on while it is still being stopped.
            if place is None or self._work(job) in under_way:
                continue
            if self._has_started(replace(job, place=place if len(places.names) > 1 else "")):
                busy.add(place)
                under_way.append(self._work(job))

    def _has_started(self, job: Job) -> bool:
        """Start a job; one that can't be fails with the reason and keeps no other waiting."""
        try:
            self._start(job)
        except (OSError, ValueError, ItdaError) as error:
            told = f"It could not be started: {error}. Mend that, and try again."
            self._save(replace(job, state="failed", error=told, ended=time.time()))
            return False
        return True

    def _start(self, job: Job) -> None:
        directory = self.folder / job.job_id
        if self._is_taken_up(job):
            return
        self._save(job)  # a disk that is full shows here, before there is a process
        process = begin(job, directory, self.runs)
        try:
            self._processes[job.job_id] = process
            self._save(replace(job, state="running", started=time.time(), pid=process.pid))
        except BaseException:  # a process that the list does not know must not live on
            del self._processes[job.job_id]
            process.kill()
            process.wait()
            raise

    def _is_taken_up(self, job: Job) -> bool:
        """Whether a living process does a job that this queue has not begun: one whose start an
        earlier app could not note any more. It is noted now."""
        pid = claimed_by(self.folder / job.job_id)
        own = self._processes.get(job.job_id)
        if pid is None or (own is not None and own.pid == pid):
            return False
        self._processes.pop(job.job_id, None)
        started = job.started or time.time()
        self._save(replace(job, state="running", started=started, pid=pid))
        return True

    def _finish(self, job: Job, code: int) -> None:
        self._processes.pop(job.job_id, None)
        state, error = job.state, ""
        if code == 0:
            state = "done"
        elif state == "running" and code < 0:
            state = "failed"
            error = f"Ended from outside (signal {-code}), perhaps for want of memory. Resume it."
        elif state == "running":
            lines = [line for line in self.log(job).splitlines() if line.strip()]
            state, error = "failed", (lines[-1] if lines else f"It ended with code {code}.")
        self._save(replace(job, state=state, error=error, ended=time.time(), pid=None))
        if self._is_ours(job):
            self._go_on_with_what_came(job, state)

    def _go_on_with_what_came(self, job: Job, state: str) -> None:
        """Queue the scores of what a training has made, but for runs that have some, and what else
        it was asked to be followed by."""
        if state != "done" or job.kind not in ("training", "move"):
            return
        runs = []
        for name in (self.progress(job) or {}).get("finished", []):
            if Path(name).name != name:  # of another folder
                continue
            with contextlib.suppress(RunError):  # deleted meanwhile
                runs.append(read_run(self.runs / name))
        unscored = [run for run in runs if not (run.directory / SCORES_FILE).exists()]
        if self._scores and unscored:
            submit_scores(self, unscored)
        if "map" in job.then:
            for run in runs:
                submit_map(self, run)
        if "evaluate" in job.then and runs:
            submit_evaluation(self, runs, job.device)

    def _exit_code(self, job: Job) -> int | None:
        """None while the process lives; a process of an earlier app leaves no code to read."""
        if job.job_id in self._processes:
            code = self._processes[job.job_id].poll()
            # One that found the job under way has ended at once: the other one is watched on.
            return None if code and self._is_taken_up(job) else code
        if is_of_job(job.pid, self.folder / job.job_id):
            return None
        finished = self.progress(job) or {}
        return 0 if finished.get("stage") == "done" else 1

    def _take_over(self) -> None:
        """What an earlier app left: living processes are watched on, dead ones were interrupted.
        Of a job from elsewhere nothing runs here, whatever its file says."""
        for job in self.jobs():
            if not self._is_ours(job):
                self._stop_from_elsewhere(job)
                continue
            directory = self.folder / job.job_id
            if job.ended or is_of_job(job.pid, directory) or self._is_taken_up(job):
                continue
            done = (self.progress(job) or {}).get("stage") == "done"
            if job.state == "queued" and not (done and was_claimed(directory)):
                continue
            state = "done" if done else "interrupted" if job.state == "running" else job.state
            self._save(replace(job, state=state, ended=time.time(), pid=None))
            self._go_on_with_what_came(job, state)

    def _stop_from_elsewhere(self, job: Job) -> None:
        if job.state == "queued" and (job.pid or job.ended):
            self._save(replace(job, pid=None, started=None, ended=None))
        elif job.state != "queued" and (job.pid or not job.ended):
            state = "interrupted" if job.state == "running" else job.state
            self._save(replace(job, state=state, pid=None, ended=job.ended or time.time()))


def in_turn(waiting: Sequence[Job]) -> list[Job]:
    """Jobs in the order in which they start: short ones first, each in the order in which they were
    queued, so that the map of a dictionary need not wait for the training of another."""
    return sorted(waiting, key=lambda job: (not job.is_short, job.job_id))


def _takes_what_comes(job: Job) -> bool:
    return job.device == ANY and not job.place and not job.ray


def _is_stopping(job: Job) -> bool:
    return job.pid is not None and job.ended is None
