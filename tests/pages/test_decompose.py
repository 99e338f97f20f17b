"""What if and Steer on the Decompose page, by AppTest, against the model itself."""

import numpy as np
import pandas as pd
import pytest
import streamlit as st
import torch

from itda_core.analysis.decomposition import decompose
from itda_core.analysis.steering import Writing, steering_vector, usual_norm, write_on
from itda_core.analysis.what_if import Edit, what_if
from itda_core.model.loading import load_model
from itda_core.runs.labels import Label
from itda_core.runs.run import list_runs
from pages.components import computed
from pages.components.decompose import prompt as prompt_choice
from pages.components.decompose import what_if as what_if_panel
from pages.components.decompose.edits_url import edits_text, read_edits
from pages.components.decompose.terms import latents_of
from tests.support.app import (
    assert_no_failure,
    close_explorer,
    drawn,
    metrics,
    newest,
    open_page,
    rows_of,
)
from tests.support.labels import add_labels
from tests.support.swept_like import SweptLike
from tests.support.tiny_models import save_tiny_model
from tests.support.trained_runs import tiny_config, trained

TEXT = "The Senate will ratify the treaty."


@pytest.fixture
def data(own_data):
    return own_data


def told(app):
    return " ".join(element.value for element in [*app.markdown, *app.caption, *app.info])


def test_fewer_terms_are_the_decomposition_with_that_l0(data, tiny_model):
    run = newest(data, 2)
    dictionary = run.dictionary()
    app = open_page("decompose", run=run.run_id, text=TEXT, l0="2")
    assert app.slider(key="l0").value == 2
    x = tiny_model.capture(tiny_model.tokenize([TEXT]), [2])[2]
    left = (x - dictionary.decode(dictionary.encode(x, l0=2))).square().sum()
    share = float(left / (x - dictionary.offset).square().sum())
    assert metrics(app)["left unexplained"] == f"{share:.1%}"
    app.slider(key="l0").set_value(dictionary.l0).run()
    left = (x - dictionary.decode(dictionary.encode(x))).square().sum()
    share = float(left / (x - dictionary.offset).square().sum())
    assert metrics(app)["left unexplained"] == f"{share:.1%}"


def test_prompts_one_a_line_are_kept_in_a_list_without_repeats(data):
    app = open_page("decompose", text=TEXT)
    app.text_area(key="lines").set_value("The first.\n\n  The second. \nThe first.")
    [add] = [button for button in app.button if button.label == "Add to the list"]
    add.click().run()
    assert_no_failure(app)
    assert app.session_state["prompts"] == ["The first.", "The second."]
    assert app.text_area(key="lines").value == ""
    table = next(one.value for one in app.dataframe if "prompt" in one.value.columns)
    assert table["prompt"].tolist() == ["The first.", "The second."]
    [clear] = [button for button in app.button if button.label == "Clear the list"]
    clear.click().run()
    assert app.session_state["prompts"] == []


def test_a_stored_prompt_too_long_for_the_link_is_in_it_by_its_id(data, monkeypatch):
    monkeypatch.setattr(prompt_choice, "_URL_CHARACTERS", 20)
    prompts = pd.read_parquet(newest(data, 2).directory / "prompts.parquet")
    prompt = prompts.loc[prompts["text"].str.len().idxmax()]
    app = open_page("decompose", prompt=prompt["prompt_id"])
    assert_no_failure(app)
    assert app.session_state["_written_prompt"] == prompt["prompt_id"]
    assert app.session_state["_written_text"] is None
    app.text_area(key="text").set_value("Another text, of the user's own.").run()
    assert app.session_state["_written_prompt"] is None
    assert "The link leaves out texts of more than 20 characters." in told(app)
    app.text_area(key="text").set_value("A short one.").run()
    assert app.session_state["_written_text"] == "A short one."
    next(button for button in app.button if button.label == "Random prompt").click().run()
    stored = dict(zip(prompts["prompt_id"], prompts["text"], strict=True))
    text, known = app.text_area(key="text").value, app.session_state["_written_prompt"]
    assert text in stored.values()
    assert len(text) <= 20 or stored[known] == text


