"""A dictionary is moved from the Train page, and says where it is from."""

import json
import shutil
from dataclasses import replace

import pytest

from itda_core.config import ModelSpec
from itda_core.jobs.queue import JobQueue
from itda_core.model import model_info
from itda_core.runs.run import list_runs
from itda_core.training.moving import move, move_config
from pages.components.explorer import explorer
from pages.components.train import moving
from tests.support.app import (
    assert_no_failure,
    close_explorer,
    dictionaries,
    newest,
    open_page,
)
from tests.support.tiny_models import save_tiny_model


@pytest.fixture(scope="module")
def other_model(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("other") / "tiny-other", seed=3)


@pytest.fixture
def opened(data, other_model, monkeypatch):
    """The form of the run of layer 1, and what was submitted from it."""
    there = [{"model": str(other_model), "where": "", "description": ""}]
    monkeypatch.setattr(model_info, "known_models", lambda: there)
    submitted = []
    monkeypatch.setattr(moving, "submit_move", lambda _queue, *given: submitted.append(given))
    run, page = newest(data, 1), open_page("train")
    page.button(key=f"move_{run.run_id}").click().run()
    assert_no_failure(page)
    return run, page, submitted


def told(page):
    return " ".join(one.value for one in (*page.caption, *page.warning)).replace("`", "")


def test_the_form_says_what_it_costs_and_submits_where_to(opened, other_model):
    run, page, submitted = opened
    assert page.button(key="move_now").disabled
    assert "Choose at least one layer" in told(page), "of its own model none is"
    own = f"move_layers_{run.config.model.name}"
    page.multiselect(key=own).set_value([1]).run()
    assert "It is of layer 1 already" in told(page)
    page.selectbox(key="move_model").set_value(str(other_model)).run()
    assert_no_failure(page)
    assert page.multiselect(key=f"move_layers_{other_model}").value == [1]
    explored = run.metrics["explored_tokens"]
    assert f"reads the {explored:,} explored tokens and 0 others" in told(page)
    assert "About " in told(page)
    page.multiselect(key=f"move_layers_{other_model}").set_value([1, 3]).run()
    page.button(key="move_now").click().run()
    assert_no_failure(page)
    assert not [one for one in page.button if one.key == "move_now"], "the form is closed"
    expected = move_config(run, ModelSpec(str(other_model)), [1, 3])
    assert submitted == [(run, expected, "any", None)]


def test_a_moved_dictionary_says_where_it_is_from(own_data, other_model):
    first = newest(own_data, 1)
    runs = own_data / "runs"
    *_, last = move(first, ModelSpec(str(other_model), dtype="float32"), [2], runs)
    [moved] = [run for run in list_runs(runs) if run.run_id in last.finished]
    page = open_page("train")
    links = [one.proto.label.replace("`", "") for one in page.get("page_link")]
    assert f"Moved from {first.config.moved_from or 'tiny-llama layer 1'}" in links
    assert "moved from tiny-llama layer 1" in told(page)
    table = dictionaries(open_page("overview"))
    methods = dict(zip(table["run_id"], table["method"], strict=True))
    assert methods[moved.run_id] == "moved from tiny-llama layer 1"
    assert methods[first.run_id] == first.method
    close_explorer()
    shutil.rmtree(first.directory)
    page = open_page("train")
    assert f"tiny-llama layer 1 ({first.run_id}, which is no longer here)" in told(page)
    assert_no_failure(open_page("latents", run=moved.run_id))


def test_a_move_that_is_over_leads_to_what_it_made(own_data, monkeypatch):
    monkeypatch.setattr(JobQueue, "_start", lambda _self, _job: None)
    queue, made = explorer().queue, newest(own_data, 2).run_id
    job = queue.enqueue("move", ["from"], "A move")
    line = {"stage": "done", "fraction": 1.0, "finished": [made, "deleted-since"]}
    (queue.folder / job.job_id / "progress.jsonl").write_text(json.dumps(line) + "\n")
    queue._save(replace(job, state="done", ended=1.0))
    app = open_page("train")
    assert_no_failure(app)
    links = [one.proto for one in app.get("page_link") if one.proto.label.startswith("Browse ")]
    links = [one for one in links if one.label != "Browse its latents"]  # of each dictionary
    assert ["layer 2" in one.label for one in links] == [True]
    assert [one.query_string for one in links] == [f"run={made}"]
