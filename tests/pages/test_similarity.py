"""The Similarity page by AppTest, and its figures, orders, words and exports as pure functions."""

import dataclasses
import io
import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from itda_core.config import CorpusSpec, ModelSpec, TrainConfig
from itda_core.runs.given_names import keep_name, names_file
from itda_core.runs.run import list_runs
from itda_core.similarity.dictionaries import compare, model_comparison, word_counts
from itda_core.similarity.measures import ALL_MEASURES, MEASURES, Measure
from itda_core.store.comparison_queries import ComparisonQueries
from itda_core.training.trainer import train
from pages.components import explorer as explorer_module
from pages.components.charts import similarity as charts_similarity
from pages.components.charts.beside_matrix import dendrogram, match_path
from pages.components.charts.ordering import best_in_rows, cluster_order, comparable
from pages.components.charts.similarity import Look
from pages.components.downloads import as_csv, as_json, as_parquet, as_settings
from pages.components.similarity import choice
from pages.components.similarity import jobs as jobs_module
from pages.components.similarity import training as similarity_training
from pages.components.similarity.model_groups import layers_text
from pages.components.similarity.sentences import path_summary, summary
from pages.components.similarity.values import Values
from tests.support.app import assert_no_failure, close_explorer, numbers, open_page, table_with
from tests.support.edited_runs import edit_about, edited_copy

NONE = float("nan")
ALIKE = np.array(
    [[1.0, 0.2, 0.9, 0.1], [0.2, 1.0, 0.1, 0.8], [0.9, 0.1, 1.0, 0.2], [0.1, 0.8, 0.2, 1.0]]
)
"""0 and 2 belong together, and 1 and 3"""


@pytest.fixture(scope="module")
def three_models_folder(trained_folder, tmp_path_factory):
    """Layers 1 and 2 of the tiny model at two sizes, and layer 1 at a third. Only to be copied."""
    folder = tmp_path_factory.mktemp("three")
    shutil.copytree(trained_folder / "runs", folder / "runs")
    config = list_runs(folder / "runs")[0].config
    for layers, atoms in (((1, 2), 48), ((1,), 40)):
        for _ in train(
            dataclasses.replace(config, layers=layers, max_atoms=atoms), folder / "runs"
        ):
            pass
    return folder


@pytest.fixture
def data(three_models_folder, data_folder):
    shutil.copytree(three_models_folder, data_folder)
    yield data_folder
    close_explorer()


@pytest.fixture
def one_run(trained_folder, data_folder):
    run = list_runs(trained_folder / "runs")[0]
    shutil.copytree(run.directory, data_folder / "runs" / run.directory.name)
    yield data_folder
    close_explorer()


@pytest.fixture
def measured(monkeypatch):
    """A measure that jobs compute: what is stored of it, and the runs whose comparison is asked
    for instead of starting it."""
    kind = Measure("likeness", "Likeness", 0.0, 1.0, "How like they are.")
    state = SimpleNamespace(stored=[], asked=[])

    def comparisons(self, measure, run_ids):
        assert measure == "likeness"
        rows = [row for row in state.stored if {row[0], row[1]} <= set(run_ids)]
        told = [(*row, "Such is the reason." if row[2] != row[2] else "") for row in rows]
        return pd.DataFrame(told, columns=["run_a", "run_b", "value", "reason"])

    def submit(_queue, runs, measures, _device):
        state.asked.append(({run.run_id for run in runs}, measures))

    monkeypatch.setitem(ALL_MEASURES, "likeness", kind)
    monkeypatch.setattr(ComparisonQueries, "table", comparisons)
    monkeypatch.setattr(jobs_module, "submit_comparison", submit)
    return state


def dictionaries(folder, atoms):
    """Of one training, by layer."""
    runs = list_runs(folder / "runs")
    return {run.layer: run.dictionary() for run in runs if run.config.max_atoms == atoms}


def run_ids(folder, atoms):
    runs = list_runs(folder / "runs")
    return {run.layer: run.run_id for run in runs if run.config.max_atoms == atoms}


def group_id(app, name, words):
    """The id of the group whose name in a list has these words."""
    box = app.selectbox(key=name)
    place = next(place for place, label in enumerate(box.options) if words in label)
    return [*_groups(app)][place]


