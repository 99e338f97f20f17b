"""Labels of the same source in other dictionaries, on the pages, by AppTest."""

import dataclasses
import json

import pytest

from itda_core.runs.labels import Label
from itda_core.runs.run import list_runs
from pages.components.explorer import explorer
from tests.support.app import (
    assert_no_failure,
    button,
    dictionaries,
    newest,
    open_page,
    rows_of,
    table_with,
)
from tests.support.edited_runs import edited_copy
from tests.support.labels import add_labels, read_labels

WAR = "<b>war</b> & *peace*"


@pytest.fixture
def shared(own_data):
    """Two runs, and a latent of each with the same source, of the second one labelled."""
    here, there = newest(own_data, 2), newest(own_data, 1)
    ours, theirs = here.dictionary().sources, there.dictionary().sources
    both = ours.merge(theirs, on=["prompt_id", "position"], suffixes=("", "_there"))
    source = both[both["position"] > 0].iloc[0]
    label = Label(
        there.run_id, int(source["latent_there"]), source["prompt_id"], int(source["position"]),
        WAR, "a note", True, ("treaties",),
    )  # fmt: skip
    add_labels(own_data / "labels.jsonl", [label])
    return own_data, here, int(source["latent"]), label


def kept(data, run_id):
    labels, bad = read_labels((data / "labels.jsonl").read_bytes())
    assert not bad
    return [label for label in labels if label.run_id == run_id]


def text_of(app):
    said = [element.value for element in [*app.markdown, *app.caption]]
    return " ".join(said).replace("`", "")


def field(app, kind, label):
    return next(one for one in getattr(app, kind) if one.label == label)


def listed(app, latent):
    table = table_with(app, "percent")  # without a column of which there is nothing to say
    return {"label": "", "from": ""} | table.set_index("latent").loc[latent].to_dict()


def links(app):
    return {link.proto.label.replace("`", ""): link.proto for link in app.get("page_link")}


def test_a_label_is_shown_as_from_where_it_was_given_and_taken_over_by_a_click(shared):
    data, here, latent, label = shared
    lines = (data / "labels.jsonl").read_text()
    app = open_page("latents", run=here.run_id, latent=str(latent), kind="all")
    row = listed(app, latent)
    assert (row["label"], row["from"]) == (f"☆ {WAR}", "layer 1")
    assert field(app, "text_input", "Label").value == ""  # it is not this dictionary's own
    assert field(app, "text_input", "Label").placeholder == f"{WAR}, from layer 1"
    assert f"“{WAR}” · ☆ · note: a note · in treaties" in text_of(app)
    query = links(app)["from layer 1"].query_string
    assert f"run={label.run_id}" in query
    assert f"latent={label.latent}" in query
    assert (data / "labels.jsonl").read_text() == lines  # nothing is written by looking
    button(app, "Copy here").click().run()
    assert_no_failure(app)
    [own] = kept(data, here.run_id)
    assert (own.latent, own.prompt_id, own.position) == (latent, *label.source[2:])
    assert own.fields == label.fields
    assert kept(data, label.run_id)[0].fields == label.fields
    assert (listed(app, latent)["label"], listed(app, latent)["from"]) == (f"★ {WAR}", "")
    assert "Copied: label, note, bookmark, lists of latent" in text_of(app)


def test_taking_over_undoes_nothing_that_another_tab_wrote(shared):
    data, here, latent, label = shared
    own = Label(here.run_id, latent, *label.source[2:], label="seen", lists=("seen",))
    add_labels(data / "labels.jsonl", [own])
    app = open_page("latents", run=here.run_id, latent=str(latent), kind="all")
    written = dataclasses.replace(own, label="unseen", lists=("unseen",), changed="")
    add_labels(data / "labels.jsonl", [written])
    button(app, "Copy here").click().run()
    assert_no_failure(app)
    [kept_now] = kept(data, here.run_id)
    assert (kept_now.label, kept_now.note) == (WAR, "a note")
    assert (kept_now.bookmarked, kept_now.lists) == (True, ("unseen", "treaties"))
    assert "The label takes the place of “unseen”." in text_of(app)


