"""The jobs of a data folder as they are kept, each in a directory of its own.

jobs/<job_id>/   job.json (its command and state)  progress.jsonl  log.txt
                 config.json (of a training)  list.toml (of several)
"""

import contextlib
import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itda_core.config import TrainConfig, layers_in_words
from itda_core.errors import InputError, ItdaError
from itda_core.events import tell
from itda_core.files.disk_errors import disk_errors_as_sentences, why_unreadable
from itda_core.files.foreign import read_foreign
from itda_core.files.json_files import json_bytes, newest_lines, read_json, write_json
from itda_core.files.writing import rename_whole, write_atomically
from itda_core.jobs.folder_mark import folder_mark
from itda_core.jobs.job import ANY, Job
from itda_core.jobs.process import LIST_FILE, PROGRESS_FILE
from itda_core.leftovers import temporary_name
from itda_core.progress import Progress

if TYPE_CHECKING:
    from itda_core.training.training_list import ListedTraining

_LOG_BYTES = 2**18
_NUMBER = re.compile(r"[0-9]{1,9}")
"""The name of a job; other folders are none of ours"""
Work = tuple[str, tuple[str, ...], bytes]
"""What a job does: its command, its arguments, and what its files say"""


class KeptJobs:
    """The jobs of one data folder, what each is about and how far it is."""

    def __init__(self, folder: Path, closed: str = ""):
        """closed: why nothing can be kept in the folder; what would write raises that."""
        self.folder, self._refusal = folder, closed
        self._lock = threading.RLock()
        self._told: dict[str, str] = {}
        """The state of each job that was noted last"""
        self._forgotten = 0
        """The highest number of a job that is gone: a page of before may still name it, and what is
        clicked there must not be of another job"""
        if not closed:
            with disk_errors_as_sentences(folder):
                folder.mkdir(parents=True, exist_ok=True)
        self._mark = folder_mark(folder)

    def jobs(self) -> list[Job]:
        """All jobs, in the order in which they were submitted."""
        return listed_jobs(self.folder)[0]

    def damaged(self) -> list[ItdaError]:
        """Why jobs that are in the folder are not in the list."""
        return listed_jobs(self.folder)[1]

    def is_from_elsewhere(self, job: Job) -> bool:
        """Whether a job waits that came with the folder: of another person or machine, of a copied
        folder, or of a version that did not write where. It starts once it is let in."""
        return job.state == "queued" and not self._is_ours(job) and not self._refusal

    def _is_ours(self, job: Job) -> bool:
        """Whether it was queued here, or let in: what the file of another says of processes and
        runs is not believed."""
        return is_of_folder(job, self.folder, self._mark)

    def from_elsewhere(self) -> list[Job]:
        """The jobs that wait to be let in."""
        return [job for job in self.jobs() if self.is_from_elsewhere(job)]

    def settings(self, job: Job) -> str:
        """What else a job is given than its command line, as its files say it: the settings of a
        training or the list of several, and what follows; "" without."""
        with contextlib.suppress(OSError, ValueError):
            contents = _contents(self.folder / job.job_id)
            said = [content.decode("utf-8", "replace") for content in contents]
            then = [f"followed by: {', '.join(job.then)}"] if job.then else []
            return "\n".join([*said, *then])
        return "(unreadable)"

    def let_in(self, job: Job) -> None:
        """Let a job from elsewhere wait for its turn as those that were queued here. Raises
        ItdaError where its job.json is another one by now than the one that was looked at."""
        with self._lock, self._written():
            if self._get(job.job_id) != job:
                raise ItdaError(f"Job {job.job_id} has changed meanwhile. Look at it once more.")
            if self.is_from_elsewhere(job):
                directory = self.folder / job.job_id
                try:
                    contents = _contents(directory)
                except (OSError, ValueError) as error:
                    raise why_unreadable(directory, error, "Cancel the job.") from error
                self._save(replace(job, folder=job.mark(self._mark, contents)))

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
            return read_foreign(self.folder / job.job_id / LIST_FILE).decode()
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
        path = self.folder / job.job_id / PROGRESS_FILE
        for line in reversed(newest_lines(path)):
            if (said := Progress.read_line(line)) is not None:  # the last may be half written
                return said
        return None

    def log(self, job: Job) -> str:
        """What the process printed last, up to 256 KiB: it may have printed without end."""
        path = self.folder / job.job_id / "log.txt"
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_BYTES))
            return file.read().decode("utf-8", "replace")

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

    def _enqueue(
        self,
        job: Job,
        config: TrainConfig | None,
        listed: str | None = None,
        folder: str | None = None,
    ) -> Job:
        """listed: the list of trainings of a job that has one; folder: where it counts as queued,
        None for here."""
        with self._lock, self._written():
            if folder is None:
                contents = [json_bytes(config.to_dict())] if config else []
                contents += [] if listed is None else [listed.encode()]
                folder = job.mark(self._mark, contents)
            job = replace(job, job_id=self._new_id(), folder=folder)
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
        if not self.folder.is_dir():
            raise ItdaError(
                f"{self.folder} is gone: it was moved or removed, or its disk taken away. Bring it "
                "back, or start the explorer again."
            )
        with disk_errors_as_sentences(self.folder):
            yield

    def forget(self, job_id: str) -> None:
        """Remove an ended job from the list; one whose process is still stopping stays. It is gone
        at once, even if clearing it is interrupted."""
        with self._lock, self._written():
            job = self._get(job_id)
            if not job.is_active and (job.pid is None or job.ended):
                hidden = self.folder / temporary_name(f"deleted-{job_id}")
                (self.folder / job_id).rename(hidden)
                self._forgotten = max([self._forgotten, *_numbers([job_id])])
                shutil.rmtree(hidden, ignore_errors=True)

    def _work(self, job: Job) -> Work:
        """What a job does: two of the same would be in each other's way."""
        try:
            return job.command, job.arguments, b"".join(_contents(self.folder / job.job_id))
        except (OSError, ValueError):  # its process says so; until then it is work like no other
            return job.command, job.arguments, job.job_id.encode()

    def _get(self, job_id: str) -> Job:
        for job in self.jobs():
            if job.job_id == job_id:
                return job
        raise ItdaError(f"There is no job {job_id!r} any more.")

    def _new_id(self) -> str:
        numbers = _numbers(path.name for path in self.folder.iterdir())
        return f"{max([*numbers, self._forgotten]) + 1:05d}"

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


def _numbers(names: Iterable[str]) -> list[int]:
    """Those of jobs; a folder that somebody put among them may have any name."""
    return [int(name) for name in names if _NUMBER.fullmatch(name)]


def is_of_folder(job: Job, folder: Path, mark: str) -> bool:
    """Whether a job was queued, or let run, in a folder of jobs, to do what it says. mark: of the
    folder (`folder_mark`)."""
    with contextlib.suppress(OSError, ValueError):
        return bool(mark) and job.folder == job.mark(mark, _contents(folder / job.job_id))
    return False


def _contents(directory: Path) -> list[bytes]:
    """Of the files that say what a job does, as far as there are any. Raises OSError or ValueError
    where one can't be read."""
    files = [directory / name for name in ("config.json", LIST_FILE)]
    return [read_foreign(file) for file in files if file.exists()]


def _listed(text: str) -> list["ListedTraining"]:
    from itda_core.training.training_list import listed_trainings  # which imports torch

    return listed_trainings(text, "The list")
