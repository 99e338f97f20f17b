"""What pages say of the jobs they offer: maps and comparisons under way, and those that failed."""

import json
from dataclasses import replace

import pytest

from itda_core.jobs.places import Places
from itda_core.jobs.submissions import (
    submit_comparison,
    submit_evaluation,
    submit_map,
    submit_quick_evaluation,
    submit_scores,
)
from itda_core.progress import Progress
from itda_core.runs.run import list_runs
from pages.components import explorer as explorer_module
from pages.components.text import literal
from tests.support.app import button, newest, open_page
from tests.support.edited_runs import edited_copy


@pytest.fixture
def queue(own_data, monkeypatch):
    """Of a data folder with two layers; nothing in it is ever started, and the devices of the
    machine are known from the beginning, as they are to a page a moment later."""
    monkeypatch.setattr(explorer_module.JobQueue, "_start", lambda self, job: None)
    here = explorer_module.explorer().queue
    here._places = Places()
    return here


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
    submit_map(queue, first)
    assert not labels(open_page("latents", run=first.run_id, view="map"), "Make the map")
    assert labels(open_page("latents", run=second.run_id, view="map"), "Make the map")


def test_a_map_that_failed_says_why_on_its_own_dictionary_and_is_offered_again(own_data, queue):
    first, second = newest(own_data, 1), newest(own_data, 2)
    fail(queue, submit_map(queue, first))
    app = open_page("latents", run=first.run_id, view="map")
    assert warnings(app) == [literal("The last map failed. There is no model.")]
    assert labels(app, "Make the map")
    assert not warnings(open_page("latents", run=second.run_id, view="map"))


def toasts(app):
    return [one.value.replace("`", "") for one in app.toast]


@pytest.mark.parametrize(
    "name, view, label, title",
    [
        ("latents", {"view": "map"}, "Make the map", "Map of"),
        ("latents", {}, "Find strong uses", "Scores of"),
        ("evaluate", {}, "Evaluate", "Evaluation of"),
        ("evaluate", {}, "Quick run", "Quick evaluation of"),
        ("similarity", {"measure": "cka"}, "Compute (", "Comparison of"),
        ("train", {}, "Start training", "smollm2-135m on sotu"),
    ],
)
def test_what_a_click_queues_is_said_at_once_wherever_one_looks(queue, name, view, label, title):
    app = open_page(name, **view)
    assert not toasts(app)
    button(app, label).click().run()
    [told] = toasts(app)
    assert told.startswith(f"**{title}") and told.endswith("** starts now.")
    assert not toasts(app.run())


def test_what_is_queued_behind_another_job_says_so(queue):
    queue.enqueue("map", ["a"], "A")
    app = open_page("latents", view="map")
    button(app, "Make the map").click().run()
    assert toasts(app)[0].endswith("is queued: 1 ahead.")


def test_latents_show_the_jobs_about_their_own_dictionary(own_data, queue):
    first, second = newest(own_data, 1), newest(own_data, 2)
    submit_scores(queue, [first])
    assert labels(open_page("latents", run=first.run_id), "Cancel")
    assert not labels(open_page("latents", run=second.run_id), "Cancel")


def test_a_comparison_under_way_is_not_offered_again_for_its_own_measure(own_data, queue):
    job = submit_comparison(queue, list_runs(own_data / "runs"), ["cka", "svcca"])
    app = open_page("similarity", measure="svcca")
    queued = "Computing them is queued: its card says how many jobs are ahead."
    assert queued in captions(app)
    queue._save(replace(job, state="running", started=1.0))
    app = open_page("similarity", measure="svcca")
    assert "Computing them now." in captions(app)
    assert not labels(app, "Compute")
    app = open_page("similarity", measure="procrustes")
    assert "Computing them now." not in captions(app)
    assert len(labels(app, "Compute")) == 2


def test_a_comparison_that_failed_says_why_and_is_offered_again(own_data, queue):
    fail(queue, submit_comparison(queue, list_runs(own_data / "runs"), ["cka"]))
    app = open_page("similarity", measure="cka")
    assert literal("The last comparison failed. There is no model.") in warnings(app)
    assert len(labels(app, "Compute")) == 2


def test_evaluate_counts_what_is_queued_beside_what_is_not_evaluated(own_data, queue):
    first, second = newest(own_data, 1), newest(own_data, 2)
    submit_evaluation(queue, [first])
    app = open_page("evaluate", compare=f"{first.run_id},{second.run_id}")
    [told] = [one.value for one in app.markdown if "not evaluated yet" in one.value]
    assert told.startswith(
        "**1 of the chosen dictionaries is not evaluated yet, and 1 more is in the queue.**"
    )
    tags = app.multiselect(key="compare").options
    assert [tag.rsplit(" · ", 1)[1] for tag in tags] == ["in the queue", "not evaluated"]


