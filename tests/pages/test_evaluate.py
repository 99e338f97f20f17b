"""The Evaluate page by AppTest, and its figures and labels as pure functions."""

import json
from dataclasses import replace

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from itda_core.evaluation.autoencoders import topk_autoencoders
from itda_core.jobs.submissions import submit_evaluation
from itda_core.runs.results import read_evaluation, save_evaluation
from itda_core.runs.run import list_runs
from pages.components import explorer as explorer_module
from pages.components.charts.evaluation import (
    Reference,
    density_histogram,
    error_bars,
    pareto,
)
from pages.components.evaluate import offer
from pages.components.evaluate.columns import shown
from pages.components.evaluate.verdict import MEDIAN_MEANS, beside, on_different_texts, verdict
from pages.components.run_names import short_labels
from pages.components.text import literal
from tests.support.app import assert_no_failure, button, metrics, newest, numbers, open_page
from tests.support.edited_runs import edit_about, edited_copy


@pytest.fixture
def data(evaluated_data):
    return evaluated_data


@pytest.fixture
def submitted(monkeypatch):
    """The runs whose evaluation is asked for, instead of starting it."""
    asked = []
    submit = lambda _queue, runs, _device: asked.append([run.run_id for run in runs])  # noqa: E731
    monkeypatch.setattr(offer, "submit_evaluation", submit)
    return asked


def figures(app):
    return [json.loads(element.proto.spec) for element in app.get("plotly_chart")]


def lines_of(figure):
    """Of dictionaries: what they are compared with can't be clicked."""
    return [line for line in figure["data"] if "customdata" in line]


def grey(figure):
    """What dictionaries are compared with: {name: ([x, …], [y, …])}."""
    others = [line for line in figure["data"] if "customdata" not in line]
    return {line["name"]: (numbers(line["x"]), numbers(line["y"])) for line in others}


def curves(app):
    """The lines of the two Pareto plots: {name: values} each."""
    return [
        {line["name"]: numbers(line["y"]) for line in lines_of(figure)}
        for figure in figures(app)[:2]
    ]


def test_the_curves_are_the_measures_of_each_run_by_l0(data):
    app = open_page("evaluate")
    expected = {
        f"layer {run.layer}": read_evaluation(run)["by_l0"] for run in list_runs(data / "runs")
    }
    for curve, measure in zip(curves(app), ("fvu", "ce_loss_score"), strict=True):
        assert curve == {name: [row[measure] for row in rows] for name, rows in expected.items()}
    table = app.dataframe[0].value
    assert len(table) == sum(map(len, expected.values()))
    first = read_evaluation(newest(data, 1))["by_l0"]
    for measure in ("fvu", "fvu_without_massive", "median_unexplained", "cosine", "norm_ratio",
                    "kl", "mean_l0"):  # fmt: skip
        assert table[measure].tolist()[: len(first)] == [row[measure] for row in first]


def test_without_evaluations_the_page_offers_to_make_them(data, submitted):
    for run in list_runs(data / "runs"):
        (run.directory / "evaluation.json").unlink()
    app = open_page("evaluate")
    assert app.multiselect(key="compare").value == [run.run_id for run in list_runs(data / "runs")]
    assert not figures(app)
    assert any(
        "2 of the chosen dictionaries are not evaluated" in one.value for one in app.markdown
    )
    button(app, "Evaluate (about").click().run()
    assert_no_failure(app)
    assert submitted == [[run.run_id for run in list_runs(data / "runs")]]


def test_only_what_is_chosen_and_not_evaluated_is_offered(data, submitted):
    (newest(data, 2).directory / "evaluation.json").unlink()
    app = open_page("evaluate")
    assert app.multiselect(key="compare").value == [newest(data, 1).run_id]  # what there is
    assert not any(one.label.startswith("Evaluate (") for one in app.button)
    app.multiselect(key="compare").set_value([newest(data, 2).run_id]).run()
    assert not figures(app)
    button(app, "Evaluate (about").click().run()
    button(open_page("evaluate"), "Evaluate again").click().run()
    assert submitted == [[newest(data, 2).run_id], [newest(data, 1).run_id]]


def test_what_waits_in_the_queue_is_not_offered_again(data, monkeypatch):
    (newest(data, 2).directory / "evaluation.json").unlink()
    monkeypatch.setattr(explorer_module.JobQueue, "_start", lambda self, job: None)
    submit_evaluation(explorer_module.explorer().queue, [newest(data, 2)])
    app = open_page("evaluate", compare=newest(data, 2).run_id)
    assert not any(one.label.startswith("Evaluate (") for one in app.button)
    assert any("Evaluation of" in one.value for one in app.markdown)


