"""Jobs that came with a data folder wait to be let in; those queued in it start by themselves."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from itda_core.config import CorpusSpec, ModelSpec, TrainConfig
from itda_core.errors import ItdaError
from itda_core.jobs import process
from itda_core.jobs import queue as queues
from itda_core.jobs.folder_mark import folder_mark
from itda_core.jobs.queue import JobQueue
from itda_core.progress import Progress
from itda_core.runs.run import list_runs
from tests.support.waiting import ended, now, wait_until

PYTHON = sys.executable
"""Which queues here start another program in the place of"""


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """Opens the queue of a folder whose jobs note that they have begun; closed in the end."""
    program = tmp_path / "stand-in"
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/begun\n')
    program.chmod(0o755)
    monkeypatch.setattr(process.sys, "executable", str(program))
    monkeypatch.setattr(queues, "_POLL_SECONDS", 0.05)
    queues_open = []

    def opening(folder, **options):
        queues_open.append(JobQueue(folder / "jobs", folder / "runs", **options))
        return queues_open[-1]

    yield opening
    for queue in queues_open:
        queue.close()


def queued(folder, monkeypatch, *commands):
    """A folder in which jobs were queued, and none begun."""
    with monkeypatch.context() as patch:
        patch.setattr(JobQueue, "_step", lambda _self: False)
        queue = JobQueue(folder / "jobs", folder / "runs")
        jobs = [queue.enqueue(command, ["a folder"], command) for command in commands]
        queue.close()
    return jobs


def begun(tmp_path):
    path = tmp_path / "begun"
    return path.read_text().splitlines() if path.exists() else []


def test_a_job_of_a_copied_folder_waits_until_it_is_let_in(tmp_path, monkeypatch, opened):
    queued(tmp_path / "theirs", monkeypatch, "evaluate", "map")
    shutil.copytree(tmp_path / "theirs", tmp_path / "mine")
    queue = opened(tmp_path / "mine")
    first, second = queue.jobs()
    assert queue.is_from_elsewhere(first)
    assert queue.is_from_elsewhere(second)
    mine = queue.enqueue("probe", ["b"], "mine")  # keeps nothing waiting, and isn't kept waiting
    assert queue.ahead(mine) == 0
    assert wait_until(lambda: ended(queue, mine)).state == "done"
    time.sleep(0.5)
    assert [line.split()[3] for line in begun(tmp_path)] == ["probe"]
    assert queue.active() == []
    assert queue.from_elsewhere() == [first, second]
    queue.let_in(second)
    assert wait_until(lambda: ended(queue, second)).state == "done"
    assert [line.split()[3] for line in begun(tmp_path)] == ["probe", "map"]
    assert now(queue, first).state == "queued"
    queue.cancel(first.job_id)
    assert ended(queue, first).state == "cancelled"


def test_jobs_queued_in_a_folder_start_when_it_is_opened_again_and_after_it_was_renamed(
    tmp_path, monkeypatch, opened
):
    queued(tmp_path / "mine", monkeypatch, "evaluate")
    (tmp_path / "mine").rename(tmp_path / "renamed")
    queue = opened(tmp_path / "renamed")
    [job] = queue.jobs()
    assert wait_until(lambda: ended(queue, job)).state == "done"


def test_a_job_that_an_earlier_version_queued_waits_since_it_could_be_anybodys(
    tmp_path, monkeypatch, opened
):
    [job] = queued(tmp_path, monkeypatch, "evaluate")
    path = tmp_path / "jobs" / job.job_id / "job.json"
    said = json.loads(path.read_text())
    del said["folder"]
    path.write_text(json.dumps(said))
    queue = opened(tmp_path)
    time.sleep(0.5)
    assert queue.is_from_elsewhere(queue.jobs()[0])
    assert begun(tmp_path) == []


def test_what_is_tried_again_waits_to_be_let_in_too(tmp_path, monkeypatch, opened):
    queued(tmp_path / "theirs", monkeypatch, "evaluate")
    shutil.copytree(tmp_path / "theirs", tmp_path / "mine")
    queue = opened(tmp_path / "mine")
    [theirs] = queue.jobs()
    queue.cancel(theirs.job_id)
    resumed = queue.resume(theirs.job_id)
    time.sleep(0.5)
    assert queue.from_elsewhere() == [resumed]
    assert begun(tmp_path) == []
    queue.let_in(resumed)
    assert wait_until(lambda: ended(queue, resumed)).state == "done"
    again = queue.resume(resumed.job_id)
    assert wait_until(lambda: ended(queue, again)).state == "done", "it was let in once"


def rewritten(data, job, **changes):
    """What a file says that somebody else wrote."""
    path = data / "jobs" / job.job_id / "job.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"folder": ""} | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "running", "pid": 4_194_999},
        {"state": "running", "pid": os.getpid()},
        {"state": "queued", "pid": 4_194_999},
        {"state": "interrupted", "pid": 4_194_999, "ended": None},
        {"state": "cancelled", "pid": os.getpid(), "ended": None},
        {"state": "queued", "ended": 5.0},
    ],
)
def test_nothing_follows_from_what_the_file_of_a_job_from_elsewhere_says(
    tmp_path, monkeypatch, opened, runs_folder, changes
):
    """Nor from its progress, or from a claim."""
    runs = tmp_path / "runs"
    shutil.copytree(runs_folder, runs)
    [name, *_] = [run.run_id for run in list_runs(runs)]
    [job] = queued(tmp_path, monkeypatch, "train")
    rewritten(tmp_path, job, then=["map", "evaluate"], **changes)
    progress = Progress("done", fraction=1.0).to_dict() | {"finished": [name, str(runs / name)]}
    directory = tmp_path / "jobs" / job.job_id
    (directory / "progress.jsonl").write_text(json.dumps(progress) + "\n")
    (directory / "claim.json").write_text('{"pid": 1}')
    queue = opened(tmp_path, scores=True)
    time.sleep(0.5)
    assert begun(tmp_path) == []
    [only] = queue.jobs()
    assert only.pid is None
    assert only.state in ("queued", "interrupted", "cancelled")
    assert queue.is_from_elsewhere(only) == (changes["state"] == "queued")


def test_a_job_from_elsewhere_ends_no_process(tmp_path, monkeypatch, opened):
    """One that says it runs while the folder is open, as the process of the original does."""
    [job] = queued(tmp_path, monkeypatch, "evaluate")
    other = subprocess.Popen([PYTHON, "-c", f"import time; time.sleep(60) # {job.job_id}"])
    try:
        queue = opened(tmp_path)
        rewritten(tmp_path, job, state="running", pid=other.pid)
        queue.cancel(job.job_id)
        time.sleep(0.5)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_process_is_of_a_job_that_writes_its_progress_where_the_job_is(tmp_path):
    """That of a copied folder's original is not."""
    theirs, mine = tmp_path / "theirs" / "00001", tmp_path / "mine" / "00001"
    script = f"import time; time.sleep(60) # {theirs.name}"
    options = ["--progress", "theirs/00001/progress.jsonl"]
    other = subprocess.Popen([PYTHON, "-c", script, *options], cwd=tmp_path)
    plain = subprocess.Popen(["sleep", "60"])
    try:
        wait_until(lambda: process.is_of_job(other.pid, theirs))
        assert not process.is_of_job(other.pid, mine)
        assert not process.is_of_job(plain.pid, theirs)
        assert not process.is_of_job(None, theirs)
    finally:
        for one in (other, plain):
            one.kill()
            one.wait()


