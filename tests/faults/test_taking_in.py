"""What ends the process that takes it in is left out in the end, and keeps nothing else out."""

import errno
import os
import shutil
import signal
from pathlib import Path

import pytest

from itda_core.errors import ItdaError
from itda_core.runs.run import list_runs
from itda_core.store import index
from itda_core.store.store import FILE_NAME, Store
from itda_core.store.taking_in import MOST_ENDS, TAKING_IN_FILE, TakingIn
from tests.support import dying

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")


def take_in(folder, _sender, fatal: str) -> int:
    """Of a child: takes in all runs, and ends with one of them, as for want of memory."""
    insert = index.insert_run

    def ending(cursor, run):
        if run.run_id == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return insert(cursor, run)

    index.insert_run = ending
    taken_in(folder)
    return 0


def taken_in(folder: Path) -> tuple[set[str], str]:
    """The runs that the database has, and why others are not there."""
    store = Store(folder / FILE_NAME)
    try:
        why = ""
        try:
            store.import_new(folder / "runs")
        except ItdaError as error:
            why = str(error)
        return set(store.runs.table()["run_id"]), why
    finally:
        store.close()


@pytest.fixture
def copied(runs_folder, tmp_path):
    folder = tmp_path / "copied"
    shutil.copytree(runs_folder, folder / "runs")
    return folder


def test_a_run_that_ends_the_process_each_time_is_left_out_until_it_changes(copied):
    fatal, *others = [run.run_id for run in list_runs(copied / "runs")]
    for _ in range(MOST_ENDS):
        assert dying.live(take_in, copied, fatal).code == dying.KILLED
    life = dying.live(take_in, copied, fatal)
    assert life.code == 0, life.printed
    found, why = taken_in(copied)
    assert found == set(others)
    assert f"{fatal} is left out: the explorer has ended {MOST_ENDS} times" in why
    os.utime(copied / "runs" / fatal / "config.json")
    assert taken_in(copied) == ({fatal, *others}, "")
    (copied / TAKING_IN_FILE).unlink()
    assert taken_in(copied) == ({fatal, *others}, "")


def test_a_note_that_can_not_be_read_now_is_left_as_it_is(tmp_path, monkeypatch):
    taking_in = TakingIn(tmp_path / FILE_NAME)
    noted = tmp_path / TAKING_IN_FILE
    noted.write_text('{"another": 2}')

    def refused(_path):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("itda_core.store.taking_in.read_json", refused)
    with taking_in.of(tmp_path / "run", 1):
        pass
    assert noted.read_text() == '{"another": 2}'


@pytest.mark.parametrize("content", ["", "[]", "null", '{"a": "b"}', '{"a": 1e999}', "\0"])
def test_a_damaged_note_keeps_nothing_out_and_is_gone_in_the_end(copied, content):
    (copied / TAKING_IN_FILE).write_text(content)
    found, why = taken_in(copied)
    assert (len(found), why) == (len(list_runs(copied / "runs")), "")
    assert not (copied / TAKING_IN_FILE).exists()
