"""The explorer is killed at any moment at which it writes or starts something, again and again: no
job and no label that it took is lost, and no job is done twice."""

import os
import sys
import time

import pytest

from itda_core.jobs import queue as jobs
from itda_core.jobs.kept import listed_jobs
from itda_core.runs.labels import LABELS_FILE, Change, Label, read_labels_file
from pages.components.explorer import Explorer
from tests.support import dying
from tests.support.dying import Moments, Trouble
from tests.support.stand_in import stand_in

N_KILLS = int(os.environ.get("ITDA_FAULT_KILLS", 3))
N_JOBS = 3
SECONDS = 60.0
"""For jobs of a fifth of a second, on a machine that is busy with other things"""
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")


@pytest.fixture
def program(tmp_path):
    return stand_in(tmp_path / "stand-in", "'once'", "time.sleep(0.2)")


def test_no_job_is_lost_or_done_twice(tmp_path, program):
    whole = dying.live(_live, tmp_path / "whole", program, None, True)
    assert whole.code == 0, whole.printed
    n_moments = -min(whole.told)
    for number, moment in enumerate(dying.chosen(n_moments, N_KILLS)):
        folder = tmp_path / f"killed-{moment}"
        first = dying.live(_live, folder, program, Trouble(moment), True)
        assert first.code == dying.KILLED, (moment, first.printed)
        folders = (folder / "jobs").glob("[!.]*")
        assert all((path / "job.json").exists() for path in folders), moment
        # The one that takes over is killed, too: soon, since it has less to do.
        dying.live(_live, folder, program, Trouble(1 + number % 5), False)
        last = dying.live(_live, folder, program, None, False)
        assert last.code == 0, (moment, last.printed)
        taken = [number for number in first.told if number >= 0]
        _assert_all_done_once(folder, [number for number in taken if number < N_JOBS], moment)
        labels, bad = read_labels_file(folder / LABELS_FILE)
        said = {one.label.latent for one in labels}
        assert said >= {number - N_JOBS for number in taken if number >= N_JOBS}, moment
        assert len(bad) <= 1, "a line that a kill cut"


def _assert_all_done_once(folder, taken, moment):
    listed, errors = listed_jobs(folder / "jobs")
    assert not errors, (moment, errors)
    assert {f"job {number}" for number in taken} <= {job.title for job in listed}, moment
    assert {path.name for path in (folder / "jobs").iterdir()} == {job.job_id for job in listed}
    assert [job.state for job in listed] == ["done"] * len(listed), (moment, listed)
    for job in listed:
        begun = (folder / "jobs" / job.job_id / "begun").read_text().split()
        assert begun == ["once"], (moment, job)


def _live(folder, sender, program, trouble, is_first):
    """Of a child: an explorer that takes jobs and labels, and lives until all are done. It sends
    the number of each thing once it is taken, and −1, −2, … at each moment."""
    sys.executable, jobs._POLL_SECONDS = str(program), 0.05
    folder.mkdir(exist_ok=True)
    Moments(folder, lambda number: sender.send(-number), {"subprocess.Popen"}).begin(trouble)
    explorer = Explorer(folder)
    for number in range(N_JOBS) if is_first else ():
        explorer.queue.enqueue("map", [f"run-{number}"], f"job {number}")
        sender.send(number)
        change = Change(Label("run", number, "p", 5, "war"), ("label",))
        explorer.keep_changes([change])
        sender.send(N_JOBS + number)
    deadline = time.monotonic() + SECONDS
    while any(job.is_active for job in explorer.queue.jobs()):
        assert time.monotonic() < deadline, explorer.queue.jobs()
        time.sleep(0.02)
    explorer.close()
    return 0