def test_of_what_is_left_out_of_a_text_only_the_beginning_is_shown(data, tiny_model):
    text = "the army and the river " * 2_000
    run = newest(data, 2)
    read = max(end for _, end in decompose(run.dictionary(), tiny_model, text, run.config).spans())
    app = open_page("decompose", run=run.run_id)
    app.text_area(key="text").set_value(text).run()
    assert_no_failure(app)
    [row] = drawn(app, f"strip_{hash(text)}")["rows"]
    assert 100 < read < len(text) / 2
    assert row["after"] == f"{text[read : read + 80]} …"
    assert any("the rest of it is left out" in one.value for one in app.warning)


def test_a_text_too_long_for_the_link_is_kept_and_found_by_it(data):
    run = newest(data, 2)
    text = "The Senate will ratify the treaty. " * 40
    app = open_page("decompose", run=run.run_id)
    app.text_area(key="text").set_value(text).run()
    assert_no_failure(app)
    name = app.session_state["_written_kept"]
    assert (data / "texts" / f"{name}.txt").read_text() == text
    assert "named in the link by its digest" in told(app)
    again = open_page("decompose", run=run.run_id, kept=name)
    assert again.text_area(key="text").value == text
    other = open_page("decompose", run=run.run_id, kept="../labels")
    assert "is not kept here" in other.warning[0].value
    app.text_area(key="text").set_value(TEXT).run()
    assert app.session_state["_written_kept"] is None


def test_edits_of_another_text_leave_the_link_in_every_view_and_come_back(data, tiny_model):
    run = newest(data, 2)
    result = decompose(run.dictionary(), tiny_model, TEXT, run.config)
    latent = int(latents_of(result, result.table())["latent"].iloc[0])
    app = open_page("decompose", run=run.run_id, text=TEXT, view="terms", edits=f"{latent}*0,x")
    assert_no_failure(app)
    assert "make no sense" in app.warning[0].value
    assert "“What if” holds 1 edit of this text" in told(app)
    assert app.query_params["edits"] in (f"{latent}*0", [f"{latent}*0"])
    app.text_area(key="text").set_value("Another text entirely.").run()
    assert "were made to another text" in told(app)
    assert "edits" not in app.query_params
    app.text_area(key="text").set_value(TEXT).run()
    assert app.query_params["edits"] in (f"{latent}*0", [f"{latent}*0"])
    app.segmented_control(key="view").set_value("what-if").run()
    assert_no_failure(app)
    expected = what_if(
        tiny_model, run.dictionary(), result, [Edit(latent, 0.0)], len(result.spans()) - 1
    )
    assert float(metrics(app)["KL of the edit"]) == pytest.approx(expected.kl_edit[-1], abs=1e-4)


def test_an_edit_below_the_listed_latents_has_its_row_and_one_of_no_use_is_told(data, tiny_model):
    run = newest(data, 2)
    text = " ".join([TEXT, "Commerce will flow again by the river, and the people of the land."])
    result = decompose(run.dictionary(), tiny_model, text, run.config)
    used = latents_of(result, result.table())["latent"].tolist()
    assert len(used) > 20
    unused = next(n for n in range(run.metrics["atoms"]) if n not in used)
    edits = f"{used[-1]}*0,{unused}*3"
    app = open_page("decompose", run=run.run_id, text=text, view="what-if", edits=edits)
    assert_no_failure(app)
    assert f"not used here are dropped: {unused}." in told(app)
    assert app.query_params["edits"] in (f"{used[-1]}*0", [f"{used[-1]}*0"])
    last = len(result.spans()) - 1
    expected = what_if(tiny_model, run.dictionary(), result, [Edit(used[-1], 0.0)], last)
    assert float(metrics(app)["KL of the edit"]) == pytest.approx(expected.kl_edit[-1], abs=1e-4)


