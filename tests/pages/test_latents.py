"""What a latent has to do with others, on the Latents page, by AppTest."""

import dataclasses
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest

from itda_core.analysis.decomposition import decompose
from itda_core.analysis.latent_map import map_latents, save_map
from itda_core.analysis.neighbours import nearest_atoms, next_tokens
from itda_core.analysis.phrase import phrase_latents
from itda_core.errors import ItdaError
from itda_core.runs.labels import BadLine, Label, kept_label
from itda_core.runs.run import NEAR_MISS_FILE, list_runs
from itda_core.store.latent_search import LatentSearch
from pages.components.cached import loaded_model
from pages.components.charts.latent_map import latent_map, narrow_pages
from pages.components.charts.map_regions import map_regions, without_overlaps
from pages.components.explorer import explorer
from pages.components.latent_rows.rows import Column, number_text
from pages.components.latents import label_editor
from pages.components.latents.label_editor import keep_change, left_out
from pages.components.latents.listing import Listing
from pages.components.latents.search import what_to_change
from pages.components.token_strip.strip import fold_twins, token_row
from tests.support.app import (
    assert_no_failure,
    button,
    close_explorer,
    drawn,
    newest,
    open_page,
    table_with,
)
from tests.support.edited_runs import edited_copy
from tests.support.labels import add_labels, read_labels
from tests.support.tiny_models import save_tiny_model
from tests.support.trained_runs import tiny_config, trained


@pytest.fixture
def data(own_data):
    return own_data


def open_tab(name, run, latent):
    """The page of a latent with one of the lists open."""
    app = open_page("latents", run=run.run_id, latent=str(latent))
    app.session_state["related"] = True
    app.run()
    app.session_state["relations"] = name
    app.run()
    assert_no_failure(app)
    return app


def told(app):
    return " ".join(element.value for element in [*app.markdown, *app.caption, *app.info])


def most_used(run):
    return int(pd.read_parquet(run.directory / "codes.parquet")["latent"].mode()[0])


def test_the_nearest_atoms_are_listed_with_their_cosines(data):
    run = newest(data, 2)
    app = open_tab("Nearest atoms", run, 5)
    expected = nearest_atoms(run.dictionary(), 5, 10)
    shown = table_with(app, "cosine")
    assert shown["latent"].tolist() == expected["latent"].tolist()
    assert shown["cosine"].tolist() == pytest.approx(expected["cosine"].tolist())


def test_latents_used_on_the_same_tokens_are_listed_by_lift(data):
    run = newest(data, 2)
    latent = most_used(run)
    shown = table_with(open_tab("Used together", run, latent), "lift")
    codes = pd.read_parquet(run.directory / "codes.parquet")
    uses = codes.groupby("latent")[["prompt_id", "position"]].apply(
        lambda table: set(table.itertuples(index=False, name=None))
    )
    for row in shown.itertuples():
        both = uses[latent] & uses[row.latent]
        assert row.both == len(both) >= 5
    assert shown["lift"].is_monotonic_decreasing


def test_the_next_tokens_of_an_atom_are_listed_at_both_ends(data, tiny_model):
    run = newest(data, 2)
    app = open_tab("Next tokens", run, 5)
    expected = next_tokens(tiny_model, run.dictionary(), 5, 10)
    promoted, suppressed = [one.value for one in app.dataframe if "score" in one.value]
    assert promoted["token_id"].tolist() == expected.promoted["token_id"].tolist()
    assert suppressed["token_id"].tolist() == expected.suppressed["token_id"].tolist()


def test_the_source_is_followed_into_the_other_layers_and_their_places(data):
    run = newest(data, 2)
    copy = edited_copy(newest(data, 1).directory, "of-the-mlp", {"site": "mlp_out"})
    codes = pd.read_parquet(newest(data, 1).directory / "codes.parquet")
    explored = set(zip(codes["prompt_id"], codes["position"], strict=True))
    sources = run.dictionary().sources
    latent = next(
        row.latent for row in sources.itertuples() if (row.prompt_id, row.position) in explored
    )
    app = open_tab("Other layers", run, latent)
    shown = table_with(app, "coefficient")
    assert {(1, "resid_post"), (1, "mlp_out")} <= {*zip(shown["layer"], shown["site"], strict=True)}
    opened = drawn(app, "elsewhere")
    runs = {place["run"] for place in opened["places"].values()}
    assert runs == {card["run"] for card in opened["cards"].values()}
    assert {newest(data, 1).run_id, copy.name} <= runs
    assert run.run_id not in runs


