"""Labels, notes and bookmarks are never lost: files, the database, searches by them."""

import dataclasses
import json
import shutil
from datetime import UTC, datetime, timedelta

import duckdb
import pytest

from itda_core.errors import InputError, RunError, StoreError
from itda_core.runs.labels import (
    Change,
    Label,
    add_changes,
    kept_labels,
    labels_file,
    read_changes,
)
from itda_core.runs.run import list_runs
from itda_core.store import label_follower
from itda_core.store.latent_search import LatentSearch
from itda_core.store.store import Store, rebuild
from tests.support.labels import add_labels, read_labels


@pytest.fixture
def copied(runs_folder, tmp_path):
    return shutil.copytree(runs_folder, tmp_path / "data" / "runs")


def label_of(run, latent, **fields):
    source = run.dictionary().sources.loc[latent]
    return Label(run.run_id, latent, source["prompt_id"], int(source["position"]), **fields)


def read(file):
    return read_labels(file.read_bytes())


def test_the_newest_label_of_a_latent_counts_and_an_empty_one_takes_it_away(tmp_path):
    file = tmp_path / "labels.jsonl"
    one = Label("run", 3, "p", 5, "first")
    add_labels(file, [one, Label("run", 4, "p", 6, note="a note\nof two lines")])
    add_labels(file, [dataclasses.replace(one, label="second", bookmarked=True)])
    labels, bad = read(file)
    assert bad == 0
    assert {(one.latent, one.label, one.note, one.bookmarked) for one in labels} == {
        (3, "second", "", True),
        (4, "", "a note\nof two lines", False),
    }
    assert all(one.changed for one in labels)
    add_labels(file, [dataclasses.replace(one, label="")])
    assert [label.latent for label in read(file)[0]] == [4]
    assert len(file.read_text().splitlines()) == 4  # nothing that was written is ever removed


def test_a_label_for_another_source_leaves_that_of_the_former_one(tmp_path):
    file = tmp_path / "labels.jsonl"
    add_labels(file, [Label("run", 3, "p", 5, "of p"), Label("run", 3, "q", 8, "of q")])
    assert [label.label for label in read(file)[0]] == ["of p", "of q"]
    add_labels(file, [Label("run", 3, "q", 8)])
    assert [label.label for label in read(file)[0]] == ["of p"]


def test_an_older_line_that_comes_later_does_not_undo_a_newer_one(tmp_path):
    file = tmp_path / "labels.jsonl"
    add_labels(file, [Label("run", 3, "p", 5, "new", changed="2026-02-02T00:00:00+00:00")])
    add_labels(file, [Label("run", 3, "p", 5, "old", changed="2026-01-01T00:00:00+00:00")])
    assert [label.label for label in read(file)[0]] == ["new"]


