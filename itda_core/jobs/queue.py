"""Processes of the command line: started, watched, cancelled and resumed, one at a time.

A job is a directory, so that a queue survives the app:

    jobs/<job_id>/   job.json (its command and state)  progress.jsonl  log.txt
                     config.json (of a training)
"""

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil

from itda_core.config import TrainConfig, code_directory, is_checkout
from itda_core.errors import InputError, ItdaError
from itda_core.files import disk_errors_as_sentences, write_json
from itda_core.jobs.job import Job
from itda_core.runs.run import Run

_POLL_SECONDS = 0.5
_IDLE_POLLS = 10
"""While no job runs, every tenth look is passed on: runs can come from the command line too."""
_PATIENCE_SECONDS = 30.0
"""A process that is told to stop has this long to write its checkpoint."""


class JobQueue:
    """The jobs of one data folder. One runs at a time; the others wait in order."""

    def __init__(self, folder: Path, runs: Path, on_change: Callable[[], Any] = lambda: None):
        """on_change: called from the queue's thread about twice a second while a job runs, and
        every few seconds otherwise."""
        self.folder, self.runs, self.on_change = folder, runs, on_change
        self._lock = threading.RLock()
        self._process: subprocess.Popen | None = None
        self._closed = threading.Event()
        with disk_errors_as_sentences(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._take_over()
        self._thread = threading.Thread(target=self._watch, name="jobs", daemon=True)
        self._thread.start()

    def submit(self, config: TrainConfig) -> Job:
        """Queue a training. The same training, interrupted before, goes on where it stopped.
        Raises SettingError where it can't be trained."""
        config.check()
        title = f"{config.model.name} on {Path(config.corpus.name).name}, "
        return self.enqueue("train", (), title + _layers(config.layers), config)

    def submit_evaluation(self, runs: Sequence[Run]) -> Job:
        """Queue an evaluation on held-out prompts; each result is kept with its run."""
        model = runs[0].config.model.name
        title = f"Evaluation of {model}, {_layers(sorted({run.layer for run in runs}))}"
        return self.enqueue("evaluate", [*_directories(runs), "--save"], title)

    def submit_probing(self, runs: Sequence[Run]) -> Job:
        """Queue sparse probing of held-out prompts; each result is kept with its run."""
        model = runs[0].config.model.name
        title = f"Probing {model}, {_layers(sorted({run.layer for run in runs}))}"
        return self.enqueue("probe", [*_directories(runs), "--save"], title)

    def submit_map(self, run: Run) -> Job:
        """Queue a map of a run's latents; it is kept with the run."""
        title = f"Map of {run.config.model.name}, {_layers([run.layer])}"
        return self.enqueue("map", _directories([run]), title)

    def submit_comparison(self, runs: Sequence[Run], measures: Sequence[str]) -> Job:
        """Queue the comparison of every two runs by some measures; the result is kept."""
        models = sorted({run.config.model.name for run in runs})
        what = measures[0].replace("_", " ") if len(measures) == 1 else f"{len(measures)} measures"
        names = f"{len(models)} models" if len(models) > 3 else ", ".join(models)
        title = f"Comparison of {names}, {len(runs)} layers: {what}"
        arguments = [*_directories(runs), "--measures", ",".join(measures), "--save"]
        return self.enqueue("measure", arguments, title)

    def enqueue(
        self, command: str, arguments: Sequence[str], title: str, config: TrainConfig | None = None
    ) -> Job:
        """Queue a command of the command line; config: for one that takes --config."""
        with self._lock, disk_errors_as_sentences(self.folder):
            job = Job(self._new_id(), "queued", title, time.time())
            job = replace(job, command=command, arguments=tuple(arguments))
            directory = self.folder / job.job_id
            directory.mkdir()
            if config:
                write_json(directory / "config.json", config.to_dict())
            self._save(job)
        return job

    def jobs(self) -> list[Job]:
        """All jobs, in the order in which they were submitted."""
        jobs = []
        for path in sorted(self.folder.glob("*/job.json")):
            try:
                fields = json.loads(path.read_text())
                jobs.append(Job(**{**fields, "arguments": tuple(fields.get("arguments", ()))}))
            except (ValueError, TypeError, AttributeError, OSError):
                continue
        return jobs

    def config(self, job: Job) -> TrainConfig | None:
        """What a training trains; None for other commands, and where its settings can't be used:
        a job of long ago must not close the pages that look through the list."""
        with contextlib.suppress(InputError):
            return self._read_config(job)
        return None

    def _read_config(self, job: Job) -> TrainConfig | None:
        """Raises InputError where the settings of a training can't be used."""
        if job.kind != "training":
            return None
        path = self.folder / job.job_id / "config.json"
        try:
            return TrainConfig.from_dict(json.loads(path.read_text()))
        except (OSError, ValueError, InputError) as error:
            raise InputError(
                f"The settings of this training can't be used. {error} Forget it, and start anew."
            ) from error

    def progress(self, job: Job) -> dict[str, Any] | None:
        """The newest progress of a job, at least its stage; None before the first."""
        path = self.folder / job.job_id / "progress.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        for line in reversed(lines):
            try:
                return json.loads(line)
            except ValueError:  # the last line may be half written
                continue
        return None

    def log(self, job: Job) -> str:
        """What the process printed."""
        path = self.folder / job.job_id / "log.txt"
        return path.read_text(errors="replace") if path.exists() else ""

    def cancel(self, job_id: str) -> None:
        """Take a job out of the queue, or stop its process; a training keeps a checkpoint."""
        with self._lock:
            job = self._get(job_id)
            if job.state == "queued":
                self._save(replace(job, state="cancelled", ended=time.time()))
            elif job.state == "running" and job.pid:
                self._save(replace(job, state="cancelled"))
                _terminate(job.pid)

    def resume(self, job_id: str) -> Job:
        """Queue a job's command again; a training goes on from its checkpoint. Raises InputError
        where its settings can't be used."""
        job = self._get(job_id)
        return self.enqueue(job.command, job.arguments, job.title, self._read_config(job))

    def forget(self, job_id: str) -> None:
        """Remove an ended job from the list; one whose process is still stopping stays."""
        with self._lock:
            job = self._get(job_id)
            if not job.is_active and (job.pid is None or job.ended):
                shutil.rmtree(self.folder / job_id, ignore_errors=True)

    def close(self) -> None:
        """Stop watching and stop the running process; the next queue goes on with it."""
        self._closed.set()
        self._thread.join(_PATIENCE_SECONDS)
        with self._lock:
            for job in self.jobs():
                if job.state == "running" and job.pid and self._process is not None:
                    _terminate(job.pid)
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        self._process.wait(_PATIENCE_SECONDS)
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
                print(f"Job queue: {type(error).__name__}: {error}", file=sys.stderr)

    def _tell(self) -> None:
        """Call on_change; its troubles are not the queue's."""
        try:
            self.on_change()
        except Exception as error:
            print(f"Job queue: {type(error).__name__}: {error}", file=sys.stderr)

    def _step(self) -> bool:
        """Notice a job's end, start the next one; true where there is anything to show."""
        with self._lock:
            running = [job for job in self.jobs() if job.pid and job.ended is None]
            for job in running:
                code = self._exit_code(job)
                if code is not None:
                    self._tell()  # first its runs, then its end: a page may look in between
                    self._finish(job, code)
            if not running:
                waiting = [job for job in self.jobs() if job.state == "queued"]
                if not waiting:
                    return False
                self._start(waiting[0])
            return True

    def _start(self, job: Job) -> None:
        directory = self.folder / job.job_id
        self._save(job)  # a disk that is full shows here, before there is a process
        command = [sys.executable, "-P", "-m", "itda_core", job.command, *job.arguments]
        command += ["--runs", str(self.runs), "--progress", str(directory / "progress.jsonl")]
        if (directory / "config.json").exists():
            command += ["--config", str(directory / "config.json")]
        with (directory / "log.txt").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(),
                start_new_session=True,
            )
        try:
            if os.name == "posix":
                # The pages come first: they answer at once while a job takes what is left.
                with contextlib.suppress(psutil.Error):
                    psutil.Process(self._process.pid).nice(10)
            self._save(replace(job, state="running", started=time.time(), pid=self._process.pid))
        except BaseException:  # a process that the list does not know must not live on
            self._process.kill()
            self._process.wait()
            raise

    def _finish(self, job: Job, code: int) -> None:
        self._process = None
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

    def _exit_code(self, job: Job) -> int | None:
        """None while the process lives; a process of an earlier app leaves no code to read."""
        if self._process is not None and self._process.pid == job.pid:
            return self._process.poll()
        if _is_ours(job.pid, job.job_id):
            return None
        finished = self.progress(job) or {}
        return 0 if finished.get("stage") == "done" else 1

    def _take_over(self) -> None:
        """What an earlier app left: living processes are watched on, dead ones were interrupted."""
        for job in self.jobs():
            if job.ended or job.state == "queued" or _is_ours(job.pid, job.job_id):
                continue
            done = (self.progress(job) or {}).get("stage") == "done"
            state = "done" if done else "interrupted" if job.state == "running" else job.state
            self._save(replace(job, state=state, ended=time.time(), pid=None))

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