def test_an_own_label_overrides_and_when_taken_away_the_other_shows_again(shared):
    data, here, latent, label = shared
    app = open_page("latents", run=here.run_id, latent=str(latent), kind="all")
    field(app, "text_input", "Label").set_value("peace").run()
    assert (listed(app, latent)["label"], listed(app, latent)["from"]) == ("☆ peace", "")
    assert f"“{WAR}”" in text_of(app)  # both are shown, each with where it is from
    assert kept(data, label.run_id)[0].label == WAR
    line = json.loads((data / "labels.jsonl").read_text().splitlines()[-1])
    source = here.dictionary().sources.loc[latent]
    assert line["span"] == [source["start"], source["end"]]  # for when the run is gone
    field(app, "text_input", "Label").set_value("").run()
    assert (listed(app, latent)["label"], listed(app, latent)["from"]) == (f"☆ {WAR}", "layer 1")
    assert kept(data, here.run_id) == []


def test_what_others_say_is_left_out_where_it_does_not_fit(shared):
    data, here, latent, _ = shared
    app = open_page("latents", run=here.run_id, latent=str(latent), kind="all")
    field(app, "toggle", "Leave out").set_value(True).run()
    assert_no_failure(app)
    assert listed(app, latent)["label"] == ""
    assert "left out here" in text_of(app)
    assert kept(data, here.run_id)[0].alone
    again = open_page("latents", run=here.run_id, latent=str(latent), kind="all")
    field(again, "toggle", "Leave out").set_value(False).run()
    assert listed(again, latent)["label"] == f"☆ {WAR}"


def test_a_deleted_run_leaves_its_labels(shared):
    data, here, latent, label = shared
    app = open_page("latents", run=here.run_id, latent=str(latent), kind="all")
    explorer().delete(label.run_id)
    app.run()
    assert_no_failure(app)
    row = listed(app, latent)
    assert (row["label"], row["from"]) == (f"☆ {WAR}", f"a run that is not here, {label.run_id}")
    assert "from layer 1" not in links(app)
    assert len(list_runs(data / "runs")) == 1


def test_labels_from_elsewhere_are_found_by_filters_and_in_other_pages(shared):
    _, here, latent, label = shared
    for filters in (
        {"search": "peace", "in": "label"}, {"labelled": "True"}, {"bookmarked": "True"},
        {"list": "treaties"},
    ):  # fmt: skip
        app = open_page("latents", run=here.run_id, kind="all", **filters)
        assert app.session_state["latent"] == latent
    app = open_page("overview")
    counts = dictionaries(app).set_index("run_id")
    assert counts.loc[here.run_id, ["own", "elsewhere"]].tolist() == [0, 1]
    assert counts.loc[label.run_id, ["own", "elsewhere"]].tolist() == [1, 0]
    app = open_page("similarity", row="1", column="2")
    listed_there = table_with(app, "text")
    assert set(listed_there["text"]) - {""} == {WAR}
    assert WAR in text_of(app)  # at the head of the cards below, once from the other
    assert f"“{WAR}” from layer 1" in text_of(app)


def test_a_text_taken_apart_shows_labels_from_elsewhere(own_data):
    here, there = newest(own_data, 2), newest(own_data, 1)
    edited_copy(here.directory, "again", training_id="tiny-0123abcd")  # the same sources
    sources = here.dictionary().sources
    add_labels(
        own_data / "labels.jsonl",
        [
            Label("again", int(row.latent), row.prompt_id, int(row.position), f"<i>{row.latent}")
            for row in sources.itertuples()
        ],
    )
    text = {"text": "The Senate will ratify the treaty with Spain."}
    app = open_page("decompose", run=here.run_id, **text)
    table = rows_of(app, "latents_of_text")
    assert table["label"].tolist() == [f"<i>{latent}" for latent in table["latent"]]
    assert set(table["label_from"]) == {"layer 2 · 0123abcd"}
    app = open_page("decompose", run=here.run_id, view="what-if", **text)
    [edited] = [one.value for one in app.dataframe if "factor" in one.value]
    assert set(edited["label_from"]) == {"layer 2 · 0123abcd"}
    assert there.run_id != "again"