@pytest.mark.parametrize(
    "line",
    [
        b"{", b"[]", b'"text"', b"{}", b'{"run_id": "r"}', b"\xff\xfe", b"[" * 100_000,
        b'{"run_id": "r", "latent": -1, "prompt_id": "p", "position": 0}',
        b'{"run_id": "r", "latent": "1", "prompt_id": "p", "position": 0}',
        b'{"run_id": "r", "latent": 1, "prompt_id": "p", "position": 0, "extra": 1}',
        b'{"run_id": "r", "latent": 1, "prompt_id": "p", "position": 0, "lists": "war"}',
        b'{"run_id": "r", "latent": 1, "prompt_id": "p", "position": 0, "lists": [1]}',
        b'{"run_id": "r", "latent": 3000000000, "prompt_id": "p", "position": 0, "label": "x"}',
        b'{"run_id": "r", "latent": 1, "prompt_id": "p", "position": 1e2, "label": "x"}',
        b'{"run_id": "r", "latent": true, "prompt_id": "p", "position": 0, "label": "x"}',
        b'{"run_id": "r", "latent": 1' + b"0" * 5_000 + b', "prompt_id": "p", "position": 0}',
        b'{"run_id": "r", "latent": 1, "prompt_id": "p", "position": 0, "label": "\\ud800"}',
        b'{"run_id": "r", "latent": 1, "prompt_id": "\\udc00", "position": 0, "label": "x"}',
        b'{"run_id": "r", "latent": 1, "prompt_id": "p", "position": 0, "lists": ["\\ud800"]}',
        b'{"run_id": "r", "latent": 1, "prompt_id": "p", "position": 0, "bookmarked": "yes"}',
        b'{"run_id": "r", "latent": 1, "prompt_id": "p", "position": 0, "label": null}',
        b'{"run_id": "r", "latent": 1, "prompt_id": "p", "position": 0}',
        b'{"run_id": "r", "latent": 1, "prompt_id": "p", "position": 0, "note": "", "changed": 5}',
        b'{"run_id": "r", "latent": 1, "prompt_id": "p", "position": 0, "note": "", "changed":"x"}',
        b'{"run_id": "r", "latent": 1, "prompt_id": "p", "position": 0, "alone": 1}',
        b'{"run_id": "r", "latent": 1, "prompt_id": "p", "position": 0, "span": [0, 1]}',
        b'{"run_id": "r", "latent": 1, "prompt_id": "p", "position": 0, "note": "", "span": [1]}',
        b'{"run_id": "r", "latent": 1, "prompt_id": "p", "position": 0, "note": "", "span":[2, 1]}',
        b'{"run_id": "r", "latent": 1, "prompt_id": "p", "position": 0, "note": "", "span": "1"}',
        b'{"run_id": "r", "latent": 1, "prompt_id": "p", "position": 0, "note": "", "closes": 1}',
        b'{"run_id": "r", "latent": 1, "prompt_id": "p", "position": 0, "note": "", "origin": "r"}',
        b'{"run_id": "r", "latent": 1, "prompt_id": "p", "position": 0, "note":"", "origin":[1,1]}',
        b'{"run_id": "r", "latent": 1, "prompt_id": "p", "position":0,"note":"","origin":["r",-1]}',
        b'{"run_id": "r", "latent": 1, "prompt_id":"p","position":0,"note":"","origin":["r",1,2]}',
    ],
)  # fmt: skip
def test_a_line_that_cannot_be_read_costs_no_other(tmp_path, line):
    file = tmp_path / "labels.jsonl"
    add_labels(file, [Label("run", 3, "p", 5, "one")])
    with file.open("ab") as opened:
        opened.write(line)  # cut short, without its end
    add_labels(file, [Label("run", 4, "p", 6, "two")])
    labels, bad = read(file)
    assert [label.label for label in labels] == ["one", "two"]
    assert bad == 1


def test_a_line_that_cannot_be_used_is_named_by_its_number():
    good = b'{"run_id": "r", "latent": 1, "prompt_id": "p", "position": 0, "label": "x"}'
    changes, bad = read_changes(b"\n".join([good, b"{", b"", good.replace(b"1", b"3000000000")]))
    assert len(changes) == 1
    assert [str(line) for line in bad] == [
        "line 2 (it is not JSON)",
        "line 4 (latent of a label must be from 0 to 2,147,483,647)",
    ]


@pytest.mark.parametrize("latent", [0, 2**31 - 1])
def test_what_the_file_takes_the_database_takes(copied, latent):
    label = Label("r", latent, "p" * 1_000, 2**31 - 1, "a\0b \u2028", "n" * 10_000, True, ("l",))
    add_labels(labels_file(copied), [label])
    store = Store()
    store.import_new(copied)
    [row] = store.runs.contents()["labels"].itertuples()
    assert (row.latent, row.label, row.lists.tolist()) == (latent, "a\0b \u2028", ["l"])
    store.close()


