"""Processes of the command line, one at a time on a device: started, watched, cancelled, resumed.

A job is a directory, so that a queue survives the app:

    jobs/<job_id>/   job.json (its command and state)  progress.jsonl  log.txt
                     config.json (of a training)  list.toml (of several)
"""

import contextlib
import itertools
import logging
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itda_core.config import TrainConfig, layers_in_words
from itda_core.errors import InputError, ItdaError, RunError
from itda_core.events import tell, tell_error
from itda_core.files import (
    disk_errors_as_sentences,
    newest_lines,
    read_json,
    rename_whole,
    why_unreadable,
    write_atomically,
    write_json,
)
from itda_core.jobs.claim import claimed_by, was_claimed
from itda_core.jobs.job import ANY, Job
from itda_core.jobs.places import Places, again, free_bytes, places_here
from itda_core.jobs.process import LIST_FILE, PATIENCE_SECONDS, begin, is_of_job, terminate
from itda_core.leftovers import temporary_name
from itda_core.progress import Progress
from itda_core.runs.latent_scores import SCORES_FILE
from itda_core.runs.run import Run, read_run
from itda_core.settings import RESID_POST

if TYPE_CHECKING:
    from itda_core.training.training_list import ListedTraining

_POLL_SECONDS = 0.5
_IDLE_POLLS = 10
"""While no job runs, every tenth look is passed on: runs can come from the command line too."""
_UNTIL_ASKED_SECONDS = 5.0
"""Which devices there are is asked of torch, whose import the first page must not wait for. Until
then one job runs, on the device that goes without saying."""