def test_edits_stay_with_their_latents_when_the_rows_change(data, tiny_model):
    run = newest(data, 2)
    result = decompose(run.dictionary(), tiny_model, TEXT, run.config)
    latent = int(latents_of(result.prefix(2), result.prefix(2).table())["latent"].iloc[1])
    link = {"view": "what-if", "edits": f"{latent}*0"}
    app = open_page("decompose", run=run.run_id, text=TEXT, **link)
    app.slider(key="l0").set_value(2).run()
    assert_no_failure(app)
    last = len(result.spans()) - 1
    expected = what_if(tiny_model, run.dictionary(), result.prefix(2), [Edit(latent, 0.0)], last)
    assert float(metrics(app)["KL of the edit"]) == pytest.approx(expected.kl_edit[-1], abs=1e-4)


def test_what_if_without_an_edit_tells_the_reconstruction_alone(data, tiny_model):
    run = newest(data, 2)
    dictionary = run.dictionary()
    app = open_page("decompose", run=run.run_id, text=TEXT, view="what-if")
    assert "Nothing is changed yet" in told(app)
    result = decompose(dictionary, tiny_model, TEXT, run.config)
    hidden = tiny_model.hidden(result.tokens, 2).clone()
    hidden[0, torch.from_numpy(result.positions)] = dictionary.decode(result.codes)
    plain = tiny_model.logits(result.tokens)[0, -1].log_softmax(0)
    rebuilt = tiny_model.logits_after(result.tokens, 2, hidden)[0, -1].log_softmax(0)
    expected = float((plain.exp() * (plain - rebuilt)).sum())
    assert float(metrics(app)["KL of the reconstruction"]) == pytest.approx(expected, abs=2e-4)
    assert metrics(app)["KL of the edit"] == "0.0000"
    table = next(one.value for one in app.dataframe if "edited" in one.value)
    assert (table["edited"] == table["plain"]).all()
    for row in table.itertuples():
        assert row.plain == pytest.approx(100 * float(plain[row.token_id].exp()), abs=1e-3)
        assert row.reconstruction == pytest.approx(
            100 * float(rebuilt[row.token_id].exp()), abs=1e-3
        )


def test_what_if_follows_the_l0(data, tiny_model):
    run = newest(data, 2)
    found = {}
    for l0 in ("4", "1"):
        app = open_page("decompose", run=run.run_id, text=TEXT, view="what-if", l0=l0)
        found[l0] = float(metrics(app)["KL of the reconstruction"])
    dictionary = run.dictionary()
    result = decompose(dictionary, tiny_model, TEXT, run.config).prefix(1)
    expected = what_if(tiny_model, dictionary, result, [], len(result.spans()) - 1)
    assert found["1"] == pytest.approx(expected.kl_reconstruction[-1], abs=1e-4)
    assert found["4"] != found["1"]


def test_factors_and_other_latents_in_the_table_become_edits(data, tiny_model, monkeypatch):
    run = newest(data, 2)
    dictionary = run.dictionary()

    def edited(table, **_options):  # AppTest can't type into the table
        factors = table["factor"].copy()
        factors.iloc[0] = 0.0
        table["instead"] = table["instead"].astype("Int64")
        table.loc[table.index[1], "instead"] = 5
        return table.assign(factor=factors)

    monkeypatch.setattr(what_if_panel.st, "data_editor", edited)
    app = open_page("decompose", run=run.run_id, text=TEXT, view="what-if")
    assert "Nothing is changed yet" not in told(app)
    result = decompose(dictionary, tiny_model, TEXT, run.config)
    first, second = latents_of(result, result.table())["latent"].head(2).tolist()
    edits = [Edit(int(first), 0.0), Edit(int(second), 1.0, instead=5)]
    last = len(result.spans()) - 1
    expected = what_if(tiny_model, dictionary, result, edits, last)
    assert float(metrics(app)["KL of the edit"]) == pytest.approx(expected.kl_edit[last], abs=1e-4)
    assert expected.kl_edit[last] > 0.001