def test_cards_stand_in_the_order_in_which_jobs_run(own_data, queue):
    """Running, then short ones (maps), then the others; by hand: C runs, B is short, A waits."""
    first = newest(own_data, 1)
    queue.enqueue("evaluate", ["a"], "A")
    submit_map(queue, first)
    running = queue.enqueue("evaluate", ["c"], "C")
    queue._save(replace(running, state="running", started=1.0))
    app = open_page("train")
    cards = [one.value.replace("`", "") for one in app.markdown]
    cards = [one for one in cards if one in ("**A**", "**C**") or one.startswith("**Map of")]
    assert [card[2:5] for card in cards] == ["C**", "Map", "A**"]
    told = [one for one in captions(app) if one.startswith("Queued")]
    assert told == ["Queued: 1 ahead.", "Queued: 2 ahead (short jobs go first)."]


def test_a_job_about_one_dictionary_is_called_by_what_tells_that_from_others(own_data, queue):
    run = newest(own_data, 1)
    edited_copy(run.directory, f"{run.run_id}-other", {"seed": 5})
    explorer_module.explorer().store.import_new(own_data / "runs")  # at once, not at the next look
    submit_scores(queue, [run])
    queue.enqueue("evaluate", [str(own_data / "elsewhere" / run.run_id)], "Another's evaluation")
    app = open_page("train")
    cards = [one.value.replace("`", "") for one in app.markdown]
    model = run.config.model.name.rsplit("/")[-1]
    assert f"**Scores of {model} · layer 1 · texts.jsonl · seed 0**" in cards
    assert "**Another's evaluation**" in cards  # a run of this name, but in another folder
    submit_quick_evaluation(queue, [run])
    cards = [one.value.replace("`", "") for one in open_page("train").markdown]
    assert f"**Quick evaluation of {model} · layer 1 · texts.jsonl · seed 0**" in cards


def test_a_job_from_elsewhere_shows_its_command_and_runs_once_it_is_let_in(own_data, queue):
    job = queue.enqueue("evaluate", ["<b>a</b>", "--save"], "A *job* of somebody")
    queue._save(replace(job, folder=""))
    app = open_page("train")
    assert any(one.value.startswith("This job was queued in another") for one in app.markdown)
    line = app.code[0].value
    assert line.startswith("python -P -m itda_core evaluate '<b>a</b>' --save --runs ")
    assert not [one for one in captions(app) if one.startswith("Queued")]
    button(app, "Let it run").click().run()
    assert not labels(app, "Let it run")
    assert "Queued: 0 ahead." in captions(app)
    assert not queue.is_from_elsewhere(queue.jobs()[0])


def test_a_job_that_changed_since_it_was_shown_is_not_let_in_by_a_click(own_data, queue):
    job = queue.enqueue("evaluate", ["a"], "A job of somebody")
    queue._save(replace(job, folder=""))
    app = open_page("train")
    queue._save(replace(job, folder="", arguments=("b",)))
    button(app, "Let it run").click().run()
    assert queue.is_from_elsewhere(queue.jobs()[0])
    assert "evaluate b --runs" in app.code[0].value
    button(app, "Let it run").click().run()
    assert not queue.is_from_elsewhere(queue.jobs()[0])


def test_a_job_from_elsewhere_is_nothing_that_is_under_way(own_data, queue):
    first = newest(own_data, 1)
    for job in (submit_map(queue, first), submit_scores(queue, [first])):
        queue._save(replace(job, folder=""))
    assert labels(open_page("latents", run=first.run_id, view="map"), "Make the map")
    assert not labels(open_page("latents", run=first.run_id), "Let it run")
    assert labels(open_page("train"), "Let it run") == ["Let it run"] * 2


def test_of_a_job_that_has_come_to_its_end_nothing_can_be_cancelled(own_data, queue):
    job = queue.enqueue("evaluate", ["a"], "A")
    queue._save(replace(job, state="running", started=1.0))
    progress = json.dumps(Progress("done", fraction=1.0).to_dict())
    (queue.folder / job.job_id / "progress.jsonl").write_text(f"{progress}\n")
    app = open_page("train")
    assert app.get("progress")[0].proto.text == "Done"
    assert not labels(app, "Cancel")