def test_a_dictionary_made_elsewhere_is_not_offered_since_no_texts_were_held_out(data, submitted):
    run = newest(data, 2)
    (run.directory / "evaluation.json").unlink()
    edit_about(run.directory, origin="published")
    app = open_page("evaluate", compare=run.run_id)
    assert "made elsewhere" in app.info[0].value
    assert not any(one.label.startswith("Evaluate (") for one in app.button)


def test_an_evaluation_that_failed_says_why(data):
    queue = explorer_module.explorer().queue
    job = queue.enqueue("evaluate", ["nothing", "--save"], "Evaluation of nothing")
    queue._save(replace(job, state="failed", ended=1.0, error="Error: There is no run."))
    app = AppTest.from_file("../../app.py", default_timeout=60)
    app.switch_page("pages/evaluate.py").run()
    assert [one.value for one in app.warning] == [
        literal("The last evaluation failed. There is no run.")
    ]
    button(app, "Forget").click().run()
    assert not app.warning


def test_the_link_is_the_state(data):
    first, second = newest(data, 1).run_id, newest(data, 2).run_id
    app = open_page("evaluate", compare=f"{second},{first}", run=second, at_l0="4")
    assert app.multiselect(key="compare").value == [second, first]
    assert app.selectbox(key="evaluated_run").value == second
    row = next(row for row in read_evaluation(newest(data, 2))["by_l0"] if row["l0"] == 4)
    assert app.metric[0].value == f"{row['fvu']:.4f}"
    app.multiselect(key="compare").set_value([first]).run()
    assert_no_failure(app)
    assert app.query_params["compare"] in (first, [first])
    assert app.query_params["run"] in (first, [first])
    app = open_page("evaluate", compare=f"{first},gone")
    assert ["gone" in one.value for one in app.warning] == [True]


def test_no_dictionary_chosen_is_a_sentence(data):
    app = open_page("evaluate")
    app.multiselect(key="compare").set_value([]).run()
    assert_no_failure(app)
    assert "Choose at least one dictionary" in app.info[0].value


def test_the_charts_below_are_those_of_the_dictionary_that_is_chosen(data):
    app = open_page("evaluate")
    for layer in (2, 1):
        app.selectbox(key="evaluated_run").set_value(newest(data, layer).run_id).run()
        assert_no_failure(app)
        errors = read_evaluation(newest(data, layer))["errors"]
        shown_figures = figures(app)[2:]
        for figure, kind in zip(shown_figures, ("position", "norm", "frequency"), strict=False):
            assert numbers(figure["data"][0]["y"]) == [found["fvu"] for found in errors[kind]]
    app.segmented_control(key="measure").set_value("cosine").run()
    assert numbers(figures(app)[2]["data"][0]["y"]) == [
        found["cosine"] for found in errors["position"]
    ]


def test_massive_activations_are_left_out_unless_asked_for(data):
    run = newest(data, 1)
    result = read_evaluation(run)
    massive = {"from": 900.0, "to": 990.0, "tokens": 2, "fvu": 0.001, "cosine": 1.0}
    result["by_l0"] = [{**row, "fvu": row["fvu"] / 2} for row in result["by_l0"]]
    save_evaluation(
        run, {**result, "massive_tokens": 2, "errors": {**result["errors"], "massive": [massive]}}
    )
    app = open_page("evaluate", compare=run.run_id)
    without = [row["fvu_without_massive"] for row in result["by_l0"]]
    assert curves(app)[0] == {"layer 1": without}
    assert figures(app)[3]["data"][0]["x"][-1] == "massive"
    # The number of the point that is looked at, the run's own L0, is what curve and sentence have.
    point = next(row for row in result["by_l0"] if row["l0"] == run.config.l0)
    assert metrics(app)["FVU without massive"] == f"{point['fvu_without_massive']:.4f}"
    assert "FVU" not in metrics(app)
    app.toggle(key="without").set_value(False).run()
    assert curves(app)[0] == {"layer 1": [row["fvu"] for row in result["by_l0"]]}
    assert metrics(app)["FVU"] == f"{point['fvu']:.4f}"
    assert "FVU without massive" not in metrics(app)


