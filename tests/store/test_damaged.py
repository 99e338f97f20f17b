"""What one damaged file costs: itself, and nothing else; and it is named."""

import json
import os
import shutil

import pandas as pd
import pytest

from itda_core.errors import RunError, StoreDamagedError
from itda_core.runs.comparisons import comparisons_folder, save_comparisons
from itda_core.runs.labels import Change, Label, add_changes, labels_file
from itda_core.runs.results import EVALUATION_FILE
from itda_core.runs.run import list_runs, survey
from itda_core.sealed import seal
from itda_core.store.database import Database
from itda_core.store.index import Index
from itda_core.store.rebuilding import rebuild

DEEP = "[" * 100_000
VALUES = [None, True, -1, 10**400, 1e308, "", "x" * 10_000, "\ud800", [], [[]], {}, {"a": None}]
"""Any field may hold any of these"""


@pytest.fixture
def folder(runs_folder, tmp_path):
    """Two runs that are whole."""
    return shutil.copytree(runs_folder, tmp_path / "data" / "runs")


def imported(folder, database=None):
    """The ids that a database, by default a new one, has of a folder, and what is said of the
    rest."""
    database, said = database or Database(), ""
    try:
        Index(database).import_new(folder)
    except RunError as error:
        said = str(error)
    return set(database.query("SELECT run_id FROM runs")["run_id"]), said


@pytest.mark.parametrize("file", ["config.json", "metrics.json", EVALUATION_FILE])
@pytest.mark.parametrize("content", ["", DEEP, '{"a":' * 50_000, "null", "{}", "\ud800"])
def test_one_damaged_file_is_named_and_costs_no_other_run(folder, file, content):
    spoiled, whole = list_runs(folder)[:2]
    (spoiled.directory / file).write_bytes(content.encode("utf-8", "surrogatepass"))
    found, said = imported(folder)
    assert whole.run_id in found
    assert str(spoiled.directory) in said
    assert (spoiled.run_id in found) == (file == EVALUATION_FILE)


@pytest.mark.parametrize("file", ["config.json", "metrics.json"])
def test_any_value_in_any_field_is_read_or_named(folder, file):
    spoiled, whole = list_runs(folder)[:2]
    path = spoiled.directory / file
    before = json.loads(path.read_text())
    database = Database()
    for name in before:
        for value in VALUES:
            path.write_text(json.dumps({**before, name: value}))
            found, said = imported(folder, database)
            assert whole.run_id in found, (name, value, said)
            assert spoiled.run_id in found or str(spoiled.directory) in said, (name, value, said)
            Index(database).forget_run(spoiled.run_id)
    database.close()


def test_what_is_no_file_is_not_waited_for(folder):
    spoiled, whole = list_runs(folder)[:2]
    (spoiled.directory / "config.json").unlink()
    os.mkfifo(spoiled.directory / "config.json")
    found, said = imported(folder)
    assert found == {run.run_id for run in list_runs(folder)}
    assert whole.run_id in found
    assert "config.json is a pipe and not a file" in said


def test_a_run_without_its_configuration_is_named(folder, tmp_path):
    spoiled, whole = list_runs(folder)[:2]
    (spoiled.directory / "config.json").unlink()
    (folder / "notes").mkdir()  # and what never was a run is not
    found, errors = survey(folder)
    assert [run.run_id for run in found] == [
        run.run_id for run in list_runs(folder) if run.run_id != spoiled.run_id
    ]
    [error] = errors
    assert str(error) == f"{spoiled.directory} is not a whole run: it lacks config.json."
    with pytest.raises(RunError, match=r"lacks config\.json"):
        rebuild(tmp_path / "explorer.duckdb", folder)
    database = Database(tmp_path / "explorer.duckdb")
    assert whole.run_id in set(database.query("SELECT run_id FROM runs")["run_id"])
    database.close()


def test_all_that_is_damaged_is_named_at_once(folder):
    for run in list_runs(folder)[:2]:
        (run.directory / "metrics.json").write_text("{")
    _, said = imported(folder)
    assert said.startswith("2 things can't be taken in; all others are there.\n- ")
    assert said.count("is damaged") == 2