@pytest.mark.parametrize(
    "changes",
    [{"arguments": ["/etc/other"]}, {"command": "export"}, {"ray": "10.0.0.1:6379"},
     {"then": ["map"]}],
)  # fmt: skip
def test_a_job_that_somebody_changed_waits_though_its_mark_is_of_this_folder(
    tmp_path, monkeypatch, opened, changes
):
    """Who may write here, or had the folder for a while, knows the marks and not the secret."""
    changed, other = queued(tmp_path, monkeypatch, "evaluate", "probe")
    rewritten(tmp_path, changed, folder=changed.folder, **changes)
    forged = {"folder": other.folder, "command": "train", "job_id": "00003"}
    shutil.copytree(tmp_path / "jobs" / other.job_id, tmp_path / "jobs" / "00003")
    rewritten(tmp_path, replace(other, job_id="00003"), **forged)
    queue = opened(tmp_path)
    assert wait_until(lambda: ended(queue, other)).state == "done"
    time.sleep(0.3)
    assert [line.split()[3] for line in begun(tmp_path)] == ["probe"]
    assert [job.job_id for job in queue.from_elsewhere()] == [changed.job_id, "00003"]


def test_a_training_whose_settings_somebody_changed_waits(tmp_path, monkeypatch, opened):
    config = TrainConfig(ModelSpec("tiny-6x128-0"), CorpusSpec("sotu"), layers=(2,))
    with monkeypatch.context() as patch:
        patch.setattr(JobQueue, "_step", lambda _self: False)
        queue = JobQueue(tmp_path / "jobs", tmp_path / "runs")
        changed, as_it_was = queue.submit(config), queue.submit(config.but(seed=1))
        queue.close()
    other = config.but(corpus=CorpusSpec("/home/me/letters.txt")).to_dict()
    (tmp_path / "jobs" / changed.job_id / "config.json").write_text(json.dumps(other))
    queue = opened(tmp_path)
    assert wait_until(lambda: ended(queue, as_it_was)).state == "done"
    assert [job.job_id for job in queue.from_elsewhere()] == [changed.job_id]
    assert "letters.txt" in queue.settings(changed)
    queue.let_in(queue.from_elsewhere()[0])
    assert wait_until(lambda: ended(queue, changed)).state == "done"


