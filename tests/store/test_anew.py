"""The database is made anew while others use it: who is in it ends, who comes waits, and all get
the new one."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from itda_core.errors import ItdaError, RunError, StoreDamagedError
from itda_core.runs.labels import Change, Label, add_changes, labels_file
from itda_core.runs.run import list_runs
from itda_core.store.gate import Gate
from itda_core.store.store import FILE_NAME, Store, rebuild_all
from tests.support.waiting import wait_until

SECONDS = 60.0


@pytest.fixture
def runs(runs_folder, tmp_path):
    return shutil.copytree(runs_folder, tmp_path / "data" / "runs")


@pytest.fixture
def store(runs):
    """One that says of its runs what their files don't."""
    with closing(Store(runs.parent / FILE_NAME)) as store:
        store.import_new(runs)
        with store.database.transaction() as cursor:
            cursor.execute("UPDATE runs SET model = 'old'")
        yield store


def anew(store, runs):
    return store.anew(lambda: rebuild_all(runs.parent / FILE_NAME, runs))


def models(store):
    return set(store.runs.table()["model"])


def test_who_is_in_it_ends_first_and_who_comes_gets_the_new_one(store, runs):
    """What still used the old file would write beside the new one, under the same names."""
    is_in, may_end = threading.Event(), threading.Event()

    def slow():
        with store.database.transaction() as cursor:
            is_in.set()
            assert may_end.wait(SECONDS)
            inside = models(store)  # asked from within, while the rebuild waits
            cursor.execute("SELECT * FROM runs").fetchall()
            return inside

    with ThreadPoolExecutor(8) as pool:
        old = pool.submit(slow)
        assert is_in.wait(SECONDS)
        rebuilt = pool.submit(anew, store, runs)
        wait_until(lambda: store.database._gate._is_shut)
        late = [pool.submit(models, store) for _ in range(3)]
        assert not rebuilt.done()
        assert not any(one.done() for one in late)
        may_end.set()
        assert old.result(SECONDS) == {"old"}
        there = list_runs(runs)
        assert rebuilt.result(SECONDS).runs == len(there)
        new = {run.config.model.name for run in there}
        assert [one.result(SECONDS) for one in late] == [new] * 3
    row = there[0].dictionary().sources.iloc[3]
    source = there[0].run_id, 3, row["prompt_id"], int(row["position"])
    add_changes(labels_file(runs), [Change(Label(*source, "war"))])
    assert store.import_new(runs) == []
    store.close()
    with closing(Store(runs.parent / FILE_NAME)) as again:  # what was written since is in the file
        assert models(again) == new
        assert again.labels.shown(there[0].run_id)["label"].tolist() == ["war"]


def test_sessions_that_ask_all_the_time_never_see_it_half(store, runs):
    n_runs, ends = len(list_runs(runs)), threading.Event()

    def session():
        counts = set()
        while not ends.is_set():
            counts.add(len(store.known(store.runs.table)))
            store.import_new(runs)
        return counts

    with ThreadPoolExecutor(3) as pool:
        sessions = [pool.submit(session) for _ in range(3)]
        for _ in range(3):
            anew(store, runs)
        ends.set()
        assert [one.result(SECONDS) for one in sessions] == [{n_runs}] * 3


def test_one_that_fails_leaves_the_old_one_open(store):
    def full():
        raise ItdaError("There is no space left on the disk.")

    with pytest.raises(ItdaError, match="no space"):
        store.anew(full)
    assert models(store) == {"old"}


def test_one_that_can_not_be_opened_again_says_so_until_it_can(store, runs):
    path = runs.parent / FILE_NAME

    def spoils():
        path.write_bytes(b"no database at all" * 1_000)
        raise RunError("No run can be read.")

    with pytest.raises(StoreDamagedError):
        store.anew(spoils)
    with pytest.raises(StoreDamagedError, match="is closed"):
        models(store)
    assert anew(store, runs).kept_aside is not None
    assert models(store) == {run.config.model.name for run in list_runs(runs)}


def test_a_gate_lets_one_alone_after_another():
    gate, inside = Gate(), []

    def alone(number):
        with gate.alone(), gate.inside():
            inside.append(number)
            assert inside == [number]
            inside.remove(number)
        return number

    with ThreadPoolExecutor(4) as pool:
        assert [*pool.map(alone, range(40), timeout=SECONDS)] == [*range(40)]
