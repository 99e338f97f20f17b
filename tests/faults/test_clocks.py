"""A clock that is put back or forward, also between two writes, loses nothing that a person or a
job wrote: of two things the later written counts, whatever the clock says."""

import copy
import shutil

import pytest

from itda_core.evaluation.batch import EvaluationTask, measure_runs
from itda_core.jobs import queue as jobs
from itda_core.jobs.measured import measured
from itda_core.runs.comparisons import read_comparisons, save_comparisons
from itda_core.runs.labels import LABELS_FILE, Change, Label
from itda_core.runs.results import read_evaluation, save_evaluation
from itda_core.runs.run import list_runs
from pages.components.explorer import Explorer
from tests.support.clocks import put_clock

CLOCKS = [(0, -1, -2, -1.5), (0, 1, -1, 30), (0, -9_000, 9_000, 0)]
"""Hours by which the clock is wrong, one write after another"""
clocks = pytest.mark.parametrize("hours", CLOCKS, ids=str)


@pytest.fixture
def explorer(tmp_path, runs_folder, monkeypatch):
    monkeypatch.setattr(jobs, "_POLL_SECONDS", 3_600.0)
    shutil.copytree(runs_folder, tmp_path / "data" / "runs")
    opened = Explorer(tmp_path / "data")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory, runs_folder):
    """What an evaluation of the first run found."""
    run = list_runs(shutil.copytree(runs_folder, tmp_path_factory.mktemp("evaluated") / "runs"))[0]
    list(measure_runs(EvaluationTask((run,), max_tokens=80, save=True)))
    return read_evaluation(run)


def source(run):
    row = run.dictionary().sources.iloc[3]
    return run.run_id, 3, row["prompt_id"], int(row["position"])


def shown(explorer, run):
    """The label and the note of latent 3."""
    row = explorer.store.labels.of_latent(run.run_id, 3).iloc[:1]
    return [(one.label, one.note) for one in row.itertuples()]


@clocks
def test_what_a_person_wrote_last_is_shown(explorer, monkeypatch, hours):
    run = list_runs(explorer.runs_folder)[0]
    texts = ["first", "second", "", "last"]
    explorer.keep_changes([Change(Label(*source(run), note="kept"), ("note",))])
    for hour, text in zip(hours, texts, strict=True):
        put_clock(monkeypatch, hour)
        explorer.keep_changes([Change(Label(*source(run), text), ("label",))])
        assert shown(explorer, run) == [(text, "kept")]
    explorer.rebuild()
    assert shown(explorer, run) == [("last", "kept")]


@clocks
def test_so_it_is_where_the_file_was_lost_in_between(explorer, monkeypatch, hours):
    run = list_runs(explorer.runs_folder)[0]
    for hour, text in zip(hours, ["first", "second", "third", "last"], strict=True):
        put_clock(monkeypatch, hour)
        explorer.keep_changes([Change(Label(*source(run), text), ("label",))])
        assert shown(explorer, run) == [(text, "")]
        (explorer.data / LABELS_FILE).unlink()
    explorer.keep_changes([Change(Label(*source(run), note="new"), ("note",))])
    assert shown(explorer, run) == [("last", "new")]


@clocks
def test_so_it_is_where_the_newest_line_was_lost_in_between(explorer, monkeypatch, hours):
    run = list_runs(explorer.runs_folder)[0]
    file = explorer.data / LABELS_FILE
    for hour, text in zip(hours, ["first", "second", "third", "last"], strict=True):
        put_clock(monkeypatch, hour)
        explorer.keep_changes([Change(Label(*source(run), text), ("label",))])
        file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-1]))
        explorer.store.import_new(explorer.runs_folder)
        assert shown(explorer, run) == [(text, "")]


@clocks
def test_of_two_comparisons_the_later_made_counts(tmp_path, monkeypatch, hours):
    """Also where they lie in two files, since one compared more layers."""
    for number, hour in enumerate(hours):
        put_clock(monkeypatch, hour)
        pairs = [("one", "two"), ("one", "three")][: 1 + number % 2]
        about = {"measure": "cka", "reason": "", "tokens": 9, "unit": "token"}
        rows = [{**about, "a": a, "b": b, "value": number / 8} for a, b in pairs]
        save_comparisons(tmp_path, rows)
        table, failed = read_comparisons(tmp_path)
        assert failed is None
        assert table.set_index("b")["value"]["two"] == number / 8


@clocks
def test_an_evaluation_that_is_made_again_is_taken_in(explorer, evaluation, monkeypatch, hours):
    run = list_runs(explorer.runs_folder)[0]
    result, seen = copy.deepcopy(evaluation), set()
    for number, hour in enumerate(hours):
        put_clock(monkeypatch, hour)
        result["by_l0"] = [row | {"fvu": number / 8} for row in result["by_l0"]]
        save_evaluation(run, result)
        explorer.store.import_new(explorer.runs_folder)
        assert explorer.store.runs.evaluations()["fvu"].unique() == [number / 8]
        seen.add(explorer.store.runs.state())
    assert len(seen) == len(hours), "pages draw anew what they show"


@clocks
def test_jobs_keep_their_order_and_tell_no_negative_times(explorer, monkeypatch, hours):
    titles = []
    for hour in hours:
        put_clock(monkeypatch, hour)
        titles.append(f"job {hour}")
        explorer.queue.enqueue("map", [titles[-1]], titles[-1])
    listed = explorer.queue.jobs()
    assert [job.title for job in listed] == titles
    assert [job.title for job in jobs.in_turn(listed)] == titles
    explorer.queue.cancel(listed[0].job_id)
    resumed = explorer.queue.resume(listed[0].job_id)
    assert explorer.queue.jobs()[-1].job_id == resumed.job_id
    took = [measured(job, explorer.queue.folder / job.job_id) for job in explorer.queue.jobs()]
    assert took == [None] * len(took)