def _groups(app):
    from pages.components.similarity.model_groups import groups_of

    return groups_of(explorer_module.explorer().store.runs.table())


def printed(app, chart=0):
    figure = json.loads(app.get("plotly_chart")[chart].proto.spec)
    return [text for trace in figure["data"] if trace["mode"] == "text" for text in trace["text"]]


def told(app):
    return " ".join(element.value for element in [*app.markdown, *app.caption, *app.info])


def open_tab(app, number):
    """The table of one of the four tabs of a cell."""
    app.session_state["tab_2_1"] = [tab.label for tab in app.tabs][number]
    app.run()
    assert_no_failure(app)
    return table_with(app, "only_a" if number == 3 else "latent")


def open_pair(first="64 atoms", second="48 atoms", **query):
    """The layers of two of the three models."""
    app = open_page("similarity")
    a, b = group_id(app, "a", first), group_id(app, "b", second)
    return open_page("similarity", a=a, b=b, **query)


def test_a_link_restores_view_models_measure_key_order_and_cell(data):
    app = open_pair(key="word", order="clustered", stretch="True", row="2", column="1")
    assert app.session_state["key"] == "word"
    assert app.session_state["order"] == "clustered"
    assert app.session_state["stretch"] is True
    assert (app.session_state["row"], app.session_state["column"]) == (2, 1)
    assert any("A layer 2 and B layer 1" in heading.value for heading in app.subheader)


def test_sources_are_matched_as_the_models_let_them_unless_it_was_chosen(data, monkeypatch):
    one = [False]
    monkeypatch.setattr(choice, "have_one_tokenizer", lambda _: one[0])
    app = open_pair()
    assert app.session_state["key"] == "word"
    one[0] = True  # other models are chosen
    assert app.run().session_state["key"] == "token"
    app.button_group(key="key").set_value("word").run()
    assert app.run().session_state["key"] == "word"


def test_the_second_model_is_at_first_another_one_than_the_first(data):
    app = open_page("similarity")
    assert app.session_state["a"] != app.session_state["b"]


def test_a_cell_says_its_index_with_interval_and_chance(data):
    found = compare(dictionaries(data, 64)[2], dictionaries(data, 48)[1])
    app = open_pair(row="2", column="1", key="token")
    text = told(app)
    assert f"**{found.jaccard:.2f}**, 95 % interval {found.low:.2f}–{found.high:.2f}" in text
    assert f"{len(found.shared):,} shared of {found.union:,} in either" in text
    assert f"drawn by chance would share {found.chance:.2f}" in text


def test_a_cell_lists_what_is_shared_and_what_either_has_alone_most_telling_first(data):
    found = compare(dictionaries(data, 64)[2], dictionaries(data, 48)[1])
    app = open_pair(row="2", column="1", key="token")
    shared, only_a, only_b, words = (open_tab(app, number) for number in range(4))
    for shown, expected in ((shared, found.shared), (only_a, found.only_a), (only_b, found.only_b)):
        assert shown["latent"].tolist() == expected["latent"].tolist()[:25]
    assert shared["latent_b"].tolist() == found.shared["latent_b"].tolist()[:25]
    counts = word_counts(found.only_a, found.only_b)
    assert words["log_odds"].tolist() == pytest.approx(counts["log_odds"].tolist())
    assert words["only_a"].sum() == len(found.only_a)


@pytest.mark.parametrize("key", ["token", "word"])
def test_a_shared_source_shows_its_latents_of_both_sides(data, key):
    first = compare(dictionaries(data, 64)[2], dictionaries(data, 48)[1], key).shared.iloc[0]
    app = open_pair(row="2", column="1", key=key)
    heads = [element.value for element in app.markdown if "· latent" in element.value]
    assert f"**`A layer 2`** · latent {first['latent']}" in heads
    assert f"**`B layer 1`** · latent {first['latent_b']}" in heads