def test_uses_of_the_whole_range_are_shown_by_quarter_and_those_of_one_sign_alone(data):
    run = newest(data, 2)
    latent = most_used(run)
    app = open_page("latents", run=run.run_id, latent=str(latent))
    app.segmented_control(key="which_uses").set_value("Whole range").run()
    assert_no_failure(app)
    codes = pd.read_parquet(run.directory / "codes.parquet")
    sizes = codes[codes["latent"] == latent].groupby(["prompt_id", "position"])["coefficient"].sum()
    quarters = np.array_split(np.sort(sizes.abs())[::-1], 4)
    for quarter in quarters:
        expected = f"{quarter.min():.2f}–{quarter.max():.2f} · 25% of its uses ({len(quarter):,}"
        assert expected in told(app)
    app.segmented_control(key="sign").set_value(-1).run()
    assert_no_failure(app)
    negative = np.sort(sizes[sizes < 0].abs())[::-1]
    if len(negative):
        assert f"{np.array_split(negative, 4)[0].max():.2f} ·" in told(app)
    else:
        assert "No explored token uses it with this sign" in told(app)


def test_the_whole_range_ends_with_the_near_misses(data):
    run = newest(data, 2)
    table = pd.read_parquet(run.directory / NEAR_MISS_FILE)
    latent = int(table["latent"].mode()[0])
    sizes = table.loc[table["latent"] == latent, "coefficient"]
    app = open_page("latents", run=run.run_id, latent=str(latent), kind="all")
    app.segmented_control(key="which_uses").set_value("Whole range").run()
    assert_no_failure(app)
    assert f"Near misses · {len(sizes):,} tokens" in told(app)
    app.segmented_control(key="sign").set_value(-1).run()
    negative = int((sizes < 0).sum())
    expected = f"Near misses · {negative:,} tokens" if negative else "Near misses on no"
    assert expected in told(app)
    (run.directory / NEAR_MISS_FILE).write_bytes(b"PAR1")
    app.run()
    assert "is damaged" in app.warning[0].value
    (run.directory / NEAR_MISS_FILE).unlink()
    app.run()
    assert_no_failure(app)
    assert "not known: an earlier version" in told(app)


# Labels and searches


def labels(data):
    file = data / "labels.jsonl"
    return read_labels(file.read_bytes() if file.exists() else b"")[0]


def test_a_field_that_says_what_is_known_writes_nothing(data):
    run = newest(data, 2)
    open_page("latents", run=run.run_id, latent="5")
    known = Label(run.run_id, 5, "0123456789abcdef", 3, "war", lists=("<b>mine</b>",))
    for name in ("label", "note", "bookmarked"):
        keep_change(known, name, getattr(known, name))
    keep_change(known, "lists", ["<b>mine</b>"])  # as the widget gives them
    assert not (data / "labels.jsonl").exists()
    add_labels(data / "labels.jsonl", [known])
    keep_change(known, "label", "peace")
    [kept] = labels(data)
    assert (kept.label, kept.lists) == ("peace", known.lists)


def test_two_people_who_put_a_latent_into_lists_at_once_both_have_it_there(data, monkeypatch):
    run = newest(data, 2)
    open_page("latents", run=run.run_id, latent="5")
    shown = Label(run.run_id, 5, "0123456789abcdef", 3)  # to both

    def slowly(file, label):
        found = kept_label(file, label)
        time.sleep(0.2)
        return found

    monkeypatch.setattr(label_editor, "kept_label", slowly)
    monkeypatch.setattr(label_editor, "_tell", lambda *_said: None)  # of no session
    with ThreadPoolExecutor(2) as both:
        list(both.map(lambda name: keep_change(shown, "lists", [name]), ["mine", "theirs"]))
    [kept] = labels(data)
    assert set(kept.lists) == {"mine", "theirs"}


def field(app, kind, label):
    return next(one for one in getattr(app, kind) if one.label == label)


def test_a_label_a_note_and_a_bookmark_are_kept_as_soon_as_they_are_written(data):
    run = newest(data, 2)
    app = open_page("latents", run=run.run_id, latent="5")
    field(app, "text_input", "Label").set_value("<b>War</b> & *peace*").run()
    field(app, "toggle", "Bookmark").set_value(True).run()
    field(app, "text_area", "Note").set_value("seen on\ntwo lines").run()
    assert_no_failure(app)
    [label] = labels(data)
    source = run.dictionary().sources.loc[5]
    assert (label.run_id, label.latent) == (run.run_id, 5)
    assert (label.prompt_id, label.position) == (source["prompt_id"], source["position"])
    assert (label.label, label.note) == ("<b>War</b> & *peace*", "seen on\ntwo lines")
    assert label.bookmarked
    again = open_page("latents", run=run.run_id, latent="5")
    assert field(again, "text_input", "Label").value == "<b>War</b> & *peace*"
    assert table_with(again, "percent").set_index("latent").loc[5, "label"].startswith("★ <b>War")
    other = open_page("latents", run=run.run_id, latent="6")
    assert field(other, "text_input", "Label").value == ""