def test_what_is_let_in_is_what_was_looked_at(tmp_path, monkeypatch, opened):
    [job] = queued(tmp_path, monkeypatch, "evaluate")
    rewritten(tmp_path, job)
    queue = opened(tmp_path)
    [seen] = queue.from_elsewhere()
    rewritten(tmp_path, job, arguments=["/etc/other"])
    with pytest.raises(ItdaError, match="has changed meanwhile"):
        queue.let_in(seen)
    time.sleep(0.3)
    assert begun(tmp_path) == []


@pytest.mark.parametrize("word", ["a\0b", "\ud800"])
def test_a_job_with_a_word_that_no_command_has_is_named_and_costs_nothing_else(
    tmp_path, monkeypatch, opened, word
):
    bad, good = queued(tmp_path, monkeypatch, "evaluate", "probe")
    rewritten(tmp_path, bad, arguments=[word])
    queue = opened(tmp_path)
    assert wait_until(lambda: ended(queue, good)).state == "done"
    [error] = queue.damaged()
    assert "a word that no command line can have" in str(error)


def test_what_a_job_is_given_besides_its_command_is_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(JobQueue, "_step", lambda _self: False)
    queue = JobQueue(tmp_path / "jobs", tmp_path / "runs")
    config = TrainConfig(ModelSpec("tiny-6x128-0"), CorpusSpec("sotu"), layers=(2,))
    job = queue.submit(config, then=["map"])
    queue.close()
    said = queue.settings(job)
    assert "tiny-6x128-0" in said
    assert said.endswith("followed by: map")
    assert queue.settings(queue.enqueue("map", ["a"], "A map")) == ""


def test_jobs_of_a_folder_that_is_only_looked_at_are_the_other_explorers(
    tmp_path, monkeypatch, opened
):
    queued(tmp_path / "theirs", monkeypatch, "evaluate")
    shutil.copytree(tmp_path / "theirs", tmp_path / "mine")
    queue = opened(tmp_path / "mine", closed="it can't be written to")
    assert not queue.is_from_elsewhere(queue.jobs()[0])


def test_a_mark_is_of_one_folder_and_one_person(tmp_path, monkeypatch):
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    assert len({folder_mark(tmp_path / name) for name in ("one", "other")}) == 2
    assert folder_mark(tmp_path / "none") == ""
    here = folder_mark(tmp_path / "one")
    assert here == folder_mark(tmp_path / "one")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "somebody"))
    there = folder_mark(tmp_path / "one")
    assert there != here
    assert there == folder_mark(tmp_path / "one")
    [secret] = (tmp_path / "somebody").rglob("secret")
    assert secret.stat().st_mode & 0o077 == 0, "nobody else can read it"
    (tmp_path / "a file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "a file"))  # no secret can be kept
    assert folder_mark(tmp_path / "one") not in ("", here, there)
    assert folder_mark(tmp_path / "one") == folder_mark(tmp_path / "one")


def test_the_command_is_what_would_run(tmp_path, monkeypatch, opened):
    [job] = queued(tmp_path, monkeypatch, "evaluate")
    queue = opened(tmp_path)
    job = replace(job, ray="10.0.0.1:6379", arguments=("a folder", "--save"))
    line = queue.command_line(job)
    assert line.startswith("python -P -m itda_core evaluate 'a folder' --save --runs ")
    assert line.endswith(" --ray 10.0.0.1:6379")
