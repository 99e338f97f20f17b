"""The text of the Decompose page: its colours, its lock, its latents, and the link to them."""

import numpy as np
import pytest

from itda_core.analysis.decomposition import decompose
from pages.components.decompose.colours import Shading, latent_legend_row
from tests.support.app import assert_no_failure, drawn, newest, open_page

TEXT = "The Senate will ratify the treaty."


def strip(app):
    return drawn(app, f"strip_{hash(TEXT)}")


def values(app):
    return [token.get("value", 0.0) for token in strip(app)["rows"][0]["tokens"]]


def legend(app):
    [row] = drawn(app, "legend")["rows"]
    return row["chip"], [token["text"] for token in row["tokens"]]


def test_a_scale_goes_from_the_smallest_values_of_the_text_to_the_largest():
    numbers = np.append(np.nan, np.arange(101.0))
    shading = Shading("x", numbers, lambda value: f"{value:.0f}")
    colours = shading.colours()
    assert colours[0] == 0  # has no value
    assert colours[1] == colours[6] == 0 and colours[96] == colours[101] == -1
    assert colours[51] == pytest.approx(-0.5)
    told = [text for _, text in shading.legend()]
    assert told == ["≤ 5", "28", "50", "72", "≥ 95"]
    assert [value for value, _ in shading.legend()] == [0, -0.25, -0.5, -0.75, -1]


def test_a_logarithmic_scale_has_equal_ratios():
    shading = Shading("x", np.float64([1, 10, 100]), lambda value: f"{value:.3g}", True, 1)
    assert shading.colours().tolist() == pytest.approx([0, 0.5, 1])
    middle = [float(text) for _, text in shading.legend()[1:-1]]
    assert middle[1] == pytest.approx(10)
    assert middle[1] / middle[0] == pytest.approx(middle[2] / middle[1], rel=0.01)


@pytest.mark.parametrize(("numbers", "steps"), [([np.nan], 0), ([np.nan, 3.0], 1), ([2.0, 2.0], 1)])
def test_values_that_do_not_differ_have_one_colour(numbers, steps):
    shading = Shading("x", np.float64(numbers), str)
    assert len(shading.legend()) == steps
    assert set(shading.colours().tolist()) <= {0.0, -0.5}


def test_the_legend_of_a_latent_has_the_colours_of_its_coefficients():
    row = latent_legend_row(5, np.float32([20, 2]))
    assert [token["text"] for token in row["tokens"]] == [
        " +2 ",
        " +6 ",
        " +20 ",
        " not decomposed ",
    ]
    assert [token.get("value") for token in row["tokens"][:3]] == pytest.approx(
        [0.5, 0.739, 1], abs=2e-3
    )
    assert row["tokens"][-1]["dim"]


def test_tokens_are_coloured_by_what_is_left_of_them_and_others_are_marked(data, tiny_model):
    run = newest(data, 2)
    result = decompose(run.dictionary(), tiny_model, TEXT, run.config)
    app = open_page("decompose", run=run.run_id, text=TEXT)
    shown = strip(app)["rows"][0]["tokens"]
    order = np.argsort(result.shares_left)
    colours = -np.array(values(app))[result.positions]
    assert (np.diff(colours[order]) >= 0).all() and colours.min() == 0 and colours.max() == 1
    decomposed = set(result.positions.tolist())
    assert [n for n, token in enumerate(shown) if token.get("dim")] == [
        n for n in range(len(shown)) if n not in decomposed
    ]
    assert legend(app)[0] == "Left unexplained"
    assert legend(app)[1][-1] == " not decomposed "
    first = int(result.positions[0])
    assert f"{result.shares_left[0]:.1%} left unexplained" in shown[first]["hover"]
    assert f"norm {result.residuals[0, 0]:.1f}" in shown[first]["hover"]