def test_two_tabs_do_not_undo_each_other(data):
    run = newest(data, 2)
    one, other = (open_page("latents", run=run.run_id, latent="5") for _ in range(2))
    field(one, "text_input", "Label").set_value("war").run()
    field(other, "toggle", "Bookmark").set_value(True).run()
    assert_no_failure(other)
    [label] = labels(data)
    assert (label.label, label.bookmarked) == ("war", True)
    assert field(other, "text_input", "Label").value == "war"  # and both show it
    field(one, "multiselect", "Lists").set_value([]).run()
    assert field(one, "toggle", "Bookmark").value
    seen = Label(*label.source)
    keep_change(seen, "lists", ["of one"])
    keep_change(seen, "lists", ["of the other"])
    assert labels(data)[0].lists == ("of one", "of the other")


def test_what_is_kept_is_said_and_what_takes_anothers_place_as_well(data, monkeypatch):
    run = newest(data, 2)
    one, other = (open_page("latents", run=run.run_id, latent="5") for _ in range(2))
    field(one, "text_input", "Label").set_value("war").run()
    assert "Saved: label of latent 5" in told(one).replace("`", "")
    button(one, "Next").click().run()
    assert "Saved" not in told(one), "it says nothing of another latent"
    one.session_state["latent"] = 5
    one.run()
    assert "Saved: label of latent 5" in told(one).replace("`", "")
    field(other, "text_input", "Label").set_value("peace").run()
    assert "It takes the place of “war”" in told(other)
    (data / "labels.jsonl").unlink()
    (data / "labels.jsonl").mkdir()  # no file can be written there

    def full(*_arguments):
        raise ItdaError("There is no space left on the disk.")

    monkeypatch.setattr("itda_core.store.index.add_changes", full)
    monkeypatch.setattr("pages.components.latents.label_editor.kept_label", lambda _, seen: seen)
    field(other, "text_input", "Label").set_value("lost?").run()
    assert not other.exception
    assert "Not saved: label of latent 5. There is no space left" in other.error[0].value.replace(
        "`", ""
    )
    assert field(other, "text_input", "Label").value == "lost?"


def test_a_line_that_the_database_can_not_take_closes_no_page(data):
    """As it was uploaded on Latents → Files, and kept, before lines were checked."""
    run = newest(data, 2)
    source = run.dictionary().sources.loc[5]
    where = run.run_id, 5, source["prompt_id"], int(source["position"])
    add_labels(data / "labels.jsonl", [Label(*where, "war")])
    good = json.loads((data / "labels.jsonl").read_text())
    with (data / "labels.jsonl").open("a") as opened:
        opened.write(json.dumps(good | {"latent": 3_000_000_000}) + "\n")
        opened.write(json.dumps(good | {"changed": 5, "label": "x"}) + "\n")
    for name in ("overview", "train", "latents", "decompose", "similarity", "evaluate"):
        app = open_page(name)
        if name == "overview":
            said = app.warning[0].value.replace("`", "")
            assert re.search(r"2 lines of .*line 2 .*line 3 ", said)
    app = open_page("latents", run=run.run_id, latent="5")
    assert field(app, "text_input", "Label").value == "war"


def test_whatever_an_import_raises_the_pages_open(data, monkeypatch):
    def fail(*_arguments):
        raise TypeError("of a kind that nobody thought of")

    monkeypatch.setattr("itda_core.store.label_follower.insert_labels", fail)
    app = open_page("overview")
    assert "nobody thought of" in app.warning[0].value
    assert_no_failure(open_page("latents"))


def test_the_lines_of_a_file_that_are_left_out_are_named():
    text = left_out("mine.jsonl", [BadLine(n, "it is not JSON") for n in range(2, 9)])
    assert text.startswith("7 lines of mine.jsonl can't be used and will be left out: line 2 (it ")
    assert text.endswith("line 6 (it is not JSON); and 2 more.")


def test_a_link_restores_search_place_way_and_filters(data):
    run = newest(data, 2)
    app = open_page("latents", run=run.run_id, latent="5")
    field(app, "toggle", "Bookmark").set_value(True).run()
    query = {"search": "^.*$", "in": "token", "match": "regex", "bookmarked": "True"}
    app = open_page("latents", run=run.run_id, **query)
    assert_no_failure(app)
    assert app.text_input(key="search").value == "^.*$"
    assert table_with(app, "percent")["latent"].tolist() == [5]