def test_the_cell_of_two_whole_models_shows_latents_of_the_layers_both_have(data):
    app = open_page("similarity", view="models")
    names = {group.config.max_atoms: name for name, group in _groups(app).items()}
    app = open_page("similarity", view="models", row=names[64], column=names[40])
    small, large = dictionaries(data, 40), dictionaries(data, 64)
    found = model_comparison(large, small)
    shown = table_with(app, "latent_b")
    for name in ("latent", "latent_b"):
        assert shown[name].tolist() == found.shared[name].tolist()[:25]
    first = found.shared.iloc[0]
    [first_head, second_head, *_] = [m.value for m in app.markdown if "· latent" in m.value]
    assert first_head.endswith(f"latent {first['latent']}")
    assert second_head.endswith(f"latent {first['latent_b']}")


def test_three_whole_models_have_a_dendrogram_and_two_layers_a_path(data):
    app = open_page("similarity", view="models")
    assert any("belong together" in element.value for element in app.markdown)
    assert len(app.get("plotly_chart")) == 2
    app = open_pair()
    assert any("Best matches" in element.value for element in app.markdown)


def test_one_dictionary_is_compared_with_itself_and_nothing_fails(one_run):
    app = open_page("similarity")
    assert "One layer compared with itself says nothing" in app.info[0].value
    assert not app.get("plotly_chart")  # which would have one cell
    app = open_page("similarity", view="models")
    assert "one model only" in app.info[0].value


def test_of_one_model_the_layers_are_compared_and_it_is_said(trained_folder, data_folder):
    shutil.copytree(trained_folder / "runs", data_folder / "runs")
    app = open_page("similarity")
    close_explorer()
    assert_no_failure(app)
    assert "There is one model only, so that its layers are compared" in told(app)
    [views] = [one for one in app.button_group if one.key == "view"]
    assert views.options[0] == "Layer by layer"
    assert "a" not in {box.key for box in app.selectbox}, "there is nothing to choose"


def test_no_chosen_model_says_what_to_do(data):
    app = open_page("similarity", view="models")
    app.multiselect(key="models").set_value([]).run()
    assert_no_failure(app)
    assert [info.value for info in app.info] == ["Choose at least one model."]


def test_dictionaries_of_other_prompts_say_why_they_do_not_compare(data, tmp_path):
    config = list_runs(data / "runs")[0].config
    other = dataclasses.replace(config, layers=(1,), seed=5)
    for _ in train(other, data / "runs"):
        pass
    app = open_pair(second="seed 5", row="1", column="1")
    assert any("different prompts" in warning.value for warning in app.warning)
    assert any("different prompts" in info.value for info in app.info)


def test_a_dictionary_of_seed_atoms_alone_says_how_to_count_them(data):
    config = list_runs(data / "runs")[0].config
    published = dataclasses.replace(
        config, layers=(1, 2), selection="threshold", offset=None, pursuit=None, max_atoms=16
    )
    for _ in train(published, data / "runs"):
        pass
    app = open_pair(first="threshold", second="threshold")
    assert any("more atoms than d" in warning.value for warning in app.warning)
    app.toggle(key="seeds").set_value(True).run()
    assert_no_failure(app)
    assert not app.warning
    assert printed(app) == ["1.00"] * 4  # the first tokens of the corpus, whatever the layer


def test_a_measure_that_is_not_computed_offers_a_job_for_just_the_pairs_that_are_missing(
    data, measured
):
    a, b = run_ids(data, 64), run_ids(data, 48)
    measured.stored = [(a[1], b[1], 0.5), (b[2], a[1], 0.25), (a[2], b[2], 0.75)]
    app = open_pair(measure="likeness")
    assert "**3 of 4 pairs are known.**" in told(app)
    assert sorted(printed(app)) == ["0.25", "0.50", "0.75", "–"]
    one, every = [button for button in app.button if button.label.startswith("Compute")]
    assert one.label == "Compute (1 pair)"
    one.click().run()
    assert measured.asked == [({a[2], b[1]}, ["likeness"])]
    every.click().run()
    assert measured.asked[1] == ({a[2], b[1]}, list(MEASURES))


def test_a_pair_that_was_measured_in_vain_says_why_and_is_not_asked_for_again(data, measured):
    a, b = run_ids(data, 64), run_ids(data, 48)
    measured.stored = [(a[i], b[j], 0.5) for i in (1, 2) for j in (1, 2) if (i, j) != (2, 2)]
    measured.stored += [(a[2], b[2], NONE)]
    app = open_pair(measure="likeness")
    assert sorted(printed(app)) == ["0.50", "0.50", "0.50", "–"]
    assert any("Such is the reason" in warning.value for warning in app.warning)
    assert not [button for button in app.button if button.label.startswith("Compute")]


