"""The database takes runs whole, can be made anew from them, and guards what it holds."""

import dataclasses
import errno
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from itda_core.errors import RunError, StoreDamagedError, StoreError, StoreOutOfReachError
from itda_core.leftovers import leftovers_of_data
from itda_core.runs.labels import Change, Label, add_changes, labels_file
from itda_core.runs.latent_comparisons import latent_comparisons_folder
from itda_core.runs.run import list_runs, read_run, survey
from itda_core.sealed import seal
from itda_core.store import importer as importer_module
from itda_core.store import index as index_module
from itda_core.store import label_follower
from itda_core.store.index import Index
from itda_core.store.store import SCHEMA_VERSION, Store, rebuild
from itda_core.store.trouble import of_the_file
from tests.support.edited_runs import edit_about
from tests.support.store_contents import assert_same_contents, contents


@pytest.fixture(scope="module")
def runs(runs_folder):
    return list_runs(runs_folder)


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "explorer.duckdb")
    yield opened
    opened.close()


def is_empty(store):
    return all(table.empty for table in contents(store).values())


# Import


def test_an_imported_run_holds_what_its_files_hold(store, runs):
    for run in runs:
        assert store.import_run(run)
    for name in ("codes.parquet", "prompts.parquet"):
        files = [pd.read_parquet(run.directory / name) for run in runs]
        table = contents(store)["codes" if name.startswith("codes") else "run_prompts"]
        assert len(table) == sum(map(len, files))
    for run in runs:
        codes = contents(store)["codes"]
        found = codes[codes["run_id"] == run.run_id].drop(columns="run_id")
        expected = pd.read_parquet(run.directory / "codes.parquet")[list(found.columns)]
        assert sorted(found.itertuples(index=False)) == sorted(expected.itertuples(index=False))
    table = store.runs.table().set_index("run_id")
    assert list(table.index) == [run.run_id for run in runs]
    for run in runs:
        row = table.loc[run.run_id]
        assert (row["layer"], row["atoms"]) == (run.layer, len(run.dictionary()))
        assert (row["fvu"], row["explored_fvu"]) == (
            run.metrics["fvu"],
            run.metrics["explored_fvu"],
        )
        assert Path(row["directory"]) == run.directory
        assert (row["kind"], row["method"]) == ("itda", "threshold 0.2")
        assert (row["offset"], row["pursuit"], row["budget"]) == ("zero", "matching", "token")
        assert pd.isna(row["mean_l0"])


@pytest.mark.parametrize(
    ("error", "told"),
    [(RuntimeError, RunError), (KeyboardInterrupt, KeyboardInterrupt)],
)
def test_an_import_that_fails_midway_leaves_nothing(store, runs, monkeypatch, error, told):
    insert = importer_module._insert_codes

    def fail(cursor, number, directory):
        insert(cursor, number, directory)
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(importer_module, "_insert_codes", fail)
        with pytest.raises(told):
            store.import_run(runs[0])
    assert is_empty(store)
    assert store.import_run(runs[0])
    assert len(store.runs.table()) == 1


def test_importing_twice_changes_nothing(store, runs, runs_folder):
    assert store.import_new(runs_folder) == [run.run_id for run in runs]
    before = contents(store)
    assert store.import_new(runs_folder) == []
    assert not store.import_run(runs[0])
    assert_same_contents(contents(store), before)


def test_a_forgotten_run_is_gone_and_can_be_imported_again(store, runs, runs_folder):
    store.import_new(runs_folder)
    before = contents(store)
    store.index.forget_run(runs[1].run_id)
    for name in ("runs", "latents", "codes", "run_prompts"):
        kept = before[name][before[name]["run_id"] != runs[1].run_id].reset_index(drop=True)
        pd.testing.assert_frame_equal(contents(store)[name], kept)
    assert runs[1].directory.exists()
    assert store.import_new(runs_folder) == [runs[1].run_id]
    assert_same_contents(contents(store), before)
    store.index.forget_run("nothing")
    assert_same_contents(contents(store), before)


@pytest.mark.parametrize("file", ["codes.parquet", "prompts.parquet", "sources.parquet"])
def test_a_damaged_run_is_named_and_does_not_keep_the_others_out(
    store, runs_folder, tmp_path, file
):
    copy = tmp_path / "runs"
    shutil.copytree(runs_folder, copy)
    damaged = list_runs(copy)[1].directory
    (damaged / file).write_bytes(b"PAR1 this is no table")
    with pytest.raises(RunError, match=rf"{damaged.name}.* is damaged .*delete it and train again"):
        store.import_new(copy)
    assert store.runs.table()["layer"].tolist() == [0, 2]
    assert set(contents(store)["codes"]["run_id"]) == set(store.runs.table()["run_id"])


