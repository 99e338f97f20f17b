"""What if, pressed at each term: at one token or at all, and the edits that are kept."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from itda_core.analysis.decomposition import decompose
from itda_core.analysis.what_if import Edit, what_if
from pages.components.charts.what_if import divergence_by_token
from pages.components.decompose import edits as edits_panel
from pages.components.decompose import tries as tries_panel
from pages.components.decompose.edits import _with_action, edits_in_words
from pages.components.decompose.what_if import answer_in_words
from tests.support.app import assert_no_failure, button, metrics, newest, open_page, rows_of

TEXT = "The Senate will ratify the treaty."


def press(app, monkeypatch, action, latent):
    """A button of a row: AppTest knows no components of the project's own."""
    shown, pressed = edits_panel.show_rows_of, [(action, str(latent))]

    def show(*arguments, **options):
        shown(*arguments, **options)
        return pressed.pop() if pressed else None

    monkeypatch.setattr(edits_panel, "show_rows_of", show)
    app.run()
    monkeypatch.setattr(edits_panel, "show_rows_of", shown)
    assert_no_failure(app)
    assert not pressed


@pytest.fixture
def opened(data, tiny_model):
    """The page with a token locked, its run, and the text taken apart."""
    run = newest(data, 2)
    result = decompose(run.dictionary(), tiny_model, TEXT, run.config)
    position = int(result.positions[2])
    query = {"run": run.run_id, "text": TEXT, "view": "what-if", "token": str(position)}
    return open_page("decompose", **query), run, result, position


@pytest.mark.parametrize(
    ("before", "action", "after"),
    [
        ({}, "0", {5: (0.0, None)}),
        ({5: (0.0, None)}, "0", {}),
        ({5: (0.0, None)}, "-1", {5: (-1.0, None)}),
        ({5: (2.0, 7), 6: (3.0, None)}, "2", {5: (1.0, 7), 6: (3.0, None)}),
        ({5: (1.0, 7)}, "0", {5: (0.0, 7)}),
    ],
)
def test_a_button_changes_its_latent_and_takes_its_own_change_back(before, action, after):
    assert _with_action(before, action, "5") == after


def test_edits_are_told_in_words():
    edits = (Edit(5, 0.0), Edit(6, -1.0, 7), Edit(8, 1.0, 5))
    assert edits_in_words(edits, {5: "war", 8: "sea"}) == "war (5) ×0, 6 ×−1 → 7, sea (8) → war (5)"
    assert edits_in_words((Edit(5, -0.5, 6),), {5: "-", 6: "so-so"}) == "- (5) ×−0.5 → so-so (6)"


def test_names_of_tokens_reach_the_chart_as_text():
    outcome = SimpleNamespace(kl_reconstruction=np.ones(2), kl_edit=np.ones(2))
    figure = divergence_by_token(outcome, ['<b>"', "&lt;"])
    expected = ['&lt;b&gt;"', "&amp;lt;"]
    assert list(figure.layout.xaxis.ticktext) == expected
    assert all(list(line.customdata) == expected for line in figure.data)


def test_a_button_edits_the_locked_token_alone_or_all(opened, tiny_model, monkeypatch):
    app, run, result, position = opened
    latent = int(result.codes.latents[2, 0])
    press(app, monkeypatch, "0", latent)
    assert app.query_params["edits"] in (f"{latent}*0", [f"{latent}*0"])
    rows = rows_of(app, "edit_rows").set_index("latent")
    assert rows.loc[latent, ["factor", "pressed"]].tolist() == [0, "0"]
    assert (rows.drop(latent)["factor"] == 1).all()
    of = tiny_model, run.dictionary(), result
    here = what_if(*of, [Edit(latent, 0.0, None, (position,))], position)
    shown = metrics(app)["KL of the edit"]
    assert float(shown) == pytest.approx(here.kl_edit[position], abs=1e-4)
    app.segmented_control(key="at").set_value("all").run()
    assert_no_failure(app)
    assert "edits" not in app.query_params  # nothing was changed at all tokens yet
    press(app, monkeypatch, "2", latent)
    everywhere = what_if(*of, [Edit(latent, 2.0)], position)
    shown = metrics(app)["KL of the edit"]
    assert float(shown) == pytest.approx(everywhere.kl_edit[position], abs=1e-4)
    assert app.query_params["at"] in ("all", ["all"])
    again = open_page("decompose", **{name: app.query_params[name] for name in app.query_params})
    assert metrics(again)["KL of the edit"] == shown


def answer(app):
    """The sentence beside the buttons."""
    [told] = [one.value for one in app.markdown if "changes most what comes after" in one.value]
    return told.replace("`", "")


