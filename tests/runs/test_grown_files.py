"""What a file of labels says is what a reading from its beginning gives, whatever has become of it;
of one that has only grown what was added is read alone."""

import json
import random

import pytest

from itda_core.runs import labels as module
from itda_core.runs.labels import (
    BadLine,
    Change,
    Label,
    add_changes,
    kept_label,
    newest_fields,
    read_changes,
    read_said,
)
from itda_core.runs.run import list_runs
from itda_core.store.label_import import share_labels
from itda_core.store.store import FILE_NAME, Store


def line(draw, sources):
    """Of a few sources, fields and times, so that they often meet; some of no use."""
    if draw.random() < 0.1:
        return draw.choice([b"{", b"", b"\xff", b'{"run_id": "x"}'])
    fields = {"label": draw.choice(["", "a", "b"]), "note": draw.choice(["", "n"])}
    fields |= {"bookmarked": draw.random() < 0.5, "lists": draw.choice([[], ["x"], ["y", "x"]])}
    name = draw.choice(list(fields))
    said = draw.choice(sources) | {name: fields[name]}
    return json.dumps(said | {"changed": f"2026-01-0{draw.randint(1, 9)}T00:00:00+00:00"}).encode()


def changed(draw, content, sources):
    """What might become of a file."""
    lines = content.splitlines(keepends=True)
    ending = draw.choice([b"\n", b"\n", b"\n", b"\r\n", b""])
    kind = draw.choice(["grows"] * 6 + ["cut", "gone", "edited", "line lost", "flipped"])
    place = draw.randrange(len(content) + 1)
    if kind == "grows":
        more = (line(draw, sources) + ending for _ in range(draw.randint(1, 3)))
        return content + b"".join(more)
    if kind == "cut":
        return content[:place]
    if kind == "gone":
        return b""
    if kind == "edited":
        return content.replace(b'"a"', b'"c"') + line(draw, sources) + b"\n"
    if kind == "line lost":
        return b"".join(lines[: len(lines) // 2] + lines[len(lines) // 2 + 1 :])
    return content[:place] + bytes([draw.randrange(256)]) + content[place + 1 :]


SOURCES = [
    {"run_id": run, "latent": latent, "prompt_id": "p", "position": 3}
    for run in ("one", "two")
    for latent in range(3)
]


@pytest.mark.parametrize("seed", range(20))
def test_a_file_says_what_a_reading_from_its_beginning_gives(tmp_path, seed):
    draw, file, content = random.Random(seed), tmp_path / "labels.jsonl", b""
    for _ in range(60):
        content = changed(draw, content, SOURCES)
        file.write_bytes(content)
        said = read_said(file)
        changes, bad = read_changes(content)
        assert said.newest == newest_fields(changes)
        assert list(said.newest) == list(newest_fields(changes))
        assert list(said.bad) == bad
        assert said.last == max((one.label.changed for one in changes), default="")
    file.unlink()
    assert (read_said(file).newest, read_said(file).bad) == ({}, ())


@pytest.fixture
def n_read(monkeypatch):
    """How many lines were read, each time."""
    counts, read = [], module.read_changes

    def counted(content):
        counts.append(len(content.splitlines()))
        return read(content)

    monkeypatch.setattr(module, "read_changes", counted)
    return counts


def change(latent, **fields):
    return Change(Label("run", latent, "p", 5, **fields), tuple(fields))


def test_only_what_was_added_is_read(tmp_path, n_read):
    file = tmp_path / "labels.jsonl"
    add_changes(file, [change(number, label="some") for number in range(50)])
    read_said(file)
    n_read.clear()
    add_changes(file, [change(7, label="other"), change(9, label="other")])
    assert kept_label(file, Label("run", 7, "p", 5)).label == "other"
    assert kept_label(file, Label("run", 8, "p", 5)).label == "some"
    assert n_read == [2]
    file.write_bytes(file.read_bytes().replace(b"some", b"same", 1))  # as many bytes as before
    assert kept_label(file, Label("run", 0, "p", 5)).label == "same"
    assert n_read == [2, 52]


def test_a_line_that_can_not_be_read_has_its_number_in_the_file(tmp_path):
    file = tmp_path / "labels.jsonl"
    add_changes(file, [change(number, label="some") for number in range(3)])
    read_said(file)
    with file.open("a") as opened:
        opened.write("{\n")
    add_changes(file, [change(4, label="some")])
    assert read_said(file).bad == (BadLine(4, "it is not JSON"),)


@pytest.mark.parametrize("seed", range(4))
def test_a_database_that_follows_a_growing_file_has_what_one_that_reads_it_at_once_has(
    tmp_path, seed, n_read
):
    draw, file, content = random.Random(seed), tmp_path / "labels.jsonl", b""
    (tmp_path / "runs").mkdir()
    store = Store(tmp_path / FILE_NAME)
    for _ in range(25):
        more = [line(draw, SOURCES) + b"\n" for _ in range(draw.randint(1, 3))]
        content += b"".join(more)
        with file.open("ab") as opened:
            opened.write(b"".join(more))
        n_read.clear()
        store.index.import_labels(tmp_path / "runs")
        assert sum(n_read) == len(more)
    assert store.index.notes == []
    assert rows(store) == rows_at_once(tmp_path)
    store.close()


def rows(store):
    asked = "SELECT * FROM labels ORDER BY run_id, latent"
    return store.database.query(asked).to_csv()


def shared(store):
    """What other runs may show of labels."""
    asked = "SELECT * FROM shared_labels ORDER BY run_id, latent, position"
    return store.database.query(asked).to_csv()


def shared_at_once(store):
    with store.database.transaction() as cursor:
        share_labels(cursor)
    return shared(store)


def rows_at_once(folder):
    store = Store()
    store.index.import_labels(folder / "runs")
    try:
        return rows(store)
    finally:
        store.close()


def test_what_a_file_loses_while_it_is_open_is_written_back_also_when_it_grows_then(
    runs_folder, tmp_path
):
    (tmp_path / "runs").symlink_to(runs_folder, target_is_directory=True)
    run, file = list_runs(runs_folder)[0], tmp_path / "labels.jsonl"
    source = run.dictionary().sources.iloc[0]
    place = (source["prompt_id"], int(source["position"]))
    store = Store(tmp_path / FILE_NAME)
    store.import_new(tmp_path / "runs")
    for latent, text in ((0, "label 0"), (1, "label 1"), (2, "x"), (2, ""), (2, "label 2")):
        label = Label(run.run_id, latent, *place, text)
        add_changes(file, [Change(label, ("label",))])
        store.index.import_labels(tmp_path / "runs")
        assert shared(store) == shared_at_once(store)
    assert len(store.database.query("FROM shared_labels")) == 3
    first, *_ = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(first)
    add_changes(file, [Change(Label(run.run_id, 5, *place, "new"), ("label",))])
    store.index.import_labels(tmp_path / "runs")
    assert shared(store) == shared_at_once(store)
    [note] = store.index.notes
    assert "had lost 2 labels" in note
    found = {one.label.label for one in read_changes(file.read_bytes())[0]}
    assert found == {"label 0", "label 1", "label 2", "new"}
    assert store.database.query("SELECT count(*) AS n FROM labels")["n"][0] == 4
    store.close()
