"""Evaluations in the database: taken in with their runs, when they come later, when they change."""

import shutil
from pathlib import Path

import duckdb
import pytest

from itda_core.errors import RunError
from itda_core.evaluation.batch import EvaluationTask, measure_runs
from itda_core.runs.results import EVALUATION_FILE, read_evaluation, save_evaluation
from itda_core.runs.run import list_runs, read_run
from itda_core.store.store import Store, rebuild
from tests.support.store_contents import assert_same_contents, contents


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "explorer.duckdb")
    yield opened
    opened.close()


@pytest.fixture
def copied(runs_folder, tmp_path):
    """A folder of runs that a test may change; none is evaluated."""
    return Path(shutil.copytree(runs_folder, tmp_path / "copied"))


@pytest.fixture(scope="module")
def evaluated(runs_folder, tmp_path_factory):
    """A folder of runs, the first two of them evaluated. Only to be copied."""
    copy = Path(shutil.copytree(runs_folder, tmp_path_factory.mktemp("evaluated") / "runs"))
    for _ in measure_runs(EvaluationTask(tuple(list_runs(copy)[:2]), max_tokens=80, save=True)):
        pass
    return copy


@pytest.fixture
def evaluated_copy(evaluated, tmp_path):
    return Path(shutil.copytree(evaluated, tmp_path / "evaluated"))


def assert_holds_the_files(store, folder):
    """The table has what the runs' own files say."""
    table = store.runs.evaluations()
    files = [(run.run_id, read_evaluation(run)) for run in list_runs(folder)]
    expected = [(name, row) for name, found in files if found for row in found["by_l0"]]
    assert table["run_id"].tolist() == [name for name, _ in expected]
    for (_, row), (_, imported) in zip(expected, table.iterrows(), strict=True):
        for measure, value in row.items():
            assert imported[measure] == value
    for name, found in files:
        rows = table[table["run_id"] == name]
        assert set(rows["tokens"]) == ({found["tokens"]} if found else set())
        assert set(rows["corpus"]) == ({found["measured_on"]["corpus"]} if found else set())


def test_evaluations_come_with_their_runs(store, evaluated):
    assert len(store.import_new(evaluated)) == 3
    assert_holds_the_files(store, evaluated)
    assert len(store.runs.evaluations()) == 6
    one = list_runs(evaluated)[1].run_id
    assert set(store.runs.evaluations([one])["run_id"]) == {one}
    assert store.runs.evaluations([]).empty


def test_an_evaluation_that_comes_later_is_noticed_and_so_is_a_new_one_or_none(
    store, copied, evaluated
):
    store.import_new(copied)
    assert store.runs.evaluations().empty
    first, second, third = (run.directory for run in list_runs(copied))
    for run in list_runs(evaluated)[:2]:
        save_evaluation(read_run(copied / run.run_id), read_evaluation(run))
    assert store.import_new(copied) == []
    assert_holds_the_files(store, copied)
    before = store.runs.evaluations()
    assert store.import_new(copied) == []
    assert_same_contents({"all": store.runs.evaluations()}, {"all": before})
    content = read_evaluation(read_run(first))
    content["by_l0"] = [{**row, "fvu": 0.125} for row in content["by_l0"]]
    save_evaluation(read_run(first), content)
    save_evaluation(read_run(third), content)
    (second / EVALUATION_FILE).unlink()
    store.import_new(copied)
    assert_holds_the_files(store, copied)
    assert set(store.runs.evaluations()["run_id"]) == {first.name, third.name}
    assert set(store.runs.evaluations()["fvu"]) == {0.125}


def test_a_damaged_evaluation_is_told_of_and_keeps_nothing_else_out(store, evaluated_copy):
    damaged = list_runs(evaluated_copy)[0].directory / EVALUATION_FILE
    damaged.write_text("{}")
    with pytest.raises(RunError, match=r"evaluation.json is damaged .*evaluate .* --save"):
        store.import_new(evaluated_copy)
    assert len(store.runs.table()) == 3
    assert set(store.runs.evaluations()["run_id"]) == {list_runs(evaluated_copy)[1].run_id}


