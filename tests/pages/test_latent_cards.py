"""Short cards of latents: what they say is what the store and the run know."""

import numpy as np
import pytest
import streamlit as st

from itda_core.analysis.decomposition import decompose
from itda_core.runs.labels import Label
from pages.components.explorer import explorer
from pages.components.latent_rows import rows
from pages.components.latent_rows.card import cards_of
from pages.components.latent_rows.rows import open_place
from tests.support.app import assert_no_failure, drawn, newest, open_page, rows_of
from tests.support.labels import add_labels

TEXT = "The Senate will ratify the treaty."


@pytest.fixture
def data(own_data):
    return own_data


def test_a_card_says_of_a_latent_what_its_run_says(data):
    run = newest(data, 2)
    latent, sources = 3, run.dictionary().sources
    source = sources.iloc[latent]
    where = (run.run_id, latent, source["prompt_id"], int(source["position"]))
    add_labels(data / "labels.jsonl", [Label(*where, "<b>law</b>")])
    open_page("decompose", run=run.run_id, text=TEXT)
    store = explorer().store
    [row] = [one for one in store.runs.table().itertuples() if one.run_id == run.run_id]
    cards = cards_of(row, range(len(sources)))
    assert list(cards) == [str(n) for n in range(len(sources))]
    card = cards[str(latent)]
    assert (card["latent"], card["run"], card["label"]) == (latent, run.run_id, "<b>law</b>")
    assert source["token"].strip() in card["source"]
    uses = store.uses.strongest(run.run_id, latent, limit=3)
    assert [use["coefficient"] for use in card["uses"]] == [
        f"{size:+.2f}" for size in uses["coefficient"]
    ]
    coefficients = store.uses.coefficients(run.run_id, latent)
    drawn_uses = card["histogram"]["positive"], card["histogram"]["negative"]
    assert sum(map(sum, drawn_uses)) == np.count_nonzero(coefficients)
    assert card["score"] == []  # nobody has scored it


def test_a_card_follows_a_label_that_is_written_meanwhile(data):
    run = newest(data, 2)
    open_page("decompose", run=run.run_id, text=TEXT)
    store = explorer().store
    [row] = [one for one in store.runs.table().itertuples() if one.run_id == run.run_id]
    assert cards_of(row, [3])["3"]["label"] == ""
    source = run.dictionary().sources.iloc[3]
    where = (run.run_id, 3, source["prompt_id"], int(source["position"]))
    add_labels(data / "labels.jsonl", [Label(*where, "law")])
    store.index.import_new(data / "runs")
    assert cards_of(row, [3])["3"]["label"] == "law"


def test_every_latent_that_is_named_has_its_card_and_its_place(data, tiny_model):
    run = newest(data, 2)
    result = decompose(run.dictionary(), tiny_model, TEXT, run.config)
    position = int(result.positions[2])
    app = open_page("decompose", run=run.run_id, text=TEXT, token=str(position))
    assert_no_failure(app)
    lights = drawn(app, f"strip_{hash(TEXT)}")
    assert {str(light["latent"]) for light in lights["lights"]} == set(lights["cards"])
    terms, expected = rows_of(app, "terms"), result.terms(2)
    assert terms["latent"].tolist() == expected["latent"].tolist()
    assert terms["coefficient"].tolist() == pytest.approx(expected["coefficient"].tolist())
    shown = drawn(app, "terms")
    for term in expected.itertuples():
        assert shown["cards"][str(term.latent)]["latent"] == term.latent
        size = expected.loc[expected["latent"] == term.latent, "coefficient"].sum()
        assert shown["places"][str(term.latent)] == {
            "run": run.run_id,
            "latent": str(term.latent),
            "mark": f"{term.latent}:{size:+.4f}",
        }


def test_a_place_is_opened_or_steered_with(monkeypatch):
    went = []

    def go(page, query_params):
        went.append((page, query_params))

    monkeypatch.setattr(st, "switch_page", go)
    place = {"run": "r", "latent": "5", "mark": "5:+1"}
    open_place("open", place)
    open_place("steer", place)
    assert went == [
        ("pages/latents.py", place),
        ("pages/decompose.py", {"run": "r", "view": "steer", "steer": "5"}),
    ]


@pytest.mark.parametrize(
    ("event", "chosen"),
    [
        ({"what": "row", "key": "5"}, ["5"]),
        ({"what": "row", "key": "6"}, ["6"]),
        ({"what": "open", "key": "5"}, []),  # its card leads to its own page
        ({"what": "open", "key": "6"}, ["6"]),
        ({"what": "steer", "key": "6"}, []),
        (None, []),
    ],
)
def test_a_click_on_a_row_chooses_and_its_card_opens_where_it_has_a_place(
    monkeypatch, event, chosen
):
    told = []
    monkeypatch.setattr(st, "session_state", {"rows": {"opened": event}})
    rows.tell("rows", {"5": {"run": "r", "latent": "5"}}, told.append)
    assert told == chosen


def test_the_list_of_latents_has_a_card_for_each_row_and_marks_the_open_one(data):
    run = newest(data, 2)
    app = open_page("latents", run=run.run_id, latent="3", kind="all")
    shown = drawn(app, "latent_list")
    assert [row["latent"] for row in shown["rows"]] == list(range(15))
    assert [card["latent"] for card in shown["cards"].values()] == list(range(15))
    assert (shown["chosen"], shown["places"]) == ("3", {})


def test_a_related_latent_has_its_card(data):
    app = open_page("latents", run=newest(data, 2).run_id, latent="5")
    app.session_state["related"], app.session_state["relations"] = True, "Nearest atoms"
    app.run()
    shown = drawn(app, "related_latents")
    assert [row["key"] for row in shown["rows"]] == [*shown["cards"]]


def test_the_sources_of_a_cell_have_the_cards_of_both_sides_a_page_at_a_time(data):
    app = open_page("similarity", row="1", column="2")
    shown = drawn(app, "sources_shared")
    assert shown["rows"]
    for row in shown["rows"]:
        ours, theirs = (shown["cards"][row[name]] for name in ("key", "key_b"))
        assert (ours["latent"], theirs["latent"]) == (row["latent"], row["latent_b"])
        assert ours["run"] == newest(data, 1).run_id
        assert theirs["run"] == newest(data, 2).run_id
        assert shown["places"][row["key_b"]] == {
            "run": theirs["run"], "latent": str(theirs["latent"])
        }  # fmt: skip
    assert shown["chosen"] == shown["rows"][0]["key"]


def test_a_page_of_the_sources_of_one_side_goes_on_where_the_one_before_ended(data):
    app = open_page("similarity", row="1", column="2")
    label = next(tab.label for tab in app.tabs if tab.label.startswith("`Only"))
    app.session_state["tab_1_2"] = label
    app.run()
    first = drawn(app, "sources_only_a")["rows"]
    app.button(key="only_a_Next page").click().run()
    assert_no_failure(app)
    second = drawn(app, "sources_only_a")
    names = ("prompt_id", "position")
    places = [tuple(row[name] for name in names) for row in [*first, *second["rows"]]]
    total = int(label.partition("(")[2].rstrip(")`").replace(",", ""))
    assert len(first) == 25
    assert len(set(places)) == len(places) == min(50, total)
    assert second["chosen"] == second["rows"][0]["key"]
