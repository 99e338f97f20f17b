"""The queue on a machine with several devices: one job on each, and never two."""

import json
import stat
import threading
import time
from types import SimpleNamespace

import pytest

from itda_core.errors import InputError
from itda_core.jobs import process as process_module
from itda_core.jobs import queue as queue_module
from itda_core.jobs.job import Job
from itda_core.jobs.queue import JobQueue
from tests.support.fake_devices import pretend_gpus
from tests.support.trained_runs import tiny_config
from tests.support.waiting import ended, now, wait_until


@pytest.fixture(autouse=True)
def quick_polling(monkeypatch):
    monkeypatch.setattr(queue_module, "_POLL_SECONDS", 0.05)


@pytest.fixture
def open_queue(tmp_path, monkeypatch):
    """A queue whose jobs run until a file of their first argument's name is there."""
    opened = []

    def opening():
        program = tmp_path / "stand-in"
        script = f'echo "$@"; while [ ! -e "{tmp_path}/$5" ]; do sleep 0.05; done'
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(process_module.sys, "executable", str(program))
        opened.append(JobQueue(tmp_path / "jobs", tmp_path / "runs"))
        return opened[-1]

    yield opening
    for queue in opened:
        queue.close()


@pytest.fixture
def gpus(monkeypatch):
    return pretend_gpus(monkeypatch)


def evaluation(queue, name, device="any"):
    return queue.enqueue("evaluate", [name], name, device=device)


def running(queue):
    return {job.title: job.place for job in queue.jobs() if job.state == "running"}


def wait_for(queue, expected):
    wait_until(lambda: running(queue) == expected, 10)


def test_each_gpu_gets_one_job_and_the_next_one_the_gpu_that_is_free_first(
    open_queue, gpus, tmp_path
):
    queue = open_queue()
    jobs = [evaluation(queue, name) for name in "abcd"]
    wait_for(queue, {"a": "cuda:1", "b": "cuda:0"})  # most memory is free on the second
    assert [now(queue, job).state for job in jobs[2:]] == ["queued", "queued"]
    (tmp_path / "b").touch()
    wait_for(queue, {"a": "cuda:1", "c": "cuda:0"})
    (tmp_path / "a").touch()
    wait_for(queue, {"d": "cuda:1", "c": "cuda:0"})


def test_the_process_is_told_its_device(open_queue, gpus):
    queue = open_queue()
    job, chart = evaluation(queue, "a", "cuda:0"), queue.enqueue("map", ["b"], "b", device="cpu")
    wait_for(queue, {"a": "cuda:0", "b": "cpu"})
    assert wait_until(lambda: queue.log(job)).split()[-2:] == ["--device", "cuda:0"]
    assert "--device" not in wait_until(lambda: queue.log(chart))  # a map takes none


def test_a_job_waits_for_the_device_it_names_and_keeps_no_other_waiting(open_queue, gpus, tmp_path):
    queue = open_queue()
    evaluation(queue, "a", "cuda:1")
    waits = evaluation(queue, "b", "cuda:1")
    evaluation(queue, "c")
    wait_for(queue, {"a": "cuda:1", "c": "cuda:0"})
    assert now(queue, waits).state == "queued"
    (tmp_path / "a").touch()
    wait_for(queue, {"b": "cuda:1", "c": "cuda:0"})


def test_a_device_that_is_not_there_fails_with_those_that_are(open_queue, gpus):
    queue = open_queue()
    job = evaluation(queue, "a", "cuda:7")
    failed = wait_until(lambda: ended(queue, job))
    assert failed.state == "failed"
    assert failed.error.startswith("There is no device 'cuda:7' here. There is: cuda:0, cuda:1")


def test_a_resumed_job_takes_its_device_again_else_another_of_its_kind(open_queue, gpus):
    queue = open_queue()
    job = evaluation(queue, "a", "cuda:0")
    wait_for(queue, {"a": "cuda:0"})
    queue.cancel(job.job_id)
    wait_until(lambda: ended(queue, job))
    again = queue.resume(job.job_id)
    wait_for(queue, {"a": "cuda:0"})
    queue.cancel(again.job_id)
    wait_until(lambda: ended(queue, again))
    evaluation(queue, "b", "cuda:0")
    wait_for(queue, {"b": "cuda:0"})
    queue.resume(again.job_id)
    wait_for(queue, {"b": "cuda:0", "a": "cuda:1"})