def test_a_line_may_say_where_its_source_stands_in_the_text(tmp_path):
    file = tmp_path / "labels.jsonl"
    add_changes(file, [Change(Label("run", 3, "p", 5, "war"), ("label",), (7, 10))])
    add_changes(file, [Change(Label("run", 3, "p", 5, note="n"), ("note",))])  # which leaves it
    add_changes(file, [Change(Label("run", 4, "p", 6, "no token's"), ("label",), ())])
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line.get("span", "none") for line in lines] == [[7, 10], "none", []]
    kept = kept_labels(read_changes(file.read_bytes())[0])
    assert [(one.label.label, one.label.note, one.span) for one in kept] == [
        ("war", "n", (7, 10)), ("no token's", "", ()),
    ]  # fmt: skip
    assert [list(one.times) for one in kept] == [["label", "note"], ["label"]]


def test_a_line_may_say_which_latent_it_was_moved_from(tmp_path):
    file = tmp_path / "labels.jsonl"
    moved = Change(Label("moved", 3, "p", 5, "war"), ("label",), (7, 10), False, ("run", 4))
    add_changes(file, [moved, dataclasses.replace(moved, names=("note",), origin=None)])
    add_changes(file, [dataclasses.replace(moved, names=("note",), closes=None)])
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line.get("origin") for line in lines] == [["run", 4], None, ["run", 4]]
    assert [line.get("closes") for line in lines] == [False, False, None]
    [kept] = kept_labels(read_changes(file.read_bytes())[0])
    assert (kept.label.label, kept.span) == ("war", (7, 10))
    assert (kept.closes, kept.origin) == (False, ("run", 4))
    add_changes(file, [dataclasses.replace(moved, origin=("run", 4, "digest"))])
    [kept] = kept_labels(read_changes(file.read_bytes())[0])
    assert kept.origin == ("run", 4, "digest")


# Two at once


def test_two_who_change_different_fields_do_not_undo_each_other(tmp_path):
    """Both saw the latent before anything was written, as two open tabs do."""
    file = tmp_path / "labels.jsonl"
    seen = Label("run", 3, "p", 5)
    add_changes(file, [Change(dataclasses.replace(seen, label="war"), ("label",))])
    add_changes(file, [Change(dataclasses.replace(seen, bookmarked=True), ("bookmarked",))])
    add_changes(file, [Change(dataclasses.replace(seen, note="and peace"), ("note",))])
    [label], bad = read(file)
    assert (label.label, label.bookmarked, label.note, bad) == ("war", True, "and peace", 0)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    source = {"run_id", "latent", "prompt_id", "position", "changed"}
    assert [set(line) - source for line in lines] == [{"label"}, {"bookmarked"}, {"note"}]


def test_a_change_of_a_field_is_merged_with_a_line_of_all_fields(tmp_path):
    """As earlier versions wrote them."""
    file = tmp_path / "labels.jsonl"
    old = {"run_id": "run", "latent": 3, "prompt_id": "p", "position": 5, "label": "war",
           "note": "n", "bookmarked": True, "lists": ["kept"],
           "changed": "2026-01-01T00:00:00.000000+00:00"}  # fmt: skip
    file.write_text(json.dumps(old) + "\n")
    add_changes(file, [Change(Label("run", 3, "p", 5), ("note",))])
    [label], _ = read(file)
    assert (label.label, label.note, label.bookmarked, label.lists) == ("war", "", True, ("kept",))