def test_a_search_says_of_each_latent_why_it_is_there(data):
    run = newest(data, 2)
    app = open_page("latents", run=run.run_id, search="the", kind="all")
    assert_no_failure(app)
    found = explorer().store.latents.found(
        run.run_id, LatentSearch("the", "meaning", "word", of_strong=True)
    )
    shown = table_with(app, "percent")
    assert shown["latent"].tolist() == found["latent"].tolist()[:15]
    for row, said in zip(found.itertuples(), shown["found"], strict=False):
        count = row.uses_on if row.by == "uses on" else row.uses
        uses = f"{count} uses" if count != 1 else "1 use"
        by_uses = {"uses on": f"{row.on:.0%}, {uses}",
                   "uses near": f"{row.on + row.near:.0%} near, {uses}"}  # fmt: skip
        assert said == ({"source": "source", "context": "around"} | by_uses)[row.by]
    listed = Listing(run.run_id, LatentSearch("the", "meaning", "word", of_strong=True), "match")
    for row, said in zip(found.itertuples(), listed.table()["found"], strict=True):
        said = re.sub("[\u2066-\u2069]", "", said)
        if row.by == "uses on":
            assert said.startswith(f"{row.on:.0%} by weight of its uses on “the”")
        elif row.by != "uses near":
            words = {"source": "its source is “the”", "context": "“the” is near its source"}
            assert said == words[row.by]
    assert any("no scores: all uses count" in one.value for one in app.caption)
    app.toggle(key="whole_word").set_value(False).run()
    assert app.query_params["match"] == "text"
    app.toggle(key="expression").set_value(True).run()
    assert app.query_params["match"] == "regex"
    assert not app.toggle(key="whole_word").value
    app.toggle(key="all_uses").set_value(True).run()
    assert not any("no scores" in one.value for one in app.caption)
    assert_no_failure(app)


def test_where_few_are_found_the_nearest_atoms_are_suggested(data):
    run = newest(data, 2)
    atoms = run.dictionary().atoms.numpy()
    open_page("latents", run=run.run_id)
    for token in run.dictionary().sources["token"]:
        word = token.strip()
        search = LatentSearch(word, "meaning", "word", of_strong=True)
        found = explorer().store.latents.found(run.run_id, search)
        on_it = found["latent"][found["by"].isin(["source", "uses on"])].tolist()
        if word.isalpha() and on_it and (found["by"] != "context").sum() < 10:
            break
    assert on_it
    app = open_page("latents", run=run.run_id, search=word, kind="all")
    assert_no_failure(app)
    cosines = (atoms @ atoms[on_it].T).max(1)
    cosines[found["latent"]] = -1
    shown = table_with(app, "nearest")
    assert shown["latent"].tolist() == np.argsort(-cosines, kind="stable")[:5].tolist()
    assert shown["cosine"].to_numpy() == pytest.approx(np.sort(cosines)[::-1][:5], abs=1e-5)
    others = np.setdiff1d(np.arange(len(atoms)), found["latent"])[::9]
    among = ",".join(map(str, [*on_it, *others]))
    app = open_page("latents", run=run.run_id, search=word, kind="all", among=among)
    best = others[np.argsort(-cosines[others], kind="stable")][:5]
    shown = table_with(app, "nearest")
    assert shown["latent"].tolist() == [n for n in best if cosines[n] > 0], "what the filters allow"
    app = open_page("latents", run=run.run_id, kind="all")
    assert not any("Nearby**: the atoms" in one.value for one in app.caption)


def test_a_phrase_is_run_through_the_model_and_its_latents_are_listed(data):
    run = newest(data, 2)
    app = open_page("latents", run=run.run_id, search="the people of war", kind="all")
    assert_no_failure(app)
    assert any("run through the model" in one.value for one in app.caption)
    result = decompose(
        run.dictionary(), loaded_model(run.config.model), ". the people of war", run.config
    )
    expected = phrase_latents(result)
    shown = table_with(app, "percent")
    assert shown["latent"].tolist() == expected["latent"].tolist()[:15]
    first = expected.iloc[0]
    assert shown["found"][0].startswith(f"{first.coefficient:+.1f} on ")
    assert "squared coefficients on it come first" in told(app)
    app.selectbox(key="order").set_value("number").run()
    by_number, seen = sorted(expected["latent"]), table_with(app, "percent")["latent"].tolist()
    begin = by_number.index(first.latent) // 15 * 15  # the latent that is open keeps its place
    assert seen == by_number[begin : begin + 15]
    assert "in the order that you asked for" in told(app)
    app.toggle(key="as_text").set_value(True).run()
    assert_no_failure(app)
    assert app.query_params["as_text"] == "True"
    assert not any("run through the model" in one.value for one in app.caption)


def test_a_word_that_no_latent_is_on_is_run_through_the_model(data):
    run = newest(data, 2)
    app = open_page("latents", run=run.run_id, search="zebrafish", kind="all")
    assert_no_failure(app)
    assert any(one.value.startswith("No latent has this word") for one in app.caption)
    result = decompose(run.dictionary(), loaded_model(run.config.model), ". zebrafish", run.config)
    expected = phrase_latents(result)["latent"].tolist()
    assert table_with(app, "percent")["latent"].tolist() == expected[:15]
    pieces = [result.text[start:end] for start, end in result.tokens.spans[0][1:] if end > 2]
    assert len(pieces) > 1
    quoted = ", ".join(f"“{piece.strip()}”" for piece in pieces)
    assert f"The model reads it in pieces: {quoted}. With a capital" in told(app)
    assert run.metrics["atoms"] == 64
    app = open_page("latents", run=run.run_id, search="9999", kind="all")
    assert "run through the model" in told(app), "no latent has that number"
    for search, way in [("zebrafish", "regex"), ("63", "word"), ("the", "word")]:
        app = open_page("latents", run=run.run_id, search=search, match=way, kind="all")
        assert_no_failure(app)
        assert not any("run through the model" in one.value for one in app.caption), search