def test_a_link_restores_the_edits_and_where_they_are_looked_at(data, tiny_model):
    run = newest(data, 2)
    dictionary = run.dictionary()
    result = decompose(dictionary, tiny_model, TEXT, run.config)
    first, second = latents_of(result, result.table())["latent"].head(2).tolist()
    edits = f"{first}*0,{second}>5"
    app = open_page(
        "decompose", run=run.run_id, text=TEXT, view="what-if", edits=edits, after="3",
        onto="reconstruction",
    )  # fmt: skip
    assert_no_failure(app)
    made = [Edit(int(first), 0.0), Edit(int(second), 1.0, instead=5)]
    expected = what_if(tiny_model, dictionary, result, made, 3, "reconstruction")
    assert expected.kl_edit[3] > 0
    assert float(metrics(app)["KL of the edit"]) == pytest.approx(expected.kl_edit[3], abs=1e-4)
    assert app.query_params["edits"] in (edits, [edits])
    app.text_area(key="text").set_value("Another text entirely.").run()
    assert_no_failure(app)
    assert "Nothing is changed yet" in told(app)
    assert "edits" not in app.query_params


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5*0,7>12", {5: (0.0, None), 7: (1.0, 12)}),
        ("3*-1.5>2", {3: (-1.5, 2)}),
        ("40*2,1*99,x,,5**0,<b>,-1*0,2>40", {}),
    ],
)
def test_edits_in_a_link_are_read_and_what_makes_no_sense_is_left_out(text, expected):
    assert read_edits(text, 40) == expected
    edits = [Edit(latent, factor, instead) for latent, (factor, instead) in expected.items()]
    assert read_edits(edits_text(edits), 40) == expected


def test_a_link_restores_the_settings_of_steering_within_their_limits(data):
    run = newest(data, 2)
    link = {"steer": "7", "strength": "9", "tokens": "25", "temperature": "0.5", "seed": "x"}
    app = open_page("decompose", run=run.run_id, text=TEXT, view="steer", **link)
    assert_no_failure(app)
    values = {name: app.session_state[name] for name in link}
    expected = {"steer": "7", "strength": 3.0, "tokens": 25, "temperature": 0.5, "seed": "x"}
    assert values == expected
    strength, seed = (warning.value.replace("`", "") for warning in app.warning)
    assert strength == (
        "The link asks for strength 9, which is no number from -3 to 3: 3 is taken."
    )
    assert seed == "Seed must be a whole number such as 2048, got 'x'."
    assert app.button(key="write").disabled
    app.text_input(key="seed").set_value("5").run()
    assert not app.button(key="write").disabled


@pytest.mark.parametrize("number", ["-1", "64", "1.5", "many", ""])
def test_no_other_latent_is_steered_than_the_one_that_was_typed(data, number):
    run = newest(data, 2)
    app = open_page("decompose", run=run.run_id, text=TEXT, view="steer")
    app.text_input(key="steer").set_value(number).run()
    assert_no_failure(app)
    assert app.warning[0].value.startswith("`Latent must be ")
    assert app.button(key="write").disabled
    assert app.button(key="write_row").disabled


def test_what_was_chosen_for_steering_stays_when_the_text_changes(data):
    run = newest(data, 2)
    app = open_page("decompose", run=run.run_id, text=TEXT, view="steer", steer="7")
    app.text_area(key="text").set_value("Another text entirely.").run()
    assert_no_failure(app)
    assert app.text_input(key="steer").value == "7"
    app.text_input(key="steer").set_value("9").run()
    app.text_area(key="text").set_value(TEXT).run()
    assert app.text_input(key="steer").value == "9"
    assert app.query_params["steer"] in ("9", ["9"])
    proposal = app.button(key="take_proposed")
    proposal.click().run()
    assert proposal.label == f"Use the proposed one, {app.session_state['steer']}"
    assert app.button(key="take_proposed").disabled


def test_a_number_that_stands_for_another_latent_in_another_dictionary_is_told(data):
    app = open_page(
        "decompose", run=newest(data, 2).run_id, text=TEXT, view="steer", steer="7"
    )  # fmt: skip
    app.selectbox(key="run").set_value(newest(data, 1).run_id).run()
    assert_no_failure(app)
    assert app.text_input(key="steer").value == "7"
    assert "was chosen in another dictionary" in app.info[0].value