def test_encoders_have_no_ce_loss_score_and_the_page_says_so(data):
    run = newest(data, 1)
    result = read_evaluation(run)
    rows = [{**row, "ce_loss_score": None, "kl": None} for row in result["by_l0"]]
    save_evaluation(run, {**result, "by_l0": rows})
    app = open_page("evaluate", compare=run.run_id)
    assert_no_failure(app)
    assert any("predicts no next token" in one.value for one in app.info)
    assert "–" in [metric.value for metric in app.metric]


def test_an_imported_autoencoder_is_marked(data):
    edit_about(newest(data, 2).directory, kind="sae", architecture="topk")
    lines = lines_of(figures(open_page("evaluate"))[0])
    assert [line["name"] for line in lines] == ["layer 1", "layer 2 · TopK SAE"]
    assert [line["marker"]["symbol"] for line in lines] == ["circle", "square-open"]


def test_a_damaged_evaluation_is_a_sentence(data):
    (newest(data, 2).directory / "evaluation.json").write_text("{}")
    app = open_page("evaluate")
    assert app.multiselect(key="compare").value == [newest(data, 1).run_id]
    app = open_page("overview")
    assert any("evaluation.json is damaged" in one.value.replace("`", "") for one in app.warning)


# How good a number is


def evaluated_as(run, **changes):
    """The run's evaluation, changed; its newest row with `row`."""
    result, row = read_evaluation(run), changes.pop("row", {})
    last = {**result["by_l0"][-1], **row}
    save_evaluation(run, {**result, "by_l0": [*result["by_l0"][:-1], last], **changes})
    return last["l0"]


PCA = [1.0, 0.9, 0.8, 0.7, 0.65, 0.6, 0.56, 0.54, 0.52]


def texts(app):
    return [element.value.replace("`", "") for element in (*app.markdown, *app.caption)]


def test_a_point_says_in_a_sentence_what_it_leaves_and_costs(data):
    run = newest(data, 1)
    row = {"fvu": 0.171, "fvu_without_massive": 0.171, "cross_entropy": 3.28,
           "median_unexplained": 0.25}  # fmt: skip
    entropies = {"model_cross_entropy": 3.2, "zeros_cross_entropy": 11.2}
    evaluated_as(run, row=row, pca={"fvu": PCA}, **entropies)
    app = open_page("evaluate", compare=run.run_id)
    said = texts(app)
    assert (
        "At L0 8 it leaves 17.1 % of the variance unexplained, 25.0 % or less on half of the "
        "tokens, and costs the model 0.08 nats of 3.20 a prediction, 1.0 % of the 8.00 that zeros "
        "cost." in said
    )
    fitted = "8 principal components, which are fitted to these very tokens, leave 52.0 %."
    assert fitted in said
    values = {metric.label: metric.value for metric in app.metric}
    assert values["median token"] == "0.2500"
    assert MEDIAN_MEANS in said
    assert values["cross-entropy, model"] == "3.200"
    assert values["cross-entropy, reconstruction"] == "3.280"
    assert values["cross-entropy, zeros"] == "11.200"
    assert grey(figures(app)[0]) == {"PCA, for layer 1": ([*range(1, 9)], PCA[1:])}
    assert grey(figures(app)[1]) == {}
    assert not any("TopK" in one for one in said)


def test_the_others_at_that_l0_are_judged_in_the_same_words(data):
    row = {"fvu": 0.09, "fvu_without_massive": 0.09, "cross_entropy": 2.5,
           "median_unexplained": 0.08}  # fmt: skip
    entropies = {"model_cross_entropy": 2.4, "zeros_cross_entropy": 7.4}
    evaluated_as(newest(data, 2), row=row, **entropies)
    said = texts(open_page("evaluate", run=newest(data, 1).run_id))
    assert (
        "**layer 2** leaves 9.0 % of the variance unexplained, 8.0 % or less on half of the "
        "tokens, and costs the model 0.10 nats of 2.40 a prediction, 2.0 % of the 5.00 that zeros "
        "cost." in said
    )
    assert not any(one.startswith("**layer 1** leaves") for one in said)
    alone = open_page("evaluate", compare=newest(data, 1).run_id)
    assert not any("The other dictionaries" in one.label for one in alone.expander)