def test_the_uses_of_a_latent_are_searched_on_its_card(data):
    run = newest(data, 2)
    codes = pd.read_parquet(run.directory / "codes.parquet")
    latent = int(codes["latent"].value_counts().index[0])
    app = open_page("latents", run=run.run_id, latent=str(latent), in_uses="the", kind="all")
    assert_no_failure(app)
    store = explorer().store
    n_uses = int(store.uses.saying(run.run_id, latent, "the", "word")["uses"][0])
    assert any(f"{n_uses:,} uses have `“the”`" in one.value for one in app.caption)
    app.text_input(key="in_uses").set_value("zebrafish").run()
    assert any("None of these uses has `“zebrafish”`" in one.value for one in app.caption)
    app.text_input(key="in_uses").set_value("").run()
    assert "in_uses" not in app.query_params


def chips(app):
    """The coefficients of the uses that are listed."""
    return [row["chip"] for row in drawn(app, "uses")["rows"]]


def test_more_uses_are_shown_twenty_at_a_time_and_the_link_says_which(data):
    run = newest(data, 2)
    latent = most_used(run)
    codes = pd.read_parquet(run.directory / "codes.parquet")
    sizes = codes[codes["latent"] == latent].groupby(["prompt_id", "position"])["coefficient"].sum()
    expected = sizes.loc[sizes.abs().sort_values(ascending=False).index]
    app = open_page("latents", run=run.run_id, latent=str(latent), kind="all")
    assert f"1 to 20 of {len(sizes):,} uses, strongest first" in told(app)
    assert "uses_from" not in app.query_params
    app.button(key="more_uses").click().run()
    assert_no_failure(app)
    assert f"21 to {min(40, len(sizes))} of {len(sizes):,} uses" in told(app)
    assert app.query_params["uses_from"] == "21"
    assert chips(app) == [f"{size:+.2f}" for size in expected[20:40]]
    again = open_page("latents", run=run.run_id, latent=str(latent), kind="all", uses_from="21")
    assert chips(again) == chips(app)
    again.button(key="stronger_uses").click().run()
    assert chips(again) == [f"{size:+.2f}" for size in expected[:20]]
    app.button_group(key="sign").set_value(1).run()  # others are listed: from the strongest on
    assert_no_failure(app)
    assert chips(app)[0] == f"{expected[expected > 0].iloc[0]:+.2f}"
    assert "uses_from" not in app.query_params
    for wrong in ("9999999", "many"):
        odd = open_page("latents", run=run.run_id, latent=str(latent), uses_from=wrong)
        assert_no_failure(odd)
        assert chips(odd)


def test_a_link_to_a_latent_is_not_hidden_by_an_earlier_search(data):
    run = newest(data, 2)
    app = open_page("latents", run=run.run_id, latent="5")
    app.text_input(key="search").set_value("the").run()
    app.query_params.clear()
    app.query_params["run"], app.query_params["latent"] = run.run_id, "7"
    app.run()
    assert_no_failure(app)
    assert app.text_input(key="search").value == ""
    assert app.session_state["latent"] == 7


def test_a_link_to_a_latent_shows_all_its_uses_after_an_earlier_search_of_uses(data):
    run = newest(data, 2)
    app = open_page("latents", run=run.run_id, latent="5", kind="all")
    app.text_input(key="in_uses").set_value("zebrafish").run()
    assert any("None of these uses has" in one.value for one in app.caption)
    app.query_params.clear()
    app.query_params["run"], app.query_params["latent"] = run.run_id, "7"
    app.run()
    assert_no_failure(app)
    assert app.session_state["latent"] == 7
    assert app.text_input(key="in_uses").value == ""
    assert not any("None of these uses has" in one.value for one in app.caption)
    app.query_params["latent"], app.query_params["in_uses"] = "6", "zebrafish"
    app.run()
    assert app.text_input(key="in_uses").value == "zebrafish"


def test_a_number_that_is_searched_for_is_offered_as_a_latent(data):
    run = newest(data, 1)
    app = open_page("latents", run=run.run_id, search="12", kind="all")
    [button] = [one for one in app.button if one.label == "Open latent 12"]
    button.click().run()
    assert_no_failure(app)
    assert app.query_params["latent"] in ("12", ["12"])
    for other in ("9999", "war", "-1"):
        app = open_page("latents", run=run.run_id, search=other, kind="all")
        assert not [one.label for one in app.button if one.label.startswith("Open latent")]