def test_an_evaluation_that_the_database_can_not_hold_is_named_and_not_its_run(
    store, evaluated_copy
):
    run = list_runs(evaluated_copy)[0]
    result = read_evaluation(run)
    rows = [row | {"l0": 2**40} for row in result["by_l0"]]
    save_evaluation(run, result | {"by_l0": rows})
    with pytest.raises(RunError, match=r"what .* can't hold.*--save") as failed:
        store.import_new(evaluated_copy)
    assert "elete" not in str(failed.value)
    assert len(store.runs.table()) == 3


def test_a_damaged_evaluation_leaves_what_was_imported_before(store, evaluated_copy):
    store.import_new(evaluated_copy)
    before = contents(store)
    (list_runs(evaluated_copy)[0].directory / EVALUATION_FILE).write_text("{}")
    with pytest.raises(RunError, match="damaged"):
        store.import_new(evaluated_copy)
    assert_same_contents(contents(store), before)


def test_measures_that_a_version_did_not_know_are_left_open(store, evaluated_copy):
    run = list_runs(evaluated_copy)[0]
    content = read_evaluation(run)
    content["by_l0"] = [{"l0": 4, "fvu": 0.5, "kl": None}]
    save_evaluation(run, content)
    store.import_run(run)
    row = store.runs.evaluations().iloc[0]
    assert (row["l0"], row["fvu"]) == (4, 0.5)
    assert row[["kl", "cosine", "ce_loss_score"]].isna().all()


def test_evaluations_of_a_version_before_have_no_cross_entropy_and_none_is_quick(
    tmp_path, evaluated
):
    path = tmp_path / "explorer.duckdb"
    rebuild(path, evaluated)
    with duckdb.connect(str(path)) as database:
        names = ["cross_entropy", "model_cross_entropy", "zeros_cross_entropy", "quick"]
        for column in [*names, "median_unexplained"]:
            database.execute(f"ALTER TABLE evaluations DROP COLUMN {column}")
        database.execute("UPDATE meta SET version = 9")
    store = Store(path)
    rows = store.runs.evaluations()
    assert len(rows) and not rows["quick"].any()
    later = ["cross_entropy", "model_cross_entropy", "zeros_cross_entropy", "median_unexplained"]
    assert rows[later].isna().all(axis=None)
    assert rows["fvu"].notna().all()
    store.close()


def test_what_an_earlier_version_left_out_of_an_evaluation_is_read_after_the_upgrade(
    tmp_path, evaluated_copy
):
    """It had taken in what a newer one has written, without what it did not know."""
    path, [run, *_] = tmp_path / "explorer.duckdb", list_runs(evaluated_copy)
    content = read_evaluation(run)
    content["by_l0"] = [{"l0": 4, "fvu": 0.5, "median_unexplained": 0.25}]
    save_evaluation(run, content)
    rebuild(path, evaluated_copy)
    with duckdb.connect(str(path)) as database:
        database.execute("ALTER TABLE evaluations DROP COLUMN median_unexplained")
        database.execute("UPDATE meta SET version = 10")
    store = Store(path)
    store.import_new(evaluated_copy)
    rows = store.runs.evaluations().set_index("run_id")
    assert rows.loc[run.run_id, "median_unexplained"] == 0.25
    assert_holds_the_files(store, evaluated_copy)
    store.close()


def test_evaluations_are_forgotten_with_their_run_and_come_back_by_a_rebuild(evaluated, tmp_path):
    path = tmp_path / "explorer.duckdb"
    assert rebuild(path, evaluated) == 3
    store = Store(path)
    assert_holds_the_files(store, evaluated)
    first, second, _ = list_runs(evaluated)
    store.index.forget_run(first.run_id)
    assert set(store.runs.evaluations()["run_id"]) == {second.run_id}
    store.close()
    rebuild(path, evaluated)
    store = Store(path)
    assert_holds_the_files(store, evaluated)
    store.close()
