"""What is measured after a training is kept with the run, whole, and read back or refused."""

import json
import shutil

import pytest

from itda_core.errors import ItdaError, RunError
from itda_core.evaluation.batch import EvaluationTask, measure_runs
from itda_core.runs.results import (
    EVALUATION_FILE,
    PROBING_FILE,
    read_evaluation,
    read_probing,
    save_evaluation,
    save_probing,
)
from itda_core.runs.run import list_runs, read_run


@pytest.fixture
def run(runs_folder, tmp_path):
    shutil.copytree(runs_folder, tmp_path / "runs")
    return list_runs(tmp_path / "runs")[0]


@pytest.fixture
def result(run):
    *_, last = measure_runs(EvaluationTask((run,), max_tokens=50))
    return last.results[0]


def test_what_is_saved_is_read_back_and_the_run_stays_whole(run, result):
    assert read_evaluation(run) is None
    path = save_evaluation(run, result)
    assert path == run.directory / "evaluation.json"
    kept = read_evaluation(run)
    assert {name: kept[name] for name in result} == result
    assert read_run(run.directory) == run
    save_evaluation(run, {**result, "seconds": 1.5})
    again = read_evaluation(run)
    assert again["seconds"] == 1.5
    assert again["created"] > kept["created"]
    assert not list(run.directory.glob(".evaluation*"))


@pytest.mark.parametrize("content", [b"", b"[]", b'{"created": 5}', b'{"created": "soon"}'])
def test_whatever_is_there_is_replaced(run, result, content):
    (run.directory / EVALUATION_FILE).write_bytes(content)
    save_evaluation(run, result)
    kept = read_evaluation(run)
    assert {name: kept[name] for name in result} == result


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "damaged"),
        (b"\xff\xfe", "damaged"),
        (b"[]", "damaged"),
        (b"{}", "damaged"),
        (b'{"version": 1, "by_l0": []}', "it does not say created, density"),
        (b'{"version": 99}', "newer version"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_refused_with_the_remedy(run, content, words):
    (run.directory / EVALUATION_FILE).write_bytes(content)
    with pytest.raises(RunError, match=words) as caught:
        read_evaluation(run)
    if "newer" not in words:
        assert f"itda_core evaluate {run.run_id} --save" in str(caught.value)


def test_rows_without_an_fvu_are_refused(run, result):
    path = save_evaluation(run, result)
    content = json.loads(path.read_text())
    del content["by_l0"][1]["fvu"]
    path.write_text(json.dumps(content))
    with pytest.raises(RunError, match="a row does not say its L0 and FVU"):
        read_evaluation(run)


# Probing


def probe_row(k, **changes):
    chosen = [{"feature": 3, "difference": -0.5, "folds": 5, "token": " treaty"}]
    return {
        "task": "party", "positive": "Republican", "negative": "Democratic", "features": "latents",
        "k": k, "accuracy": 0.6, "low": 0.5, "high": 0.7, "chosen": chosen, **changes,
    }  # fmt: skip


@pytest.fixture
def probed():
    return {
        "run_id": "x",
        "tokens": 70,
        "seconds": 1.5,
        "measured_on": {"corpus": "sotu", "held_out": True, "prompts": 9},
        "results": [probe_row(1), probe_row("all", chosen=[])],
    }


def test_a_probing_is_read_back_and_stands_beside_the_evaluation(run, result, probed):
    assert read_probing(run) is None
    save_evaluation(run, result)
    evaluated = read_evaluation(run)
    assert save_probing(run, probed) == run.directory / "probing.json"
    kept = read_probing(run)
    assert {name: kept[name] for name in probed} == probed
    assert set(kept) - set(probed) == {"version", "created"}
    assert read_evaluation(run) == evaluated
    assert read_run(run.directory) == run
    assert not list(run.directory.glob(".probing*"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "damaged"),
        (b"\xff\xfe", "damaged"),
        (b"[]", "damaged"),
        (b'{"version": 1, "results": []}', "it does not say created, measured_on"),
        (b'{"version": 99}', "newer version"),
    ],
)
def test_a_damaged_probing_is_refused_with_the_remedy(run, content, words):
    (run.directory / PROBING_FILE).write_bytes(content)
    with pytest.raises(RunError, match=words) as caught:
        read_probing(run)
    if "newer" not in words:
        assert f"itda_core probe {run.run_id} --save" in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"k": 1}], "a row does not say what was asked"),
        ([probe_row(1, accuracy=None)], "a number is none"),
        ([probe_row(1, high="1")], "a number is none"),
        ([probe_row(1, chosen=[{"feature": 1, "difference": 0.1, "folds": 5}])], "token"),
        (
            [probe_row(1, chosen=[{"feature": 1, "difference": 0.1, "folds": 5, "token": None}])],
            "a latent has no token",
        ),
        ([None], "damaged"),
        (None, "damaged"),
    ],
)
def test_rows_that_can_not_be_shown_are_refused(run, probed, rows, words):
    save_probing(run, {**probed, "results": rows})
    with pytest.raises(RunError, match=words):
        read_probing(run)


def test_a_folder_that_can_not_be_written_to_is_a_sentence(run, result, monkeypatch):
    def refuse(*_arguments):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("itda_core.runs.results.write_sealed", refuse)
    with pytest.raises(ItdaError, match="can't be written to"):
        save_evaluation(run, result)


def test_one_model_serves_several_runs_and_progress_goes_up(run, monkeypatch):
    from itda_core.evaluation import batch as evaluating

    loaded = []
    load = evaluating.load_model
    monkeypatch.setattr(
        evaluating, "load_model", lambda spec, **place: loaded.append(spec) or load(spec, **place)
    )
    runs = tuple(list_runs(run.directory.parent))
    steps = [
        (step.stage, step.run_id, step.fraction, step.seconds_left)
        for step in measure_runs(EvaluationTask(runs, max_tokens=60))
    ]
    assert loaded == [run.config.model]
    fractions = [fraction for _, _, fraction, _ in steps]
    assert fractions == sorted(fractions)
    assert steps[-1] == ("done", runs[-1].run_id, 1, 0)
    stages = list(dict.fromkeys((stage, run_id) for stage, run_id, *_ in steps))
    assert stages[:3] == [(stage, runs[0].run_id) for stage in ("loading", "reading", "evaluating")]
    assert all(left >= 0 for stage, *_, left in steps if stage == "evaluating")
