"""An empty, missing or shortened file of labels costs no label that the database has, and a damaged
database is kept aside."""

import json
import os
import shutil
from pathlib import Path

import duckdb
import pytest

from itda_core.errors import RunError, StoreError
from itda_core.runs.labels import Change, Label, add_changes, labels_file, read_changes
from itda_core.runs.run import list_runs
from itda_core.store import index, label_follower
from itda_core.store.rebuilding import rebuild_all
from itda_core.store.store import FILE_NAME, SCHEMA_VERSION, Store

LINES = [
    {"label": "war", "changed": "2026-01-01T00:00:00+00:00"},
    {"note": "a note", "changed": "2026-01-02T00:00:00+00:00"},
    {"bookmarked": True, "lists": ["x", "y"], "changed": "2026-01-03T00:00:00+00:00"},
]


@pytest.fixture
def data(runs_folder, tmp_path):
    """A data folder with three labels, in file and database."""
    data = tmp_path / "data"
    shutil.copytree(runs_folder, data / "runs")
    run = list_runs(data / "runs")[0]
    sources = run.dictionary().sources
    content = ""
    for latent, line in enumerate(LINES):
        row = sources.iloc[latent]
        source = {"run_id": run.run_id, "latent": latent, "prompt_id": row["prompt_id"]}
        place = {"position": int(row["position"]), "span": [int(row["start"]), int(row["end"])]}
        content += json.dumps({**source, **place, **line}) + "\n"
    (data / "labels.jsonl").write_text(content)
    opened(data)
    return data


def opened(data):
    """What the explorer shows of the labels after it was opened, and what it says."""
    store = Store(data / FILE_NAME)
    try:
        store.import_new(data / "runs")
    finally:
        table = store.database.query(
            "SELECT * EXCLUDE (changed, label_changed, note_changed) FROM labels ORDER BY latent"
        )
        store.close()
    return table.to_dict("list"), store.index.notes


@pytest.mark.parametrize("lines", [None, [], [0], [1, 2]], ids=["gone", "empty", "one", "two"])
def test_labels_that_the_file_has_lost_are_written_back(data, lines):
    before, notes = opened(data)
    assert notes == []
    file = labels_file(data / "runs")
    content = file.read_text().splitlines(keepends=True)
    file.unlink()
    if lines is not None:
        file.write_text("".join(content[line] for line in lines))
    after, [said] = opened(data)
    assert str(after) == str(before)
    lost = 3 - len(lines or [])
    count = "1 label" if lost == 1 else f"{lost} labels"
    assert said == f"{file} had lost {count} that the database still had: written back."
    changes, bad = read_changes(file.read_bytes())
    assert bad == []
    told = {
        (one.label.latent, name): value for one in changes for name, value in one.values.items()
    }
    assert told[0, "label"] == "war"
    assert told[1, "note"] == "a note"
    assert told[2, "lists"] == ("x", "y")
    times = {one.label.changed[:10] for one in changes if one.label.latent == 0}
    assert times == {"2026-01-01"}  # as it was written, so that a newer one stays newer
    assert str(opened(data)) == str((after, []))


def test_a_file_that_is_cut_again_while_it_is_mended_costs_nothing(data, monkeypatch):
    before, _ = opened(data)
    file, write_back, cuts = labels_file(data / "runs"), label_follower.write_back_labels, []

    def cut_after(*arguments):
        told = write_back(*arguments)
        if len(cuts) < 2:
            cuts.append(os.truncate(file, 0))
        return told

    monkeypatch.setattr(label_follower, "write_back_labels", cut_after)
    os.truncate(file, 0)
    after, _ = opened(data)
    assert str(after) == str(before)
    assert file.read_text().count("war") > 0


def test_a_label_that_is_cut_off_before_it_is_read_is_written_again(data, monkeypatch):
    before, _ = opened(data)
    file, cuts = labels_file(data / "runs"), []

    def cut_after(*arguments):
        size = file.stat().st_size
        written = add_changes(*arguments)
        if len(cuts) < 2:
            cuts.append(os.truncate(file, size))
        return written

    monkeypatch.setattr(index, "add_changes", cut_after)
    store = Store(data / "explorer.duckdb")
    try:
        store.import_new(data / "runs")
        source = (before[name][0] for name in ("run_id", "latent", "prompt_id", "position"))
        change = Change(Label(*source, label="written meanwhile"), ("label",))
        assert store.index.add_labels(data / "runs", [change]) is None
        labels = store.database.query("SELECT label FROM labels WHERE latent = 0")["label"]
        assert list(labels) == ["written meanwhile"]
        assert file.read_text().count("written meanwhile") == 1
        monkeypatch.setattr(index, "MOST_CUTS", 1)
        cuts.clear()
        with pytest.raises(RunError, match="What was written just now is not kept"):
            store.index.add_labels(data / "runs", [change])
    finally:
        store.close()


