"""The form of a new training: what was typed stays, and what it has queued is said beside it."""

from itda_core.runs.run import list_runs
from pages.components import explorer as explorer_module
from tests.support.app import newest, open_page


def test_what_was_typed_outlasts_a_look_at_a_list_of_trainings(empty):
    app = open_page("train")
    typed = {"train_max_tokens": "4000", "train_max_atoms": "256", "train_l0": "16"}
    for key, value in typed.items():
        app.text_input(key=key).set_value(value).run()
    app.selectbox(key="model").set_value("tiny-6x128-0").run()
    app.selectbox(key="site").set_value("mlp_out").run()
    app.multiselect(key="layers_tiny-6x128-0").set_value([4]).run()
    app.button_group(key="source").set_value("list").run()
    assert not app.text_input(key="memory").value
    assert "train_l0" not in [field.key for field in app.text_input]
    app.button_group(key="source").set_value("model").run()
    assert {key: app.text_input(key=key).value for key in typed} == typed
    assert app.selectbox(key="model").value == "tiny-6x128-0"
    assert app.selectbox(key="site").value == "mlp_out"
    assert app.multiselect(key="layers_tiny-6x128-0").value == [4]
    app.text_input(key="ray").set_value("auto").run()
    app.button_group(key="corpus_kind").set_value("Hub or path").run()
    app.text_input(key="corpus_column").set_value("story").run()
    app.switch_page("pages/latents.py").run()
    app.switch_page("pages/train.py").run()
    typed |= {"ray": "auto", "corpus_column": "story"}
    assert {key: app.text_input(key=key).value for key in typed} == typed


def test_what_was_started_is_said_beside_the_button_while_it_is_active(empty, monkeypatch):
    monkeypatch.setattr(explorer_module.JobQueue, "_watch", lambda _queue: None)  # starts nothing
    app = open_page("train")
    assert not app.success
    app.selectbox(key="model").set_value("tiny-6x128-0").run()
    next(button for button in app.button if button.label == "Start training").click().run()
    [told] = [one.value.replace("`", "") for one in app.success]
    assert told == (
        "**tiny-6x128-0 on sotu, layers 1, 2, 3** is queued. Its progress is at the top of this "
        "page."
    )
    app.text_input(key="train_seed").set_value("5").run()
    assert app.success
    queue = explorer_module.explorer().queue
    [job] = queue.jobs()
    queue.cancel(job.job_id)
    app.run()
    assert not app.success


def test_the_list_of_dictionaries_links_to_their_latents_and_says_atoms_and_l0(data):
    app, run = open_page("train"), newest(data, 2)
    links = [one.proto for one in app.get("page_link") if one.proto.label == "Browse its latents"]
    assert [f"run={one.run_id}" for one in list_runs(data / "runs")] == [
        link.query_string for link in links
    ]
    told = [one.value.replace("`", "") for one in app.caption]
    about = f"{run.metrics['atoms']:,} atoms · L0 {run.config.l0} · {run.config.selection} · "
    assert any(one.startswith(about) for one in told)
    assert any(f"held-out FVU {run.metrics['fvu']:.3f}" in one for one in told)


def test_no_past_training_is_said_of_these_pages_alone(data):
    app = open_page("train")
    assert "None that was started on these pages, or all are forgotten." in [
        one.value for one in app.caption
    ]


def test_the_estimate_says_what_it_is_made_of(data):
    app = open_page("train")
    [estimate] = [one for one in app.caption if "on this machine" in one.value]
    assert "Whatever else computes here makes both longer" in estimate.help