def _layers(layers: Sequence[int]) -> str:
    noun = "layer" if len(layers) == 1 else "layers"
    return f"{noun} {', '.join(str(layer) for layer in layers)}"


def _environment() -> dict[str, str]:
    """A job's: it finds a checkout's package from wherever the explorer was started."""
    # Several OpenMP runtimes in one process stall each other when they spin.
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_WAIT_POLICY": "passive"}
    if is_checkout():
        paths = [str(code_directory()), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
    return environment


def _directories(runs: Sequence[Run]) -> list[str]:
    return [str(run.directory.resolve()) for run in runs]


def _is_ours(pid: int | None, job_id: str) -> bool:
    """Whether a process lives and is a job's; one that has ended and waits to be asked for its
    exit code has no command line any more."""
    try:
        return pid is not None and any(job_id in part for part in psutil.Process(pid).cmdline())
    except psutil.Error:
        return False


def _terminate(pid: int) -> None:
    """Ask a process to stop, and end it if it has not after a while."""
    try:
        process = psutil.Process(pid)
        process.terminate()
    except psutil.Error:
        return

    # Waiting for the process here would take its exit code away from the queue.
    def insist() -> None:
        with contextlib.suppress(psutil.Error):
            process.kill()

    timer = threading.Timer(_PATIENCE_SECONDS, insist)
    timer.daemon = True
    timer.start()