def test_a_run_with_whole_tables_is_not_to_be_deleted(store, runs_folder, tmp_path):
    """Here its tables are whole, and a number is larger than the database's."""
    copy = tmp_path / "runs"
    shutil.copytree(runs_folder, copy)
    file = list_runs(copy)[1].directory / "metrics.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"atoms": 2**40}))
    seal(file.parent)
    with pytest.raises(
        RunError, match=r"what the database can't hold .*left as they are"
    ) as failed:
        store.import_new(copy)
    assert not re.search("is damaged|[Dd]elete", str(failed.value))
    assert store.runs.table()["layer"].tolist() == [0, 2]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (duckdb.IOException("Too many open files"), "could not be read just now"),
        (duckdb.TransactionException("the transaction is aborted"), "database did not take in"),
        (duckdb.FatalException("database has been invalidated"), "database did not take in"),
        (duckdb.OutOfMemoryException("could not allocate"), "not enough memory"),
        (duckdb.IOException("No space left on device"), "no space left"),
    ],
)
def test_whatever_the_database_says_a_whole_run_is_not_to_be_deleted(
    store, copied, monkeypatch, error, words
):
    def fail(*_arguments):
        raise error

    monkeypatch.setattr(importer_module, "_insert_codes", fail)
    with pytest.raises((RunError, StoreError), match=words) as failed:
        store.import_new(copied)
    assert not re.search("is damaged|[Dd]elete", str(failed.value))


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("config.json", {"created": 5}),
        ("config.json", {"layer": "1"}),
        ("config.json", {"config": 3}),
        ("metrics.json", None),
    ],
)
def test_a_run_that_says_nonsense_keeps_no_other_out(store, copied, file, change):
    path = list_runs(copied)[1].directory / file
    said = json.loads(path.read_text())
    path.write_text(json.dumps(list(said) if change is None else said | change))
    with pytest.raises(RunError, match=re.escape(str(path.parent))):
        store.import_new(copied)
    assert store.runs.table()["layer"].tolist() == [0, 2]


# Looking for new runs


@pytest.fixture
def copied(runs_folder, tmp_path):
    """A folder of runs that a test may change."""
    return Path(shutil.copytree(runs_folder, tmp_path / "copied"))


@pytest.fixture
def readings(monkeypatch):
    """The folders whose runs were read, one entry each time."""
    read = []

    def counted(folder):
        read.append(folder)
        return survey(folder)

    monkeypatch.setattr(index_module, "survey", counted)
    return read


def test_no_run_is_read_again_while_nothing_has_changed(store, copied, readings):
    assert len(store.import_new(copied)) == 3
    for _ in range(5):
        assert store.import_new(copied) == []
    (copied / ".smollm2-12345678").mkdir()  # the workspace of a training
    assert store.import_new(copied) == []
    assert readings == [copied]


def test_a_label_that_is_written_has_nothing_else_read_again(store, copied, readings, monkeypatch):
    read = []
    for module, name in (
        (index_module, "read_comparisons"),
        (index_module, "read_latent_comparisons"),
        (label_follower, "read_said"),
    ):
        original = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, n=name, f=original: (read.append(n), f(*a))[1])
    store.import_new(copied)
    assert sorted(read) == ["read_comparisons", "read_latent_comparisons", "read_said"]
    label = Label(list_runs(copied)[0].run_id, 0, "p", 1, "treaties")
    add_changes(labels_file(copied), [Change(label)])
    store.import_new(copied)
    assert read[3:] == ["read_said"]
    assert store.database.query("SELECT label FROM labels")["label"].tolist() == ["treaties"]
    # As the page does, which does not wait for the folder to be looked at.
    add_changes(labels_file(copied), [Change(dataclasses.replace(label, label="peace"))])
    store.index.import_labels(copied)
    store.import_new(copied)
    assert read[4:] == ["read_said"]
    folder = latent_comparisons_folder(copied)
    folder.mkdir(parents=True)
    (folder / "a.parquet").write_bytes(b"damaged")
    for _ in range(2):
        with pytest.raises(RunError, match="compare again"):
            store.import_new(copied)
    assert read[5:] == ["read_latent_comparisons"]
    assert readings == [copied]