def test_a_label_that_neither_file_nor_database_has_is_not_said_to_be_kept(data, monkeypatch):
    """Another program empties the file whenever anything was written."""
    before, _ = opened(data)
    file, write_back = labels_file(data / "runs"), label_follower.write_back_labels

    def emptied(write):
        def writing(*arguments):
            told = write(*arguments)
            os.truncate(file, 0)
            return told

        return writing

    store = Store(data / FILE_NAME)
    try:
        store.import_new(data / "runs")
        monkeypatch.setattr(index, "add_changes", emptied(add_changes))
        monkeypatch.setattr(label_follower, "write_back_labels", emptied(write_back))
        source = (before[name][0] for name in ("run_id", "latent", "prompt_id", "position"))
        change = Change(Label(*source, label="written meanwhile"), ("label",))
        with pytest.raises(RunError, match="loses its lines again and again"):
            store.index.add_labels(data / "runs", [change])
        labels = store.database.query("SELECT label FROM labels WHERE latent = 0")["label"]
        assert list(labels) == ["war"]
    finally:
        store.close()


def test_what_the_file_says_later_counts(data):
    """A label that was taken away, or changed, while the database was not looked at."""
    file = labels_file(data / "runs")
    [first, *_] = read_changes(file.read_bytes())[0]
    fields = dict(
        zip(("run_id", "latent", "prompt_id", "position"), first.label.source, strict=True)
    )
    add_changes(file, [Change(Label(**fields, label=""), ("label",))])
    content = file.read_bytes()
    table, notes = opened(data)
    assert notes == []
    assert table["latent"] == [1, 2]
    assert file.read_bytes() == content


@pytest.mark.parametrize("field", ["label", "note", "bookmarked", "lists"])
def test_a_lost_line_costs_nothing_though_a_later_one_speaks_of_the_latent(data, field):
    """The later line sets another field of the same latent."""
    values = {"label": "war", "note": "a note", "bookmarked": True, "lists": ["x"]}
    file = labels_file(data / "runs")
    source = dict(list(json.loads(file.read_text().splitlines()[0]).items())[:4])
    kept, lost = [
        json.dumps({**source, **line}) + "\n"
        for line in (
            {"changed": "2026-02-02T00:00:00+00:00", "alone": True},
            {"changed": "2026-02-01T00:00:00+00:00", field: values[field]},
        )
    ]
    file.write_text(lost + kept)
    before, notes = opened(data)
    assert before[field][0] == values[field]
    file.write_text(kept)
    after, notes = opened(data)
    assert "written back" in notes[-1]
    assert str(after) == str(before)
    assert opened(data)[1] == []


@pytest.mark.parametrize("field", ["label", "note", "bookmarked", "lists"])
def test_what_the_file_takes_away_is_not_brought_back(data, field):
    values = {"label": "war", "note": "a note", "bookmarked": True, "lists": ["x"]}
    empty = {"label": "", "note": "", "bookmarked": False, "lists": []}
    file = labels_file(data / "runs")
    source = dict(list(json.loads(file.read_text().splitlines()[0]).items())[:4])

    def line(day, **fields):
        return json.dumps({**source, **fields, "changed": f"2026-03-0{day}T00:00:00+00:00"}) + "\n"

    written = file.read_text() + line(1, **{field: values[field]}) + line(2, alone=True)
    file.write_text(written)
    opened(data)
    file.write_text(written + line(3, **{field: empty[field]}))
    after, notes = opened(data)
    assert json.dumps(after[field][0], default=list) == json.dumps(empty[field])
    assert notes == []


def test_a_damaged_line_costs_no_label_that_the_database_has(data):
    file = labels_file(data / "runs")
    file.write_bytes(file.read_bytes().replace(b'"label": "war"', b'"label": "war\xff"'))
    with pytest.raises(RunError, match="line 1"):
        opened(data)
    store = Store(data / FILE_NAME)
    assert "war" in store.database.query("SELECT label FROM labels")["label"].tolist()
    store.close()


