"""What was written of a source is read wherever it is an atom: cases worked out by hand.

One prompt, read by two tokenizers; its spans, who has which latent, and what is to be shown.
"""

import dataclasses

import pandas as pd
import pytest

from itda_core.runs.labels import Change, Label, kept_labels
from itda_core.similarity.same_sources import namesakes
from itda_core.store.database import CLOSES
from itda_core.store.label_import import insert_labels
from itda_core.store.latent_search import LatentSearch
from itda_core.store.store import Store
from tests.support.named_sources import NamedSources

TEXT = "naïve café 🎉 now"
#        [BOS]   naïve    _café    three pieces of 🎉           _now
BYTES = [(0, 0), (0, 5), (5, 10), (11, 12), (11, 12), (11, 12), (12, 16)]
#        [CLS]   na      ïve     café     🎉        now
WORDS = [(0, 0), (0, 2), (2, 5), (6, 10), (11, 12), (13, 16)]
RUNS = {
    "one-aaaaaaaa-L01": ("one", BYTES, [2, 3, 5, 6, 1]),
    "one-aaaaaaaa-L02": ("one", BYTES, [6, 5, 3, 2]),
    "two-bbbbbbbb-L01": ("two", BYTES, [6, 2]),
    "words-cccccccc-L01": ("words", WORDS, [1, 2, 3, 4, 5]),
}
"""The positions of each run's latents, in order"""
A, A2, B, W = RUNS
CAFE, PIECE, PARTY, NOW, NAIVE = 2, 3, 5, 6, 1
"""Positions of the byte-level tokenizer"""


@pytest.fixture
def store():
    opened = Store()
    with opened.database.transaction() as cursor:
        cursor.execute("INSERT INTO prompts VALUES (1, 'p', ?, '')", [TEXT])
    for number, (run_id, (model, spans, positions)) in enumerate(RUNS.items()):
        add_run(opened, number, run_id, model, spans, positions)
    yield opened
    opened.close()


def add_run(store, number, run_id, model, spans, positions, kind="itda"):
    starts, ends = map(list, zip(*spans, strict=True))
    with store.database.transaction() as cursor:
        cursor.execute(
            """INSERT INTO runs BY NAME SELECT ?::INTEGER AS run, ? AS run_id, ? AS model,
            ? AS kind, ? AS root, 1 AS layer, 'resid_post' AS site, 10 AS explored_tokens""",
            [number, run_id, model, kind, run_id],
        )
        cursor.execute("INSERT INTO run_prompts VALUES (?, 1, true, ?, ?)", [number, starts, ends])
        for latent, position in enumerate(positions):
            start, end = spans[position]
            cursor.execute(
                f"""INSERT INTO latents BY NAME SELECT * EXCLUDE (ends), {CLOSES} AS closes
                FROM (
                    SELECT ? AS run, ? AS latent, ? AS origin, 1 AS prompt, ? AS position,
                        ? AS "start", ? AS "end", ? AS token, 1 AS tokens, 1.0 AS strongest)
                JOIN (SELECT run, ends FROM run_prompts) USING (run)""",
                [number, latent, latent, position, start, end, TEXT[start:end]],
            )


def label(run_id, position, text="", day=1, **fields):
    """A change of the latent with its source there; day: of January 2026."""
    positions = RUNS[run_id][2] if run_id in RUNS else []
    latent = positions.index(position) if position in positions else 0
    span = fields.pop("span", None)
    names = (*(["label"] if text else []), *fields)
    changed = f"2026-01-{day:02d}T00:00:00.000000+00:00"
    written = Label(run_id, latent, "p", position, text, changed=changed, **fields)
    return Change(written, names or ("label",), span)


def write(store, *changes):
    with store.database.transaction() as cursor:
        insert_labels(cursor, kept_labels(changes))


def shown(store, run_id):
    """{position: (label, from)}"""
    table = store.latents.table(run_id, range(10))
    return {row.position: (row.label, row.label_from) for row in table.itertuples() if row.label}


def test_a_label_is_shown_at_the_same_token_in_other_layers_and_models(store):
    write(store, *(label(A, place, f"at {place}") for place in RUNS[A][2]))
    assert shown(store, A) == {place: (f"at {place}", "") for place in RUNS[A][2]}
    for run_id in (A2, B):
        assert shown(store, run_id) == {place: (f"at {place}", A) for place in RUNS[run_id][2]}