class JobQueue:
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
        self.folder, self.runs, self.on_change, self._scores = folder, runs, on_change, scores
        self._lock = threading.RLock()
        self._processes: dict[str, subprocess.Popen] = {}
        self._told: dict[str, str] = {}
        """The state of each job that was noted last"""
        self._places: Places | None = None
        self._opened = time.monotonic()
        self._closed = threading.Event()
        self._refusal = closed
        if not closed:
            with disk_errors_as_sentences(folder):
                folder.mkdir(parents=True, exist_ok=True)
            self._take_over()
        self._thread = threading.Thread(target=self._watch, name="jobs", daemon=True)
        self._thread.start()

    def submit(
        self,
        config: TrainConfig,
        device: str = ANY,
        memory: int | None = None,
        ray: str = "",
        then: Sequence[str] = (),
    ) -> Job:
        """Queue a training. The same training, interrupted before, goes on where it stopped.
        memory: bytes that its model may use; ray: the cluster that trains, in place of a device
        here; then: what is queued of its runs once they are there, "map" or "evaluate". Raises
        SettingError where it can't be trained."""
        config.check()
        title = f"{config.model.name} on {Path(config.corpus.name).name}, "
        title += layers_in_words(config.layers, config.site)
        where = {"device": device, "memory": memory, "ray": ray}
        job = Job("", "queued", title, time.time(), then=tuple(then), **where)
        return self._enqueue(job, config)

    def submit_list(
        self, text: str, device: str = ANY, memory: int | None = None, ray: str = ""
    ) -> Job:
        """Queue the trainings of a list as one job. text: of its file. Raises InputError where one
        can't be trained."""
        listed = _listed(text)
        models = list(dict.fromkeys(one.config.model.name for one in listed))
        names = f"{len(models)} models" if len(models) > 3 else ", ".join(models)
        count = "1 training" if len(listed) == 1 else f"{len(listed)} trainings"
        about = {"device": device, "memory": memory, "ray": ray}
        job = Job("", "queued", f"{count} of {names}", time.time(), **about)
        return self._enqueue(job, None, text)

    def submit_move(
        self, run: Run, config: TrainConfig, device: str = ANY, memory: int | None = None
    ) -> Job:
        """Queue the move of a run's dictionary; config: of `move_config`. What was interrupted goes
        on where it stopped."""
        model, layers = config.model, ",".join(map(str, config.layers))
        title = f"{config.moved_from.in_words} moved to {model.name}, "
        title += layers_in_words(config.layers, config.site)
        where = ["--model", model.name, "--layer", layers, "--site", config.site]
        where += ["--revision", model.revision] if model.revision else []
        arguments = [*_directories([run]), *where, "--dtype", model.dtype]
        return self.enqueue("move", arguments, title, device=device, memory=memory)

    def submit_evaluation(self, runs: Sequence[Run], device: str = ANY) -> Job:
        """Queue an evaluation on held-out prompts; each result is kept with its run."""
        title = f"Evaluation of {_in_words(runs)}"
        return self.enqueue("evaluate", [*_directories(runs), "--save"], title, device=device)

    def submit_quick_evaluation(self, runs: Sequence[Run], device: str = ANY) -> Job:
        """Queue a quick run of evaluations, each kept with its run where that has no full one."""
        arguments = [*_directories(runs), "--save", "--quick"]
        title = f"Quick evaluation of {_in_words(runs)}"
        return self.enqueue("evaluate", arguments, title, device=device)

    def submit_probing(self, runs: Sequence[Run], device: str = ANY) -> Job:
        """Queue sparse probing of held-out prompts; each result is kept with its run."""
        title = f"Probing {_in_words(runs)}"
        return self.enqueue("probe", [*_directories(runs), "--save"], title, device=device)

    def submit_map(self, run: Run) -> Job:
        """Queue a map of a run's latents, which the CPU makes; it is kept with the run."""
        title = f"Map of {run.config.model.name}, {_layers_of([run])}"
        return self.enqueue("map", _directories([run]), title, device="cpu")

    def submit_scores(self, runs: Sequence[Run]) -> Job:
        """Queue the scores of runs' latents, which the CPU finds; each table is kept with its
        run."""
        title = f"Scores of {_in_words(runs)}"
        return self.enqueue("score", _directories(runs), title, device="cpu")

    def submit_comparison(
        self, runs: Sequence[Run], measures: Sequence[str], device: str = ANY
    ) -> Job:
        """Queue the comparison of every two runs by some measures; the result is kept."""
        models = sorted({run.config.model.name for run in runs})
        what = measures[0].replace("_", " ") if len(measures) == 1 else f"{len(measures)} measures"
        names = f"{len(models)} models" if len(models) > 3 else ", ".join(models)
        title = f"Comparison of {names}, {len(runs)} layers: {what}"
        arguments = [*_directories(runs), "--measures", ",".join(measures), "--save"]
        return self.enqueue("measure", arguments, title, device=device)

    def submit_latent_comparison(self, a: Run, b: Run, device: str = ANY) -> Job:
        """Queue the comparison of the latents of two runs with the same sources; the result is
        kept."""
        names = [f"{run.config.model.name}, {_layers_of([run])}" for run in (a, b)]
        title = f"Same latents in {names[0]}, and {names[1]}"
        arguments = [*_directories([a, b]), "--save"]
        return self.enqueue("compare-latents", arguments, title, device=device)

    def enqueue(
        self,
        command: str,
        arguments: Sequence[str],
        title: str,
        config: TrainConfig | None = None,
        device: str = ANY,
        memory: int | None = None,
        ray: str = "",
    ) -> Job:
        """Queue a command of the command line; config: for one that takes --config."""
        where = {"device": device, "memory": memory, "ray": ray}
        about = {"command": command, "arguments": tuple(arguments), **where}
        return self._enqueue(Job("", "queued", title, time.time(), **about), config)

    def _enqueue(self, job: Job, config: TrainConfig | None, listed: str | None = None) -> Job:
        """listed: the list of trainings of a job that has one."""
        with self._lock, self._written():
            job = replace(job, job_id=self._new_id())
            directory = self.folder / job.job_id
            temporary = self.folder / temporary_name(job.job_id)
            temporary.mkdir()
            try:
                if config:
                    write_json(temporary / "config.json", config.to_dict())
                if listed is not None:
                    write_atomically(temporary / LIST_FILE, listed.encode())
                write_json(temporary / "job.json", asdict(job))
                rename_whole(temporary, directory)
            except BaseException:
                # Until it is renamed, what has the name is another process's.
                mine = temporary if temporary.exists() else directory
                shutil.rmtree(mine, ignore_errors=True)
                raise
            self._note(job)
        return job

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        """Around what writes: raises ItdaError where the folder refuses."""
        if self._refusal:
            raise ItdaError(self._refusal)
        with disk_errors_as_sentences(self.folder):
            yield

    def jobs(self) -> list[Job]:
        """All jobs, in the order in which they were submitted."""
        return listed_jobs(self.folder)[0]

    def damaged(self) -> list[ItdaError]:
        """Why jobs that are in the folder are not in the list."""
        return listed_jobs(self.folder)[1]

    def config(self, job: Job) -> TrainConfig | None:
        """What a training trains; None for other commands, and where its settings can't be used:
        a job of long ago must not close the pages that look through the list."""
        with contextlib.suppress(InputError):
            return self._read_config(job)
        return None

    def configs(self, job: Job) -> list[TrainConfig]:
        """What a training trains, or all that a list does; none of other commands, and of settings
        that can't be used."""
        listed = self._list(job)
        if listed is None:
            return list(filter(None, [self.config(job)]))
        with contextlib.suppress(InputError):
            return [one.config for one in _listed(listed)]
        return []

    def _list(self, job: Job) -> str | None:
        """The list of trainings of a job that has one."""
        with contextlib.suppress(OSError, ValueError):
            return (self.folder / job.job_id / LIST_FILE).read_text("utf-8")
        return None

    def _read_config(self, job: Job) -> TrainConfig | None:
        """Raises InputError where the settings of a training can't be used."""
        if job.kind != "training" or self._list(job) is not None:
            return None
        path = self.folder / job.job_id / "config.json"
        try:
            return TrainConfig.from_dict(read_json(path))
        except Exception as error:  # whatever the file holds
            raise InputError(
                f"The settings of this training can't be used. {error} Forget it, and start anew."
            ) from error

    def progress(self, job: Job) -> dict[str, Any] | None:
        """The newest progress of a job, as `Progress.read_line` gives it; None before the first."""
        path = self.folder / job.job_id / "progress.jsonl"
        for line in reversed(newest_lines(path)):
            if (said := Progress.read_line(line)) is not None:  # the last may be half written
                return said
        return None

    def log(self, job: Job) -> str:
        """What the process printed."""
        path = self.folder / job.job_id / "log.txt"
        return path.read_text("utf-8", "replace") if path.is_file() else ""

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

    def active(self) -> list[Job]:
        """The jobs that run, then those that wait, in the order in which they start."""
        jobs = self.jobs()
        running = [job for job in jobs if job.state == "running"]
        return [*running, *in_turn([job for job in jobs if job.state == "queued"])]

    def ahead(self, job: Job) -> int:
        """How many jobs a queued one comes after: those that run and those that wait before it, as
        far as they are for a device that it may have."""
        if job.ray:
            return 0
        others = [one for one in self.jobs() if not one.ray and one.job_id != job.job_id]
        active = [one for one in others if one.state == "running" or _is_stopping(one)]
        waiting = in_turn([one for one in others if one.state == "queued"] + [job])
        before = [*active, *waiting[: waiting.index(job)]]
        if self._places is None:
            return len(before)
        wanted = set(self._places.allowed(job))
        return sum(bool(wanted & self._may_have(one)) for one in before)

    def _waiting(self) -> list[Job]:
        """The jobs that wait, in the order in which they start."""
        return in_turn([job for job in self.jobs() if job.state == "queued"])

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
                terminate(job.pid)

    def resume(self, job_id: str) -> Job:
        """Queue a job's command again, on the same device if that is free, else on one of its
        kind; a training goes on from its checkpoint. Raises InputError where its settings can't be
        used."""
        job = again(self._get(job_id))
        names = ("command", "arguments", "device", "place", "memory", "ray", "then")
        kept = {name: getattr(job, name) for name in names}
        anew = Job("", "queued", job.title, time.time(), **kept)
        return self._enqueue(anew, self._read_config(job), self._list(job))

    def forget(self, job_id: str) -> None:
        """Remove an ended job from the list; one whose process is still stopping stays. It is gone
        at once, even if clearing it is interrupted."""
        with self._lock, self._written():
            job = self._get(job_id)
            if not job.is_active and (job.pid is None or job.ended):
                hidden = self.folder / temporary_name(f"deleted-{job_id}")
                (self.folder / job_id).rename(hidden)
                shutil.rmtree(hidden, ignore_errors=True)

    def close(self) -> None:
        """Stop watching and stop the running processes; the next queue goes on with them."""
        self._closed.set()
        self._thread.join(PATIENCE_SECONDS)
        with self._lock:
            running = [job for job in self.jobs() if job.state == "running" and job.pid]
            ours = [job for job in running if job.job_id in self._processes]
            for job in ours:
                terminate(job.pid)
            for job in ours:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._processes[job.job_id].wait(PATIENCE_SECONDS)
                self._save(replace(job, state="queued", started=None, pid=None))

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
        queued = [job for job in self.jobs() if job.state == "queued" and not job.ray]
        places = self._known_places(is_asked=bool(queued))
        memory = self._free_memory(queued, places)
        with self._lock:
            running = [job for job in self.jobs() if job.pid and job.ended is None]
            for job in running:
                code = self._exit_code(job)
                if code is not None:
                    self._tell()  # first its runs, then its end: a page may look in between
                    self._finish(job, code)
            waiting = self._waiting()
            self._start_on_clusters([job for job in waiting if job.ray], running)
            if places is not None:
                asked = {job.job_id for job in queued}
                ready = [job for job in waiting if job.job_id in asked]
                self._start_waiting(ready, running, places, memory.get)
            elif all(job.ray for job in running):  # what runs may be on any device; what names one
                free = [job for job in waiting if _takes_what_comes(job)]  # waits for it
                self._start_waiting(free, running, Places(), free_bytes)
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

    def _start_on_clusters(self, waiting: list[Job], running: list[Job]) -> None:
        """Start all at once what a cluster gives devices to: it has its own queue."""
        under_way = [self._work(job) for job in running]
        for job in waiting:
            if self._work(job) not in under_way and self._has_started(job):
                under_way.append(self._work(job))

    def _start_waiting(
        self,
        waiting: list[Job],
        running: list[Job],
        places: Places,
        memory: Callable[[str], int],
    ) -> None:
        """Start what can run now, in order; what has no device yet keeps no other waiting."""
        busy = {places.of(job) for job in running if not job.ray}
        under_way = [self._work(job) for job in running]
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

    def _work(self, job: Job) -> tuple[str, tuple[str, ...], bytes]:
        """What a job does: two of the same would be in each other's way."""
        files = [self.folder / job.job_id / name for name in ("config.json", LIST_FILE)]
        try:
            said = b"".join(file.read_bytes() for file in files if file.exists())
            return job.command, job.arguments, said
        except OSError:  # its process says so; until then it is work like no other
            return job.command, job.arguments, job.job_id.encode()

    def _has_started(self, job: Job) -> bool:
        """Start a job; one that can't be fails with the reason and keeps no other waiting."""
        try:
            self._start(job)
        except (OSError, ItdaError) as error:
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
        self._go_on_with_what_came(job, state)

    def _go_on_with_what_came(self, job: Job, state: str) -> None:
        """Queue the scores of what a training has made, but for runs that have some, and what else
        it was asked to be followed by."""
        if state != "done" or job.kind not in ("training", "move"):
            return
        runs = []
        for name in (self.progress(job) or {}).get("finished", []):
            with contextlib.suppress(RunError):  # deleted meanwhile
                runs.append(read_run(self.runs / name))
        unscored = [run for run in runs if not (run.directory / SCORES_FILE).exists()]
        if self._scores and unscored:
            self.submit_scores(unscored)
        if "map" in job.then:
            for run in runs:
                self.submit_map(run)
        if "evaluate" in job.then and runs:
            self.submit_evaluation(runs, job.device)

    def _exit_code(self, job: Job) -> int | None:
        """None while the process lives; a process of an earlier app leaves no code to read."""
        if job.job_id in self._processes:
            code = self._processes[job.job_id].poll()
            # One that found the job under way has ended at once: the other one is watched on.
            return None if code and self._is_taken_up(job) else code
        if is_of_job(job.pid, job.job_id):
            return None
        finished = self.progress(job) or {}
        return 0 if finished.get("stage") == "done" else 1

    def _take_over(self) -> None:
        """What an earlier app left: living processes are watched on, dead ones were interrupted."""
        for job in self.jobs():
            if job.ended or is_of_job(job.pid, job.job_id) or self._is_taken_up(job):
                continue
            done = (self.progress(job) or {}).get("stage") == "done"
            if job.state == "queued" and not (done and was_claimed(self.folder / job.job_id)):
                continue
            state = "done" if done else "interrupted" if job.state == "running" else job.state
            self._save(replace(job, state=state, ended=time.time(), pid=None))
            self._go_on_with_what_came(job, state)

    def _get(self, job_id: str) -> Job:
        for job in self.jobs():
            if job.job_id == job_id:
                return job
        raise ItdaError(f"There is no job {job_id!r} any more.")

    def _new_id(self) -> str:
        numbers = [int(path.name) for path in self.folder.iterdir() if path.name.isdigit()]
        return f"{max(numbers, default=0) + 1:05d}"

    def _save(self, job: Job) -> None:
        write_json(self.folder / job.job_id / "job.json", asdict(job))
        self._note(job)

    def _note(self, job: Job) -> None:
        """Tell the state of a job where it is a new one."""
        if self._told.get(job.job_id) != job.state:
            self._told[job.job_id] = job.state
            level = logging.ERROR if job.state == "failed" else logging.INFO
            seconds = job.ended - job.started if job.ended and job.started else None
            about = {"command": job.command, "pid": job.pid, "place": job.place}
            tell(f"job-{job.state}", level, job=job.job_id, **about, seconds=seconds)


