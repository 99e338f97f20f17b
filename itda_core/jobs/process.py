"""The process of a job: its command, what it finds around it, whether it lives, and its end."""

import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import psutil

from itda_core.data_folder import code_directory, is_checkout
from itda_core.jobs.claim import claiming
from itda_core.jobs.job import Job

PATIENCE_SECONDS = 30.0
"""A process that is told to stop has this long to write its checkpoint."""

PROGRESS_FILE = "progress.jsonl"
LIST_FILE = "list.toml"
"""Of a job that trains a list; JSON too, since its reader looks at the content"""
_WITH_A_MODEL = ("train", "move", "evaluate", "probe", "score", "measure", "compare-latents")
"""Commands that take --device and --memory"""
_SCORED_BY_THE_QUEUE = ("train", "move")
"""Commands whose runs get their scores by a job of their own, after them"""


def command_of(job: Job, directory: Path, runs: Path) -> list[str]:
    """What a job runs. directory: the job's own; runs: the folder of runs."""
    command = [sys.executable, "-P", "-m", "itda_core", job.command, *job.arguments]
    command += ["--runs", str(runs), "--progress", str(directory / PROGRESS_FILE)]
    if (directory / "config.json").exists():
        command += ["--config", str(directory / "config.json")]
    if (directory / LIST_FILE).exists():
        command += ["--list", str(directory / LIST_FILE)]
    command += ["--no-scores"] if job.command in _SCORED_BY_THE_QUEUE else []
    command += ["--ray", job.ray] if job.ray else []
    if job.command in _WITH_A_MODEL:
        command += ["--device", job.place] if job.place and not job.ray else []
        command += ["--memory", f"{job.memory}B"] if job.memory else []
    return command


def begin(job: Job, directory: Path, runs: Path) -> subprocess.Popen:
    """Start a job's command (`command_of`)."""
    command = command_of(job, directory, runs)
    with (directory / "log.txt").open("ab") as log:
        apart = {"env": _environment() | claiming(directory), "start_new_session": True}
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **apart
        )
    if os.name == "posix":
        # The pages come first: they answer at once while a job takes what is left.
        with contextlib.suppress(psutil.Error):
            psutil.Process(process.pid).nice(10)
    return process


def _environment() -> dict[str, str]:
    """A job's: it finds a checkout's package from wherever the explorer was started."""
    # Several OpenMP runtimes in one process stall each other when they spin.
    found = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_WAIT_POLICY": "passive"}
    if is_checkout():
        paths = [str(code_directory()), *filter(None, [os.environ.get("PYTHONPATH")])]
        found["PYTHONPATH"] = os.pathsep.join(paths)
    return found


def is_of_job(pid: int | None, directory: Path) -> bool:
    """Whether a process lives and does the job of a directory, by where it writes its progress; one
    that has ended and waits to be asked for its exit code has no command line any more."""
    if pid is None:
        return False
    wanted = (directory / PROGRESS_FILE).resolve()
    try:
        process = psutil.Process(pid)
        said = [part for part in process.cmdline() if part.endswith(PROGRESS_FILE)]
        return any((Path(process.cwd()) / part).resolve() == wanted for part in said)
    except (psutil.Error, OSError, ValueError):
        return False


def terminate(pid: int) -> None:
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

    timer = threading.Timer(PATIENCE_SECONDS, insist)
    timer.daemon = True
    timer.start()