def test_with_another_tokenizer_it_is_shown_where_the_text_has_been_read_as_far(store):
    write(store, *(label(A, place, f"at {place}") for place in RUNS[A][2]))
    # "na" is read by no token of A; of the pieces of a character the last one ends it.
    assert shown(store, W) == {
        2: (f"at {NAIVE}", A),
        3: (f"at {CAFE}", A),
        4: (f"at {PARTY}", A),
        5: (f"at {NOW}", A),
    }
    write(store, label(W, 4, "a party"), label(W, 1, "na"))
    assert shown(store, A) == {PARTY: ("a party", W)}


def test_pieces_of_one_character_are_told_apart(store):
    write(store, label(A, PIECE, "the first byte"))
    assert shown(store, A2) == {PIECE: ("the first byte", A)}
    assert shown(store, W) == {}


OTHER = "three-99999999-L01"


def move_from_a(store, place=PIECE + 1):
    """W is moved from A: latent 3, the party, stands for A's latent 1, the first piece of it; and
    another run, moved from A too, has no other place for that than `place`, the piece in the
    middle."""
    add_run(store, 9, OTHER, "three", BYTES, [place])
    origins = "UPDATE latents SET origin = ? WHERE run = ? AND latent = ?"
    with store.database.transaction() as cursor:
        cursor.execute("UPDATE runs SET root = ? WHERE run_id IN (?, ?)", [A, W, OTHER])
        others = "UPDATE latents SET origin = 100 + latent WHERE run = ?"  # which A has not
        cursor.execute(others, [list(RUNS).index(W)])
        cursor.execute(origins, [1, list(RUNS).index(W), 3])
        cursor.execute(origins, [1, 9, 0])


@pytest.mark.parametrize("is_cut", [False, True])
def test_latents_are_compared_with_those_that_show_each_others_labels(store, tmp_path, is_cut):
    """Of every token of either tokenizer; and where the first one's text was cut at the party, so
    that it is not known whether its last piece is the last of all."""
    names, dictionaries = ("full-11111111-L01", "full-22222222-L01"), []
    read = {"one": BYTES[:6] if is_cut else BYTES, "two": WORDS}
    for number, (tokenizer, spans) in enumerate(read.items()):
        add_run(store, 20 + number, names[number], tokenizer, spans, range(len(spans)))
        directory = tmp_path / tokenizer
        directory.mkdir()
        ends = pd.DataFrame({"prompt_id": ["p"], "ends": [[end for _, end in spans]]})
        ends.to_parquet(directory / "prompts.parquet")
        tokens = [("p", at, *span, TEXT[slice(*span)] or "[X]") for at, span in enumerate(spans)]
        dictionaries.append(NamedSources(tokenizer, *tokens, directory=directory))
    given = [Label(names[0], at, "p", at, f"{at}") for at in range(len(dictionaries[0]))]
    write(store, *(Change(one, ("label",)) for one in given))
    told = {(int(label), at) for at, (label, _) in shown(store, names[1]).items()}
    pairs = set(map(tuple, namesakes(*dictionaries).tolist()))
    # [BOS] and [CLS], naïve, café; the party's last piece, and the word behind it.
    words = {(0, 0), (1, 2), (2, 3)}
    assert pairs == told == words | (set() if is_cut else {(5, 4), (6, 5)})


def test_a_moved_latent_has_the_labels_of_its_namesakes(store):
    move_from_a(store)
    other = OTHER
    given = label(A, PIECE, "the first byte")
    write(store, given)
    assert shown(store, W) == {4: ("the first byte", A)}
    assert shown(store, other) == {PIECE + 1: ("the first byte", A)}
    write(store, label(W, 4, "a party"))
    assert shown(store, A) == {PIECE: ("a party", W), PARTY: ("a party", W)}  # by number, by place
    assert shown(store, other) == {PIECE + 1: ("a party", W)}
    store.index.forget_run(A)
    write(store, given)
    assert shown(store, other) == {PIECE + 1: ("the first byte", A)}