def test_a_wrong_expression_is_answered_in_place_with_a_way_back(data):
    run = newest(data, 2)
    app = open_page("latents", run=run.run_id, search="(", match="regex")
    assert "no regular expression" in app.warning[0].value
    [button] = [button for button in app.button if button.label == "Show all latents"]
    button.click().run()
    assert_no_failure(app)
    assert len(table_with(app, "percent")) > 10


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        (LatentSearch("qqq"), "Try a shorter word."),
        (LatentSearch("qqq", bookmarked=True), "Try a shorter word or fewer filters."),
        (LatentSearch(min_density=0.5), "Try fewer filters."),
        (LatentSearch(among=(1,)), "Try fewer filters."),
        (LatentSearch(), ""),
    ],
)
def test_where_nothing_fits_only_what_is_set_is_to_be_changed(search, expected):
    assert what_to_change(search) == expected
    usual = what_to_change(dataclasses.replace(search, kind="usual"))
    assert usual == f"{expected} {usual[usual.index('Latents on') :]}".strip()


def test_with_no_explored_token_nothing_is_said_of_versions_or_nearer_atoms(
    data_folder, tiny_model_folder, tiny_corpus_file
):
    config = tiny_config(tiny_model_folder, tiny_corpus_file, layers=(1,), max_atoms=40)
    trained(dataclasses.replace(config, explored_tokens=0), data_folder / "runs")
    try:
        [run] = list_runs(data_folder / "runs")
        app = open_page("latents", run=run.run_id, latent="5")
        assert_no_failure(app)
        assert "no token was explored in this run" in told(app)
        assert "earlier version" not in told(app)
        assert "always nearer" not in told(app)
    finally:
        close_explorer()


def test_latents_are_listed_by_their_density(data):
    run = newest(data, 2)
    app = open_page("latents", run=run.run_id, least="3", most="8")
    codes = pd.read_parquet(run.directory / "codes.parquet")
    tokens = codes.drop_duplicates(["latent", "prompt_id", "position"]).groupby("latent").size()
    percent = 100 * tokens / run.metrics["explored_tokens"]
    expected = percent[(percent >= 3) & (percent <= 8)].index.tolist()
    assert 0 < len(expected) < run.metrics["atoms"]
    assert table_with(app, "percent")["latent"].tolist() == expected[:15]


@pytest.mark.parametrize("typed", ["500", "-1", "many", "nan"])
def test_a_density_that_is_none_is_refused_and_nothing_is_listed_by_another(data, typed):
    run = newest(data, 2)
    app = open_page("latents", run=run.run_id, filters="1", least="3")
    app.text_input(key="least").set_value(typed).run()
    assert app.error[0].value.replace("`", "").startswith("Used on at least, % must be ")
    assert typed in app.error[0].value.replace("`", "")
    assert drawn(app, "latent_list") is None
    assert app.toggle(key="bookmarked") is not None  # the other filters stay
    app.text_input(key="least").set_value("0").run()
    assert_no_failure(app)
    assert len(table_with(app, "percent")) > 3


def test_a_latent_to_order_by_that_there_is_not_is_refused(data):
    run = newest(data, 2)
    app = open_page("latents", run=run.run_id, order="similarity", like="5", kind="all")
    assert table_with(app, "cosine")["latent"].iloc[0] == 5
    app.text_input(key="like").set_value("64").run()
    assert "… latent must be at most 63, got 64" in app.error[0].value.replace("`", "")


def test_a_latent_outside_of_the_search_is_opened_by_its_link_and_the_next_is_the_lists_first(data):
    run = newest(data, 2)
    app = open_page("latents", run=run.run_id, latent="7", among="2,5,9", kind="all")
    assert_no_failure(app)
    assert "latent 7 ·" in told(app)
    assert "not in this list" in told(app)
    assert table_with(app, "percent")["latent"].tolist() == [2, 5, 9]
    next(button for button in app.button if button.label == "Next").click().run()
    assert app.session_state["latent"] == 2
    next(button for button in app.button if "clear" in button.label).click().run()
    assert len(table_with(app, "percent")) > 3


def test_another_search_or_order_begins_at_the_top_and_without_one_the_latent_keeps_its_place(data):
    run = newest(data, 2)
    app = open_page("latents", run=run.run_id, latent="60", kind="all")
    assert 60 in table_with(app, "percent")["latent"].tolist(), "on its page, by number"
    app.text_input(key="search").set_value("the").run()
    assert "· page 1 of" in told(app)
    top = table_with(app, "percent")["latent"].iloc[0]
    assert app.session_state["latent"] == top
    app.selectbox(key="order").set_value("density").run()
    shown = table_with(app, "percent")
    assert shown["percent"].is_monotonic_decreasing
    assert app.session_state["latent"] == shown["latent"].iloc[0]
    app.session_state["latent"] = 60
    app.selectbox(key="order").set_value("match").run()
    app.text_input(key="search").set_value("").run()
    opened = app.session_state["latent"]
    assert opened in table_with(app, "percent")["latent"].tolist()
    assert "by number" in told(app)


def with_row_open(run, place, **query):
    """The page with a row of its list open, and that row's latent."""
    app = open_page("latents", run=run.run_id, kind="all", **query)
    latent = int(table_with(app, "percent")["latent"].iloc[place])
    app.session_state["latent"] = latent
    return app.run(), latent