def listed_jobs(folder: Path) -> tuple[list[Job], list[ItdaError]]:
    """The jobs of a folder in the order in which they were submitted, and why each of the others
    that is there can't be used."""
    jobs: list[Job] = []
    errors: list[ItdaError] = []
    for path in sorted(folder.glob("[!.]*/job.json")):
        try:
            job = Job.from_dict(read_json(path))
            if job.job_id != path.parent.name:
                raise ValueError(f"it is the job {job.job_id!r:.60} under another name")
            jobs.append(job)
        except FileNotFoundError:  # forgotten meanwhile
            continue
        except Exception as error:  # whatever the file holds
            remedy = f"What its command has written is not in it: move {path.parent} away."
            errors.append(why_unreadable(path, error, remedy))
    return jobs, errors


def in_turn(waiting: Sequence[Job]) -> list[Job]:
    """Jobs in the order in which they start: short ones first, each in the order in which they were
    queued, so that the map of a dictionary need not wait for the training of another."""
    return sorted(waiting, key=lambda job: (not job.is_short, job.job_id))


def _listed(text: str) -> list["ListedTraining"]:
    from itda_core.training.training_list import listed_trainings  # which imports torch

    return listed_trainings(text, "The list")


def _takes_what_comes(job: Job) -> bool:
    return job.device == ANY and not job.place and not job.ray


def _is_stopping(job: Job) -> bool:
    return job.pid is not None and job.ended is None


def _in_words(runs: Sequence[Run]) -> str:
    """Their models, each with its layers; of many models how many there are."""
    by_model: dict[str, list[Run]] = {}
    for run in runs:
        by_model.setdefault(run.config.model.name, []).append(run)
    if len(by_model) > 3:
        return f"{len(by_model)} models, {len(runs)} layers"
    return "; ".join(f"{model}, {_layers_of(some)}" for model, some in by_model.items())


def _layers_of(runs: Sequence[Run]) -> str:
    """Of each site among them; the block's output first, which goes without saying."""
    by_site: dict[str, set[int]] = {}
    for run in sorted(runs, key=lambda run: (run.site != RESID_POST, run.site)):
        by_site.setdefault(run.site, set()).add(run.layer)
    return " and ".join(layers_in_words(sorted(layers), site) for site, layers in by_site.items())


def _directories(runs: Sequence[Run]) -> list[str]:
    return [str(run.directory.resolve()) for run in runs]