def test_a_link_to_a_latent_that_there_is_not_says_so_and_steers_with_none(data):
    run = newest(data, 2)
    app = open_page("decompose", run=run.run_id, text=TEXT, view="steer", steer="5000")
    assert app.text_input(key="steer").value == "5000"
    last = run.metrics["atoms"] - 1
    assert f"Latent must be at most {last:,}, got 5000" in app.warning[0].value
    assert app.button(key="write").disabled


def test_what_comes_after_another_token_can_be_asked_for(data, tiny_model):
    run = newest(data, 2)
    app = open_page("decompose", run=run.run_id, text=TEXT, view="what-if")
    [after] = [box for box in app.selectbox if box.label == "The next token after"]
    after.set_value(2).run()
    assert_no_failure(app)
    plain = tiny_model.logits(tiny_model.tokenize([TEXT]))[0, 2].softmax(0)
    table = next(one.value for one in app.dataframe if "edited" in one.value)
    assert table["plain"].max() == pytest.approx(100 * float(plain.max()), abs=1e-3)


def test_steering_writes_the_plain_and_the_steered_text(data, tiny_model):
    run = newest(data, 2)
    app = open_page("decompose", run=run.run_id, text=TEXT, view="steer")
    [latent] = [box for box in app.text_input if box.label == "Latent"]
    latent.set_value("3").run()
    app.slider(key="strength").set_value(2.0).run()
    app.slider(key="tokens").set_value(10).run()
    app.button(key="write").click().run()
    assert_no_failure(app)
    written = app.session_state["written"].texts
    assert list(written) == [0.0, 2.0]
    dictionary = run.dictionary()
    norm = usual_norm(tiny_model, dictionary, TEXT)
    vector = steering_vector(dictionary, 3, 2.0, norm)
    assert written[0.0] == list(write_on(tiny_model, TEXT, Writing(10)))
    assert written[2.0] == list(write_on(tiny_model, TEXT, Writing(10), (2, vector)))
    assert "Strength +2" in told(app)
    assert "Generated with other settings" not in told(app)
    app.slider(key="strength").set_value(1.0).run()  # what was written stays
    assert "Strength +2" in told(app)
    assert "Generated with other settings" in told(app)


def test_a_label_stands_for_its_latent_where_a_text_is_taken_apart(data, tiny_model):
    run = newest(data, 2)
    result = decompose(run.dictionary(), tiny_model, TEXT, run.config)
    latent = int(result.table()["latent"].iloc[0])
    source = run.dictionary().sources.iloc[latent]
    where = (run.run_id, latent, source["prompt_id"], int(source["position"]))
    add_labels(data / "labels.jsonl", [Label(*where, "a <b>label</b>")])
    app = open_page("decompose", run=run.run_id, text=TEXT)
    shown = rows_of(app, "latents_of_text")
    assert shown.set_index("latent")["label"][latent] == "a <b>label</b>"
    assert (shown["label"] != "").sum() == 1
    position = int(result.positions[0])
    app = open_page("decompose", run=run.run_id, text=TEXT, token=str(position))
    shown = rows_of(app, "terms")
    assert shown["label"].iloc[0] == "a <b>label</b>"