def test_one_dictionary_alone_is_not_sent_to_a_job_that_compares_two(one_run, measured):
    app = open_page("similarity", measure="likeness")
    assert "compares two dictionaries or more" in told(app)
    assert not [button for button in app.button if button.label.startswith("Compute")]


def test_the_value_of_two_whole_models_is_the_mean_of_the_best_matches_of_their_layers(
    data, measured
):
    a, b = run_ids(data, 64), run_ids(data, 48)
    within = [(one[i], one[j], float(i == j)) for one in (a, b) for i in one for j in one]
    across = [(a[1], b[1], 0.6), (a[1], b[2], 0.1), (a[2], b[1], 0.8), (a[2], b[2], 0.2)]
    measured.stored = within + across
    app = open_page("similarity", view="models")
    names = [name for name, group in _groups(app).items() if group.config.max_atoms in (64, 48)]
    app = open_page("similarity", view="models", measure="likeness", models=",".join(names))
    # Best for A's layers 0.6 and 0.8, mean 0.7; for B's 0.8 and 0.2, mean 0.5; of both 0.6.
    assert sorted(printed(app)) == ["0.60", "0.60", "1.00", "1.00"]
    assert "averaged over both directions" in told(app)


def test_training_what_is_missing_takes_over_all_settings_but_model_and_layers(data, monkeypatch):
    submitted = []
    monkeypatch.setattr(
        explorer_module.JobQueue, "submit", lambda self, config: submitted.append(config)
    )
    app = open_pair(first="64 atoms")
    model = list_runs(data / "runs")[0].config.model.name
    app.session_state["train_missing"] = True
    app.run()
    app.selectbox(key="train_model").set_value(model).run()
    [layers] = [box for box in app.multiselect if box.label == "Layers"]
    assert layers.options == ["0", "3"]
    layers.set_value([0, 3]).run()
    [button] = [button for button in app.button if button.label.startswith("Train")]
    button.click().run()
    assert_no_failure(app)
    like = next(run.config for run in list_runs(data / "runs") if run.config.max_atoms == 64)
    assert submitted == [dataclasses.replace(like, layers=(0, 3))]


def test_trainings_from_a_folder_of_activations_are_no_template_for_other_models(data):
    app = open_pair(first="64 atoms")
    app.session_state["train_missing"] = True
    app.run()
    templates = app.selectbox(key="train_like").options
    for run in list_runs(data / "runs"):
        if run.config.max_atoms == 64:
            edit_about(run.directory, {"activations": "/elsewhere"})
    close_explorer()
    app = open_pair(first="64 atoms")
    app.session_state["train_missing"] = True
    app.run()
    assert_no_failure(app)
    left = [box.options for box in app.selectbox if box.key == "train_like"]
    assert left == ([templates[1:]] if templates[1:] else [])


def test_a_checkpoint_of_a_hub_model_is_trained_at_the_settings_of_another(data, monkeypatch):
    submitted = []
    monkeypatch.setattr(
        explorer_module.JobQueue, "submit", lambda self, config: submitted.append(config)
    )
    known = [{"model": "owner/model", "where": "downloaded"}]  # AppTest can't type a new one
    monkeypatch.setattr(similarity_training, "known_models", lambda: known)
    app = open_pair(first="64 atoms")
    app.session_state["train_missing"] = True
    app.run()
    app.selectbox(key="train_model").set_value("owner/model").run()
    app.text_input(key="train_revision").set_value(" step1000 ").run()
    [button] = [button for button in app.button if button.label.startswith("Train")]
    button.click().run()
    assert_no_failure(app)
    [config] = submitted
    assert (config.model.name, config.model.revision) == ("owner/model", "step1000")
    assert (config.max_atoms, config.layers) == (64, (1, 2))


def test_checkpoints_of_one_model_have_names_that_tell_them_apart(data):
    runs = list_runs(data / "runs")
    for number, step in enumerate(("step1", "step2")):
        model = {**runs[0].about["config"]["model"], "revision": step}
        edited_copy(runs[0].directory, f"copy-{number}", {"model": model})
    app = open_page("similarity", view="models")
    names = " ".join(app.multiselect(key="models").options)
    assert " at step1" in names
    assert " at step2" in names