def test_a_folder_that_is_not_there_yet_holds_nothing(store, tmp_path, runs_folder, readings):
    folder = tmp_path / "later"
    assert store.import_new(folder) == store.import_new(folder) == []
    shutil.copytree(runs_folder, folder)
    assert len(store.import_new(folder)) == 3
    assert len(readings) == 2


def test_a_new_run_is_noticed_and_so_is_one_that_went(store, copied, tmp_path):
    away = tmp_path / "away"
    directory = list_runs(copied)[1].directory
    directory.rename(away)
    assert len(store.import_new(copied)) == 2
    away.rename(directory)
    assert store.import_new(copied) == [directory.name]
    shutil.rmtree(directory)
    assert store.import_new(copied) == []
    assert store.runs.table()["layer"].tolist() == [0, 2]


def test_a_run_forgotten_by_hand_is_noticed(store, copied, runs):
    store.import_new(copied)
    store.import_new(copied)
    store.index.forget_run(runs[0].run_id)
    assert store.import_new(copied) == [runs[0].run_id]


def test_another_folder_is_looked_at_anew(store, copied, runs_folder, tmp_path):
    (tmp_path / "empty").mkdir()
    assert store.import_new(tmp_path / "empty") == []
    assert len(store.import_new(copied)) == 3
    assert store.import_new(runs_folder) == []
    assert {Path(directory).parent for directory in store.runs.table()["directory"]} == {
        runs_folder
    }