def test_the_median_token_stands_beside_the_share_of_all(data, tiny_model):
    run = newest(data, 2)
    result = decompose(run.dictionary(), tiny_model, TEXT, run.config)
    app = open_page("decompose", run=run.run_id, text=TEXT)
    squares = result.residuals[:, [0, -1]].astype(float) ** 2
    expected = sorted(squares[:, 1] / squares[:, 0])[len(squares) // 2]
    assert len(squares) % 2 == 1
    assert metrics(app)["on half of the tokens, at most"] == f"{expected:.1%}"


def test_strengths_stand_in_columns_from_minus_one_to_one_in_quarters(data):
    run = newest(data, 2)
    app = open_page("decompose", run=run.run_id, text=TEXT, view="steer")
    app.slider(key="tokens").set_value(5).run()
    app.button(key="write_row").click().run()
    assert_no_failure(app)
    written = app.session_state["written"].texts
    assert list(written) == [-1, -0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75, 1]
    assert all(len(tokens) <= 5 for tokens in written.values())


@pytest.mark.parametrize("view", ["what-if", "steer"])
def test_an_encoder_says_that_it_predicts_nothing(data_folder, tmp_path, tiny_corpus_file, view):
    model = save_tiny_model(tmp_path / "encoder", "bert")
    config = tiny_config(model, tiny_corpus_file, layers=(1,), max_atoms=40)
    trained(config, data_folder / "runs")
    try:
        [run] = list_runs(data_folder / "runs")
        app = open_page("decompose", run=run.run_id, text=TEXT, view=view)
        assert "it predicts no next token" in told(app)
    finally:
        close_explorer()


# A model that is read block by block


@pytest.fixture
def swept(data, monkeypatch):
    """The pages' model, as if it did not fit into memory."""
    loaded = []

    def load(spec, *places, **options):
        if not loaded:
            loaded.append(SweptLike(load_model(spec, *places, **options)))
        return loaded[0]

    monkeypatch.setattr("itda_core.model.loading.load_model", load)
    st.cache_resource.clear()
    return lambda: loaded[0]


def test_a_model_read_block_by_block_decomposes_with_a_bar_and_is_read_once(
    data, tiny_model, swept, monkeypatch
):
    said = []
    bar_text = computed.bar_text
    monkeypatch.setattr(
        computed, "bar_text", lambda *of: said.append(bar_text(*of)) or bar_text(*of)
    )
    run = newest(data, 2)
    app = open_page("decompose", run=run.run_id, text=TEXT)
    expected = decompose(run.dictionary(), tiny_model, TEXT, run.config)
    assert metrics(app)["tokens decomposed"] == str(len(expected.positions))
    assert (
        metrics(app)["on half of the tokens, at most"] == f"{np.median(expected.shares_left):.1%}"
    )
    assert [f"Reading block {n} of 3 from the disk …" in said for n in (1, 2, 3)] == [True] * 3
    app.run()
    assert swept().sweeps == [(0, 2)]
    assert not app.get("progress")


def test_an_edit_of_a_model_read_block_by_block_waits_for_its_button(data, tiny_model, swept):
    run = newest(data, 2)
    app = open_page("decompose", run=run.run_id, text=TEXT, view="what-if", after="5")
    assert "KL of the edit" not in metrics(app)
    assert "this reads all blocks from the disk" in told(app)
    app.button(key="predict").click().run()
    assert_no_failure(app)
    assert metrics(app)["KL of the edit"] == "0.0000"
    result = decompose(run.dictionary(), tiny_model, TEXT, run.config)
    alone = what_if(tiny_model, run.dictionary(), result, [], 5)
    assert metrics(app)["KL of the reconstruction"] == f"{alone.kl_reconstruction[5]:.4f}"
    # The text, then what no edit changes; looking at another token reads nothing.
    sweeps = [(0, 2), (0, 2), (3, 4)]
    assert swept().sweeps == sweeps
    app.selectbox(key="after").set_value(3).run()
    assert metrics(app)["KL of the reconstruction"] == f"{alone.kl_reconstruction[3]:.4f}"
    assert swept().sweeps == sweeps


def test_a_model_read_block_by_block_is_not_steered(data, swept):
    app = open_page("decompose", run=newest(data, 2).run_id, text=TEXT, view="steer")
    assert "would read all of it again" in told(app)
    assert not [button for button in app.button if button.key == "write"]


def test_blocks_are_counted_from_one_to_the_last():
    assert computed.bar_text(range(80), 0.0) == "Reading block 1 of 80 from the disk …"
    assert computed.bar_text(range(80), 0.145) == "Reading block 12 of 80 from the disk …"
    assert computed.bar_text(range(80), 1.0) == "Reading block 80 of 80 from the disk …"
    assert computed.bar_text(range(16, 80), 0.0) == "Reading block 17 of 80 from the disk …"