def test_other_places_in_a_block_are_named_and_compared_where_they_are_chosen(data):
    first = list_runs(data / "runs")[0]
    listed_as_the_last = "2999-01-01T00:00:00+00:00"
    of_the_mlp = {"site": "mlp_out"}
    edited_copy(first.directory, "of-the-mlp", of_the_mlp, created=listed_as_the_last)
    app = open_page("similarity", view="models")
    models = app.multiselect(key="models")
    other = [*_groups(app)][-1]
    assert "mlp_out" in models.options[-1]
    assert not any("mlp_out" in name for name in models.options[:-1])
    assert other not in models.value and models.value
    assert not app.warning
    app = models.set_value([*models.value, other]).run()
    assert not app.exception and other in app.multiselect(key="models").value
    assert "several places in a block" in app.warning[0].value
    of_two_layers = next(name for name, group in _groups(app).items() if len(group.layers) == 2)
    app = open_page("similarity", a=of_two_layers, b=other)
    assert "in a block: A of resid_post, B of mlp_out. They" in app.warning[0].value
    figure = json.loads(app.get("plotly_chart")[0].proto.spec)
    assert re.search(
        "A: tiny-llama.*<br>B: tiny-llama · mlp_out", figure["layout"]["title"]["text"]
    )
    assert "B layer 1 mlp_out" in told(app).replace("`", "")


def test_a_matrix_of_one_cell_is_a_sentence(data):
    first, *_ = (run for run in list_runs(data / "runs") if run.config.max_atoms == 40)
    other = next(run for run in list_runs(data / "runs") if run.config.max_atoms == 48)
    shutil.rmtree(next(run.directory for run in list_runs(data / "runs")
                       if run.config.max_atoms == 48 and run.layer != first.layer))  # fmt: skip
    app = open_page("similarity")
    a, b = group_id(app, "a", "40 atoms"), group_id(app, "b", "48 atoms")
    app = open_page("similarity", a=a, b=b)
    value = compare(first.dictionary(), other.dictionary()).jaccard
    assert f"Jaccard of sources **{value:.2f}**" in told(app)
    assert not app.get("plotly_chart")


def plot_size(figure):
    layout, margin = figure.layout, figure.layout.margin
    return layout.width - margin.l - margin.r, layout.height - margin.t - margin.b


@pytest.mark.parametrize("name", ["short", "a name that is far longer than one cell is wide"])
def test_names_of_models_have_room_above_a_matrix_of_any_size(name):
    for size in (1, 2, 20):
        look = Look(0.0, 1.0, "", sides=(f"A: {name}", "B: <b>"))
        values, names = np.full((size, size), 0.5), [str(number) for number in range(size)]
        hovers = [[""] * size] * size
        bare, figure = (
            charts_similarity.matrix(values, names, names, ("", ""), hovers, one)
            for one in (dataclasses.replace(look, sides=()), look)
        )
        assert figure.layout.width >= 6.5 * len(f"A: {name}")
        assert plot_size(figure) == plot_size(bare)  # cells stay squares: what is added is margin
        assert "&lt;b&gt;" in figure.layout.title.text


def test_things_that_are_alike_stand_side_by_side():
    order = cluster_order(ALIKE).tolist()
    assert {frozenset(order[:2]), frozenset(order[2:])} == {frozenset({0, 2}), frozenset({1, 3})}


def test_the_best_of_a_row_leaves_out_itself_and_what_is_unknown():
    values = np.array([[1.0, 0.2, 0.3], [0.2, 1.0, NONE], [NONE, NONE, NONE]])
    assert best_in_rows(values).tolist() == [0, 1, -1]
    assert best_in_rows(values, but_itself=True).tolist() == [2, 0, -1]


def test_what_lacks_pairs_is_left_out_until_all_the_rest_compares():
    values = ALIKE.copy()
    values[1, :] = values[:, 1] = NONE
    assert comparable(values).tolist() == [0, 2, 3]


