"""A data folder that can only be read: all pages open, Overview says so, and what would write says
why it does not. One that can't be read: pages say so in a sentence. Nothing is lost, and nothing
advises to delete what a right brings back."""

import os
import re
import shutil
import stat
import traceback

import pytest

from itda_core.errors import ItdaError
from itda_core.files.json_files import write_json
from itda_core.jobs.submissions import submit_evaluation
from itda_core.runs.labels import Change, Label, add_changes, labels_file
from itda_core.runs.run import list_runs
from itda_core.store.store import FILE_NAME, Store
from tests.faults.test_real_disks import CANT, ReadOnly, WithoutRights, contents
from tests.support import dying

PAGES = ("overview", "train", "latents", "decompose", "similarity", "evaluate")
STOPPED = "tiny-00000000"
CLOSED = {
    "read-only disk": ReadOnly(),
    "no right to write": WithoutRights(0o444),
    "no rights": WithoutRights(0),
}
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")


@pytest.fixture
def data(tmp_path, runs_folder):
    """A data folder with runs, a label, a database and a training that was stopped."""
    data = tmp_path / "data"
    shutil.copytree(runs_folder, data / "runs")
    run = list_runs(data / "runs")[0]
    stopped = data / "runs" / f".{STOPPED}"
    stopped.mkdir()
    write_json(stopped / "config.json", run.config.to_dict())
    (stopped / "lock").touch()
    row = run.dictionary().sources.iloc[3]
    source = run.run_id, 3, row["prompt_id"], int(row["position"])
    add_changes(labels_file(data / "runs"), [Change(Label(*source, "war"))])
    store = Store(data / FILE_NAME)
    store.import_new(data / "runs")
    store.close()
    return data


@pytest.mark.parametrize("name", CLOSED)
def test_pages_of_a_closed_folder_say_so(data, name):
    before = contents(data)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [data, *data.rglob("*")]}
    life = dying.live(_look, data, CLOSED[name])
    for path, mode in modes.items():
        path.chmod(mode)
    if life.code == CANT:
        pytest.skip(f"the system lets nobody try it: {life.printed}")
    assert life.code == 0, life.printed
    assert contents(data) == before
    store = Store(data / FILE_NAME)
    store.import_new(data / "runs")
    assert store.labels.shown(list_runs(data / "runs")[0].run_id)["label"].tolist() == ["war"]
    store.close()


def _look(folder, _sender, closed):
    """Of a child: all pages, what they say, and what writes."""
    try:
        closed(folder)
    except OSError as error:
        print(error)
        return CANT
    try:
        said = _said_by_pages()
        if os.access(folder, os.R_OK | os.X_OK):
            assert [name for name in PAGES if said[name]] == ["overview"]
            [told] = said["overview"]
            assert "can't be written to" in told
            assert "start the explorer again" in told  # which looks at the rights once
            _assert_all_is_there_and_nothing_kept(folder)
        else:
            assert all("can't be written to" in "".join(texts) for texts in said.values())
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def _said_by_pages():
    from tests.support.app import open_page_anyhow

    said = {name: open_page_anyhow(name) for name in PAGES}
    for name, texts in said.items():
        print(name, texts)
        for text in texts:
            assert "Traceback" not in text, (name, text)
            assert "could not be shown" not in text, (name, text)
            assert not re.search("[Dd]elete", text), (name, text)
    return said


def _assert_all_is_there_and_nothing_kept(folder):
    from pages.components.explorer import explorer
    from tests.support.app import open_page

    here = explorer()
    offered = [one.label for one in open_page("train").button]
    assert "Discard" not in offered and "Resume" not in offered
    [run, *others] = list_runs(folder / "runs")
    assert len(here.store.runs.table()) == 1 + len(others)
    shown = here.store.labels.shown(run.run_id)
    assert shown["label"].tolist() == ["war"]
    label = Label(run.run_id, 3, shown["prompt_id"][0], int(shown["position"][0]), "peace")
    for write in (
        lambda: here.keep_changes([Change(label)]),
        lambda: here.keep_name(run.run_id, "mine"),
        lambda: here.delete(run.run_id),
        lambda: here.discard(STOPPED),
        lambda: here.queue.submit(run.config),
        lambda: submit_evaluation(here.queue, [run]),
        here.rebuild,
    ):
        with pytest.raises(ItdaError) as raised:
            write()
        assert str(raised.value) == here.closed
    assert len(here.store.runs.table()) == 1 + len(others)
    here.close()