def test_an_evaluation_of_an_earlier_version_has_dashes_and_says_why(data):
    run = newest(data, 1)
    result = read_evaluation(run)
    for name in ("model_cross_entropy", "zeros_cross_entropy", "pca"):
        del result[name]
    for row in result["by_l0"]:
        del row["cross_entropy"], row["median_unexplained"]
    save_evaluation(run, result)
    app = open_page("evaluate", compare=run.run_id)
    assert_no_failure(app)
    values = {metric.label: metric.value for metric in app.metric}
    assert values["cross-entropy, model"] == "–" != values["CE loss score"]
    assert values["median token"] == "–"
    said = texts(app)
    assert MEDIAN_MEANS not in said
    assert any("which kept no cross-entropies: evaluate it again" in one for one in said)
    assert any("No line of PCA" in one for one in said)
    left = f"At L0 8 it leaves {100 * result['by_l0'][-1]['fvu']:.1f} % of the variance unexplained"
    assert f"{left}." in said
    assert grey(figures(app)[0]) == {}


def test_a_quick_run_is_marked_wherever_its_numbers_stand(data):
    run = newest(data, 1)
    evaluated_as(run, quick=True)
    app = open_page("evaluate")
    assert set(curves(app)[0]) == {"layer 1 · quick run", "layer 2"}
    assert set(app.dataframe[0].value["dictionary"]) == {"layer 1 · quick run", "layer 2"}
    assert any("A quick run: " in one for one in texts(app))
    assert any(one.startswith("quick run · ") for one in texts(app))
    assert [" · quick run" in one for one in app.multiselect(key="compare").options] == [
        True,
        False,
    ]
    app = open_page("evaluate", run=newest(data, 2).run_id)
    assert not any("A quick run: " in one for one in texts(app))


def test_a_quick_run_is_offered_beside_the_full_one(data, monkeypatch):
    asked = []
    submit = lambda _queue, runs, _device: asked.append([run.run_id for run in runs])  # noqa: E731
    monkeypatch.setattr(offer, "submit_quick_evaluation", submit)
    run = newest(data, 2)
    (run.directory / "evaluation.json").unlink()
    app = open_page("evaluate")
    assert not any(one.label.startswith("Quick run") for one in app.button)  # it has a full one
    app = open_page("evaluate", compare=run.run_id)
    button(app, "Quick run").click().run()
    assert_no_failure(app)
    assert asked == [[run.run_id]]


ROW = {
    "l0": 32, "mean_l0": 31.97, "fvu": 0.171, "fvu_without_massive": 0.25, "massive_tokens": 3,
    "cross_entropy": 3.28, "model_cross_entropy": 3.2, "zeros_cross_entropy": 11.2,
    "tokens": 261, "median_unexplained": float("nan"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "without_massive", "says"),
    [
        ({}, True, "leaves 25.0 % of the variance unexplained but for massive activations and"),
        ({}, False, "leaves 17.1 % of the variance unexplained and costs the model 0.08 nats"),
        ({"massive_tokens": 0}, True, "leaves 25.0 % of the variance unexplained and costs"),
        ({"cross_entropy": 3.15}, False, "spares the model 0.05 nats of 3.20 a prediction"),
        (
            {"cross_entropy": 3.15},
            False,
            "a CE loss score above 1: on 261 tokens that may be",
        ),
        ({"cross_entropy": 3.204}, False, "by less than 0.01 nats of 3.20 a prediction, 0.1 %"),
        ({"zeros_cross_entropy": 3.1}, False, "0.08 nats of 3.20 a prediction."),
        ({"cross_entropy": float("nan")}, False, "leaves 17.1 % of the variance unexplained."),
        (
            {"median_unexplained": 0.304},
            False,
            "leaves 17.1 % of the variance unexplained, 30.4 % or less on half of the tokens, "
            "and costs",
        ),
        (
            {"median_unexplained": 0.304, "cross_entropy": float("nan")},
            False,
            "leaves 17.1 % of the variance unexplained, 30.4 % or less on half of the tokens.",
        ),
    ],
)
def test_a_verdict_follows_from_the_numbers_alone(changes, without_massive, says):
    assert says in verdict({**ROW, **changes}, without_massive)


def test_dictionaries_that_were_measured_on_different_texts_are_named():
    rows = [("a", "A", "sotu", 4_096), ("a", "A", "sotu", 4_096), ("b", "B", "walk.txt", 261)]
    table = pd.DataFrame(rows, columns=["run_id", "dictionary", "corpus", "tokens"])
    table = table.assign(held_out=True)
    assert on_different_texts(table) == (
        "Measured on different tokens, and so not to be compared: A on 4,096 held-out tokens of "
        "sotu; B on 261 held-out tokens of walk.txt."
    )
    assert on_different_texts(table.assign(corpus="sotu", tokens=9)) == ""
    assert "A and B" not in on_different_texts(table)
    assert "A and B on 9 held" in on_different_texts(
        pd.concat([table.assign(corpus="sotu", tokens=9), table.assign(run_id="c", tokens=1)])
    )