def test_the_same_work_is_not_done_on_two_devices_at_once(
    open_queue, gpus, tmp_path, tiny_model_folder, tiny_corpus_file
):
    """As where a training goes on whose process still writes its checkpoint."""
    queue = open_queue()
    first, second = evaluation(queue, "a"), evaluation(queue, "a")
    config = tiny_config(tiny_model_folder, tiny_corpus_file)
    queue.submit(config)
    queue.submit(config)
    wait_until(lambda: len(running(queue)) == 2)
    assert [job.state for job in queue.jobs()] == ["running", "queued", "running", "queued"]
    queue.cancel(queue.jobs()[2].job_id)
    (tmp_path / "a").touch()
    wait_until(lambda: ended(queue, first) and ended(queue, second))


def test_what_ran_when_the_app_ended_goes_on_where_it_was(open_queue, gpus):
    queue = open_queue()
    for name in "ab":
        evaluation(queue, name)
    wait_for(queue, {"a": "cuda:1", "b": "cuda:0"})
    queue.close()
    assert {job.state for job in queue.jobs()} == {"queued"}
    next_queue = open_queue()
    wait_for(next_queue, {"a": "cuda:1", "b": "cuda:0"})
    queue.close()  # once more
    assert running(next_queue) == {"a": "cuda:1", "b": "cuda:0"}


def test_with_one_gpu_one_job_runs_at_a_time(open_queue, monkeypatch, tmp_path):
    pretend_gpus(monkeypatch, free=(5,))
    queue = open_queue()
    evaluation(queue, "a")
    evaluation(queue, "b")
    wait_for(queue, {"a": "cuda:0"})
    time.sleep(4 * queue_module._POLL_SECONDS)  # time to start the other one too
    assert running(queue) == {"a": "cuda:0"}
    (tmp_path / "a").touch()
    wait_for(queue, {"b": "cuda:0"})


def test_until_the_devices_are_known_one_job_runs_where_it_goes_without_saying(
    open_queue, gpus, monkeypatch
):
    here = queue_module.sys
    monkeypatch.setattr(queue_module, "sys", SimpleNamespace(modules={}, stderr=here.stderr))
    queue = open_queue()
    first = evaluation(queue, "a")
    evaluation(queue, "b")
    evaluation(queue, "c", "cpu")
    wait_for(queue, {"a": ""})
    assert "--device" not in queue.log(first)
    monkeypatch.setattr(queue_module, "sys", here)  # torch is there
    wait_for(queue, {"a": "", "b": "cuda:1", "c": "cpu"})  # "a" took the first one


def test_what_an_earlier_app_left_running_is_not_joined_until_the_devices_are_known(
    open_queue, gpus, monkeypatch
):
    earlier = open_queue()
    evaluation(earlier, "a", "cuda:0")
    wait_for(earlier, {"a": "cuda:0"})
    earlier._closed.set()  # the app is gone, the job is not
    earlier._thread.join()
    here = queue_module.sys
    monkeypatch.setattr(queue_module, "sys", SimpleNamespace(modules={}, stderr=here.stderr))
    looks = []
    queue = JobQueue(earlier.folder, earlier.runs, on_change=lambda: looks.append(1))
    evaluation(queue, "b")
    wait_until(lambda: len(looks) > 5)
    assert running(queue) == {"a": "cuda:0"}
    monkeypatch.setattr(queue_module, "sys", here)
    wait_for(queue, {"a": "cuda:0", "b": "cuda:1"})
    queue.close()


def test_the_pages_need_not_wait_while_a_gpu_is_opened(open_queue, gpus, monkeypatch):
    opening, opened = threading.Event(), threading.Event()

    def slow(_name):
        opening.set()
        assert opened.wait(10)
        return 1

    monkeypatch.setattr(queue_module, "free_bytes", slow)
    queue = open_queue()
    job = evaluation(queue, "a")
    assert opening.wait(10)
    queue.cancel(job.job_id)  # takes the lock
    assert now(queue, job).state == "cancelled"
    opened.set()
    evaluation(queue, "b")
    wait_until(lambda: "b" in running(queue))
    assert "a" not in running(queue)