def test_what_was_written_in_a_moved_run_outlives_it_and_the_one_it_was_moved_from(store):
    move_from_a(store, PIECE)
    written = store.labels.with_places([label(W, 4, "a party"), label(A, PIECE, "a byte")])
    assert [one.place for one in written] == [
        {"span": (11, 12), "closes": True, "origin": (A, 1)},
        {"span": (11, 12), "closes": False},
    ]
    of_w = written[:1]
    write(store, *of_w)
    there = {PIECE: ("a party", W), PARTY: ("a party", W)}
    assert shown(store, A) == there  # by number, by place
    assert shown(store, OTHER) == {PIECE: ("a party", W)}
    store.index.forget_run(W)
    assert shown(store, A) == there
    assert shown(store, OTHER) == {PIECE: ("a party", W)}
    store.index.forget_run(A)
    assert shown(store, OTHER) == {PIECE: ("a party", W)}
    assert shown(store, A2) == {PARTY: ("a party", W)}
    # As a version before wrote it.
    write(store, dataclasses.replace(of_w[0], closes=None, origin=None))
    assert shown(store, OTHER) == shown(store, A2) == {}


def test_a_run_that_was_trained_anew_is_not_the_one_that_others_were_moved_from(store):
    move_from_a(store)
    digests = {A: "new", W: "old", OTHER: "old"}
    with store.database.transaction() as cursor:
        for run_id, digest in digests.items():
            cursor.execute("UPDATE runs SET root_digest = ? WHERE run_id = ?", [digest, run_id])
    given = [label(A, PIECE, "of the new one"), label(W, 4, "a party")]
    placed = store.labels.with_places(given)
    assert [one.origin for one in placed] == [(A, 1, "new"), (A, 1, "old")]
    write(store, *placed)
    assert shown(store, A) == {PIECE: ("of the new one", ""), PARTY: ("a party", W)}  # by place
    assert shown(store, OTHER) == {PIECE + 1: ("a party", W)}
    assert OTHER not in set(store.latents.elsewhere(A, 1)["run_id"])
    assert OTHER in set(store.latents.elsewhere(W, 3)["run_id"])
    store.index.forget_run(A)
    store.index.forget_run(W)
    write(store, *placed)
    assert shown(store, OTHER) == {PIECE + 1: ("a party", W)}


def test_a_dictionary_that_can_not_be_read_is_no_others_and_no_line_says_it(store):
    move_from_a(store)
    with store.database.transaction() as cursor:  # as the importer leaves it
        cursor.execute("UPDATE runs SET root_digest = 'old' WHERE run_id = ?", [OTHER])
        cursor.execute("UPDATE runs SET root_digest = '' WHERE run_id = ?", [A])
    [placed] = store.labels.with_places([label(A, PIECE, "a byte")])
    assert placed.origin is None
    write(store, placed)
    assert shown(store, OTHER) == {}


def test_an_own_label_counts_until_it_is_taken_away(store):
    given = [label(A, NOW, "from A", day=9), label(B, NOW, "own", day=1)]
    write(store, *given)
    assert shown(store, B) == {NOW: ("own", "")}
    assert shown(store, A2) == {NOW: ("from A", A)}
    write(store, *given, label(B, NOW, day=2))
    assert shown(store, B) == {NOW: ("from A", A)}


def test_what_others_say_can_be_left_out(store):
    given = [label(A, NOW, "from A", note="n", bookmarked=True, lists=("l",))]
    write(store, *given, label(B, NOW, alone=True))
    [row] = store.latents.table(B, [0]).itertuples()
    assert (row.label, row.note, row.bookmarked, list(row.lists)) == ("", "", False, [])
    assert (row.label_from, row.note_from, row.bookmarked_from) == ("", "", "")
    assert store.latents.numbers(B, LatentSearch("from", "label")) == []
    assert shown(store, A2) == {NOW: ("from A", A)}
    write(store, *given, label(B, NOW, alone=True), label(B, NOW, day=2, alone=False))
    assert shown(store, B) == {NOW: ("from A", A)}


def test_of_several_the_newest_label_is_shown_and_all_are_listed(store):
    write(
        store,
        label(A, NOW, "first", day=1),
        label(A, NOW, day=8, bookmarked=True),  # newer, but not of the label
        label(A2, NOW, "second", day=2, note="a note"),
        label(B, NOW, "own", day=3),
    )
    [row] = store.latents.table(W, [4]).itertuples()
    assert (row.label, row.label_from) == ("own", B)
    assert (row.note, row.note_from) == ("a note", A2)
    assert (row.bookmarked, row.bookmarked_from) == (True, A)
    listed = store.labels.of_latent(B, 0)
    assert listed["run_id"].tolist() == [B, A, A2]
    assert listed["is_own"].tolist() == [True, False, False]
    assert listed["label"].tolist() == ["own", "first", "second"]
    assert listed["latent"].tolist() == [0, 3, 0]
    assert listed["model"].tolist() == ["two", "one", "one"]


