"""A data folder that is moved, or whose disk is taken away, while the explorer is open: nothing is
written in its place and said to be kept, and all is there when it comes back."""

import shutil

import pytest

from itda_core.errors import ItdaError
from itda_core.jobs import queue as jobs
from itda_core.runs.labels import Change, Label
from itda_core.runs.run import list_runs
from itda_core.store.store import FILE_NAME
from pages.components.explorer import Explorer


@pytest.fixture
def data(tmp_path, runs_folder):
    shutil.copytree(runs_folder, tmp_path / "data" / "runs")
    return tmp_path / "data"


@pytest.fixture
def explorer(data, monkeypatch):
    monkeypatch.setattr(jobs, "_POLL_SECONDS", 3_600.0)
    opened = Explorer(data)
    yield opened
    opened.close()


def change(run, text):
    row = run.dictionary().sources.iloc[3]
    return Change(Label(run.run_id, 3, row["prompt_id"], int(row["position"]), text), ("label",))


def label(explorer, run):
    return explorer.store.labels.of_latent(run.run_id, 3)["label"].tolist()


@pytest.mark.parametrize("is_mounted_on", [False, True], ids=["moved", "taken away"])
def test_nothing_is_kept_in_its_place(data, explorer, is_mounted_on):
    """Of a disk that is taken away the folder stays on which it was mounted."""
    run = list_runs(explorer.runs_folder)[0]
    explorer.keep_changes([change(run, "before")])
    meanwhile, after = change(run, "meanwhile"), change(run, "after")
    data.rename(data.with_name("away"))
    if is_mounted_on:
        data.mkdir()
    for write in (
        lambda: explorer.keep_changes([meanwhile]),
        lambda: explorer.keep_name(run.run_id, "a name"),
        lambda: explorer.queue.enqueue("map", ["a"], "A map"),
        lambda: explorer.delete(run.run_id),
        explorer.start_demo,
    ):
        with pytest.raises(ItdaError, match="is gone: it was moved or removed"):
            write()
    explorer._import_finished()  # as the queue does every few seconds
    assert any("is gone" in told for told in explorer.troubles)
    assert run.run_id in set(explorer.store.runs.table()["run_id"])
    assert not data.exists() or list(data.iterdir()) == []

    if is_mounted_on:
        data.rmdir()
    data.with_name("away").rename(data)
    explorer._import_finished()
    assert explorer.troubles == []
    assert label(explorer, run) == ["before"]
    explorer.keep_changes([after])
    assert label(explorer, run) == ["after"]


def test_without_its_database_nothing_is_kept_until_that_is_made_anew(data, explorer):
    """Else another explorer could open the folder beside this one."""
    run = list_runs(explorer.runs_folder)[0]
    explorer.keep_changes([change(run, "before")])
    (data / FILE_NAME).unlink()
    with pytest.raises(ItdaError, match="is gone: it was moved or removed"):
        explorer.keep_changes([change(run, "meanwhile")])
    explorer.rebuild()
    explorer.keep_changes([change(run, "after")])
    assert label(explorer, run) == ["after"]