def test_the_page_names_those_that_were_measured_on_other_texts(data):
    evaluated_as(newest(data, 1), tokens=77)
    assert any(
        "not to be compared: layer 1 on 77 held" in one for one in texts(open_page("evaluate"))
    )


def test_autoencoders_stand_beside_dictionaries_of_their_l0_alone():
    sotu = {"corpus": "sotu", "held_out": True}
    others = topk_autoencoders("smollm2-135m", 15, "resid_post", sotu)
    pca = [1.0, *([0.5] * 32)]
    said = beside(32, 31.97, pca, others, "fvu")
    # docs/comparison.md: 0.3395, 0.2127 and 0.1901
    assert said == (
        "32 principal components, which are fitted to these very tokens, leave 50.0 %; a TopK "
        "autoencoder with 2,048 latents and L0 32 leaves 33.9 %, 21.3 % and 19.0 % where it was "
        "trained on 4,096, 40,960 and 409,600 tokens of sotu."
    )
    assert "TopK" not in beside(8, 8.0, pca, others, "fvu")
    one = beside(1, 1.0, pca, others, "fvu")
    assert one == "1 principal component, which is fitted to these very tokens, leaves 50.0 %."
    assert beside(64, 64.0, pca, [], "fvu") == ""


def test_what_dictionaries_are_compared_with_is_grey_and_behind_none_of_their_numbers():
    others = [Reference("PCA", [1, 2], [0.9, 0.8], ["1", "2"], "dash")]
    others.append(Reference("SAE", [32], [0.19], ["SAE"], ""))
    line, points = pareto(POINTS, "FVU", "lower", None, others).data[2:]
    assert (line.mode, points.mode) == ("lines", "markers")
    assert line.customdata is None is points.customdata
    assert line.line.color == points.marker.color


# Figures and labels


POINTS = pd.DataFrame(
    {
        "run_id": ["a", "a", "b"],
        "label": ["layer 1", "layer 1", "layer 2 · SAE"],
        "is_sae": [False, False, True],
        "l0": [1, 2, 2],
        "mean_l0": [1.0, 1.9, 2.0],
        "value": [0.5, 0.4, 0.45],
    }
)


def test_each_dictionary_has_a_colour_and_a_shape_of_its_own_and_clicks_name_it():
    figure = pareto(POINTS, "FVU", "lower", ("a", 2))
    first, second = figure.data
    assert (first.name, second.name) == ("layer 1", "layer 2 · SAE")
    assert first.line.color != second.line.color
    assert (first.marker.symbol, second.marker.symbol) == ("circle", "square-open")
    assert [list(point[:2]) for point in first.customdata] == [["a", 1], ["a", 2]]
    assert list(first.x) == [1.0, 1.9]
    assert first.marker.size[1] > first.marker.size[0] == second.marker.size[0]
    assert figure.layout.yaxis.title.text == "FVU (lower is better)"


def test_a_name_reaches_the_curves_as_text():
    given = '<a href="//x">a</a>\n&lt;b'
    [line] = pareto(POINTS[:2].assign(label=given), "FVU", "lower", None).data
    # Plotly knows these three names of signs and no &quot;, and a line break would end the line.
    expected = '&lt;a href="//x"&gt;a&lt;/a&gt;↵&amp;lt;b'
    assert [line.name, *(one[2] for one in line.customdata)] == [expected] * 3


def test_a_bar_says_which_tokens_it_stands_for():
    edges = [(0, 0), (1, 9), (10, 99), (100, 999), (1_000, 9_999), (133.67, 149.98), (0.5, 0.123)]
    bins = [
        {"from": first, "to": last, "tokens": 3, "fvu": 0.5, "cosine": 0.9} for first, last in edges
    ]
    names = list(error_bars(bins, "fvu", "x").data[0].x)
    assert names == ["0", "1–9", "10–99", "100–999", "1k–10k", "134–150", "0.5–0.123"]


def test_a_histogram_leaves_out_the_empty_ends():
    counts = [0, 0, 0, 5, 7, 0, 2, 0, 0, 0]
    bins = [
        {"from": -2.5 + n / 4, "to": -2.25 + n / 4, "latents": count}
        for n, count in enumerate(counts)
    ]
    assert list(density_histogram(bins).data[0].y) == [0, 5, 7, 0, 2, 0]
    assert list(density_histogram(bins[:2]).data[0].y) == [0, 0]