def test_what_a_job_waits_for_is_known(open_queue, gpus, monkeypatch):
    queue = open_queue()
    evaluation(queue, "a", "cuda:1")
    wait_for(queue, {"a": "cuda:1"})
    same, taken, _, last = (
        evaluation(queue, name, device)
        for name, device in (("a", "cuda:0"), ("b", "cuda:1"), ("c", "cuda"), ("d", "any"))
    )
    wait_for(queue, {"a": "cuda:1", "c": "cuda:0"})
    assert queue.waits_for(same) == "the same work, which is under way"
    assert queue.waits_for(taken) == "a free cuda:1"
    assert queue.waits_for(last) == ""
    assert [queue.ahead(job) for job in (same, taken, last)] == [1, 1, 4]
    again = evaluation(queue, "e", "cuda")
    assert queue.waits_for(again) == "a free cuda"
    monkeypatch.setattr(queue, "_known_places", lambda **_: None)
    monkeypatch.setattr(queue, "_places", None)
    early = evaluation(queue, "f", "cpu")
    assert queue.waits_for(early) == "the devices of this machine to be looked up"


def test_a_job_of_a_version_before_devices_may_run_on_any(open_queue, gpus, tmp_path):
    directory = tmp_path / "jobs" / "00001"
    directory.mkdir(parents=True)
    old = Job("00001", "queued", "a", 1.0, command="evaluate", arguments=("a",)).__dict__
    fields = {name: value for name, value in old.items() if name not in ("device", "place")}
    (directory / "job.json").write_text(json.dumps(fields))
    queue = open_queue()
    queue.let_in(queue.jobs()[0])  # it does not say in which folder it was queued
    wait_for(queue, {"a": "cuda:1"})


LIST = '[[training]]\nmodel = ["tiny-6x128-0", "tiny-6x128-1"]\nlayers = 2\nseed = [0, 1]'


@pytest.mark.parametrize("is_here_first", [True, False])
def test_the_same_work_is_not_done_here_and_on_a_cluster(open_queue, monkeypatch, is_here_first):
    """Whether the two are queued one after the other or start in one look at the list."""
    queue = open_queue()
    step = queue._step
    monkeypatch.setattr(queue, "_step", lambda: False)
    one = queue.submit_list(LIST, ray="" if is_here_first else "auto")
    if is_here_first:
        step()
    other = queue.submit_list(LIST, ray="auto" if is_here_first else "")
    step()
    assert [now(queue, job).state for job in (one, other)] == ["running", "queued"]
    assert queue.waits_for(other) == "the same work, which is under way"


def test_a_job_on_a_cluster_takes_no_device_and_waits_for_none(
    open_queue, tmp_path, tiny_model_folder, tiny_corpus_file
):
    queue = open_queue()
    on_cluster = queue.submit(tiny_config(tiny_model_folder, tiny_corpus_file), ray="head:6379")
    here = queue.submit_list(LIST)
    listed = queue.submit_list(f"{LIST}\nmax_atoms = 999", memory=2**30, ray="auto")
    jobs = on_cluster, here, listed
    wait_until(lambda: {now(queue, job).state for job in jobs} == {"running"}, 10)
    assert "--ray head:6379" in wait_until(lambda: queue.log(on_cluster))
    told = wait_until(lambda: queue.log(listed)).split()
    assert told[told.index("--ray") + 1] == "auto"
    assert told[-2:] == ["--memory", f"{2**30}B"]
    file = told[told.index("--list") + 1]
    assert file == str(queue.folder / listed.job_id / "list.toml")
    assert "--ray" not in wait_until(lambda: queue.log(here))
    assert "--config" not in told
    where = [now(queue, job).where for job in jobs]
    assert where == ["the Ray cluster head:6379", "", "this machine's Ray cluster"]


def test_a_list_of_a_job_is_kept_when_it_goes_on(open_queue):
    queue = open_queue()
    job = queue.submit_list(LIST, ray="auto")
    assert job.title == "4 trainings of tiny-6x128-0, tiny-6x128-1"
    told = [(config.model.name, config.seed) for config in queue.configs(job)]
    assert told == [("tiny-6x128-0", 0), ("tiny-6x128-0", 1),
                    ("tiny-6x128-1", 0), ("tiny-6x128-1", 1)]  # fmt: skip
    assert queue.config(job) is None
    wait_until(lambda: running(queue))
    queue.cancel(job.job_id)
    wait_until(lambda: ended(queue, job))
    again = queue.resume(job.job_id)
    assert (again.ray, queue.configs(again)) == ("auto", queue.configs(job))


def test_a_list_with_an_error_is_no_job(open_queue):
    queue = open_queue()
    with pytest.raises(InputError, match="The list, training 1 lacks layers"):
        queue.submit_list("[[training]]")
    assert not queue.jobs()
