"""A data folder may have almost any name: DuckDB has a use of its own for some signs in a path."""

import shutil

import pandas as pd
import pytest

from itda_core.checkup import check_data
from itda_core.errors import StoreOutOfReachError
from itda_core.store.store import Store
from tests.support.store_contents import contents

FOLDERS = {
    "runs [1]": "runs 1", "a*": "abc", "q?": "qq", "[!a]": "b", "**": "any", "b\\c": "b/c",
    "step=1000": "", "latent=0": "", "it's \"so\"": "", "x\ny": "",
}  # fmt: skip
"""Odd names, each with another folder that it would stand for as a pattern"""


def taken_in(folder):
    """What a database has of the runs of a folder."""
    store = Store()
    store.import_new(folder)
    found = contents(store)
    store.close()
    return found


@pytest.mark.parametrize(("name", "other"), FOLDERS.items())
def test_runs_hold_what_their_files_hold_in_whatever_folder(runs_folder, tmp_path, name, other):
    runs = tmp_path / name / "runs"
    shutil.copytree(runs_folder, runs)
    if other:
        for file in shutil.copytree(runs_folder, tmp_path / other / "runs").glob("*/codes.parquet"):
            codes = pd.read_parquet(file)
            codes.assign(coefficient=codes["coefficient"] / 2).to_parquet(file)
    found = [taken_in(folder) for folder in (runs, runs_folder)]
    codes = [pd.read_parquet(file) for file in runs_folder.glob("*/codes.parquet")]
    assert len(found[0]["codes"]) == sum(map(len, codes))
    for table in ("codes", "latents", "run_prompts", "prompts"):
        pd.testing.assert_frame_equal(found[0][table], found[1][table])


@pytest.mark.parametrize("name", ["prompt", "run", "prompts", "number", "origins"])
def test_columns_that_somebody_added_are_not_read(runs_folder, tmp_path, name):
    runs = shutil.copytree(runs_folder, tmp_path / "runs")
    for kind in ("codes", "prompts", "sources"):
        for file in runs.glob(f"*/{kind}.parquet"):
            pd.read_parquet(file).assign(**{name: 7}).to_parquet(file)
            (file.parent / "digests.json").unlink(missing_ok=True)
    found = [taken_in(folder) for folder in (runs, runs_folder)]
    for table in ("codes", "latents", "run_prompts", "prompts"):
        pd.testing.assert_frame_equal(found[0][table], found[1][table])


@pytest.mark.parametrize("name", ["why?", "b\\c", "\udcff\udcfe"])
def test_a_database_whose_folder_stands_for_another_is_refused_and_not_called_damaged(
    tmp_path, name
):
    with pytest.raises(StoreOutOfReachError, match="question mark"):
        Store(tmp_path / name / "explorer.duckdb")
    assert not list(tmp_path.iterdir())
    [found] = [one for one in check_data(tmp_path / name, tmp_path / "runs")
               if one.check == "database"]  # fmt: skip
    assert not found.ok
    assert "question mark" in found.found
