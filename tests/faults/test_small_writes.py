"""What a click writes (labels, names, texts, jobs, …) is kept whole or not at all, whatever the
disk says at whatever moment, and what was there before is there still."""

import errno
import itertools
import os
import shutil
import traceback

import pytest

from itda_core.errors import ItdaError
from itda_core.jobs import queue as jobs
from itda_core.jobs.kept import listed_jobs
from itda_core.runs.comparisons import read_comparisons, save_comparisons
from itda_core.runs.given_names import keep_name, read_names
from itda_core.runs.labels import Change, Label, add_changes, read_labels_file
from itda_core.runs.run import delete_run, list_runs
from itda_core.runs.texts import keep_text
from tests.support import dying
from tests.support.dying import Moments, Trouble

ERRORS = [(errno.ENOSPC, True), (errno.EIO, False), (errno.EROFS, True)]
if "ITDA_FAULT_KILLS" in os.environ:
    ERRORS += [(errno.ENOSPC, False), (errno.EDQUOT, True), (errno.EDQUOT, False)]
    ERRORS += [(errno.EIO, True), (errno.EACCES, True), (errno.EACCES, False)]
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")


def change(latent):
    return Change(Label("run", latent, "p", 5, f"label {latent}"), ("label",))


class Kind:
    """Something that is written."""

    def begin(self, folder):
        """What is there before."""

    def write(self, folder):
        """Do it, also again."""

    def state(self, folder):
        """What is there of it."""

    def left(self, folder):
        """What else lies there and must not be left where the disk takes names away."""


class Labels(Kind):
    def begin(self, folder):
        add_changes(folder / "labels.jsonl", [change(1), change(2)])

    def write(self, folder):
        add_changes(folder / "labels.jsonl", [change(3), change(4)])

    def state(self, folder):
        changes, bad = read_labels_file(folder / "labels.jsonl")
        return {one.label.latent for one in changes}, bad

    def left(self, folder):
        return (folder / "labels.jsonl").stat().st_size


class Names(Kind):
    def begin(self, folder):
        keep_name(folder / "names.json", "a", "first")

    def write(self, folder):
        keep_name(folder / "names.json", "b", "second")

    def state(self, folder):
        return read_names(folder / "names.json")


class Texts(Kind):
    def begin(self, folder):
        keep_text(folder / "texts", "one")

    def write(self, folder):
        keep_text(folder / "texts", "two")

    def state(self, folder):
        return sorted(path.read_text() for path in (folder / "texts").glob("*.txt"))


class Comparisons(Kind):
    def _save(self, folder, value, b="two"):
        row = {"measure": "cka", "a": "one", "b": b, "value": value, "reason": "", "tokens": 9}
        save_comparisons(folder / "comparisons", [row | {"unit": "token"}])

    def begin(self, folder):
        self._save(folder, 0.5)
        self._save(folder, 0.75, "three")

    def write(self, folder):
        self._save(folder, 0.625)

    def state(self, folder):
        table, failed = read_comparisons(folder / "comparisons")
        return sorted(table["value"]), failed


class Jobs(Kind):
    """Two that wait; one more is queued."""

    def _queue(self, folder):
        jobs._POLL_SECONDS = 3_600.0  # none is started
        return jobs.JobQueue(folder / "jobs", folder / "runs")

    def begin(self, folder):
        with_queue(self._queue(folder), lambda queue: (add(queue, "one"), add(queue, "two")))

    def write(self, folder):
        with_queue(self._queue(folder), self.act)

    def act(self, queue):
        if "three" not in [job.title for job in queue.jobs()]:
            add(queue, "three")

    def state(self, folder):
        listed, errors = listed_jobs(folder / "jobs")
        return [(job.title, job.state) for job in listed], errors

    def left(self, folder):
        return sorted(path.name for path in (folder / "jobs").iterdir())


class CancelledJob(Jobs):
    def act(self, queue):
        if queue.jobs()[0].state == "queued":
            queue.cancel("00001")


class ForgottenJob(CancelledJob):
    def begin(self, folder):
        super().begin(folder)
        with_queue(self._queue(folder), super().act)

    def act(self, queue):
        if len(queue.jobs()) == 2:
            queue.forget("00001")


class DeletedRun(Kind):
    def begin(self, folder):
        shutil.copytree(folder.parent / "runs", folder / "runs")

    def write(self, folder):
        delete_run(folder / "runs" / list_runs(folder.parent / "runs")[0].run_id)

    def state(self, folder):
        return [run.run_id for run in list_runs(folder / "runs")]


def with_queue(queue, act):
    try:
        act(queue)
    finally:
        queue.close()


def add(queue, title):
    queue.enqueue("map", [title], title)


KINDS = (Labels, Names, Texts, Comparisons, Jobs, CancelledJob, ForgottenJob, DeletedRun)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_write_that_the_disk_refuses_leaves_what_was_there(kind, tmp_path, runs_folder):
    if kind is DeletedRun:
        shutil.copytree(runs_folder, tmp_path / "runs")
    life = dying.live(_try_all_moments, tmp_path / "data", kind.__name__)
    assert life.code == 0, life.printed
    assert life.told[-1] >= 2, "moments"


def _try_all_moments(folder, sender, name):
    kind, begun = globals()[name](), folder.with_name("begun")
    try:
        begun.mkdir()
        kind.begin(begun)
        moments = Moments(folder)
        for error, stays in ERRORS:
            for moment in itertools.count(1):
                moments.begin(None)
                shutil.rmtree(folder, ignore_errors=True)
                shutil.copytree(begun, folder)
                if not _is_kept(kind, folder, moments, Trouble(moment, error, stays)):
                    break
            sender.send(moment - 1)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _is_kept(kind, folder, moments, trouble):
    """Whether the trouble came; what there is then."""
    before, left = kind.state(folder), kind.left(folder)
    moments.begin(trouble)
    refused = None
    try:
        kind.write(folder)
    except ItdaError as error:
        refused = error
    except OSError as error:
        raise AssertionError(f"{trouble}: no sentence, {error!r}") from error
    came = moments.came
    moments.begin(None)
    after, left_after = kind.state(folder), kind.left(folder)
    kind.write(folder)
    done = kind.state(folder)
    assert done != before, (trouble, done)
    if refused:
        # Whether a name came to the disk can't be known where the folder does not answer, and what
        # did not come to it can't be taken back where the disk takes nothing any more.
        unknown = ["os.fsync of a folder", *(["os.fsync"] if trouble.stays else [])]
        is_written = came in unknown and after == done
        assert after == before or is_written, (trouble, came, refused, before, after)
        assert trouble.stays or left_after == left or is_written, (trouble, came, left, left_after)
        assert "delete" not in str(refused).lower(), refused
    else:
        assert after == done, (trouble, came, after, done)
    return bool(came)
