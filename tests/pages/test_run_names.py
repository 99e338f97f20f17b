"""What dictionaries are called: the same on every page, and no two alike."""

import json

from pages.components import explorer as explorer_module
from pages.components.run_names import full_labels
from tests.pages.test_evaluate import rows_of
from tests.support.app import dictionaries, newest, open_page


def test_a_dictionary_is_called_by_model_layer_and_corpus():
    labels = full_labels(rows_of(layer=[7, 15]), {})
    assert labels == {"r0": "m · layer 7 · sotu", "r1": "m · layer 15 · sotu"}


def test_those_that_would_read_alike_are_told_apart_by_what_differs():
    rows = rows_of(layer=[7, 7, 15], seed=[0, 1, 2], atoms=[1024, 1024, 9])
    assert full_labels(rows, {}) == {
        "r0": "m · layer 7 · sotu · seed 0",
        "r1": "m · layer 7 · sotu · seed 1",
        "r2": "m · layer 15 · sotu",
    }
    rows = rows_of(tokens=[1_000, 2_000])
    assert full_labels(rows, {})["r1"] == "m · layer 7 · sotu · 2,000 tokens"
    rows = rows_of(kind=["sae"] * 2, method=["Standard SAE"] * 2, mean_l0=[0.44, 16.0])
    assert full_labels(rows, {})["r0"] == "m · layer 7 · Standard SAE · sotu · L0 0.4 on average"
    rows = rows_of(training_id=["m-1", "m-2"])
    assert full_labels(rows, {})["r1"] == "m · layer 7 · sotu · 2"
    rows = rows_of(model=["a/m", "b/m"])
    assert full_labels(rows, {})["r1"] == "m · layer 7 · sotu · b/m"


def test_a_given_name_comes_first_and_tells_apart():
    rows = rows_of(seed=[0, 1])
    assert full_labels(rows, {"r1": "War\u202e"}) == {
        "r0": "m · layer 7 · sotu",
        "r1": "“War⟨U+202E⟩” · m · layer 7 · sotu",
    }
    alike = full_labels(rows, {"r0": "War", "r1": "War"})
    assert alike["r0"] == "“War” · m · layer 7 · sotu · seed 0"


def test_a_name_is_given_on_overview_and_stands_on_every_page(own_data):
    run = newest(own_data, 2)
    app = open_page("train")
    [field] = [one for one in app.text_input if one.key == f"name_{run.run_id}"]
    field.set_value("War study").run()
    assert not app.exception
    kept = json.loads((own_data / "names.json").read_text("utf-8"))
    assert kept["names"] == {run.run_id: "War study"}
    assert "War study" in "".join(one.label for one in app.expander)
    for page in ("latents", "decompose"):
        options = open_page(page).selectbox(key="run").options
        assert [one for one in options if one.startswith("“War study” · ")]
    assert any("War study" in one for one in open_page("evaluate").multiselect[0].options)
    assert "War study" in dictionaries(open_page("overview"))["name"].tolist()


def test_a_damaged_file_of_names_is_told_and_costs_nothing_else(own_data):
    (own_data / "names.json").write_text("{")
    app = open_page("overview")
    assert "names.json is damaged" in app.warning[0].value.replace("`", "")
    assert len(dictionaries(app)) == 2
    assert explorer_module.explorer().names == {}


def test_a_name_goes_with_its_dictionary(own_data):
    run = newest(own_data, 2)
    open_page("overview")
    here = explorer_module.explorer()
    here.keep_name(run.run_id, "War study")
    here.delete(run.run_id)
    assert here.names == {}