def test_a_run_outside_the_folder_is_forgotten_when_its_directory_goes(store, copied, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    outside = list_runs(copied)[2].directory
    outside = outside.rename(elsewhere / outside.name)
    store.import_run(list_runs(elsewhere)[0])
    assert len(store.import_new(copied)) == 2
    assert len(store.runs.table()) == 3
    shutil.rmtree(outside)
    assert store.import_new(copied) == []
    assert store.runs.table()["layer"].tolist() == [0, 1]


def test_a_run_outside_the_folder_is_taken_in_anew_when_another_takes_its_place(
    store, copied, tmp_path, readings
):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    outside = list_runs(copied)[2].directory
    outside = outside.rename(elsewhere / outside.name)
    store.import_run(read_run(outside))
    store.import_new(copied)
    readings.clear()
    assert store.import_new(copied) == []
    assert readings == []  # nothing has changed
    codes = pd.read_parquet(outside / "codes.parquet").head(7)
    codes.assign(latent=0).to_parquet(outside / "codes.parquet")
    edit_about(outside, created="2031-01-01T00:00:00+00:00")
    assert store.import_new(copied) == [outside.name]
    found = contents(store)["codes"].query("run_id == @outside.name")
    assert found["coefficient"].tolist() == codes["coefficient"].tolist()
    edit_about(outside, created="2032-01-01T00:00:00+00:00")
    assert store.import_run(read_run(outside))  # and by a command, at once
    (outside / "metrics.json").write_text("{")
    with pytest.raises(RunError, match=outside.name):
        store.import_new(copied)
    assert len(store.runs.table()) == 3


def test_a_damaged_run_is_told_of_each_time_and_read_again_when_it_changes(
    store, copied, runs_folder, readings
):
    damaged = list_runs(copied)[1].directory
    (damaged / "codes.parquet").write_bytes(b"PAR1 this is no table")
    for _ in range(3):
        with pytest.raises(RunError, match=rf"{damaged.name}.* is damaged"):
            store.import_new(copied)
    assert len(readings) == 1
    # Written in place, so that the directory itself stays as it was.
    whole = (runs_folder / damaged.name / "codes.parquet").read_bytes()
    (damaged / "codes.parquet").write_bytes(whole)
    assert store.import_new(copied) == [damaged.name]
    assert store.import_new(copied) == []
    assert len(readings) == 2


def test_a_run_that_could_not_be_read_is_tried_again_after_a_while(
    store, copied, readings, monkeypatch
):
    insert = importer_module._insert_codes

    def fail(*_arguments):
        raise duckdb.IOException("Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(importer_module, "_insert_codes", fail)
        with pytest.raises(RunError):
            store.import_new(copied)
    assert importer_module._insert_codes is insert
    with pytest.raises(RunError):
        store.import_new(copied)
    monkeypatch.setattr(index_module, "_RETRY_SECONDS", 0.0)
    assert len(store.import_new(copied)) == 3
    assert len(readings) == 2


# Rebuild


def test_rebuilding_gives_what_importing_one_by_one_gave(tmp_path, runs, runs_folder):
    path = tmp_path / "explorer.duckdb"
    store = Store(path)
    for run in (runs[2], runs[0], runs[1]):
        store.import_run(run)
    before = contents(store)
    store.close()
    assert rebuild(path, runs_folder) == 3
    store = Store(path)
    assert_same_contents(contents(store), before)
    store.close()
    assert [file.name for file in tmp_path.glob("*explorer*")] == ["explorer.duckdb"]


def test_rebuilding_that_fails_leaves_the_old_file_as_it_was(
    tmp_path, runs, runs_folder, monkeypatch
):
    path = tmp_path / "explorer.duckdb"
    store = Store(path)
    store.import_run(runs[0])
    store.close()
    before = path.read_bytes()

    def fail(*_arguments):
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(importer_module, "_insert_codes", fail)
        with pytest.raises(RunError, match=r"RuntimeError.*left as they are"):
            rebuild(path, runs_folder)
    assert path.read_bytes() == before
    assert rebuild(path, runs_folder) == 3


def test_what_a_killed_rebuild_left_is_not_in_the_way_and_goes_at_the_next_start(
    tmp_path, runs_folder
):
    code = (
        "import duckdb, os, sys; from pathlib import Path\n"
        "from itda_core.leftovers import temporary_name\n"
        "path = Path(sys.argv[1]) / temporary_name('explorer.duckdb')\n"
        "store = duckdb.connect(str(path))\n"
        "store.execute('CREATE TABLE meta (other INTEGER)'); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    left = sorted(tmp_path.iterdir())
    assert [path.suffix == ".wal" for path in left] == [False, True]
    assert rebuild(tmp_path / "explorer.duckdb", runs_folder) == 3
    assert sorted(leftovers_of_data(tmp_path)) == left


def test_a_rebuild_that_fails_leaves_nothing_beside_the_old_file(
    tmp_path, runs_folder, monkeypatch
):
    path = tmp_path / "explorer.duckdb"
    rebuild(path, runs_folder)

    def fail(*_arguments):
        raise MemoryError

    monkeypatch.setattr(Index, "import_new", fail)
    with pytest.raises(MemoryError):
        rebuild(path, runs_folder)
    assert list(tmp_path.iterdir()) == [path]


CAN_NOT_OPEN = """
import resource, sys
from pathlib import Path
from itda_core.errors import StoreError
from itda_core.store.store import Store, rebuild
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
held = []
try:
    while True:
        held.append(open("/dev/null"))
except OSError:
    pass
path, runs = map(Path, sys.argv[1:])
for act in (lambda: Store(path), lambda: rebuild(path, runs)):
    try:
        act()
    except StoreError as error:
        held.pop().close()  # to write with
        print(type(error).__name__, error)
        held.append(open("/dev/null"))
"""


def test_a_database_that_the_machine_can_not_open_is_not_called_damaged(tmp_path, runs_folder):
    path = tmp_path / "explorer.duckdb"
    rebuild(path, runs_folder)
    before = path.read_bytes()
    child = subprocess.run(
        [sys.executable, "-c", CAN_NOT_OPEN, str(path), str(runs_folder)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    said = child.stdout.splitlines()
    assert len(said) == 2
    for line in said:
        assert line.startswith("StoreOutOfReachError")
        assert "Too many open files" in line
        assert "unharmed" in line
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ESTALE])
def test_a_disk_that_fails_a_query_is_named_and_the_file_not_called_damaged(number):
    told = duckdb.IOException(f'IO Error: Could not read from file "x": {os.strerror(number)}')
    failed = of_the_file("explorer.duckdb", told)
    assert type(failed) is StoreOutOfReachError
    assert os.strerror(number) in str(failed)
    other = duckdb.IOException('IO Error: Could not read from file "x": Checksum')
    assert type(of_the_file("explorer.duckdb", other)) is StoreDamagedError


@pytest.mark.parametrize("content", [None, b"", b"no database", b"x" * 100_000])
def test_rebuilding_needs_no_old_file_and_no_good_one(tmp_path, runs_folder, content):
    path = tmp_path / "explorer.duckdb"
    if content is not None:
        path.write_bytes(content)
    assert rebuild(path, runs_folder) == 3
    store = Store(path)
    assert len(store.runs.table()) == 3
    store.close()


def test_rebuilding_without_runs_gives_an_empty_database(tmp_path):
    assert rebuild(tmp_path / "explorer.duckdb", tmp_path / "runs") == 0
    store = Store(tmp_path / "explorer.duckdb")
    assert is_empty(store)
    store.close()


# Files that can't be used


def make_version(path, version):
    Store(path).close()
    with duckdb.connect(str(path)) as database:
        database.execute("UPDATE meta SET version = ?", [version])


def without_cross_entropies(database):
    """As versions before 10 wrote evaluations."""
    names = ("cross_entropy", "model_cross_entropy", "zeros_cross_entropy", "quick")
    for column in (*names, "median_unexplained"):
        database.execute(f"ALTER TABLE evaluations DROP COLUMN {column}")


def test_a_database_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path):
    path = tmp_path / "explorer.duckdb"
    make_version(path, SCHEMA_VERSION + 1)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"newer version .*Update the explorer, or set ITDA_DATA"):
        Store(path)
    assert path.read_bytes() == before
    assert not path.with_name("explorer.duckdb.wal").exists()


def test_a_database_of_an_older_version_is_refused_with_the_command_that_helps(tmp_path):
    path = tmp_path / "explorer.duckdb"
    make_version(path, 3)  # of which nothing is sure
    with pytest.raises(StoreError, match="python -m itda_core rebuild"):
        Store(path)


def test_a_database_from_before_there_were_sites_is_brought_up_to_date(tmp_path, runs_folder):
    path = tmp_path / "explorer.duckdb"
    rebuild(path, runs_folder)
    expected = Store(path)
    contents = expected.runs.contents()
    expected.close()
    with duckdb.connect(str(path)) as database:  # as the version before wrote it
        for column in ("site", "moved_from", "root", "root_digest"):
            database.execute(f"ALTER TABLE runs DROP COLUMN {column}")
        for column in ("closes", "origin"):
            database.execute(f"ALTER TABLE latents DROP COLUMN {column}")
        database.execute("DROP TABLE shared_labels")
        for column in ("label_changed", "note_changed", "alone", '"start"', '"end"', "of_source"):
            database.execute(f"ALTER TABLE labels DROP COLUMN {column}")
        for column in ("closes", "root", "origin", "root_digest"):  # that came later still
            database.execute(f"ALTER TABLE labels DROP COLUMN {column}")
        database.execute("DROP TABLE latent_comparisons")
        for table in ("namesakes", "scored", "latent_scores", "strong_uses"):
            database.execute(f"DROP TABLE {table}")
        without_cross_entropies(database)
        database.execute("UPDATE meta SET version = 4")
    store = Store(path)
    for name, table in store.runs.contents().items():
        pd.testing.assert_frame_equal(table, contents[name])
    assert set(store.runs.table()["site"]) == {"resid_post"}
    assert store.namesakes.comparisons().empty
    store.close()


LATENTS_OF_BEFORE = [
    (0, (0, 2), "of", True),
    (1, (2, 3), "🎉", False),
    (2, (2, 3), "🎉", False),
    (3, (2, 3), "🎉", False),
]
"""Position, span, token and `closes`"""


def test_a_database_of_the_format_before_is_brought_up_to_date(tmp_path):
    path = tmp_path / "explorer.duckdb"
    make_version(path, 6)
    with duckdb.connect(str(path)) as database:
        database.execute("ALTER TABLE namesakes DROP COLUMN chance")
        for table in ("runs", "shared_labels"):
            database.execute(f"ALTER TABLE {table} DROP COLUMN root_digest")
        for column in ("closes", "root", "origin", "root_digest"):
            database.execute(f"ALTER TABLE labels DROP COLUMN {column}")
        # "of" and a character in three pieces, where the text was cut: it was said that the last
        # of them does not end its character, which may or may not be.
        database.execute("INSERT INTO run_prompts VALUES (1, 1, true, [0, 2, 2, 2], [2, 3, 3, 3])")
        for position, span, token, closes in LATENTS_OF_BEFORE:
            database.execute(
                "INSERT INTO latents VALUES (1, ?, 1, ?, ?, ?, ?, 0, 0, ?, ?)",
                [position, position, *span, token, closes, position],
            )
        for table in ("scored", "latent_scores", "strong_uses"):
            database.execute(f"DROP TABLE {table}")
        without_cross_entropies(database)
    Store(path).close()
    with duckdb.connect(str(path)) as database:
        told = database.execute("SELECT closes FROM latents ORDER BY latent").fetchall()
        assert told == [(True,), (False,), (False,), (None,)]
        columns = database.execute("DESCRIBE namesakes").fetchdf()["column_name"]
        assert "chance" in set(columns)
        columns = database.execute("DESCRIBE labels").fetchdf()["column_name"]
        assert {"closes", "root", "origin", "root_digest"} <= set(columns)
        [(version,)] = database.execute("SELECT version FROM meta").fetchall()
    assert version == SCHEMA_VERSION


def test_a_database_from_before_there_were_scores_is_brought_up_to_date(tmp_path, runs_folder):
    path = tmp_path / "explorer.duckdb"
    rebuild(path, runs_folder)
    with duckdb.connect(str(path)) as database:
        for table in ("scored", "latent_scores", "strong_uses"):
            database.execute(f"DROP TABLE {table}")
        without_cross_entropies(database)
        database.execute("UPDATE meta SET version = 7")
    store = Store(path)
    run_id = store.runs.table()["run_id"][0]
    assert store.latents.judged(run_id) == ""
    assert store.latents.table(run_id, [0])["threshold"].isna().all()
    store.close()


@pytest.mark.parametrize("content", [b"", b"text", b"PK" * 50_000], ids=["empty", "short", "long"])
def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path, content):
    path = tmp_path / "explorer.duckdb"
    path.write_bytes(content)
    with pytest.raises(StoreError, match="python -m itda_core rebuild"):
        Store(path)
    assert path.read_bytes() == content


