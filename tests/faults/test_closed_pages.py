"""A data folder that can only be read, or can't: pages open or say so in a sentence, nothing is
lost, and nothing advises to delete what a right brings back."""

import os
import re
import shutil
import stat
import traceback

import pytest

from itda_core.runs.labels import Change, Label, add_changes, labels_file
from itda_core.runs.run import list_runs
from itda_core.store.store import FILE_NAME, Store
from tests.faults.test_real_disks import CANT, ReadOnly, WithoutRights, contents
from tests.support import dying

PAGES = ("overview", "train", "latents", "decompose", "similarity", "evaluate")
CLOSED = {
    "read-only disk": ReadOnly(),
    "no right to write": WithoutRights(0o444),
    "no rights": WithoutRights(0),
}
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")


@pytest.fixture
def data(tmp_path, runs_folder):
    """A data folder with runs, a label and a database."""
    data = tmp_path / "data"
    shutil.copytree(runs_folder, data / "runs")
    run = list_runs(data / "runs")[0]
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
    """Of a child: all pages, and what they say."""
    from tests.support.app import open_page_anyhow

    try:
        closed(folder)
    except OSError as error:
        print(error)
        return CANT
    try:
        for name in PAGES:
            said = open_page_anyhow(name)
            print(name, said)
            for text in said:
                assert "Traceback" not in text, (name, text)
                assert "could not be shown" not in text, (name, text)
                assert not re.search("[Dd]elete", text), (name, text)
            assert any("can't be written to" in text for text in said), (name, said)
    except Exception:
        traceback.print_exc()
        return 1
    return 0
