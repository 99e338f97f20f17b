"""Sparse probing, on the Evaluate page by AppTest."""

from dataclasses import replace

import pytest
from streamlit.testing.v1 import AppTest

from itda_core.config import CorpusSpec
from itda_core.jobs.submissions import submit_probing
from itda_core.runs.results import read_probing, save_probing
from pages.components import explorer as explorer_module
from pages.components import job_panel
from pages.components.evaluate import probing
from pages.components.evaluate.probing import accuracies
from pages.components.text import literal
from tests.support.app import assert_no_failure, button, newest, open_page
from tests.support.edited_runs import edit_about
from tests.support.fake_devices import pretend_gpus


@pytest.fixture
def data(evaluated_data):
    return evaluated_data


@pytest.fixture
def labelled(data):
    """Two evaluated runs that were made of the built-in corpus, by what they say."""
    for layer in (1, 2):
        corpus = {"name": "sotu", "column": None}
        edit_about(newest(data, layer).directory, {"corpus": corpus})
        assert newest(data, layer).config.corpus == CorpusSpec("sotu")
    return data


@pytest.fixture
def submitted(monkeypatch):
    """The runs whose probing is asked for, instead of starting it."""
    asked = []
    submit = lambda _queue, runs, _device: asked.append([run.run_id for run in runs])  # noqa: E731
    monkeypatch.setattr(probing, "submit_probing", submit)
    return asked


def row(features, k, accuracy, chosen=()):
    names = {one: f" word{one}" if features == "latents" else None for one in chosen}
    return {
        "task": "party",
        "positive": "Republican",
        "negative": "Democratic",
        "features": features,
        "k": k,
        "accuracy": accuracy,
        "low": accuracy - 0.05,
        "high": accuracy + 0.05,
        "chosen": [
            {"feature": one, "difference": 0.25 * (-1) ** one, "folds": 5, "token": token}
            for one, token in names.items()
        ],
    }


ROWS = [
    row("latents", 1, 0.55, [4]),
    row("latents", 2, 0.57, [4, 7]),
    row("latents", 5, 0.625, [4, 7, 2, 9, 11]),
    row("latents", "all", 0.75),
    row("activations", 1, 0.52, [3]),
    row("activations", 2, 0.53, [3, 5]),
    row("activations", 5, 0.56, [3, 5, 1, 0, 8]),
    row("activations", "all", 0.76),
]
RESULT = {
    "tokens": 13_000,
    "seconds": 60.0,
    "measured_on": {"corpus": "sotu", "held_out": True, "prompts": 1_200},
    "results": ROWS,
}


def links(app):
    return [element.proto for element in app.get("page_link") if "→" in element.proto.label]


def test_accuracies_stand_by_label_and_number_with_their_intervals():
    table = accuracies(ROWS)
    assert table.columns.tolist() == ["label", "features", "1", "2", "5", "all"]
    assert table.to_numpy().tolist() == [
        ["party: Republican or Democratic", "latents",
         "55 % (50–60)", "57 % (52–62)", "62 % (57–68)", "75 % (70–80)"],
        ["party: Republican or Democratic", "components of the activation",
         "52 % (47–57)", "53 % (48–58)", "56 % (51–61)", "76 % (71–81)"],
    ]  # fmt: skip


def test_a_result_is_a_table_and_links_to_the_latents_that_were_taken(labelled, submitted):
    run = newest(labelled, 2)
    save_probing(run, RESULT)
    app = open_page("evaluate", run=run.run_id)
    assert app.dataframe[1].value.equals(accuracies(ROWS))
    assert any("1,200 held-out prompts of sotu" in one.value for one in app.caption)
    found = links(app)
    assert [link.label for link in found] == [
        f"`word{one}` → `{'Republican' if one % 2 == 0 else 'Democratic'}`"
        for one in (4, 7, 2, 9, 11)
    ]
    assert found[1].query_string == f"run={run.run_id}&latent=7"
    button(app, "Probe again (about").click().run()
    assert submitted == [[run.run_id]]
    app.selectbox(key="evaluated_run").set_value(newest(labelled, 1).run_id).run()
    assert_no_failure(app)
    assert len(app.dataframe) == 1
    assert not links(app)