def test_a_damaged_database_is_refused_with_the_command_that_helps(tmp_path, runs_folder):
    path = tmp_path / "explorer.duckdb"
    rebuild(path, runs_folder)
    content = bytearray(path.read_bytes())
    content[4_096:20_000] = bytes(byte ^ 0x55 for byte in content[4_096:20_000])
    path.write_bytes(content)
    with pytest.raises(StoreError, match="python -m itda_core rebuild"):
        Store(path)


def test_a_database_held_by_another_process_is_refused_with_its_pid(tmp_path, runs_folder):
    path = tmp_path / "explorer.duckdb"
    rebuild(path, runs_folder)
    before = path.read_bytes()
    code = (
        "import duckdb, sys; held = duckdb.connect(sys.argv[1]); print('held', flush=True)\n"
        "sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        for use in (Store, lambda path: rebuild(path, runs_folder)):
            with pytest.raises(StoreError, match=rf"\(pid {other.pid}\).*ITDA_DATA=another/folder"):
                use(path)
        assert path.read_bytes() == before
        other.stdin.close()
    store = Store(path)
    assert len(store.runs.table()) == 3
    store.close()


# Threads


def test_many_threads_may_ask_while_runs_are_imported(store, runs, runs_folder):
    """Whoever sees a run sees all of it."""
    sizes = {
        run.run_id: (len(run.dictionary()), len(pd.read_parquet(run.directory / "codes.parquet")))
        for run in runs
    }
    done = threading.Event()

    def watch(_):
        seen = set()
        while True:
            last_time = done.is_set()
            for run_id in store.runs.table()["run_id"]:
                latents = store.latents.numbers(run_id)
                codes = sum(len(store.uses.coefficients(run_id, latent)) for latent in latents[:3])
                assert len(latents) == sizes[run_id][0]
                assert codes > 0
                seen.add(run_id)
            if last_time:
                return seen

    with ThreadPoolExecutor(6) as pool:
        watching = [pool.submit(watch, number) for number in range(4)]
        importing = [pool.submit(store.import_run, run) for run in (*runs, *runs)]
        taken = [one.result() for one in importing]
        done.set()
        assert [one.result() for one in watching] == [set(sizes)] * 4
    assert sum(taken) == 3
    codes = contents(store)["codes"].groupby("run_id").size().to_dict()
    assert codes == {run_id: size for run_id, (_, size) in sizes.items()}


def test_a_store_in_memory_needs_no_file(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = Store()
    store.import_run(runs[0])
    assert json.loads(store.runs.table()["layer"].to_json(orient="values")) == [0]
    store.close()
    assert not list(tmp_path.iterdir())