def test_of_each_field_the_newest_counts_whatever_the_order_of_the_lines(tmp_path):
    file = tmp_path / "labels.jsonl"
    source = {"run_id": "run", "latent": 3, "prompt_id": "p", "position": 5}
    lines = [
        source | {"label": "noon", "changed": "2026-01-01T12:00:00+00:00"},
        source | {"note": "morning", "changed": "2026-01-01T08:00:00+00:00"},
        # Half past eleven in UTC, though the text of it is greater than that of noon.
        source | {"label": "before", "note": "later", "changed": "2026-01-01T13:30:00+02:00"},
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    [label], _ = read(file)
    assert (label.label, label.note) == ("noon", "later")


def test_a_date_that_is_still_to_come_does_not_outlast_what_is_written_after_it(tmp_path):
    file = tmp_path / "labels.jsonl"
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    add_labels(file, [Label("run", 3, "p", 5, "of a clock that is ahead", changed=tomorrow)])
    add_labels(file, [Label("run", 3, "p", 5, "mine")])
    assert [label.label for label in read(file)[0]] == ["mine"]
    # Written when the clock of this machine was ahead, which it is no more.
    line = {"run_id": "run", "latent": 3, "prompt_id": "p", "position": 5, "label": "ahead"}
    with file.open("a") as opened:
        opened.write(json.dumps(line | {"changed": tomorrow}) + "\n")
    add_labels(file, [Label("run", 3, "p", 5, "mine again")])
    assert [label.label for label in read(file)[0]] == ["mine again"]


def test_what_is_too_long_is_refused():
    with pytest.raises(InputError, match="at most 200 characters"):
        Label("run", 3, "p", 5, "x" * 201)


def test_the_database_has_the_labels_and_has_them_again_after_a_rebuild(copied, tmp_path):
    run = list_runs(copied)[0]
    add_labels(labels_file(copied), [label_of(run, 7, label="treaties", bookmarked=True)])
    path = tmp_path / "explorer.duckdb"
    store = Store(path)
    store.import_new(copied)
    [row] = store.latents.table(run.run_id, [7]).itertuples()
    assert (row.label, row.note, row.bookmarked) == ("treaties", "", True)
    [row] = store.latents.table(run.run_id, [8]).itertuples()
    assert (row.label, row.bookmarked) == ("", False)
    add_labels(labels_file(copied), [label_of(run, 8, note="with a “quote”; DROP TABLE labels")])
    store.import_new(copied)
    assert store.latents.table(run.run_id, [8])["note"][0] == "with a “quote”; DROP TABLE labels"
    store.close()
    path.unlink()
    rebuild(path, copied)
    store = Store(path)
    assert store.latents.table(run.run_id, [7])["label"][0] == "treaties"
    store.close()


def test_a_label_of_another_source_is_not_shown(copied):
    run = list_runs(copied)[0]
    other = dataclasses.replace(label_of(run, 7, label="mine"), position=9_999)
    add_labels(labels_file(copied), [other])
    store = Store()
    store.import_new(copied)
    assert store.latents.table(run.run_id, [7])["label"][0] == ""
    store.close()


def test_a_damaged_line_is_told_of_and_the_others_are_there(copied):
    run = list_runs(copied)[0]
    add_labels(labels_file(copied), [label_of(run, 7, label="treaties")])
    with labels_file(copied).open("a") as opened:
        opened.write("{\n")
    store = Store()
    with pytest.raises(RunError, match=r"1 lines of .*labels\.jsonl can't be read"):
        store.import_new(copied)
    assert len(store.runs.table()) == 3
    assert store.latents.table(run.run_id, [7])["label"][0] == "treaties"
    store.close()


def test_labels_that_can_not_be_read_at_all_leave_those_of_before(copied):
    run = list_runs(copied)[0]
    file = labels_file(copied)
    add_labels(file, [label_of(run, 7, label="treaties")])
    store = Store()
    store.import_new(copied)
    file.unlink()
    file.mkdir()  # nothing can be read from a folder, whatever one's rights
    with pytest.raises(RunError, match="is a folder and not a file"):
        store.import_new(copied)
    assert store.latents.table(run.run_id, [7])["label"][0] == "treaties"
    store.close()


def test_what_the_database_refuses_is_a_sentence(copied, monkeypatch):
    def refuse(*_arguments):
        raise duckdb.TransactionException("Current transaction is aborted")

    monkeypatch.setattr(label_follower, "insert_labels", refuse)
    store = Store()
    with pytest.raises(StoreError, match=r"did not take in the labels of .*aborted"):
        store.import_new(copied)
    assert len(store.runs.table()) == 3
    store.close()


# Searches


@pytest.fixture(scope="module")
def labelled(runs_folder, tmp_path_factory):
    folder = shutil.copytree(runs_folder, tmp_path_factory.mktemp("labelled") / "runs")
    run = list_runs(folder)[0]
    labels = [
        label_of(run, 3, label="War and peace"),
        label_of(run, 5, note="about peaceful (a+b) things", bookmarked=True),
        label_of(run, 9, bookmarked=True),
    ]
    add_labels(labels_file(folder), labels)
    store = Store()
    store.import_new(folder)
    yield store, run
    store.close()


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        (LatentSearch("peace", "label"), [3, 5]),
        (LatentSearch("PEACE", "label", "word"), [3]),
        (LatentSearch("(a+b)", "label", "word"), [5]),
        (LatentSearch("^war|thing", "label", "regex"), [3, 5]),
        (LatentSearch(bookmarked=True), [5, 9]),
        (LatentSearch(labelled=True), [3, 5]),
        (LatentSearch("peace", "label", bookmarked=True), [5]),
        (LatentSearch("no such thing", "label"), []),
    ],
)
def test_latents_are_found_by_what_was_written_about_them(labelled, search, expected):
    store, run = labelled
    assert store.latents.numbers(run.run_id, search) == expected