def test_the_tokens_explained_worst_are_named_with_what_is_left_of_them(data, tiny_model):
    run = newest(data, 2)
    dictionary = run.dictionary()
    x = tiny_model.capture(tiny_model.tokenize([TEXT]), [2])[2]  # position 0 is left out
    left = (x - dictionary.decode(dictionary.encode(x))).square().sum(1)
    shares = (left / (x - dictionary.offset).square().sum(1)).tolist()
    worst = sorted(range(len(shares)), key=lambda row: -shares[row])[:5]
    jumps = strip(open_page("decompose", run=run.run_id, text=TEXT))["jumps"]
    assert [position for position, _, _ in jumps["tokens"]] == [row + 1 for row in worst]
    assert [share for _, _, share in jumps["tokens"]] == [f"{shares[row]:.0%}" for row in worst]
    texts = tiny_model.tokenizer.convert_ids_to_tokens(tiny_model.tokenizer(TEXT)["input_ids"])
    for row, (position, told, _) in zip(worst, jumps["tokens"], strict=True):
        assert told.startswith(f"{position}: ")
        assert texts[row + 1].lstrip("Ġ") in told


def test_a_link_says_by_what_the_text_is_coloured(data, tiny_model):
    run = newest(data, 2)
    result = decompose(run.dictionary(), tiny_model, TEXT, run.config)
    app = open_page("decompose", run=run.run_id, text=TEXT, by="norm")
    order = np.argsort(result.residuals[:, 0])
    colours = np.array(values(app))[result.positions]
    assert (np.diff(colours[order]) >= 0).all() and colours.max() == 1
    app.segmented_control(key="by").set_value("surprise").run()
    assert_no_failure(app)
    assert app.query_params["by"] in ("surprise", ["surprise"])
    assert legend(app)[0] == "Surprise, bits"
    loss = tiny_model.logits(result.tokens)[0].log_softmax(1)
    last = len(result.spans()) - 1
    bits = -float(loss[last - 1, result.tokens.ids[0, last]]) / np.log(2)
    assert f"surprise {bits:.1f} bits" in strip(app)["rows"][0]["tokens"][last]["hover"]
    app.segmented_control(key="by").set_value("left").run()
    assert "by" not in app.query_params


def test_a_link_lights_one_latent_also_below_the_first(data, tiny_model):
    run = newest(data, 2)
    text = " ".join([TEXT, "Commerce will flow again by the river, and the people of the land."])
    result = decompose(run.dictionary(), tiny_model, text, run.config)
    table = result.table()
    app = open_page("decompose", run=run.run_id, text=text)
    listed = [one["latent"] for one in drawn(app, f"strip_{hash(text)}")["lights"]]
    latent = next(n for n in table["latent"].tolist() if n not in listed)
    app = open_page("decompose", run=run.run_id, text=text, lit=str(latent))
    assert_no_failure(app)
    assert app.segmented_control(key="by").value == "latent"
    shown = drawn(app, f"strip_{hash(text)}")
    assert shown["lit"] == latent
    [light] = [one for one in shown["lights"] if one["latent"] == latent]
    uses = table[table["latent"] == latent].groupby("position")["coefficient"].sum()
    assert {n: float(size) for n, _, size in light["tokens"]} == pytest.approx(
        uses.to_dict(), abs=6e-4
    )
    assert legend(app)[0] == f"Latent {latent}"
    app.segmented_control(key="by").set_value("left").run()
    assert drawn(app, f"strip_{hash(text)}")["lit"] is None
    assert "lit" not in app.query_params


def test_a_latent_that_the_text_does_not_use_is_told(data, tiny_model):
    run = newest(data, 2)
    used = set(decompose(run.dictionary(), tiny_model, TEXT, run.config).table()["latent"])
    unused = next(n for n in range(run.metrics["atoms"]) if n not in used)
    for lit in (str(unused), "x", "99999"):
        app = open_page("decompose", run=run.run_id, text=TEXT, lit=lit)
        assert "does not use" in app.warning[0].value
        assert "lit" not in app.query_params
    app = open_page("decompose", run=run.run_id, text=TEXT, by="latent")
    assert strip(app)["lit"] in used
