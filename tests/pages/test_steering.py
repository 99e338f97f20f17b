"""Steer: latents found by word or label, several at once, and the model as it is that judges."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from itda_core.analysis.decomposition import decompose
from itda_core.analysis.steering import (
    Writing,
    judged,
    loops,
    steering_vector,
    usual_norm,
    write_on,
)
from itda_core.runs.labels import Label
from pages.components.decompose import proposal, steered_latents
from pages.components.decompose.terms import latents_of
from tests.support.app import assert_no_failure, newest, open_page, rows_of, table_with
from tests.support.labels import add_labels

TEXT = "The Senate will ratify the treaty."


@pytest.fixture
def data(own_data):
    return own_data


def told(app):
    return " ".join(one.value for one in [*app.markdown, *app.caption]).replace("`", "")


def press(app, monkeypatch, action, latent):
    """A button of a row of those found."""
    shown, pressed = steered_latents.show_rows_of, [(action, str(latent))]

    def show(*arguments, **options):
        return pressed.pop() if pressed else shown(*arguments, **options)

    monkeypatch.setattr(steered_latents, "show_rows_of", show)
    app.run()
    assert_no_failure(app)


def test_latents_are_found_by_their_label_and_as_on_the_latents_page(data):
    run = newest(data, 2)
    sources = run.dictionary().sources
    word = next(token.strip() for token in sources["token"] if token.strip().isalpha())
    labelled = next(n for n, token in enumerate(sources["token"]) if token.strip() != word)
    source = sources.iloc[labelled]
    where = (run.run_id, labelled, source["prompt_id"], int(source["position"]))
    add_labels(data / "labels.jsonl", [Label(*where, f"about {word}")])
    app = open_page("decompose", run=run.run_id, text=TEXT, view="steer")
    app.text_input(key="steer_word").set_value(word).run()
    assert_no_failure(app)
    found = rows_of(app, "steer_found")
    assert found["latent"].iloc[0] == labelled
    assert found["found"].iloc[0] == "label"
    latents = open_page("latents", run=run.run_id, search=word, match="text", kind="all")
    as_there = table_with(latents, "found").head(len(found))  # one search, one order
    assert found[["latent", "found"]].equals(as_there[["latent", "found"]])
    app.text_input(key="steer_word").set_value("zzzz<b>").run()
    assert "No latent of this dictionary has 'zzzz<b>'" in told(app)


def test_a_found_latent_is_steered_with_or_added_to_the_others(data, tiny_model, monkeypatch):
    run = newest(data, 2)
    dictionary = run.dictionary()
    word = dictionary.sources["token"].iloc[3].strip()
    app = open_page("decompose", run=run.run_id, text=TEXT, view="steer", steer="7", tokens="8")
    app.text_input(key="steer_word").set_value(word).run()
    press(app, monkeypatch, "take", 3)
    assert app.text_input(key="steer").value == "3"
    press(app, monkeypatch, "add", 5)
    assert app.query_params["with"] in ("5*1", ["5*1"])
    app.number_input(key=f"weight_{run.run_id}_5").set_value(-0.5).run()
    assert app.query_params["with"] in ("5*-0.5", ["5*-0.5"])
    app.slider(key="strength").set_value(2.0).run()
    app.button(key="write").click().run()
    assert_no_failure(app)
    norm = usual_norm(tiny_model, dictionary, TEXT)
    vector = steering_vector(dictionary, 3, 2.0, norm) - 0.5 * steering_vector(
        dictionary, 5, 2.0, norm
    )
    written = app.session_state["written"]
    expected = list(write_on(tiny_model, TEXT, Writing(8), (2, vector)))
    assert [one.token_id for one in written.texts[2.0]] == [one.token_id for one in expected]
    assert "Latent 3 + -0.5 × 5" in told(app)
    app.button(key="remove_5").click().run()
    assert "with" not in app.query_params
    assert "Generated with other settings" in told(app)


def test_a_link_has_the_other_latents_with_their_weights(data):
    run = newest(data, 2)
    link = {"run": run.run_id, "text": TEXT, "view": "steer", "steer": "3"}
    app = open_page("decompose", **link, **{"with": "5*0.5,9*-1,3*1,99999*1,x"})
    assert app.number_input(key=f"weight_{run.run_id}_5").value == 0.5
    assert app.number_input(key=f"weight_{run.run_id}_9").value == -1
    assert "make no sense" in app.warning[0].value
    assert app.query_params["with"] in ("5*0.5,9*-1", ["5*0.5,9*-1"])


def test_the_model_as_it_is_judges_every_text(data, tiny_model):
    run = newest(data, 2)
    app = open_page("decompose", run=run.run_id, text=TEXT, view="steer", steer="3", tokens="8")
    app.slider(key="strength").set_value(2.0).run()
    app.button(key="write").click().run()
    written = app.session_state["written"]
    own = [one.log_probability for one in written.texts[0.0]]
    np.testing.assert_allclose(written.judged[0.0], own, atol=1e-3)
    for strength, tokens in written.texts.items():
        known = judged(tiny_model, TEXT, Writing(8), tokens)
        np.testing.assert_allclose(written.judged[strength], known, atol=1e-4)
        assert f"perplexity {np.exp(-known.mean()):,.3g} by the model as it is" in told(app)


def test_a_text_that_loops_is_said_to_loop_though_its_perplexity_is_low(data):
    run = newest(data, 2)
    app = open_page("decompose", run=run.run_id, text=TEXT, view="steer", steer="3", tokens="25")
    app.button(key="write").click().run()
    written = app.session_state["written"].texts
    for tokens in written.values():
        grams = ["-".join(str(one.token_id) for one in tokens[n : n + 4]) for n in range(22)]
        share = 1 - len(dict.fromkeys(grams)) / 22
        says = "; it loops" if loops([one.token_id for one in tokens]) else ""
        assert f"{share:.0%} of the 4-token sequences repeated{says}" in told(app)
    assert "Where it loops, the perplexity may be low" in told(app)


def _two_texts_of_twenty_tokens():
    import numpy as np

    from itda_core.analysis.steering import WrittenToken
    from pages.components.decompose.written import show_text

    looping = "of war . of war was . of war was . of war of war of war of"  # 6 of 15 came before
    other = "the war was ended by the treaty of one town in which the king of the land was"
    for strength, text in ((1.0, looping), (0.25, other)):
        words = text.split()
        tokens = [WrittenToken(words.index(word), f" {word}", -1.0) for word in words]
        show_text(tokens, strength, np.full(len(tokens), -2.0))


def test_a_short_text_that_loops_is_marked_and_another_is_not():
    app = AppTest.from_function(_two_texts_of_twenty_tokens).run()
    assert_no_failure(app)
    marked, plain = (one.value for one in app.caption)
    assert marked.endswith("40% of the 4-token sequences repeated; it loops")
    assert plain.endswith("0% of the 4-token sequences repeated")


def _one_text_on_its_way_and_one_whole():
    import numpy as np
    import streamlit as st

    from itda_core.analysis.steering import WrittenToken
    from pages.components.decompose.written import show_text

    tokens = [WrittenToken(7, " word", -1.0)]
    with st.container():
        show_text(tokens, 1.0, is_final=False)
    with st.container():
        show_text(tokens, 1.0, np.array([-2.0]))


def test_nothing_of_the_text_before_is_left_beside_one_on_its_way():
    """The browser shows what was there until something takes its place or the page has ended."""
    app = AppTest.from_function(_one_text_on_its_way_and_one_whole).run()
    assert_no_failure(app)
    on_its_way, whole = app.main.children.values()
    assert len(on_its_way.children) == len(whole.children)


def test_nothing_can_be_stopped_while_nothing_is_written(data):
    where = {"run": newest(data, 2).run_id, "text": TEXT, "view": "steer", "steer": "3"}
    app = open_page("decompose", tokens="5", **where)
    app.button(key="write").click().run()
    assert app.session_state["written"].is_whole
    assert app.button(key="nothing_to_stop").disabled
    app.run()
    assert [one.disabled for one in app.button if one.label == "Stop"] == [True]


def test_texts_side_by_side_say_that_they_are_shorter(data):
    where = {"run": newest(data, 2).run_id, "text": TEXT, "view": "steer", "steer": "3"}
    said = "Side by side texts have 20 tokens at most; *Generate* writes 25."
    app = open_page("decompose", tokens="25", **where)
    app.button(key="write_row").click().run()
    assert max(map(len, app.session_state["written"].texts.values())) <= 20
    assert said in told(app)
    app.button(key="write").click().run()
    assert "Side by side texts" not in told(app)


@pytest.fixture
def latents():
    """Sources in the order of what they explain: token, strong uses, filler, AUROC from."""
    rows = [
        (0, ".", 900.0, 0.0, 0.9),
        (1, " the", 500.0, 0.0, 0.9),
        (2, " river", 5.0, 0.0, 0.9),  # too few strong uses
        (3, " ratif", 50.0, 0.0, 0.9),  # a piece of a word
        (4, " treaty", 50.0, 0.5, 0.9),  # half of them may be filler
        (5, " senate", 50.0, 0.1, 0.4),  # may be chance
        (6, " peace", 50.0, 0.1, 0.6),
        (7, " war", 90.0, 0.0, 0.9),
    ]
    table = pd.DataFrame(rows, columns=["latent", "token", "strong", "filler", "auroc_low"])
    return table.assign(
        text=[f"a{token}{'y' * (token == ' ratif')} of" for token in table["token"]],
        start=1,
        end=1 + table["token"].str.len(),
    )


def proposed(monkeypatch, table):
    """By a store that gives the table in the order of the numbers."""
    latents = SimpleNamespace(table=None)
    store = SimpleNamespace(latents=latents, known=lambda _, run_id, numbers: table)
    monkeypatch.setattr(proposal, "explorer", lambda: SimpleNamespace(store=store))
    return proposal.proposed_latent(SimpleNamespace(run_id="run"), table)


def test_a_latent_is_proposed_that_means_something(latents, monkeypatch):
    assert proposed(monkeypatch, latents) == 6


def test_without_scores_the_first_whole_word_is_proposed(latents, monkeypatch):
    scores = ["strong", "filler", "auroc_low"]
    assert proposed(monkeypatch, latents.assign(**dict.fromkeys(scores, float("nan")))) == 2
    assert proposed(monkeypatch, latents.head(2)) == 0


def test_the_latent_proposed_at_first_is_a_word_of_the_text(data, tiny_model):
    run = newest(data, 2)
    app = open_page("decompose", run=run.run_id, text=TEXT, view="steer")
    assert_no_failure(app)
    result = decompose(run.dictionary(), tiny_model, TEXT, run.config)
    order = latents_of(result, result.table())
    tokens = order["source_token"].str.strip()
    words = order[tokens.str.fullmatch("[A-Za-z]{3,}") & ~tokens.str.lower().isin({"the", "and"})]
    assert int(app.text_input(key="steer").value) in words["latent"].tolist()