def test_a_folder_that_can_not_be_looked_into_is_told(folder, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if str(path) == str(folder):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found, errors = survey(folder)
    assert found == []
    assert str(errors[0]) == (
        f"{folder} can't be read (Permission denied). What is in it is left as it is: make it "
        "readable."
    )


def test_an_old_database_makes_room_though_no_run_can_be_taken_in(folder, tmp_path):
    """Else the explorer, which can't open the old one, could not start at all."""
    path = tmp_path / "explorer.duckdb"
    rebuild(path, folder)
    for run in list_runs(folder):
        (run.directory / "config.json").write_text("{")
    before = path.read_bytes()
    with pytest.raises(RunError, match="3 things"):
        rebuild(path, folder)
    assert path.read_bytes() == before
    path.write_bytes(b"no database")
    with pytest.raises(RunError, match="3 things"):
        rebuild(path, folder)
    database = Database(path)
    assert database.query("SELECT run FROM runs").empty
    database.close()


@pytest.mark.parametrize(
    "column", ["measure", "a", "b", "value", "reason", "tokens", "unit", "created"]
)
@pytest.mark.parametrize("with_what", ["nothing", "null", "text", "huge", "list"])
def test_a_comparison_that_lacks_something_costs_no_other(folder, column, with_what):
    """Each column in turn is left out, or holds what it should not."""
    row = {"measure": "m", "a": "x", "b": "y", "value": 0.5, "reason": "", "tokens": 9, "unit": "u"}
    kept = comparisons_folder(folder)
    save_comparisons(kept, [row])
    table = pd.read_parquet(next(kept.glob("*.parquet"))).assign(a="other")
    values = {"null": None, "text": "x", "huge": 10.0**300, "list": [[1]]}
    table = (
        table.drop(columns=column)
        if with_what == "nothing"
        else table.assign(**{column: [values[with_what]]})
    )
    table.to_parquet(kept / "bad.parquet")
    database = Database()
    found, _ = imported(folder, database)
    assert len(found) == len(list_runs(folder))
    assert "x" in database.query("SELECT a FROM comparisons")["a"].tolist()
    database.close()


def test_a_run_of_another_training_under_the_same_id_takes_the_place_of_the_old_one(
    folder, tmp_path
):
    run, other = list_runs(folder)[:2]
    database = Database(tmp_path / "explorer.duckdb")
    index = Index(database)
    index.import_new(folder)

    def known(which):
        rows = database.query(
            """SELECT seconds, (SELECT sum(coefficient) FROM codes WHERE codes.run = runs.run)
            AS codes FROM runs WHERE run_id = ?""",
            which.run_id,
        )
        return rows.iloc[0].tolist()

    before, beside = known(run), known(other)
    codes = pd.read_parquet(run.directory / "codes.parquet")
    codes["coefficient"] *= 2
    written_anew = tmp_path / run.run_id
    shutil.copytree(run.directory, written_anew)
    codes.to_parquet(written_anew / "codes.parquet")
    metrics = {**run.metrics, "seconds": run.metrics["seconds"] + 1}
    (written_anew / "metrics.json").write_text(json.dumps(metrics))
    (written_anew / "digests.json").unlink()
    seal(written_anew)
    shutil.rmtree(run.directory)
    written_anew.rename(run.directory)

    assert index.import_new(folder) == [run.run_id]
    assert known(run) == pytest.approx([before[0] + 1, 2 * before[1]])
    assert known(other) == beside
    assert Index(database).import_new(folder) == []


def test_a_pipe_in_place_of_the_labels_or_the_database_is_named_and_not_waited_for(folder):
    data = folder.parent
    os.mkfifo(data / "labels.jsonl")
    found, said = imported(folder)
    assert len(found) == len(list_runs(folder))
    assert "labels.jsonl is a pipe and not a file" in said
    with pytest.raises(RunError, match="a pipe and not a file"):
        add_changes(labels_file(folder), [Change(Label("run", 0, "prompt", 0, label="lost?"))])
    for name in ("explorer.duckdb.wal", "explorer.duckdb"):
        os.mkfifo(data / name)
        with pytest.raises(StoreDamagedError, match=f"{name} is a pipe and not a file"):
            Database(data / "explorer.duckdb")
        (data / name).unlink()


def test_labels_that_are_mostly_a_hole_are_named_and_not_read(folder):
    file = labels_file(folder)
    file.touch()
    os.truncate(file, 2**40)
    assert "labels.jsonl has 1,099,511,627,776 bytes" in imported(folder)[1]


def test_a_text_under_the_id_of_another_one_is_named_and_reaches_no_other_run(folder):
    """Runs share texts by their ids, and a run of somebody else may say anything, with digests."""
    spoiled, whole = list_runs(folder)[:2]
    path = spoiled.directory / "prompts.parquet"
    prompts = pd.read_parquet(path)
    shared = set(pd.read_parquet(whole.directory / "prompts.parquet")["prompt_id"])
    assert shared & set(prompts["prompt_id"])
    prompts.assign(text=prompts["text"].str.upper()).to_parquet(path)
    seal(spoiled.directory)
    database = Database()
    found, said = imported(folder, database)
    assert spoiled.run_id not in found
    assert whole.run_id in found
    assert f"{path} is damaged (the text of the prompt" in said
    assert not database.query("SELECT text FROM prompts")["text"].str.isupper().any()


@pytest.mark.parametrize("kind", ["another case", "bytes"])
def test_a_text_that_the_database_reads_otherwise_is_named_and_reaches_no_other_run(folder, kind):
    """What is checked is the column `text`, read as Arrow reads it."""
    spoiled, whole = list_runs(folder)[:2]
    path = spoiled.directory / "prompts.parquet"
    prompts = pd.read_parquet(path)
    if kind == "bytes":
        prompts = prompts.assign(text=prompts["text"].str.encode("utf-8"))
    else:
        prompts.insert(0, "TEXT", prompts["text"].str.upper())
    prompts.to_parquet(path)
    seal(spoiled.directory)
    database = Database()
    found, said = imported(folder, database)
    assert spoiled.run_id not in found
    assert whole.run_id in found
    problem = "text is bytes" if kind == "bytes" else "'TEXT' can't be told from text"
    assert f"{path} is damaged ({problem}" in said
    assert not database.query("SELECT text FROM prompts")["text"].str.isupper().any()
