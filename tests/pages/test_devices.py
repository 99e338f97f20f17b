"""The choice of a device on the pages, what fits there, and where a job runs."""

import re
from dataclasses import replace

import pytest
import torch

from itda_core.config import CorpusSpec, ModelSpec, TrainConfig
from itda_core.jobs import operations
from itda_core.model import data_types
from itda_core.model.sites import Sites
from itda_core.pursuit import gram
from itda_core.runs.workspace import Workspace
from pages.components import explorer as explorer_module
from pages.components.text import literal
from pages.components.train import needs, site
from tests.support.app import button, close_explorer, newest, open_page
from tests.support.fake_devices import pretend_gpus


@pytest.fixture
def nothing_starts(monkeypatch):
    monkeypatch.setattr(explorer_module.JobQueue, "_start", lambda self, job: None)


@pytest.fixture
def two_gpus(monkeypatch, nothing_starts):
    """Without bfloat16, 20 and 22 GiB free, and a speed for each."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _name: (7, 5))
    monkeypatch.setattr(operations, "product_speed", lambda *_about: 1e13)
    data_types._is_bfloat16_faster.cache_clear()
    yield pretend_gpus(monkeypatch)
    data_types._is_bfloat16_faster.cache_clear()


@pytest.fixture
def train(data_folder):
    yield lambda: open_page("train")
    close_explorer()


def captions(app):
    return " ".join(one.value for one in app.caption).replace("`", "")


def test_with_the_cpu_alone_there_is_a_line_and_nothing_to_choose(train, nothing_starts):
    app = train()
    assert not [one for one in app.selectbox if one.key == "device"]
    assert "Device: CPU" in captions(app)
    assert "on this machine" in captions(app)
    assert re.search(r"It fits: \S+ GB of \S+ GB free\.", captions(app))
    button(app, "Start training").click().run()
    [job] = explorer_module.explorer().queue.jobs()
    assert (job.device, job.place) == ("any", "")


def test_a_training_takes_the_memory_that_is_typed_and_says_how_the_model_is_read(
    train, nothing_starts, monkeypatch
):
    app = train()
    field = app.text_input(key="memory")
    assert field.label == "Memory that may be used"
    assert field.placeholder.endswith(" GB, what is free")
    assert "block by block" not in captions(app)
    field.set_value("200MB").run()
    assert "is larger than the memory that may be used, and is read block by block" in captions(app)
    assert not app.warning
    button(app, "Start training").click().run()
    app.text_input(key="memory").set_value("2MB").run()
    assert "Even block by block the model takes" in app.warning[0].value
    assert button(app, "Start training").disabled
    app.text_input(key="memory").set_value("8").run()
    told = [one.value for one in app.warning]
    assert told == [
        literal("Memory that may be used must be a size such as 8GiB or 500MB, got '8'.")
    ]
    assert button(app, "Start training").disabled
    app.text_input(key="memory").set_value("").run()
    button(app, "Start training").click().run()
    jobs = explorer_module.explorer().queue.jobs()
    assert [job.memory for job in jobs] == [200_000_000, None]
    monkeypatch.setenv("ITDA_MEMORY", "3GB")
    assert app.run().text_input(key="memory").placeholder == "3.0 GB, as ITDA_MEMORY says"


def test_a_place_within_a_block_is_asked_of_a_model_that_will_be_read_block_by_block(
    train, nothing_starts, monkeypatch
):
    """Where that has been proved to lack it, with the reason: the same model in memory may not."""
    lacking = Sites(reasons={"mlp_out": "block 3 is made of other modules"})
    monkeypatch.setattr(
        site, "remembered_sites", lambda _model, _device, memory: memory and lacking
    )
    app = train()
    app.selectbox(key="site").set_value("mlp_out").run()
    assert not app.warning
    assert not button(app, "Start training").disabled
    app.text_input(key="memory").set_value("200MB").run()
    assert "block 3 is made of other modules" in app.warning[0].value
    assert button(app, "Start training").disabled
    app.selectbox(key="site").set_value("resid_pre").run()
    assert "not tried" in app.warning[0].value
    app.selectbox(key="site").set_value("resid_post").run()
    assert not button(app, "Start training").disabled
    monkeypatch.setattr(site, "remembered_sites", lambda *_: None)
    app.selectbox(key="site").set_value("mlp_out").run()
    assert not app.warning
    assert not button(app, "Start training").disabled


def test_what_was_stopped_goes_on_with_the_memory_that_stands_in_the_form(
    train, nothing_starts, data_folder
):
    """From the command line, say: its job is in no list that would know."""
    spec = ModelSpec("smollm2-135m", dtype="float32")
    config = TrainConfig(spec, CorpusSpec("sotu"), (7,), site="mlp_out")
    with Workspace(data_folder / "runs", "smollm2-135m-00000000").locked(config):
        pass
    app = train()
    app.text_input(key="memory").set_value("2").run()
    assert button(app, "Resume").disabled
    assert any(one.value.endswith("layer 7 mlp_out`") for one in app.markdown)
    app.text_input(key="memory").set_value("200MB").run()
    button(app, "Resume").click().run()
    [job] = explorer_module.explorer().queue.jobs()
    assert job.memory == 200_000_000


def test_a_training_that_an_entry_of_the_list_leads_to_is_not_listed_twice(
    train, nothing_starts, data_folder
):
    """The training has written down what the job left open: its data type, and how the file is
    read."""
    app = train()
    queue = explorer_module.explorer().queue
    config = TrainConfig(ModelSpec("smollm2-135m"), CorpusSpec("texts.csv"), (7,))
    job = queue.submit(config)
    queue.cancel(job.job_id)
    corpus = CorpusSpec("texts.csv", encoding="utf-16")
    begun = replace(config.with_dtype("float32"), corpus=corpus)
    with Workspace(data_folder / "runs", "smollm2-135m-00000000").locked(begun):
        pass
    app.run()
    assert [one.key for one in app.button if one.label == "Resume"] == [f"resume_{job.job_id}"]
    queue.forget(job.job_id)
    app.run()
    assert [one.key for one in app.button if one.label == "Resume"] == [
        "go_on_smollm2-135m-00000000"
    ]


def test_a_training_takes_any_gpu_or_the_one_that_is_chosen(train, two_gpus):
    app = train()
    assert app.selectbox(key="device").options == [
        "the GPU that is free", "cuda:0: Fake GPU, 25.8 GB", "cuda:1: Fake GPU, 25.8 GB",
        next(one for one in app.selectbox(key="device").options if one.startswith("cpu: CPU")),
    ]  # fmt: skip
    # Most memory is free on the second one: 22 GiB are 23.6 GB.
    assert "on cuda:1 (Fake GPU)" in captions(app)
    assert "of 23.6 GB free on cuda:1." in captions(app)
    button(app, "Start training").click().run()
    app.selectbox(key="device").set_value("cuda:0").run()
    assert "of 21.5 GB free on cuda:0." in captions(app)
    button(app, "Start training").click().run()
    jobs = explorer_module.explorer().queue.jobs()
    assert [job.device for job in jobs] == ["any", "cuda:0"]


def test_what_does_not_fit_is_said_with_the_remedy(train, two_gpus, monkeypatch):
    app = train()
    app.text_input(key="train_max_atoms").set_value("60000").run()  # 4 · 60,000² is 14.4 GB
    assert not app.warning  # such a GPU does without a Gram matrix
    monkeypatch.setattr(gram, "product_traffic", lambda *_: 1_000.0)
    app.run()
    assert "The Gram matrix of so many atoms" in app.warning[0].value
    assert "14.4 GB" in app.warning[0].value
    for name, gpu in two_gpus.items():
        two_gpus[name] = replace(gpu, free=10**9)
    app.run()
    assert "This may not fit into cuda" in app.warning[0].value
    assert "Choose bfloat16" in app.warning[0].value
    assert "It fits" not in captions(app)
    monkeypatch.setattr(needs, "resolved_dtype", lambda *_: torch.bfloat16)  # what "auto" comes to
    assert "Choose fewer layers or atoms" in app.run().warning[0].value


def test_a_gpu_that_cannot_be_opened_is_said_to_be_and_closes_no_page(train, two_gpus):
    for name in two_gpus:
        two_gpus[name] = replace(two_gpus[name], total=0, free=0, trouble="CUDA error: busy")
    app = train()
    assert not app.exception
    assert app.selectbox(key="device").options[1] == "cuda:0: can't be opened"
    told = " ".join(one.value for one in app.warning)
    assert "The device cuda" in told
    assert "can't be opened: CUDA error" in told


def test_evaluate_is_there_where_a_gpu_cannot_be_opened(own_data, two_gpus):
    for name in two_gpus:
        two_gpus[name] = replace(two_gpus[name], total=0, free=0, trouble="CUDA error: busy")
    app = open_page("evaluate", runs=newest(own_data, 1).run_id)
    assert not app.exception
    assert not app.error
    assert button(app, "Evaluate")


def test_the_setting_comes_first(train, two_gpus, monkeypatch):
    monkeypatch.setenv("ITDA_DEVICE", "cpu")
    options = train().selectbox(key="device").options
    assert options[0].startswith("cpu: ")
    assert len(options) == 3


def test_the_panel_says_where_a_job_runs_and_what_one_waits_for(train, two_gpus):
    queue = explorer_module.explorer().queue
    running = queue.enqueue("evaluate", ["a"], "A", device="cuda:1")
    queue._save(replace(running, state="running", place="cuda:1", pid=None))
    queue.enqueue("evaluate", ["b"], "B", device="cuda:1")
    app = train()
    assert "Queued: 1 ahead, waiting for a free cuda:1 (short jobs go first)." in captions(app)
    assert app.get("progress")[0].proto.text == "Starting on `cuda:1`"


def test_measuring_takes_the_device_that_is_chosen(own_data, two_gpus):
    names = [newest(own_data, layer).run_id for layer in (1, 2)]
    for page, key, label in (
        ("evaluate", "evaluation_device", "Evaluate"),
        ("similarity", "comparison_device", "Compute"),
    ):
        query = {"measure": "cka"} if page == "similarity" else {"runs": ",".join(names)}
        app = open_page(page, **query)
        app.selectbox(key=key).set_value("cuda:0").run()
        button(app, label).click().run()
    jobs = explorer_module.explorer().queue.jobs()
    assert [(job.kind, job.device) for job in jobs] == [
        ("evaluation", "cuda:0"), ("comparison", "cuda:0")
    ]  # fmt: skip