def rows_of(**changes):
    usual = {
        "run_id": "x", "model": "org/m", "layer": 7, "atoms": 1_024, "l0": 16, "tokens": 5_000,
        "kind": "itda", "method": "coverage", "budget": "token", "mean_l0": 16.0, "seed": 0,
        "training_id": "m-00000001", "site": "resid_post",
        "corpus": "sotu",
    }  # fmt: skip
    count = len(next(iter(changes.values())))
    return pd.DataFrame(
        [
            {**usual, "run_id": f"r{n}", **{name: values[n] for name, values in changes.items()}}
            for n in range(count)
        ]
    )


@pytest.mark.parametrize(
    ("changes", "labels"),
    [
        ({"layer": [7]}, ["layer 7"]),
        ({"layer": [7, 15]}, ["layer 7", "layer 15"]),
        ({"site": ["resid_post", "mlp_out"]}, ["layer 7", "layer 7 mlp_out"]),
        ({"l0": [16, 32], "mean_l0": [16, 32]}, ["layer 7 · L0 16", "layer 7 · L0 32"]),
        ({"method": ["coverage", "threshold"]}, ["layer 7 · coverage", "layer 7 · threshold"]),
        ({"model": ["a/m", "b/n"], "layer": [7, 8]}, ["m · layer 7", "n · layer 8"]),
        (
            {"training_id": ["m-1", "m-2", "m-3"], "layer": [7, 7, 8]},
            ["layer 7 · 1", "layer 7 · 2", "layer 8"],
        ),
    ],
)
def test_labels_name_what_differs_and_no_two_are_equal(changes, labels):
    assert list(short_labels(rows_of(**changes), {}).values()) == labels


@pytest.mark.parametrize(
    ("changes", "labels"),
    [
        ({"layer": [7, 15]}, ["layer 7"]),  # all of one model and corpus
        ({"corpus": ["sotu", "/data/licences.txt"]}, ["layer 7 · sotu"]),
        ({"corpus": ["sotu", "/data/licences.txt"], "layer": [7, 8]}, ["layer 7 · sotu"]),
        ({"model": ["a/m", "b/n"]}, ["m · layer 7"]),
        ({"atoms": [2_048, 256], "seed": [0, 1]}, ["layer 7 · 2,048 latents · seed 0"]),
        ({"layer": [7, 8], "atoms": [2_048, 256]}, ["layer 7"]),  # the layer tells them apart
        ({"training_id": ["m-1", "m-2"]}, ["layer 7 · 1"]),
    ],
)
def test_a_label_tells_a_dictionary_from_those_that_are_not_chosen(changes, labels):
    rows = rows_of(**changes)
    assert list(short_labels(rows.head(1), {}, rows).values()) == labels


def test_what_is_looked_at_is_named_by_its_corpus_where_another_is_of_its_layer(data):
    run = newest(data, 2)
    corpus = {**run.about["config"]["corpus"], "name": "/elsewhere/other.txt"}
    other = edited_copy(run.directory, f"{run.run_id}-other", {"corpus": corpus})
    app = open_page("evaluate", compare=other.name)
    assert app.selectbox(key="evaluated_run").options == ["layer 2 · other.txt"]


def test_an_autoencoder_is_labelled_as_such():
    labels = short_labels(rows_of(kind=["itda", "sae"], method=["coverage", "TopK SAE"]), {})
    assert labels == {"r0": "layer 7", "r1": "layer 7 · TopK SAE"}
    assert short_labels(rows_of(layer=[]), {}) == {}


def test_a_missing_value_is_a_dash():
    assert shown("fvu", 0.12345) == "0.1235"
    assert shown("kl", None) == shown("kl", float("nan")) == "–"


def test_latents_goes_on_with_its_dictionary_after_a_look_at_evaluate(data):
    first, second = newest(data, 1).run_id, newest(data, 2).run_id
    app = open_page("latents", run=second)
    app.switch_page("pages/evaluate.py").run()
    app.selectbox(key="evaluated_run").set_value(first).run()
    assert app.query_params["run"] in (first, [first])
    app.query_params.clear()  # as a click on a page's name does
    app.switch_page("pages/latents.py").run()
    assert_no_failure(app)
    assert app.selectbox(key="run").value == second