def test_a_source_is_found_by_token_word_expression_and_prompt(labelled):
    store, run = labelled
    sources = run.dictionary().sources
    texts = store.runs.prompt_texts(sources["prompt_id"].unique().tolist())

    def those(keep):
        return [row.latent for row in sources.itertuples() if keep(row)]

    found = store.latents.numbers(run.run_id, LatentSearch("the", "token"))
    assert found == those(lambda row: "the" in row.token.lower())
    assert found
    found = store.latents.numbers(run.run_id, LatentSearch("the", "token", "word"))
    assert found == those(lambda row: row.token.strip().lower() == "the")
    found = store.latents.numbers(run.run_id, LatentSearch("^ [a-m]", "token", "regex"))
    assert found == those(
        lambda row: (
            len(row.token) > 1 and row.token[0] == " " and "a" <= row.token[1].lower() <= "m"
        )
    )
    found = store.latents.numbers(run.run_id, LatentSearch("river", "prompt"))
    assert found == those(lambda row: "river" in texts[row.prompt_id].lower())


def test_latents_are_found_by_their_density(labelled):
    store, run = labelled
    table = store.latents.table(run.run_id, store.latents.numbers(run.run_id))
    search = LatentSearch(min_density=0.01, max_density=0.05)
    expected = table[(table["density"] >= 0.01) & (table["density"] <= 0.05)]["latent"].tolist()
    assert store.latents.numbers(run.run_id, search) == expected
    assert 0 < len(expected) < len(table)
    unused = store.latents.numbers(run.run_id, LatentSearch(max_density=0.0))
    assert unused == table[table["tokens"] == 0]["latent"].tolist()


@pytest.mark.parametrize("text", ["(", "[a", "*", "a{2,1}"])
def test_a_wrong_expression_is_answered_with_a_sentence(labelled, text):
    store, run = labelled
    with pytest.raises(InputError, match=r"is no regular expression: .*Correct it"):
        store.latents.numbers(run.run_id, LatentSearch(text, way="regex"))


def test_a_line_of_the_file_is_json_of_all_fields(tmp_path):
    file = tmp_path / "labels.jsonl"
    add_labels(file, [Label("run", 3, "p", 5, "שלום", "naïve", True)])
    fields = json.loads(file.read_text(encoding="utf-8"))
    assert set(fields) == {field.name for field in dataclasses.fields(Label)}
    assert fields["label"] == "שלום"