def test_own_lists_come_first_and_others_are_added(store):
    write(store, label(A, NOW, lists=("war", "treaties")), label(B, NOW, lists=("mine", "war")))
    assert list(store.latents.table(B, [0])["lists"][0]) == ["mine", "war", "treaties"]


def test_labels_of_a_run_that_is_gone_live_on(store):
    gone, other = "old-dddddddd-L03", "one-eeeeeeee-L09"
    write(
        store,
        label(gone, NOW, "said where it stood", span=(12, 16)),
        label(other, CAFE, "of an earlier version"),
        label(gone, NAIVE, "of another model's earlier version"),
    )
    assert shown(store, B) == {NOW: ("said where it stood", gone)}
    assert shown(store, W) == {5: ("said where it stood", gone)}
    # Nothing says how that model's tokens are counted, so only its own runs show it.
    assert shown(store, A) == {
        CAFE: ("of an earlier version", other),
        NOW: ("said where it stood", gone),
    }
    [listed] = store.labels.of_latent(B, 0).itertuples()
    assert listed.run_id == gone
    assert pd.isna(listed.model)


def test_deleting_a_run_leaves_its_labels(store):
    write(store, label(A, NOW, "kept", span=(12, 16)), label(A, CAFE, "kept too"))
    store.index.forget_run(A)
    assert shown(store, A2) == {NOW: ("kept", A), CAFE: ("kept too", A)}
    assert shown(store, B) == {NOW: ("kept", A)}


def test_an_autoencoder_neither_gives_nor_takes(store):
    add_run(store, 9, "one-ffffffff-L01", "one", BYTES, [NOW], kind="sae")
    written = [label(A, NOW, "of the token"), label("one-ffffffff-L01", NOW, "of the encoder")]
    write(store, *written)
    assert shown(store, "one-ffffffff-L01") == {NOW: ("of the encoder", "")}
    assert shown(store, A2) == {NOW: ("of the token", A)}
    gone = label("one-ffffffff-L01", NOW, "of an encoder that is gone", span=())
    store.index.forget_run("one-ffffffff-L01")
    write(store, gone)
    assert shown(store, A2) == {}


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        (LatentSearch("peace", "label"), [NOW]),
        (LatentSearch("own", "label"), [CAFE]),
        (LatentSearch("long", "label", "word"), [CAFE]),  # a note from elsewhere
        (LatentSearch(labelled=True), [CAFE, NOW]),
        (LatentSearch(bookmarked=True), [PARTY]),
        (LatentSearch(in_list="kept"), [PIECE]),
    ],
)
def test_latents_are_found_by_what_was_written_elsewhere(store, search, expected):
    write(
        store,
        label(A, NOW, "peace"),
        label(A, CAFE, "theirs", note="a long note"),
        label(A2, CAFE, "own"),
        label(A, PARTY, bookmarked=True),
        label(A, PIECE, lists=("kept",)),
    )
    positions = RUNS[A2][2]
    found = [positions[latent] for latent in store.latents.numbers(A2, search)]
    assert sorted(found) == expected


def test_labels_of_here_and_of_elsewhere_are_counted_apart(store):
    write(
        store,
        label(A, NOW, "one"),
        label(A, CAFE, "two"),
        label(A, PIECE, bookmarked=True),
        label(B, NOW, "three"),
        label(A2, PARTY, note="four"),
        label(A2, CAFE, alone=True),
    )
    counts = store.labels.counts().set_index("run_id")
    # A: its own two, and the note of A2. A2: its own note, and "now" of A or B. B: its own, and
    # "café". W: "now", "café" and the note.
    assert counts["own"].to_dict() == {A: 2, A2: 1, B: 1, W: 0}
    assert counts["elsewhere"].to_dict() == {A: 1, A2: 1, B: 1, W: 3}


def test_what_is_written_says_where_its_source_stands(store):
    add_run(store, 9, "one-ffffffff-L01", "one", BYTES, [NOW], kind="sae")
    changes = [
        label(A, NOW, "known"),
        label("one-ffffffff-L01", NOW, "no token's"),
        label("nowhere", NOW, "not here"),
        label(A, CAFE, "said already", span=(1, 2)),
        Change(dataclasses.replace(label(A, NOW, "x").label, position=99)),
    ]
    spans = [change.span for change in store.labels.with_places(changes)]
    assert spans == [(12, 16), (), None, (1, 2), None]
