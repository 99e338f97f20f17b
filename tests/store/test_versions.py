"""The data folder of every released version opens: its database is made anew or brought up to
date, its runs are read, and its labels are there before and after."""

import gzip
import re
import shutil
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from itda_core.checkup import check_data
from itda_core.runs.labels import kept_labels, labels_file, read_labels_file
from itda_core.runs.run import list_runs
from itda_core.store.store import FILE_NAME, SCHEMA_VERSION
from pages.components.explorer import explorer
from tests.support.app import assert_no_failure, close_explorer, open_page

REPOSITORY = Path(__file__).resolve().parents[2]
FROZEN = REPOSITORY / "tests" / "frozen"
FOLDERS = {"0.1.0": FROZEN / "0.1.0", "before sites": FROZEN / "data"}
"""By version; the second is of a day between two, with labels"""


@pytest.fixture(params=FOLDERS)
def data(request, data_folder):
    """A data folder as the version left it."""
    shutil.copytree(FOLDERS[request.param], data_folder)
    packed = data_folder / f"{FILE_NAME}.gz"
    (data_folder / FILE_NAME).write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    yield data_folder
    close_explorer()


def rows(path, sql):
    with duckdb.connect(str(path), read_only=True) as database:
        return database.execute(sql).df()


def test_every_released_version_has_a_folder():
    released = re.findall(r"^## \[(\d.*?)\]", (REPOSITORY / "CHANGELOG.md").read_text(), re.M)
    assert released
    assert set(released) <= set(FOLDERS)


def test_it_opens_with_all_that_was_in_it(data):
    path = data / FILE_NAME
    assert int(rows(path, "SELECT version FROM meta")["version"][0]) < SCHEMA_VERSION
    runs = rows(path, "SELECT run_id, atoms, fvu FROM runs ORDER BY run_id")
    latents = rows(path, "SELECT latent, position, token FROM latents ORDER BY run, latent")
    uses = int(rows(path, "SELECT count(*) AS n FROM codes")["n"][0])
    labels = kept_labels(read_labels_file(labels_file(data / "runs"))[0])
    app = open_page("latents", latent="3")
    assert_no_failure(app)
    store = explorer().store
    now = store.runs.table().sort_values("run_id")
    assert now["run_id"].tolist() == runs["run_id"].tolist()
    assert now["atoms"].tolist() == runs["atoms"].tolist()
    assert now["fvu"].tolist() == pytest.approx(runs["fvu"].tolist())
    for one in labels:
        [own] = store.labels.of_latent(*one.label.source[:2]).query("is_own").itertuples()
        kept = own.label, own.note, bool(own.bookmarked), tuple(own.lists)
        assert kept == (one.label.label, one.label.note, one.label.bookmarked, one.label.lists)
    assert kept_labels(read_labels_file(labels_file(data / "runs"))[0]) == labels
    close_explorer()
    after = rows(path, "SELECT latent, position, token FROM latents ORDER BY run, latent")
    pd.testing.assert_frame_equal(after, latents)
    assert int(rows(path, "SELECT count(*) AS n FROM codes")["n"][0]) == uses
    assert int(rows(path, "SELECT version FROM meta")["version"][0]) == SCHEMA_VERSION


def test_nothing_in_it_is_to_mend_and_its_runs_are_read(data):
    bad = [one for one in check_data(data, data / "runs", deep=True) if not one.ok]
    assert not bad
    for run in list_runs(data / "runs"):
        assert len(run.dictionary().atoms) == run.metrics["atoms"]