def test_a_step_back_opens_the_latent_that_was_open_then(data):
    app, sixth = with_row_open(newest(data, 2), 5, order="density")
    assert app.session_state["latent"] == sixth
    app.selectbox(key="order").set_value("number").run()
    assert app.session_state["latent"] == sixth, "in the list by number it stands where it stands"
    app.query_params["order"] = "density"
    app.query_params["latent"] = str(sixth)
    app.run()
    assert app.selectbox(key="order").value == "density"
    assert app.session_state["latent"] == sixth


def test_all_uses_keep_the_latent_of_a_phrase(data):
    app, fifth = with_row_open(newest(data, 2), 4, search="the people of war")
    app.toggle(key="all_uses").set_value(True).run()
    assert app.session_state["latent"] == fifth


def test_where_nothing_is_found_there_is_nothing_to_export(data):
    run = newest(data, 2)
    app = open_page("latents", run=run.run_id, search="qqqqq", match="regex", kind="all")
    assert "No latent of this dictionary matches" in " ".join(one.value for one in app.info)
    assert "0 latents" not in told(app)
    assert not [one for one in app.get("popover") if "Export" in str(one.proto)]


def test_noise_is_hidden_until_it_is_asked_for(data):
    run = newest(data, 2)
    codes = pd.read_parquet(run.directory / "codes.parquet")
    tokens = codes.drop_duplicates(["latent", "prompt_id", "position"]).groupby("latent").size()
    noise = int((tokens > 0.1 * run.metrics["explored_tokens"]).sum())
    assert noise > 0
    app = open_page("latents", run=run.run_id)
    total = run.metrics["atoms"]
    assert f"{total - noise:,} latents" in told(app)
    next(one for one in app.button if one.label == f"{noise:,} hidden · show").click().run()
    assert_no_failure(app)
    assert f"{total:,} latents" in told(app)
    assert app.query_params["kind"] in ("all", ["all"])


def test_latents_are_ordered_by_similarity_to_a_given_one(data):
    run = newest(data, 2)
    app = open_page("latents", run=run.run_id, order="similarity", like="5", kind="all")
    shown = table_with(app, "cosine")
    expected = run.dictionary().atoms @ run.dictionary().atoms[5]
    assert shown["latent"].iloc[0] == 5
    order = expected.argsort(descending=True)[: len(shown)].tolist()
    assert shown["latent"].tolist() == order
    assert shown["cosine"].tolist() == pytest.approx(expected[order].tolist(), abs=1e-5)


def test_a_latent_is_put_into_a_list_and_found_there(data):
    run = newest(data, 2)
    source = run.dictionary().sources.loc[5]
    where = run.run_id, 5, source["prompt_id"], int(source["position"])
    add_labels(data / "labels.jsonl", [Label(*where, lists=("<b>war</b>",))])
    app = open_page("latents", run=run.run_id, latent="6", list="<b>war</b>", kind="all")
    assert_no_failure(app)
    assert table_with(app, "percent")["latent"].tolist() == [5]
    app = open_page("latents", run=run.run_id, latent="6")
    field(app, "multiselect", "Lists").set_value(["<b>war</b>"]).run()
    assert_no_failure(app)
    assert {one.latent: one.lists for one in labels(data)} == dict.fromkeys((5, 6), ("<b>war</b>",))


def test_a_map_is_made_by_a_job_and_its_points_open_latents(data):
    run = newest(data, 2)
    app = open_page("latents", run=run.run_id, view="map", latent="5")
    assert "no map of this dictionary yet" in told(app)
    save_map(run, map_latents(run.dictionary(), "svd"), "svd")
    app = open_page("latents", run=run.run_id, view="map", latent="5", colour="hits")
    assert_no_failure(app)
    assert "umap-learn is not installed" in told(app)
    figure = json.loads(app.get("plotly_chart")[0].proto.spec)
    assert len(figure["data"][0]["hovertext"]) == run.metrics["atoms"]
    (run.directory / "map.parquet").write_bytes(b"PAR1")
    app = open_page("latents", run=run.run_id, view="map")
    assert "is damaged" in app.warning[0].value
    assert any(button.label == "Make the map" for button in app.button)


def test_the_map_shows_every_source_literally():
    columns = ["latent", "x", "y", "token", "density", "strongest", "layers", "before", "after"]
    table = pd.DataFrame([[3, 0.0, 1.0, "<b>x", 0.1, 2.0, 1, "<i>a", "&amp;"]], columns=columns)
    [hover] = latent_map(table, "density", set(), 3).data[0].hovertext
    assert hover.endswith("…&lt;i&gt;a<b>⟦&lt;b&gt;x⟧</b>&amp;amp;…")


