"""What pages say of the jobs they offer: maps and comparisons under way, and those that failed."""

from dataclasses import replace

import pytest

from itda_core.runs.run import list_runs
from pages.components import explorer as explorer_module
from pages.components.text import literal
from tests.support.app import newest, open_page


@pytest.fixture
def queue(own_data, monkeypatch):
    """Of a data folder with two layers; nothing in it is ever started."""
    monkeypatch.setattr(explorer_module.JobQueue, "_start", lambda self, job: None)
    return explorer_module.explorer().queue


def fail(queue, job):
    queue._save(replace(job, state="failed", ended=1.0, error="Error: There is no model."))


def warnings(app):
    return [element.value for element in app.warning]


def labels(app, beginning):
    return [button.label for button in app.button if button.label.startswith(beginning)]


def captions(app):
    return [element.value for element in app.caption]


def test_a_map_under_way_is_not_offered_again_for_its_own_dictionary(own_data, queue):
    first, second = newest(own_data, 1), newest(own_data, 2)
    queue.submit_map(first)
    assert not labels(open_page("latents", run=first.run_id, view="map"), "Make the map")
    assert labels(open_page("latents", run=second.run_id, view="map"), "Make the map")


def test_a_map_that_failed_says_why_on_its_own_dictionary_and_is_offered_again(own_data, queue):
    first, second = newest(own_data, 1), newest(own_data, 2)
    fail(queue, queue.submit_map(first))
    app = open_page("latents", run=first.run_id, view="map")
    assert warnings(app) == [literal("The last map failed. There is no model.")]
    assert labels(app, "Make the map")
    assert not warnings(open_page("latents", run=second.run_id, view="map"))


def test_a_comparison_under_way_is_not_offered_again_for_its_own_measure(own_data, queue):
    queue.submit_comparison(list_runs(own_data / "runs"), ["cka", "svcca"])
    app = open_page("similarity", measure="svcca")
    assert "Computing them now." in captions(app)
    assert not labels(app, "Compute")
    app = open_page("similarity", measure="procrustes")
    assert "Computing them now." not in captions(app)
    assert len(labels(app, "Compute")) == 2


def test_a_comparison_that_failed_says_why_and_is_offered_again(own_data, queue):
    fail(queue, queue.submit_comparison(list_runs(own_data / "runs"), ["cka"]))
    app = open_page("similarity", measure="cka")
    assert literal("The last comparison failed. There is no model.") in warnings(app)
    assert len(labels(app, "Compute")) == 2