def test_beside_the_buttons_a_sentence_says_what_the_edit_changes_most(
    opened, tiny_model, monkeypatch
):
    app, run, result, position = opened
    [before] = [one.value for one in app.caption if one.value.startswith("Nothing is changed yet.")]
    assert "the same again takes it back" in before
    latent = int(result.codes.latents[2, 0])
    press(app, monkeypatch, "0", latent)
    of = tiny_model, run.dictionary(), result
    found = what_if(*of, [Edit(latent, 0.0, None, (position,))], position)
    most = int(found.kl_edit.argmax())
    hidden = tiny_model.logits(result.tokens)[0].argmax(1)
    likeliest = repr(tiny_model.tokenizer.decode([int(hidden[most])]))
    told = answer(app)
    assert f"({latent}) ×0 changes most what comes after {most}: " in told
    assert f"(KL {found.kl_edit[most]:.3f} nats)" in told
    assert f"stays {likeliest}" in told or f"was {likeliest} and is " in told
    says_little = "Putting the reconstruction in changes more there"
    assert (says_little in told) == (found.kl_edit[most] < found.kl_reconstruction[most])


def test_an_edit_with_next_to_no_effect_says_so_in_words_and_on_the_axis(opened):
    _, _, result, _ = opened
    small, none = np.array([0.0, 0.0004]), np.zeros(2)
    likeliest = {"before": [" a", " a"], "after": [" a", " b"]}
    outcome = SimpleNamespace(kl_edit=small, kl_reconstruction=none, likeliest=likeliest)
    told = answer_in_words(result, outcome, "war ×0")
    assert "(KL under 0.001 nats): the likeliest next token was ' a' and is ' b'." in told
    top = divergence_by_token(outcome, ["x", "y"]).layout.yaxis.range[1]
    assert top > 100 * small.max(), "0.0004 nats are no peak"
    outcome.kl_edit = none
    assert answer_in_words(result, outcome, "war ×0") == "war ×0 changes no prediction."


def test_bars_of_probabilities_go_to_one_hundred_percent(opened):
    app = opened[0]
    shown = next(one for one in app.dataframe if "edited" in one.value)
    columns = json.loads(shown.proto.columns)
    assert {columns[name]["type_config"]["max_value"] for name in ("plain", "edited")} == {100.0}


def test_rows_are_ordered_by_what_the_edit_changed_most(opened, tiny_model, monkeypatch):
    app, run, result, position = opened
    latent = int(result.codes.latents[2, 0])
    press(app, monkeypatch, "0", latent)
    table = next(one.value for one in app.dataframe if "edited" in one.value)
    assert table["change"].abs().is_monotonic_decreasing
    found = what_if(
        tiny_model, run.dictionary(), result, [Edit(latent, 0.0, None, (position,))], position
    )
    order = np.argsort(-found.kl_edit)
    name = f"most_changed_{order[1]}"
    assert app.button(key=name).label.strip("`").startswith(f"{order[1]}: ")
    app.button(key=name).click().run()
    assert app.selectbox(key="after").value == order[1]
    assert float(metrics(app)["KL of the edit"]) == pytest.approx(found.kl_edit[order[1]], abs=1e-4)


@pytest.mark.parametrize(
    ("onto", "compared", "title"),
    [("activation", "plain", "as it is"), ("reconstruction", "reconstruction", "reconstruction")],
)
def test_the_change_is_that_of_the_edit_alone(opened, monkeypatch, onto, compared, title):
    app, _, result, _ = opened
    press(app, monkeypatch, "0", int(result.codes.latents[2, 0]))
    app.segmented_control(key="onto").set_value(onto).run()
    assert_no_failure(app)
    shown = next(one for one in app.dataframe if "edited" in one.value)
    table = shown.value
    np.testing.assert_allclose(table["change"], table["edited"] - table[compared], atol=1e-4)
    assert table["change"].abs().is_monotonic_decreasing
    assert f'"edit \\u2212 {title}"' in shown.proto.columns


def test_edits_are_kept_with_what_they_changed_and_come_back(opened, tiny_model, monkeypatch):
    app, run, result, position = opened
    latents = [int(latent) for latent in result.codes.latents[2, :2]]
    for latent in latents:
        press(app, monkeypatch, "0", latent)
    kept = rows_of(app, "tries")
    of = tiny_model, run.dictionary(), result
    expected = [
        what_if(*of, [Edit(n, 0.0, None, (position,)) for n in latents[:count]], position)
        for count in (1, 2)
    ]
    largest = sorted((float(one.kl_edit.max()) for one in expected), reverse=True)
    assert kept["kl"].tolist() == pytest.approx(largest, abs=1e-5)
    assert all(name.startswith(f"{position}: ") for name in kept["at"])
    hidden = tiny_model.logits(result.tokens)[0].argmax(1)
    strongest = max(expected, key=lambda one: one.kl_edit.max())
    after = int(strongest.kl_edit.argmax())
    before = tiny_model.tokenizer.decode([int(hidden[after])]).strip()
    assert kept["next"].iloc[0].startswith(before)
    first = next(n for n, name in enumerate(kept["edits"]) if "," not in name)
    shown, clicked = tries_panel.show_latent_rows, [("open", str(first))]

    def show(*arguments, **options):
        return clicked.pop() if clicked else shown(*arguments, **options)

    monkeypatch.setattr(tries_panel, "show_latent_rows", show)
    app.run()
    assert_no_failure(app)
    assert app.query_params["edits"] in (f"{latents[0]}*0", [f"{latents[0]}*0"])
    button(app, "Forget the others").click().run()
    left = rows_of(app, "tries")
    assert left["kl"].tolist() == pytest.approx([float(expected[0].kl_edit.max())], abs=1e-5)
