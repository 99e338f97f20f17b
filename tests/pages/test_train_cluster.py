"""A list of trainings, and a Ray cluster to train on, on the Train page."""

import json

import pytest

from itda_core.jobs.queue import JobQueue
from pages.components.explorer import explorer
from tests.support.app import assert_no_failure, button, open_page

LIST = '[[training]]\nmodel = "tiny-6x128-0"\nlayers = 2\nseed = [0, 1]'


@pytest.fixture
def page(empty, monkeypatch):
    monkeypatch.setattr(JobQueue, "_start", lambda self, job: None)
    return open_page("train")


def texts(elements):
    return " ".join(one.value.replace("`", "") for one in elements)


def test_a_training_goes_to_the_cluster_that_is_typed(page):
    assert "on this machine" in texts(page.caption)
    page.text_input(key="ray").input("nowhere").run()
    assert "A Ray cluster is named auto" in texts(page.warning)
    assert button(page, "Start training").disabled
    page.text_input(key="ray").input("head:6379").run()
    assert_no_failure(page)
    assert "on this machine alone" in texts(page.caption)
    assert "What the cluster takes is not known here." in texts(page.caption)
    button(page, "Start training").click().run()
    [job] = explorer().queue.jobs()
    assert (job.ray, job.device) == ("head:6379", "any")


def test_a_list_is_one_job_whose_card_says_what_runs_where(page):
    page.button_group(key="source").set_value("list").run()
    assert button(page, "Start trainings").disabled
    page.text_area(key="list_text").input(LIST.replace("2", "99999999999")).run()
    assert "The list, training 1: layers must be at most" in texts(page.warning)
    page.text_area(key="list_text").input(LIST).run()
    page.text_input(key="ray").input("auto").run()
    assert_no_failure(page)
    assert "2 trainings. One that fails costs no other" in texts(page.caption)
    told = "2. tiny-6x128-0, layer 2, seed 1: up to 65,536 tokens of sotu, 2,048 atoms, L0 32, "
    assert f"{told}coverage" in texts(page.caption)
    assert "on this machine alone, one after another, and up to" in texts(page.caption)
    button(page, "Start trainings").click().run()
    queue = explorer().queue
    [job] = queue.jobs()
    assert [config.seed for config in queue.configs(job)] == [0, 1]
    row = {"title": "tiny-6x128-0, layer 2, seed 0", "error": "", "stage": "training"}
    rows = [
        {**row, "number": 1, "state": "running", "where": "gpu-7", "fraction": 0.25},
        {**row, "number": 2, "state": "failed", "where": "", "fraction": 1.0},
    ]
    line = {"stage": "training", "fraction": 0.6, "seconds_left": None, "total_tokens": 0}
    folder = queue.folder / job.job_id
    (folder / "progress.jsonl").write_text(json.dumps({**line, "trainings": rows}))
    fields = json.loads((folder / "job.json").read_text())
    (folder / "job.json").write_text(json.dumps({**fields, "state": "running", "started": 1.0}))
    again = open_page("train")
    told = "0 of 2 trainings done · 1 failed · tiny-6x128-0, layer 2, seed 0 on gpu-7: 25%"
    assert told in texts(again.caption)


def test_a_folder_of_activations_is_not_sent_to_a_cluster(page):
    page.button_group(key="source").set_value("folder").run()
    page.text_input(key="ray").input("auto").run()
    assert "A folder of activations is read by one machine" in texts(page.warning)