def test_regions_of_the_map_are_named_by_the_words_that_only_they_have():
    chance = np.random.default_rng(0)
    spots = {f"word{n}": (10.0 * n, 10.0 * (n % 2)) for n in range(6)}
    rows = [
        (place[0] + x, place[1] + y, word if number % 2 else "the")
        for word, place in spots.items()
        for number, (x, y) in enumerate(chance.normal(0, 0.3, (16, 2)))
    ]
    found = map_regions(pd.DataFrame(rows, columns=["x", "y", "token"]))
    # Regions that hold half a spot may be too small to tell; "the" is everywhere and names none.
    assert len(found) >= 3
    assert set(found["words"]) <= set(spots)
    for row in found.itertuples():
        assert np.allclose((row.x, row.y), spots[row.words], atol=0.6)
    few = pd.DataFrame(rows[:10], columns=["x", "y", "token"])
    assert map_regions(few).empty


def test_words_that_would_cover_those_of_a_larger_region_are_left_out():
    points = pd.DataFrame({"x": [0.0, 100.0], "y": [0.0, 100.0]})
    regions = pd.DataFrame(
        [
            (50.0, 50.0, "treaty · war"),
            (52.0, 50.0, "peace"),  # beside it: 20 px of 1,000
            (52.0, 56.0, "gold"),  # above it: 36 of 600
            (70.0, 50.0, "tax"),  # beside it: 200 of 1,000, 52 of 260
        ],
        columns=["x", "y", "words"],
    )
    assert without_overlaps(regions, points, (1000, 600)) == [0, 2, 3]
    assert without_overlaps(regions, points, (260, 600)) == [0, 2]


def test_a_narrow_page_hides_the_words_that_have_no_room_on_it():
    points = pd.DataFrame({"x": [0.0, 100.0], "y": [0.0, 100.0]})
    rows = [(50.0, 50.0, "treaty · war"), (70.0, 50.0, "tax"), (50.0, 90.0, "gold")]
    regions = pd.DataFrame(rows, columns=["x", "y", "words"])
    style = narrow_pages(regions, points, ".place")
    assert style.count("@media") == 1
    assert '@media (max-width: 640px) { .place .annotation:is([data-index="1"])' in style


def test_uses_that_read_the_same_are_folded():
    def row(text):
        tokens = [(n, n + 1) for n in range(len(text))]
        return token_row(text, tokens, [0] * len(text), boxed=2, around=1)

    rows = fold_twins([row("abcde"), row("xbcdy"), row("xBCDy"), row("abXde")])
    assert [one.get("twin", False) for one in rows] == [False, True, True, False]


def test_an_encoder_says_that_its_atoms_promote_no_token(data_folder, tmp_path, tiny_corpus_file):
    model = save_tiny_model(tmp_path / "encoder", "bert")
    trained(tiny_config(model, tiny_corpus_file, layers=(1,), max_atoms=40), data_folder / "runs")
    try:
        [run] = list_runs(data_folder / "runs")
        assert "predicts no next token" in told(open_tab("Next tokens", run, 3))
        assert "No other dictionary" in told(open_tab("Other layers", run, 3))
    finally:
        close_explorer()


@pytest.mark.parametrize("wanted", ["64", "-1", "x", "9" * 5_000], ids=len)
def test_a_link_to_no_latent_says_so(data, wanted):
    app = open_page("latents", run=newest(data, 1).run_id, latent=wanted, among=wanted)
    assert_no_failure(app)
    assert "There is no latent" in app.warning[0].value


def test_numbers_of_a_table_are_rounded_as_sentences_round_them():
    score = Column("auroc", "score", "number", digits=2)
    for value in (0.825, 0.125, 0.375, 0.5):  # of which JavaScript makes 0.83, 0.13 and 0.38
        assert number_text(score, value) == f"{value:.2f}"
    assert number_text(score, None) == "–"
    signed = Column("correlation", "corr.", "number", digits=2, sign=True)
    shown = [number_text(signed, value) for value in (-0.004, 0.004, 0.0, -0.5, 1234.5)]
    assert shown == ["0.00", "0.00", "0.00", "−0.50", "+1,234.50"]
    assert number_text(Column("latent", "no.", "number", is_name=True), 1234) == "1234"
    assert number_text(Column("atoms", "atoms", "number"), 2048) == "2,048"
    assert number_text(Column("used", "used on", "number", digits=2, unit=" %"), 2.0) == "2.00 %"


def test_best_match_says_what_the_list_is_sorted_by(data):
    def count(**query):
        app = open_page("latents", kind="all", **query)
        return next(one for one in app.caption if "· page 1 of" in one.value)

    assert count().value.endswith(" · by number") and not count().help
    by_meaning = count(search="the")
    assert by_meaning.value.endswith(" · best match first")
    assert by_meaning.help.startswith("Latents whose label has it; then those with uses on it")
    assert "by number" not in count(order="density").value


def test_a_prompt_without_a_title_is_named_once(data):
    caption = next(one.value for one in open_page("latents").caption if "· latent " in one.value)
    assert caption.replace("`", "").count("prompt") == 1