def test_labels_of_another_data_folder_are_no_labels_of_this_one(data, tmp_path):
    """The database lies elsewhere than the file of the labels."""
    file = labels_file(data / "runs")
    file.unlink()
    shutil.copy(data / FILE_NAME, tmp_path / "elsewhere.duckdb")
    store = Store(tmp_path / "elsewhere.duckdb")
    store.import_new(data / "runs")
    assert store.index.notes == []
    assert not file.exists()
    store.close()


def test_a_rebuild_keeps_labels_that_the_database_alone_has(data):
    before, _ = opened(data)
    labels_file(data / "runs").write_text("")
    done = rebuild_all(data / FILE_NAME, data / "runs")
    assert (done.runs, done.left_out, done.kept_aside) == (3, None, None)
    assert "had lost 3 labels" in done.notes[0]
    assert str(opened(data)[0]) == str(before)


def test_a_rebuild_from_other_runs_leaves_a_database_that_has_more(data, tmp_path):
    """The data folder's database, and --runs of another data folder."""
    other = tmp_path / "other"
    shutil.copytree(data / "runs", other / "runs")
    before, _ = opened(data)
    for empty in (other / "runs", other, tmp_path / "nothing"):
        with pytest.raises(StoreError, match=f"left as it is.*ITDA_DATA={empty.parent}"):
            rebuild_all(data / FILE_NAME, empty)
    labels_file(data / "runs").unlink()  # the database alone has them now
    shutil.move(data / "runs", tmp_path / "away")
    with pytest.raises(StoreError, match="left as it is"):
        rebuild_all(data / FILE_NAME, other / "runs")
    shutil.move(tmp_path / "away", data / "runs")
    after, [said] = opened(data)
    assert str(after) == str(before)
    assert "written back" in said


def test_a_database_that_lies_elsewhere_is_made_anew_where_it_has_nothing_more(data, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    path = tmp_path / "elsewhere" / FILE_NAME
    assert rebuild_all(path, data / "runs").runs == 3
    assert rebuild_all(path, data / "runs").runs == 3
    labels_file(data / "runs").unlink()
    with pytest.raises(StoreError, match="left as it is"):
        rebuild_all(path, data / "runs")


@pytest.mark.parametrize("harm", ["header", "cut", "text", "flips", "meta"])
def test_a_damaged_database_names_the_remedy_and_is_kept_aside(data, harm):
    path = data / FILE_NAME
    content = bytearray(path.read_bytes())
    if harm == "header":
        content[:4096] = bytes(4096)
    elif harm == "cut":
        content = content[: len(content) // 3]
    elif harm == "text":
        content = bytearray(b"no database")
    elif harm == "flips":
        for place in range(4096 * 3, len(content), 3_000):
            content[place] ^= 0x10
    if harm == "meta":
        with duckdb.connect(str(path)) as connection:
            connection.execute("DELETE FROM meta")
        content = bytearray(path.read_bytes())
    path.write_bytes(content)
    with pytest.raises(StoreError, match="python -m itda_core rebuild"):
        store = Store(path)
        try:
            for table in ("codes", "latents", "prompts", "run_prompts", "runs", "labels"):
                store.database.query(f"SELECT * FROM {table}")
        finally:
            store.close()
    damaged = path.read_bytes()
    done = rebuild_all(path, data / "runs")
    assert done.runs == 3
    assert done.kept_aside == path.with_name(f"{FILE_NAME}.damaged-1")
    assert done.kept_aside.read_bytes() == damaged
    assert opened(data)[0]["label"][0] == "war"


@pytest.mark.parametrize("spoil", [Path.mkdir, os.mkfifo, lambda file: file.symlink_to("no/where")])
@pytest.mark.parametrize("version", [SCHEMA_VERSION, 2])
def test_a_rebuild_that_can_not_write_labels_back_leaves_the_database_that_has_them(
    data, spoil, version
):
    before, _ = opened(data)
    file = labels_file(data / "runs")
    file.unlink()
    spoil(file)
    with duckdb.connect(str(data / FILE_NAME)) as database:
        database.execute("UPDATE meta SET version = ?", [version])
    with pytest.raises(StoreError, match=r"could not be kept .* left as it is, since it has them"):
        rebuild_all(data / FILE_NAME, data / "runs")
    assert not list(data.glob("*.damaged-*"))
    file.rmdir() if file.is_dir() else file.unlink()
    rebuild_all(data / FILE_NAME, data / "runs")
    after, _ = opened(data)
    assert [*after["lists"][2]] == ["x", "y"]
    assert all(after[name] == before[name] for name in ("label", "note", "bookmarked"))