def test_models_are_joined_where_the_mean_similarity_of_their_members_lies():
    values = np.array([[1.0, 0.9, 0.2], [0.9, 1.0, 0.4], [0.2, 0.4, 1.0]])
    figure = dendrogram(values, ["one", "two", "three"])
    joints = sorted(round(min(line.x), 6) for line in figure.data)
    assert joints == [0.3, 0.9]
    assert set(figure.layout.yaxis.ticktext) == {"one", "two", "three"}


def test_the_path_leads_each_layer_to_its_best_match_both_ways():
    values = np.array([[0.5, 0.1], [0.7, 0.2]])
    _, from_a, from_b = match_path(values, [3, 7], [1, 4], (8, 8), but_itself=False).data
    assert list(zip(from_a.x, from_a.y, strict=True)) == [(3, 1), (7, 1)]
    assert list(zip(from_b.x, from_b.y, strict=True)) == [(7, 1), (7, 4)]


def test_layers_most_like_their_own_number_are_counted_among_those_both_have():
    values = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.6]])
    assert path_of(values).startswith("2 of 2 layers of A (100%)")
    values[1] = [0.8, 0.2]
    assert path_of(values).startswith("1 of 2 layers of A (50%)")


def path_of(values, **counts):
    reasons = np.full(values.shape, "")
    return path_summary(Values(values, reasons, counts), [0, 1, 2], [0, 1])


def test_a_best_match_that_chance_may_have_given_is_none():
    values = np.array([[0.9, 0.1], [0.2, 0.3], [0.5, 0.6]])
    counts = {"low": values - 0.2, "chance": np.full(values.shape, 0.2)}
    expected = "1 of 1 layers of A with a best match above chance (100%)"
    assert path_of(values, **counts).startswith(expected)
    told = counts["low"] > counts["chance"]
    assert told.tolist() == [[True, False], [False, False], [True, True]]
    _, from_a, from_b = match_path(values, [0, 1, 2], [0, 1], (3, 2), False, told).data
    assert list(zip(from_a.x, from_a.y, strict=True)) == [(0, 0), (2, 1)]
    assert list(zip(from_b.x, from_b.y, strict=True)) == [(0, 0), (2, 1)]
    square = values[:2]
    dots, rings = drawn(square, is_told=told[:2]).data[-2:]
    assert (len(dots.x), len(rings.x)) == (1, 1)
    assert np.round([dots.y[0], dots.x[0]]).tolist() == [0, 0]


def test_on_a_black_page_low_values_are_dark_and_their_text_is_light():
    def light(colour):
        return sum(int(colour[place : place + 2], 16) for place in (1, 3, 5)) / 765

    for is_dark in (False, True):
        cells, *texts = drawn(np.array([[0.0, 1.0], [0.1, 0.9]]), is_dark=is_dark).data
        low, high = (light(cells.marker.colorscale[end][1]) for end in (0, -1))
        assert (low < 0.2 and high > 0.8) if is_dark else (low > 0.8 and high < 0.4)
        colour_of = {
            text: trace.textfont.color
            for trace in texts
            if trace.mode == "text"
            for text in trace.text
        }
        assert (light(colour_of["0.00"]) > 0.5) == is_dark
        assert (light(colour_of["1.00"]) > 0.5) != is_dark


def test_the_words_name_the_most_and_the_least_alike_pair_and_no_thing_with_itself():
    text = summary(ALIKE, ["a", "b", "c", "d"], ["a", "b", "c", "d"], is_same=True)
    assert "most alike are a and c (0.90)" in text
    assert "least alike a and d (0.10)" in text


def drawn(values, **look):
    names = [str(number) for number in range(len(values))]
    hovers = [["" for _ in row] for row in values]
    full = Look(0.0, 1.0, "", **look)
    return charts_similarity.matrix(values, names, names, ("", ""), hovers, full)


