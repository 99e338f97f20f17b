"""What is wrong with one job's files costs that job alone, and is named."""

import json
import math
import os
import shutil

import pytest

from itda_core.jobs.kept import KeptJobs, listed_jobs
from itda_core.jobs.queue import JobQueue
from itda_core.progress import Progress
from itda_core.runs.interrupted import interrupted_trainings
from itda_core.runs.training_lock import holder_of, is_held

DEEP = "[" * 100_000
GOOD = {"job_id": "00001", "state": "done", "title": "a job", "created": 1.0, "command": "map"}
BAD = ["", "null", "[]", "{}", DEEP, '{"a":' * 50_000, "\xff\xfe", "NaN", '{"job_id": "00001"}']


@pytest.fixture
def folder(tmp_path):
    """Two jobs that are whole, with their progress."""
    for job_id in ("00001", "00002"):
        (tmp_path / "jobs" / job_id).mkdir(parents=True)
        said = {**GOOD, "job_id": job_id}
        (tmp_path / "jobs" / job_id / "job.json").write_text(json.dumps(said))
        line = json.dumps({"stage": "mapping", "fraction": 0.5})
        (tmp_path / "jobs" / job_id / "progress.jsonl").write_text(f"{line}\n")
    return tmp_path / "jobs"


@pytest.mark.parametrize("content", BAD)
def test_a_damaged_job_is_named_and_costs_no_other(folder, content):
    path = folder / "00001" / "job.json"
    path.write_bytes(content.encode("latin-1"))
    jobs, [error] = listed_jobs(folder)
    assert [job.job_id for job in jobs] == ["00002"]
    assert str(path) in str(error)
    assert "elete" not in str(error)


def test_any_value_in_any_field_is_read_or_named(folder):
    path = folder / "00001" / "job.json"
    for name in [*GOOD, "pid", "arguments", "memory", "ended"]:
        for value in [None, True, -1, 10**400, 1e308, "", "\ud800", [], [[]], {}, [3], ["\ud800"]]:
            path.write_text(json.dumps({**GOOD, name: value}))
            jobs, errors = listed_jobs(folder)
            assert "00002" in [job.job_id for job in jobs]
            assert len(jobs) + len(errors) == 2


@pytest.mark.parametrize("name", ["created", "started", "ended", "pid", "memory"])
@pytest.mark.parametrize("value", [10**400, 2**63, 1e308, -1, math.inf, math.nan])
def test_a_number_that_no_time_or_process_has_costs_its_job_alone(folder, tmp_path, name, value):
    said = {**GOOD, "started": 2.0, "ended": 3.0, "pid": 4, "memory": 5, name: value}
    path = folder / "00001" / "job.json"
    path.write_text(json.dumps(said))
    queue = JobQueue(folder, tmp_path / "runs")
    try:
        assert [job.job_id for job in queue.jobs()] == ["00002"]
        assert str(path) in str(queue.damaged()[0])
    finally:
        queue.close()


@pytest.mark.parametrize("name", ["tokens", "total_tokens", "tokens_per_second", "seconds_left"])
def test_progress_of_more_than_64_bits_is_passed_over(name):
    line = {"stage": "training", "fraction": 0.5, name: 2**63}
    assert Progress.read_line(json.dumps(line).encode()) is None
    assert Progress.read_line(json.dumps({**line, name: 2**63 - 1}).encode())[name] == 2**63 - 1


def test_a_folder_in_place_of_the_file_is_named(folder):
    (folder / "00001" / "job.json").unlink()
    (folder / "00001" / "job.json").mkdir()
    jobs, [error] = listed_jobs(folder)
    assert len(jobs) == 1
    assert "job.json" in str(error)


@pytest.mark.parametrize(
    "line",
    [
        *(b"\xff\xfe\x00", b"null", DEEP.encode(), b'{"stage": 3}', b"1e999", b""),
        *(b'{"fraction": "x"}', b'{"stage": "done", "fraction": 7}'),
        *(b'{"stage": "x", "finished": [3]}', b'{"stage": "x", "atoms": {"1": "many"}}'),
        *(b'{"stage": "x", "trainings": [4]}', b'{"stage": "x", "trainings": [{"title": 1}]}'),
    ],
)
def test_a_bad_line_of_progress_is_passed_over(folder, tmp_path, line):
    path = folder / "00001" / "progress.jsonl"
    path.write_bytes(path.read_bytes() + line + b"\n")
    queue = JobQueue(folder, tmp_path / "runs")
    try:
        [first, second] = queue.jobs()
        assert queue.progress(second)["fraction"] == 0.5
        assert queue.progress(first)["stage"] == "mapping"
    finally:
        queue.close()
    assert Progress.read_line(line) is None


@pytest.mark.parametrize("name", ["progress.jsonl", "log.txt", "config.json"])
def test_what_is_no_file_beside_a_job_closes_nothing(folder, tmp_path, name):
    (folder / "00001" / name).unlink(missing_ok=True)
    (folder / "00001" / name).mkdir()
    queue = JobQueue(folder, tmp_path / "runs")
    try:
        for job in queue.jobs():
            queue.progress(job)
            queue.log(job)
            queue.config(job)
            queue.configs(job)
    finally:
        queue.close()


@pytest.mark.parametrize("content", [b"null", b"", b"\xff", b"[[[["])
def test_a_lock_and_a_holder_of_any_content_are_no_obstacle(tmp_path, content):
    folder = tmp_path / ".training-1"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    for name in ("lock", "holder"):
        (folder / name).write_bytes(content)
    assert not is_held(folder)
    assert isinstance(holder_of(folder), str)
    assert interrupted_trainings(tmp_path) == {}
    shutil.rmtree(folder)


@pytest.mark.parametrize("name", ["²", "9" * 200, "-1", "1_0", "notes"])
def test_a_folder_of_another_name_keeps_no_job_from_being_queued(tmp_path, name):
    jobs = KeptJobs(tmp_path)
    assert jobs.enqueue("map", ["a"], "one").job_id == "00001"
    (tmp_path / name).mkdir()
    assert jobs.enqueue("map", ["a"], "two").job_id == "00002"


def test_of_a_log_without_end_only_the_end_is_read(tmp_path):
    jobs = KeptJobs(tmp_path)
    job = jobs.enqueue("map", ["a"], "one")
    assert jobs.log(job) == ""
    with (tmp_path / job.job_id / "log.txt").open("wb") as file:
        file.truncate(2**40)
        file.seek(0, 2)
        file.write("\nwhat it failed of: é\n".encode())
    assert jobs.log(job).endswith("\nwhat it failed of: é\n")
    assert len(jobs.log(job)) <= 2**18


@pytest.mark.parametrize("name", ["list.toml", "config.json", "progress.jsonl", "log.txt"])
def test_a_pipe_among_the_files_of_a_job_is_not_waited_for(tmp_path, name):
    jobs = KeptJobs(tmp_path)
    job = jobs.enqueue("train", [], "one")
    os.mkfifo(tmp_path / job.job_id / name)
    assert jobs.configs(job) == []
    assert jobs.config(job) is None
    assert jobs.progress(job) is None
    assert jobs.log(job) == ""
    assert jobs._work(job)[:2] == ("train", ())


def test_of_a_progress_that_is_one_line_without_end_nothing_is_read(tmp_path):
    jobs = KeptJobs(tmp_path)
    job = jobs.enqueue("map", ["a"], "one")
    with (tmp_path / job.job_id / "progress.jsonl").open("wb") as file:
        file.truncate(2**40)
    assert jobs.progress(job) is None
