"""The database of a folder that can only be read: whatever is there is copied or made anew, is not
changed, and leaves nothing behind."""

import shutil
import tempfile
from contextlib import closing

import pytest

from itda_core.leftovers import temporary_name
from itda_core.runs.run import list_runs
from itda_core.store.apart import StoreApart
from itda_core.store.store import FILE_NAME, Store


@pytest.fixture
def data(runs_folder, tmp_path, monkeypatch):
    """Two of three runs are in the database."""
    around = tmp_path / "tmp"
    around.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(around))
    data = tmp_path / "data"
    shutil.copytree(runs_folder, data / "runs")
    with closing(Store(data / FILE_NAME)) as store:
        for run in list_runs(data / "runs")[:2]:
            store.import_run(run)
    return data


def known(store):
    return set(store.runs.table()["run_id"])


def assert_is_all_there(data, begins_with):
    """As the runs' own folder lists them, and the database as before."""
    before = (data / FILE_NAME).read_bytes() if (data / FILE_NAME).exists() else b""
    store = StoreApart(data / FILE_NAME)
    assert len(known(store)) == begins_with
    store.import_new(data / "runs")
    assert known(store) == {run.run_id for run in list_runs(data / "runs")}
    store.close()
    assert (data / FILE_NAME).exists() == bool(before)
    assert not before or (data / FILE_NAME).read_bytes() == before
    assert list((data.parent / "tmp").iterdir()) == []


def test_it_begins_as_a_copy_and_takes_in_what_is_new(data):
    assert_is_all_there(data, begins_with=2)


def test_without_a_database_it_is_made_from_the_runs(data):
    (data / FILE_NAME).unlink()
    assert_is_all_there(data, begins_with=0)


def test_one_that_is_damaged_is_not_believed(data):
    file = data / FILE_NAME
    file.write_bytes(file.read_bytes()[:5_000])
    assert_is_all_there(data, begins_with=0)


@pytest.mark.parametrize("version", [3, 10_000])
def test_nor_one_of_another_version(data, version):
    with closing(Store(data / FILE_NAME)) as store, store.database.transaction() as cursor:
        cursor.execute("UPDATE meta SET version = ?", [version])
    assert_is_all_there(data, begins_with=0)


def test_one_of_the_version_before_is_brought_up_to_this_one(data):
    with closing(Store(data / FILE_NAME)) as store, store.database.transaction() as cursor:
        cursor.execute("ALTER TABLE evaluations DROP COLUMN median_unexplained")
        cursor.execute("ALTER TABLE latent_comparisons DROP COLUMN of_strong")
        cursor.execute("ALTER TABLE namesakes DROP COLUMN of_strong")
        cursor.execute("UPDATE meta SET version = 10")
    assert_is_all_there(data, begins_with=2)


def test_of_what_others_have_in_the_folder_nothing_is_touched(data, monkeypatch):
    """Anybody may put a link where a lock would be, for which it would be taken."""
    around, mine = data.parent / "tmp", data.parent / "mine.txt"
    mine.write_text("kept")
    for name in (".writing-a", ".itda-explorer-a", temporary_name("scores.parquet")):
        (around / name).mkdir()
        (around / name / "lock").symlink_to(mine)
    before = sorted(around.rglob("*"))
    monkeypatch.setattr("itda_core.leftovers.FileLock", None)  # none is taken
    StoreApart(data / FILE_NAME).close()
    assert sorted(around.rglob("*")) == before
    assert mine.read_text() == "kept"


def test_what_a_process_left_that_was_killed_is_removed(data):
    around = data.parent / "tmp"
    name, pid = temporary_name("itda-explorer"), "4194999"  # no process has so large a number
    parts = name.split(".")
    left = around / ".".join([*parts[:-3], pid, *parts[-2:]])
    left.mkdir()
    (left / FILE_NAME).touch()
    other = around / "of somebody else"
    other.mkdir()
    StoreApart(data / FILE_NAME).close()
    assert list(around.iterdir()) == [other]