def test_names_of_models_reach_the_charts_as_text():
    name, safe = '<b>"m"</b> · layer 1', '&lt;b&gt;"m"&lt;/b&gt; · layer 1'
    values, names = ALIKE, [f"{name}{n}" for n in range(4)]
    hovers = [[f"{name}\n{name}"] * 4 for _ in range(4)]
    look = Look(0.0, 1.0, "", sides=(f"A: {name}",))
    figure = charts_similarity.matrix(values, names, names, ("", ""), hovers, look)
    assert list(figure.layout.yaxis.ticktext) == [f"{safe}{n}" for n in range(4)]
    below = [text.replace("<br>", " · ") for text in figure.layout.xaxis.ticktext]
    assert below == [f"{safe}{n}" for n in range(4)]
    assert figure.layout.title.text == f"A: {safe}"
    assert set(figure.data[0].hovertext) == {f"{safe}<br>{safe}"}
    tree = dendrogram(values, names)
    assert sorted(tree.layout.yaxis.ticktext) == [f"{safe}{n}" for n in range(4)]


def test_values_are_printed_where_they_can_be_read():
    small, large = np.full((16, 16), 0.5), np.full((17, 17), 0.5)
    assert sum(len(trace.text) for trace in drawn(small).data if trace.mode == "text") == 256
    assert not [trace for trace in drawn(large).data if trace.mode == "text"]


def test_a_cell_sends_back_its_row_and_column_as_a_list():
    cells = drawn(ALIKE).data[0]
    assert list(cells.customdata)[6] == [1, 2]


def test_best_matches_are_marked_by_shape_and_not_by_colour_alone():
    dots, rings = (trace for trace in drawn(ALIKE, but_itself=True).data if trace.mode == "markers"
                   and trace.marker.symbol in ("circle", "circle-open"))  # fmt: skip
    assert [round(y) for y in numbers(dots.y)] == [0, 1, 2, 3]
    assert [round(x) for x in numbers(dots.x)] == [2, 3, 0, 1]
    assert (dots.marker.symbol, rings.marker.symbol) == ("circle", "circle-open")


def test_a_table_comes_back_from_each_format_with_its_settings():
    table = pd.DataFrame({"row": ["a", "b"], "value": [0.25, NONE]})
    about = {"measure": "jaccard", "key": "token", "models": [{"id": "x"}]}
    csv = io.BytesIO(as_csv(table, for_spreadsheets=False))
    pd.testing.assert_frame_equal(pd.read_csv(csv), table)
    assert json.loads(as_settings(about)) == about
    parquet = pq.read_table(io.BytesIO(as_parquet(table, about)))
    pd.testing.assert_frame_equal(parquet.to_pandas(), table)
    assert json.loads(parquet.schema.metadata[b"about"]) == about
    content = json.loads(as_json(table, about))
    assert content["about"] == about
    assert content["rows"] == [{"row": "a", "value": 0.25}, {"row": "b", "value": None}]


def test_layers_in_a_row_are_told_as_one():
    assert layers_text((0, 1, 2, 5)) == "layers 0–2, 5"
    assert layers_text((7,)) == "layer 7"


def test_a_dictionary_from_a_folder_is_told_from_that_of_the_model(monkeypatch):
    from pages.components.similarity import model_groups

    config = TrainConfig(ModelSpec("tiny-6x128-0"), CorpusSpec("sotu"), (2,))
    configs = {"model": config, "folder": config.but(activations="/captured")}
    loaded = {name: SimpleNamespace(config=one) for name, one in configs.items()}
    monkeypatch.setattr(model_groups, "loaded_run", loaded.get)
    rows = [
        {"created": created, "directory": name, "run_id": name, "method": "coverage",
         "layer": 2, "n_layers": 6}
        for created, name in enumerate(configs)
    ]  # fmt: skip
    names = [group.name for group in model_groups.groups_of(pd.DataFrame(rows)).values()]
    assert names == ["tiny-6x128-0", "tiny-6x128-0 · from a folder of activations"]


def test_dictionaries_are_called_what_people_call_them(data):
    ids = run_ids(data, 64)
    keep_name(names_file(data / "runs"), ids[2], "war & <b>peace</b>")
    app = open_pair(row="2", column="1")
    assert any("“war & <b>peace</b>”" in label for label in app.selectbox(key="a").options)
    [heading] = [one.value for one in app.subheader]
    assert heading == "`A layer 2 “war & <b>peace</b>” and B layer 1`"
    assert any("Only A layer 2 “war" in tab.label for tab in app.tabs)
    app = open_page("similarity", view="models")
    named = [label for label in app.multiselect(key="models").options if label.startswith("“war")]
    assert len(named) == 1
    keep_name(names_file(data / "runs"), ids[2], "")