def test_a_newer_result_takes_the_place_of_the_one_that_is_shown(labelled):
    run = newest(labelled, 1)
    save_probing(run, RESULT)
    app = open_page("evaluate", run=run.run_id)
    save_probing(run, {**RESULT, "results": ROWS[:4]})
    app.run()
    assert app.dataframe[1].value.equals(accuracies(ROWS[:4]))


def test_without_a_result_the_page_offers_to_probe(labelled, submitted):
    app = open_page("evaluate", run=newest(labelled, 2).run_id)
    assert len(app.dataframe) == 1
    button(app, "Probe (about").click().run()
    assert_no_failure(app)
    assert submitted == [[newest(labelled, 2).run_id]]


def test_a_probing_takes_the_device_that_is_chosen(labelled, monkeypatch):
    pretend_gpus(monkeypatch)
    monkeypatch.setattr(explorer_module.JobQueue, "_start", lambda self, job: None)
    monkeypatch.setattr("itda_core.jobs.operations.product_speed", lambda *_about: 1e13)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda _name: (7, 5))
    app = open_page("evaluate", run=newest(labelled, 2).run_id)
    app.selectbox(key="probing_device").set_value("cuda:0").run()
    button(app, "Probe (about").click().run()
    assert [job.device for job in explorer_module.explorer().queue.jobs()] == ["cuda:0"]


def test_what_waits_to_be_probed_is_not_offered_again_but_may_be_evaluated(labelled, monkeypatch):
    run = newest(labelled, 2)
    monkeypatch.setattr(explorer_module.JobQueue, "_start", lambda self, job: None)
    submit_probing(explorer_module.explorer().queue, [run])
    app = open_page("evaluate", run=run.run_id)
    assert not any(one.label.startswith("Probe") for one in app.button)
    assert any("is queued" in one.value for one in app.caption)
    app = open_page("evaluate", run=newest(labelled, 1).run_id)
    assert any(one.label.startswith("Probe (") for one in app.button)
    (run.directory / "evaluation.json").unlink()
    explorer_module.explorer().store.import_new(labelled / "runs")
    app = open_page("evaluate", compare=run.run_id)
    assert any(one.label.startswith("Evaluate (") for one in app.button)


def test_a_probing_that_failed_says_why_on_its_own_dictionary(labelled):
    run = newest(labelled, 2)
    queue = explorer_module.explorer().queue
    job = queue.enqueue("probe", [str(run.directory.resolve()), "--save"], "Probing nothing")
    queue._save(replace(job, state="failed", ended=1.0, error="Error: There is no model."))
    app = AppTest.from_file("../../app.py", default_timeout=60)
    app.query_params["run"] = run.run_id
    app.switch_page("pages/evaluate.py").run()
    expected = literal("The last probing failed. There is no model.")
    assert [one.value for one in app.warning] == [expected]
    assert "Past probings" in [one.value for one in app.subheader]
    app.selectbox(key="evaluated_run").set_value(newest(labelled, 1).run_id).run()
    assert not app.warning


def test_a_corpus_without_labels_is_a_sentence(data):
    app = open_page("evaluate", run=newest(data, 1).run_id)
    assert any("has no labels to ask for" in one.value for one in app.info)
    assert not any(one.label.startswith("Probe") for one in app.button)


def test_a_dictionary_made_elsewhere_is_not_probed_on_what_it_may_be_made_of(labelled):
    run = newest(labelled, 2)
    edit_about(run.directory, origin="published")
    app = open_page("evaluate", run=run.run_id)
    assert any("made elsewhere" in one.value for one in app.info)
    assert not any(one.label.startswith("Probe") for one in app.button)


def test_a_damaged_result_is_a_sentence_and_can_be_made_anew(labelled, submitted):
    run = newest(labelled, 1)
    save_probing(run, {**RESULT, "results": [{}]})
    app = open_page("evaluate", run=run.run_id)
    assert any("is damaged" in one.value for one in app.warning)
    button(app, "Probe (about").click().run()
    assert submitted == [[run.run_id]]
    assert read_probing(newest(labelled, 2)) is None


def test_the_stages_of_a_probing_are_told_in_words():
    assert {"loading", "reading", "averaging", "probing", "done"} <= set(job_panel._STAGES)
