"""Jobs that came with a data folder wait to be let in; those queued in it start by themselves."""

import json
import shutil
import time
from dataclasses import replace

import pytest

from itda_core.jobs import folder_mark as marks
from itda_core.jobs import process
from itda_core.jobs import queue as queues
from itda_core.jobs.folder_mark import folder_mark
from itda_core.jobs.queue import JobQueue
from tests.support.waiting import ended, now, wait_until


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
    assert [job.job_id for job in queue.active()] == [first.job_id, second.job_id]
    queue.let_in(second.job_id)
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


def test_what_is_tried_again_is_queued_here(tmp_path, monkeypatch, opened):
    queued(tmp_path / "theirs", monkeypatch, "evaluate")
    shutil.copytree(tmp_path / "theirs", tmp_path / "mine")
    queue = opened(tmp_path / "mine")
    [theirs] = queue.jobs()
    queue.cancel(theirs.job_id)
    resumed = queue.resume(theirs.job_id)
    assert wait_until(lambda: ended(queue, resumed)).state == "done"


def test_jobs_of_a_folder_that_is_only_looked_at_are_the_other_explorers(
    tmp_path, monkeypatch, opened
):
    queued(tmp_path / "theirs", monkeypatch, "evaluate")
    shutil.copytree(tmp_path / "theirs", tmp_path / "mine")
    queue = opened(tmp_path / "mine", closed="it can't be written to")
    assert not queue.is_from_elsewhere(queue.jobs()[0])


def test_a_mark_is_of_one_folder_on_one_machine(tmp_path, monkeypatch):
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    assert len({folder_mark(tmp_path / name) for name in ("one", "other")}) == 2
    assert folder_mark(tmp_path / "none") == ""
    here = folder_mark(tmp_path / "one")
    assert here == folder_mark(tmp_path / "one")
    for name, said in (("this", "0123\n"), ("that", "4567\n")):
        (tmp_path / name).write_text(said)
    monkeypatch.setattr(marks, "_MACHINE", tmp_path / "this")
    this = folder_mark(tmp_path / "one")
    monkeypatch.setattr(marks, "_MACHINE", tmp_path / "that")
    assert len({here, this, folder_mark(tmp_path / "one")}) == 3
    monkeypatch.setattr(marks, "_MACHINE", tmp_path / "not there")
    monkeypatch.setattr(marks.platform, "node", lambda: "a name")
    named = folder_mark(tmp_path / "one")
    monkeypatch.setattr(marks.platform, "node", lambda: "another")
    assert folder_mark(tmp_path / "one") != named


def test_the_command_is_what_would_run(tmp_path, monkeypatch, opened):
    [job] = queued(tmp_path, monkeypatch, "evaluate")
    queue = opened(tmp_path)
    job = replace(job, ray="10.0.0.1:6379", arguments=("a folder", "--save"))
    line = queue.command_line(job)
    assert line.startswith("python -P -m itda_core evaluate 'a folder' --save --runs ")
    assert line.endswith(" --ray 10.0.0.1:6379")
