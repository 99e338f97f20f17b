"""Jobs of the queue: one at a time, watched, cancelled, resumed, taken over after a crash."""

import errno
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from itda_core.config import CorpusSpec, ModelSpec, TrainConfig
from itda_core.errors import InputError, ItdaError
from itda_core.jobs import kept
from itda_core.jobs import queue as jobs_module
from itda_core.jobs.folder_mark import folder_mark
from itda_core.jobs.queue import JobQueue
from itda_core.jobs.submissions import (
    submit_evaluation,
    submit_latent_comparison,
    submit_map,
    submit_probing,
    submit_scores,
)
from itda_core.progress import Progress
from itda_core.runs.interrupted import interrupted_trainings
from itda_core.runs.latent_scores import SCORES_FILE
from itda_core.runs.results import read_evaluation
from itda_core.runs.run import list_runs
from tests.support.stand_in import stand_in
from tests.support.trained_runs import assert_same_runs, long_config, tiny_config, trained
from tests.support.waiting import ended, now, wait_until


@pytest.fixture(autouse=True, scope="module")
def quick_polling():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs_module, "_POLL_SECONDS", 0.05)
        yield


# With real trainings


@pytest.fixture(scope="module")
def story(tmp_path_factory, tiny_model_folder, tiny_texts):
    """A long training is cancelled half-way, one fails, one is cancelled before its turn, and the
    first is resumed. What was seen on the way is told to the tests."""
    folder = tmp_path_factory.mktemp("jobs")
    config = long_config(folder, tiny_model_folder, tiny_texts)
    told, most_active = [], []
    queue = JobQueue(folder / "jobs", folder / "runs", on_change=lambda: told.append(1))
    first = queue.submit(config)
    failing = queue.submit(tiny_config(tiny_model_folder, folder / "no such file.txt"))
    never = queue.submit(replace(config, seed=5))

    def watch(true):
        def watched():
            most_active.append(sum(job.state == "running" for job in queue.jobs()))
            return true()

        return wait_until(watched)

    queue.cancel(never.job_id)
    progress = watch(lambda: (queue.progress(first) or {}).get("tokens") and queue.progress(first))
    while_running = queue.jobs()
    queue.cancel(first.job_id)
    cancelled = watch(lambda: ended(queue, first))
    left = interrupted_trainings(folder / "runs")
    failed = watch(lambda: ended(queue, failing))
    resumed = queue.resume(first.job_id)
    done = watch(lambda: ended(queue, resumed))
    yield SimpleNamespace(**locals())
    queue.close()


def test_jobs_wait_in_order_while_one_runs(story):
    assert [job.state for job in story.while_running] == ["running", "queued", "cancelled"]
    assert [job.job_id for job in story.while_running] == [
        story.first.job_id, story.failing.job_id, story.never.job_id
    ]  # fmt: skip
    assert max(story.most_active) == 1
    assert story.cancelled.ended <= story.failed.started
    assert story.failed.ended <= story.done.started
    assert len(story.told) > 5


def test_the_progress_of_a_running_job_can_be_read(story):
    assert story.progress["stage"] == "training"
    assert 0 < story.progress["tokens"] < story.progress["total_tokens"]
    assert 0 < story.progress["fraction"] < 1
    assert "Training: " in story.queue.log(story.first)
    assert story.while_running[0].pid
    assert story.while_running[0].started


def test_a_job_cancelled_in_the_queue_never_starts(story):
    job = now(story.queue, story.never)
    assert (job.state, job.started) == ("cancelled", None)
    assert story.queue.progress(job) is None
    assert story.queue.log(job) == ""


def test_a_job_cancelled_half_way_keeps_its_checkpoint(story):
    assert story.cancelled.state == "cancelled"
    assert story.cancelled.pid is None
    assert list(story.left.values()) == [story.config]


def test_a_job_that_fails_says_why(story):
    assert story.failed.state == "failed"
    assert "There is no file" in story.failed.error
    assert "no such file.txt" in story.failed.error
    assert story.failed.error in story.queue.log(story.failing)


def test_a_resumed_job_gives_the_runs_of_an_uninterrupted_one(story, tmp_path):
    assert story.done.state == "done", story.queue.log(story.done)
    assert story.done.error == ""
    assert story.queue.config(story.done) == story.config
    stages = [
        json.loads(line)["stage"]
        for line in (story.folder / "jobs" / story.done.job_id / "progress.jsonl")
        .read_text()
        .splitlines()
    ]
    assert stages[-1] == "done"
    assert interrupted_trainings(story.folder / "runs") == {}
    trained(story.config, tmp_path)
    assert len(list_runs(tmp_path)) == 1
    assert_same_runs(story.folder / "runs", tmp_path)


def test_an_evaluation_is_a_job_whose_result_is_kept_with_the_run(story):
    [run] = list_runs(story.folder / "runs")
    job = submit_evaluation(story.queue, [run])
    ended_job = wait_until(lambda: ended(story.queue, job))
    assert ended_job.state == "done", story.queue.log(job)
    assert story.queue.progress(job)["stage"] == "done"
    assert story.queue.progress(job)["run_id"] == run.run_id
    assert story.queue.config(job) is None
    kept = read_evaluation(run)
    assert kept["by_l0"][-1]["fvu"] == pytest.approx(run.metrics["fvu"], rel=1e-4)
    assert job.title == f"Evaluation of {run.config.model.name} on long.txt, layer 1"
    story.queue.forget(job.job_id)


def test_a_probing_is_a_job_that_says_so_and_why_it_failed(story):
    [run] = list_runs(story.folder / "runs")
    job = submit_probing(story.queue, [run])
    assert (job.command, job.arguments) == ("probe", (str(run.directory.resolve()), "--save"))
    assert job.title == f"Probing {run.config.model.name} on long.txt, layer 1"
    ended_job = wait_until(lambda: ended(story.queue, job))
    assert ended_job.state == "failed"  # the texts of the tiny training have no labels
    assert "no labels" in ended_job.error
    assert story.queue.progress(job)["stage"] == "reading"
    story.queue.forget(job.job_id)


def test_an_ended_job_can_be_forgotten(story):
    job = story.queue.submit(replace(story.config, seed=6))
    story.queue.cancel(job.job_id)
    wait_until(lambda: ended(story.queue, job))
    story.queue.forget(job.job_id)
    assert now(story.queue, job) is None
    for use in (story.queue.forget, story.queue.cancel, story.queue.resume):
        with pytest.raises(ItdaError, match="There is no job"):
            use(job.job_id)


# With a stand-in for the training process, for what needs no training


def test_the_number_of_a_forgotten_job_is_no_other_jobs(open_queue, config):
    """A page that was drawn before would cancel that one."""
    queue = open_queue("exec sleep 60")
    running, last = queue.submit(config), queue.submit(replace(config, seed=1))
    queue.cancel(last.job_id)
    queue.forget(last.job_id)
    other = queue.submit(replace(config, seed=2))
    assert other.job_id not in (running.job_id, last.job_id)
    with pytest.raises(ItdaError, match="There is no job"):
        queue.cancel(last.job_id)
    assert now(queue, other).state == "queued"


@pytest.mark.parametrize("name", ["a-copy", "99999999999"])
def test_a_job_whose_folder_has_another_name_is_forgotten_like_others(open_queue, config, name):
    queue = open_queue()
    (queue.folder / name).mkdir()
    job = jobs_module.Job(name, "done", "a title", 1.0, started=2.0, ended=3.0)
    (queue.folder / name / "job.json").write_text(json.dumps(job.__dict__))
    queue.forget(name)
    assert queue.jobs() == []
    assert list(queue.folder.iterdir()) == []
    assert [queue.submit(replace(config, seed=seed)).job_id for seed in (1, 2)] == [
        "00001",
        "00002",
    ]


@pytest.fixture
def config(tiny_model_folder, tiny_corpus_file):
    return tiny_config(tiny_model_folder, tiny_corpus_file)


@pytest.fixture
def open_queue(tmp_path, monkeypatch):
    """Opens queues whose jobs run a shell script instead; all are closed in the end."""
    opened = []

    def opening(script="exit 0", **options):
        program = tmp_path / "stand-in"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(jobs_module.sys, "executable", str(program))
        opened.append(JobQueue(tmp_path / "jobs", tmp_path / "runs", **options))
        return opened[-1]

    yield opening
    for queue in opened:
        queue.close()


def test_a_process_killed_from_outside_is_said_to_be(open_queue, config):
    queue = open_queue("echo 'Training: 12%' >&2; exec sleep 60")
    job = queue.submit(config)
    os.kill(wait_until(lambda: now(queue, job).pid), signal.SIGKILL)
    failed = wait_until(lambda: ended(queue, job))
    assert failed.state == "failed"
    assert "signal 9" in failed.error
    assert "Resume" in failed.error


def test_a_trouble_in_what_is_called_on_a_change_does_not_stop_the_queue(open_queue, config):
    def trouble():
        raise RuntimeError("the page has gone")

    queue = open_queue(on_change=trouble)
    for _ in range(2):
        job = queue.submit(config)
        assert wait_until(lambda job=job: ended(queue, job)).state == "done"


def test_a_job_that_is_still_stopping_is_not_forgotten_and_nothing_starts_beside_it(
    open_queue, config, tmp_path
):
    stop = tmp_path / "stop"
    queue = open_queue(
        f"[ -e {stop} ] && exit 0\n"
        f"trap '' TERM; echo started; while [ ! -e {stop} ]; do sleep 0.05; done; exit 1"
    )
    job, following = queue.submit(config), queue.submit(config)
    wait_until(lambda: "started" in queue.log(job))
    queue.cancel(job.job_id)
    queue.forget(job.job_id)
    time.sleep(0.3)
    assert now(queue, job).state == "cancelled"
    assert now(queue, following).state == "queued"
    stop.touch()
    assert wait_until(lambda: ended(queue, following)).state == "done"
    assert now(queue, job).state == "cancelled"
    queue.forget(job.job_id)
    assert now(queue, job) is None


def test_closing_the_app_stops_the_process_and_the_next_one_goes_on_with_it(open_queue, config):
    queue = open_queue("exec sleep 60")
    job, waiting = queue.submit(config), queue.submit(config)
    pid = wait_until(lambda: now(queue, job).pid)
    process = queue._processes[job.job_id]
    queue.close()
    assert process.wait(10) == -signal.SIGTERM
    assert now(queue, job).state == "queued"
    assert now(queue, waiting).state == "queued"
    assert not psutil.pid_exists(pid)
    again = open_queue("exit 0")  # what waited still waits, and gets its turn
    assert wait_until(lambda: ended(again, waiting)).state == "done"
    assert now(again, job).state == "done"


SAYS_FINISHED = """
while [ "$1" != --progress ]; do shift; done
echo '{"stage": "done", "finished": [NAMES]}' >> "$2"
"""


def test_the_runs_of_a_training_that_ends_are_scored_but_for_those_that_are(
    open_queue, config, tmp_path, runs_folder
):
    shutil.copytree(runs_folder, tmp_path / "runs")
    first, second, third = list_runs(tmp_path / "runs")
    (second.directory / SCORES_FILE).touch()
    names = ", ".join(f'"{name}"' for name in (first.run_id, second.run_id, third.run_id, "gone"))
    script = SAYS_FINISHED.replace("NAMES", names)
    queue = open_queue(script)  # one that is not asked for scores
    job = queue.submit(config)
    wait_until(lambda: ended(queue, job))
    assert [job.command for job in queue.jobs()] == ["train"]
    queue.close()
    queue = open_queue(script, scores=True)
    job = queue.submit(config)
    wait_until(lambda: ended(queue, job))
    scoring = wait_until(lambda: queue.jobs()[2:])[0]
    assert (scoring.command, scoring.kind, scoring.device) == ("score", "scoring", "cpu")
    assert scoring.run_ids == (first.run_id, third.run_id)
    name, corpus = first.config.model.name, Path(first.config.corpus.name).name
    layers = f"layers {first.layer}, {third.layer}"
    assert scoring.title == f"Scores of {name} on {corpus}, {layers}"
    assert wait_until(lambda: ended(queue, scoring)).state == "done"
    assert len(queue.jobs()) == 3  # and scores are not scored


def test_short_jobs_go_ahead_of_long_ones(open_queue, config, monkeypatch):
    monkeypatch.setattr(JobQueue, "_watch", lambda _queue: None)  # nothing is started
    queue = open_queue()
    first, second = queue.submit(config), queue.submit(replace(config, layers=(0,)))
    evaluation, score, drawn = (
        queue.enqueue(command, ["a"], command) for command in ("evaluate", "score", "map")
    )
    order = jobs_module.in_turn(queue.jobs())
    assert [job.job_id for job in order] == [
        job.job_id for job in (score, drawn, first, second, evaluation)
    ]
    assert [queue.ahead(job) for job in (score, drawn, first, second, evaluation)] == [
        0,
        1,
        2,
        3,
        4,
    ]


def test_a_training_is_followed_by_what_was_asked_for_and_so_when_it_is_resumed(
    open_queue, config, tmp_path, runs_folder
):
    shutil.copytree(runs_folder, tmp_path / "runs")
    first, second, _ = list_runs(tmp_path / "runs")
    script = SAYS_FINISHED.replace("NAMES", f'"{first.run_id}", "{second.run_id}"')
    queue = open_queue(script, scores=True)
    cancelled = queue.submit(config, then=("map", "evaluate"))
    queue.cancel(cancelled.job_id)
    job = queue.resume(cancelled.job_id)
    wait_until(lambda: ended(queue, job))
    following = wait_until(lambda: len(queue.jobs()) == 6 and queue.jobs()[2:])
    assert [one.command for one in following] == ["score", "map", "map", "evaluate"]
    assert following[-1].run_ids == (first.run_id, second.run_id)


# After a crash of the app


def left_behind(tmp_path, config, **fields):
    """A job's directory as an app that went down left it."""
    directory = tmp_path / "jobs" / "00001"
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(config.to_dict()))
    job = jobs_module.Job("00001", "running", "a title", 1.0, started=2.0, pid=2**22 + 1)
    job = replace(job, **fields)
    contents = [(directory / "config.json").read_bytes()]
    job = replace(job, folder=job.mark(folder_mark(tmp_path / "jobs"), contents))
    (directory / "job.json").write_text(json.dumps(job.__dict__))
    return job


def test_a_job_whose_process_died_with_the_app_is_interrupted_and_can_be_resumed(
    open_queue, config, tmp_path
):
    job = left_behind(tmp_path, config)
    queue = open_queue()
    assert now(queue, job).state == "interrupted"
    assert now(queue, job).pid is None
    resumed = queue.resume(job.job_id)
    assert wait_until(lambda: ended(queue, resumed)).state == "done"
    assert queue.config(resumed) == config


def test_a_job_that_finished_while_the_app_was_down_is_done(open_queue, config, tmp_path):
    job = left_behind(tmp_path, config)
    lines = '{"stage": "training"}\n{"stage": "done"}\n{"sta'  # the last one is half written
    (tmp_path / "jobs" / job.job_id / "progress.jsonl").write_text(lines)
    queue = open_queue()
    assert now(queue, job).state == "done"
    assert queue.progress(job) == Progress("done").to_dict()


@pytest.mark.parametrize("state", ["running", "cancelled"])
def test_a_process_number_that_now_belongs_to_another_does_not_block_the_queue(
    open_queue, config, tmp_path, state
):
    job = left_behind(tmp_path, config, pid=os.getpid(), state=state)
    queue = open_queue()
    following = queue.submit(config)
    assert wait_until(lambda: ended(queue, following), 5).state == "done"
    assert now(queue, job).state == ("interrupted" if state == "running" else "cancelled")
    assert now(queue, job).ended


def test_a_process_that_lives_on_is_watched_by_the_next_app(open_queue, config, tmp_path):
    command = [sys.executable, "-c", "print(flush=True); import time; time.sleep(60)"]
    command += [str(tmp_path / "jobs" / "00001" / "progress.jsonl")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as living:
        living.stdout.readline()  # Popen returns before the process shows its own command line
        job = left_behind(tmp_path, config, pid=living.pid)
        queue = open_queue()
        following = queue.submit(config)
        time.sleep(0.3)
        assert now(queue, job).state == "running"
        assert now(queue, following).state == "queued"
        (tmp_path / "jobs" / "00001" / "log.txt").write_text("Error: It went wrong.\n")
        living.kill()  # and nobody asks for its exit code: it stays as a zombie
        assert wait_until(lambda: ended(queue, job), 10).state == "failed"
        assert now(queue, job).error == "Error: It went wrong."
        assert wait_until(lambda: ended(queue, following)).state == "done"


KILLED_BEFORE_THE_NOTE = """
import os, signal, sys, time
from pathlib import Path
from itda_core.jobs import queue as jobs
begin = jobs.begin
def begin_and_die(job, directory, runs):
    process = begin(job, directory, runs)
    if sys.argv[2] == "claimed":
        while not (directory / "claim.json").exists():
            time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)
jobs.begin = begin_and_die
sys.executable = sys.argv[3]
queue = jobs.JobQueue(Path(sys.argv[1]) / "jobs", Path(sys.argv[1]) / "runs")
queue.enqueue("models", [], "Models")
queue._thread.join()
"""
WAITS = """
while not (directory / "stop").exists():
    time.sleep(0.02)
"""


@pytest.mark.parametrize("when", ["claimed", "at once"])
def test_a_job_whose_start_was_not_noted_any_more_is_run_once_and_is_done(
    tmp_path, monkeypatch, when
):
    """The app is killed between the start of the process and its note; the process may have had no
    time yet to say whose the job is."""
    program = stand_in(tmp_path / "stand-in", "os.getpid()", WAITS)
    killed = [sys.executable, "-c", KILLED_BEFORE_THE_NOTE, str(tmp_path), when, str(program)]
    subprocess.run(killed, check=False, timeout=120)
    directory = tmp_path / "jobs" / "00001"
    assert json.loads((directory / "job.json").read_text())["state"] == "queued"
    monkeypatch.setattr(jobs_module.sys, "executable", str(program))
    queue = JobQueue(tmp_path / "jobs", tmp_path / "runs")
    try:
        [job] = queue.jobs()
        wait_until(lambda: (directory / "begun").exists())
        living = int((directory / "begun").read_text())
        assert wait_until(lambda: now(queue, job).state == "running" and now(queue, job)).pid
        if when == "claimed":
            assert now(queue, job).pid == living
        time.sleep(1.0)  # a second one would have begun by now
        assert (directory / "begun").read_text().split() == [str(living)]
        assert wait_until(lambda: now(queue, job).pid == living)
        (directory / "stop").touch()
        assert wait_until(lambda: ended(queue, job)).state == "done"
    finally:
        (directory / "stop").touch()
        queue.close()


def test_what_was_done_before_its_start_was_noted_is_not_done_again(open_queue, config, tmp_path):
    job = left_behind(tmp_path, config, state="queued", started=None, pid=None)
    directory = tmp_path / "jobs" / job.job_id
    (directory / "claim.json").write_text('{"pid": 4194305, "started": 1.0}')
    (directory / "progress.jsonl").write_text('{"stage": "done"}\n')
    assert now(open_queue("exit 1"), job).state == "done"


def test_a_job_of_a_version_that_knew_trainings_only_is_a_training(open_queue, config, tmp_path):
    job = left_behind(tmp_path, config, state="failed", ended=3.0, pid=None, error="Error: no.")
    file = tmp_path / "jobs" / job.job_id / "job.json"
    fields = json.loads(file.read_text())
    for later in ("command", "arguments"):
        del fields[later]
    file.write_text(json.dumps(fields))
    queue = open_queue()
    assert queue.jobs() == [job]
    assert job.keeps_checkpoints
    again = queue.resume(job.job_id)
    assert queue.config(again) == config
    assert again.title == job.title


def test_a_jobs_process_is_the_command_line_with_its_arguments(open_queue, config, tmp_path):
    queue = open_queue('printf "%s\\n" "$@"')
    jobs = [queue.enqueue("models", ["--json", "a b"], "Models"), queue.submit(config)]
    folder, runs = tmp_path / "jobs", str(tmp_path / "runs")
    for job, before, after in (
        (jobs[0], ["models", "--json", "a b"], []),
        (
            jobs[1],
            ["train"],
            ["--config", str(folder / jobs[1].job_id / "config.json"), "--no-scores"],
        ),
    ):
        assert wait_until(lambda job=job: ended(queue, job)).state == "done"
        progress = str(folder / job.job_id / "progress.jsonl")
        told = ["-P", "-m", "itda_core", *before, "--runs", runs, "--progress", progress, *after]
        assert queue.log(job).splitlines() == told


def test_a_jobs_process_is_told_its_memory_also_when_it_is_resumed(open_queue, config):
    queue = open_queue('printf "%s\\n" "$@"; exit 1')
    job = queue.submit(config, memory=2**33)
    again = queue.resume(wait_until(lambda: ended(queue, job)).job_id)
    for one in (job, again):
        wait_until(lambda one=one: ended(queue, one))
        lines = queue.log(one).splitlines()
        assert lines[lines.index("--memory") + 1] == "8589934592B"
    chart = queue.enqueue("map", ["a"], "a", memory=2**33)  # which loads no model
    wait_until(lambda: ended(queue, chart))
    assert "--memory" not in queue.log(chart)


def test_a_command_without_checkpoints_begins_anew_when_it_is_queued_again(open_queue):
    queue = open_queue("exit 1")
    job = queue.enqueue("evaluate", ["a", "--save"], "Evaluation")
    assert wait_until(lambda: ended(queue, job)).state == "failed"
    assert not job.keeps_checkpoints
    again = queue.resume(job.job_id)
    assert (again.command, again.arguments, again.title) == (job.command, job.arguments, job.title)
    assert wait_until(lambda: ended(queue, again)).arguments == ("a", "--save")


@pytest.mark.parametrize("written", ['{"seed": -1}', "{", None])
def test_a_job_with_settings_that_cannot_be_used_is_listed_and_can_be_forgotten(
    open_queue, config, written
):
    queue = open_queue()
    queue.close()
    job = queue.submit(config)
    file = queue.folder / job.job_id / "config.json"
    if written is None:
        file.unlink()
    else:
        file.write_text(json.dumps({**config.to_dict(), "seed": -1}) if "seed" in written else "{")
    assert queue.jobs() == [job]
    assert queue.config(job) is None
    with pytest.raises(InputError, match=r"can't be used\. .*Forget it, and start anew"):
        queue.resume(job.job_id)
    queue.cancel(job.job_id)
    queue.forget(job.job_id)
    assert queue.jobs() == []


def test_a_training_that_is_of_an_earlier_versions_seed_is_not_queued(open_queue, config):
    queue = open_queue()
    fields = {**config.to_dict(), "selection": "threshold", "offset": None, "pursuit": None}
    with pytest.raises(InputError, match="seed must be at least 0, got -1"):
        queue.submit(TrainConfig.of_finished({**fields, "seed": -1}))
    assert queue.jobs() == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"job_id": "00001"}'])
def test_a_damaged_job_is_left_out(open_queue, config, tmp_path, content):
    directory = tmp_path / "jobs" / "00001"
    directory.mkdir(parents=True)
    (directory / "job.json").write_text(content)
    queue = open_queue()
    assert queue.jobs() == []
    job = queue.submit(config)
    assert job.job_id == "00002"
    assert wait_until(lambda: ended(queue, job)).state == "done"


def test_a_job_that_cannot_be_started_fails_and_keeps_no_other_waiting(open_queue, config):
    """Its settings are no text, and were let in so; they can't be read; its log can't be
    written."""
    queue = open_queue()
    with queue._lock:
        damaged, unreadable, closed, good = (queue.enqueue("map", [name], name) for name in "abcd")
        (queue.folder / damaged.job_id / "config.json").write_bytes(b'{"model": "\xff"}')
        (queue.folder / damaged.job_id / "progress.jsonl").write_bytes(b"\xff\n")
        (queue.folder / unreadable.job_id / "config.json").mkdir()
        (queue.folder / closed.job_id / "log.txt").mkdir()
        queue.let_in(damaged)
    assert wait_until(lambda: ended(queue, good), 10).state == "done"
    # The stand-in does not read them.
    assert wait_until(lambda: ended(queue, damaged)).state == "done"
    assert queue.from_elsewhere() == [unreadable]
    with pytest.raises(ItdaError, match=r"config\.json is a folder"):
        queue.let_in(unreadable)
    failed = now(queue, closed)
    assert failed.state == "failed"
    assert "It could not be started: " in failed.error
    assert "log.txt" in failed.error


def test_a_job_is_titled_by_model_corpus_and_layers(open_queue, config):
    queue = open_queue("exec sleep 60")
    config = replace(config, layers=(2,))
    assert queue.submit(config).title == f"{config.model.name} on paragraphs.txt, layer 2"
    config = replace(config, layers=(0, 3))
    assert queue.submit(config).title.endswith(", layers 0, 3")
    assert queue.submit(replace(config, site="mlp_out")).title.endswith(", layers 0, 3 mlp_out")


def test_a_job_about_runs_is_titled_by_the_layers_of_each_place(open_queue, config, tmp_path):
    queue = open_queue("exec sleep 60")
    places = [(3, "mlp_out"), (3, "resid_post"), (0, "resid_post")]
    runs = [
        SimpleNamespace(layer=layer, site=site, config=config, directory=tmp_path)
        for layer, site in places
    ]
    name = f"{config.model.name} on paragraphs.txt"
    for submit, what in [
        (submit_evaluation, "Evaluation of"),
        (submit_probing, "Probing"),
    ]:
        assert submit(queue, runs).title == f"{what} {name}, layers 0, 3 and layer 3 mlp_out"
    other = [SimpleNamespace(config=replace(config, model=ModelSpec(name)), layer=7,
                             site="resid_post", directory=tmp_path)
             for name in ("b", "c", "d")]  # fmt: skip
    title = submit_evaluation(queue, [*runs[1:], other[0]]).title
    assert title == f"Evaluation of {name}, layers 0, 3; b on paragraphs.txt, layer 7"
    assert submit_scores(queue, [*runs, *other]).title == "Scores of 4 models, 6 layers"
    own = [SimpleNamespace(**{**vars(runs[1]), "config": replace(config, corpus=CorpusSpec(name))})
           for name in ("sotu", "/data/licences.txt", "owner/texts", "b.txt")]  # fmt: skip
    title = submit_scores(queue, own[:2]).title
    begins = f"Scores of {config.model.name} on"
    assert title == f"{begins} sotu, layer 3; {config.model.name} on licences.txt, layer 3"
    assert submit_scores(queue, own).title == f"{begins} 4 corpora, 4 layers"
    assert submit_map(queue, runs[0]).title == f"Map of {name}, layer 3 mlp_out"
    job = submit_latent_comparison(queue, *runs[:2])
    assert job.title == f"Same latents in {name}, layer 3 mlp_out, and {name}, layer 3"
    assert (job.command, job.kind) == ("compare-latents", "comparison of latents")
    assert job.arguments == (str(tmp_path), str(tmp_path), "--save")


def test_a_file_in_the_folder_where_the_explorer_started_is_no_module_of_a_job(
    tmp_path, tiny_model_folder, tiny_corpus_file, monkeypatch
):
    (tmp_path / "platform.py").write_text("raise SystemExit('taken for the standard library')")
    monkeypatch.chdir(tmp_path)
    queue = JobQueue(tmp_path / "jobs", tmp_path / "runs")
    try:
        config = tiny_config(tiny_model_folder, tiny_corpus_file, layers=(1,), max_atoms=20)
        job = queue.submit(config)
        wait_until(lambda: ended(queue, job))
        assert now(queue, job).state == "done", queue.log(job)
    finally:
        queue.close()


def test_a_job_whose_file_says_something_else_is_left_out(open_queue, config):
    """Any value in any field; the pages ask for each job and its progress at every look."""
    queue = open_queue("exec sleep 60")
    other, spoiled = queue.submit(config), queue.submit(replace(config, seed=5))
    path = queue.folder / spoiled.job_id / "job.json"
    before = json.loads(path.read_text())
    for name in before:
        for value in [None, True, -1, 10**400, "", "\ud800", [], [[]], {}, {"a": None}]:
            path.write_text(json.dumps({**before, name: value}))
            jobs = queue.jobs()
            assert other.job_id in [job.job_id for job in jobs]
            assert [queue.progress(job) for job in jobs] == [None] * len(jobs)
            assert all(isinstance(job.kind + job.where + job.title, str) for job in jobs)
    path.write_text("[" * 100_000)
    assert [job.job_id for job in queue.jobs()] == [other.job_id]


@pytest.mark.parametrize(
    "line",
    [
        b"\xff", b"null", b"[]", b"{}", b"[" * 100_000, b'{"stage": 5}', b'{"stage": "done"',
        b'{"stage": "training", "fraction": NaN}', b'{"stage": "training", "tokens": "many"}',
        b'{"stage": "training", "finished": null}', b'{"stage": "training", "seconds_left": []}',
    ],
    ids=range(11),
)  # fmt: skip
def test_a_line_that_is_no_progress_is_passed_over(line):
    assert Progress.read_line(line) is None


def test_a_line_of_progress_has_all_that_pages_ask_for():
    said = Progress("training", tokens=5, fraction=0.5, mean_error={3: 0.25}).to_dict()
    assert Progress.read_line(json.dumps(said).encode()) == {**said, "mean_error": {"3": 0.25}}
    assert Progress.read_line(b'{"stage": "done"}') == Progress("done").to_dict()


# Whole or not at all


def test_a_job_is_in_sight_once_all_its_files_are_there(tmp_path, monkeypatch, tiny_model_folder):
    """A process that is killed while it writes leaves what the next start removes."""
    seen, write = [], kept.write_json

    def watched(path, content):
        seen.append([one.name for one in (tmp_path / "jobs").glob("[!.]*")])
        write(path, content)

    monkeypatch.setattr(JobQueue, "_step", lambda _self: False)
    monkeypatch.setattr(kept, "write_json", watched)
    queue = JobQueue(tmp_path / "jobs", tmp_path)
    job = queue.submit(tiny_config(tiny_model_folder, tmp_path / "some file.txt"))
    queue.close()
    assert seen == [[], []]
    there = (tmp_path / "jobs" / job.job_id).iterdir()
    assert sorted(path.name for path in there) == ["config.json", "job.json"]


@pytest.mark.parametrize("is_renamed", [False, True])
def test_a_job_that_could_not_be_queued_leaves_nothing_and_takes_no_other(
    tmp_path, monkeypatch, is_renamed
):
    """Another explorer takes the number first; or the disk fails once the folder has its name."""
    other = tmp_path / "jobs" / "00001" / "job.json"

    def fail(temporary, folder):
        if is_renamed:
            temporary.rename(folder)
        else:
            other.parent.mkdir()
            other.write_text("of another")
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(kept, "rename_whole", fail)
    queue = JobQueue(tmp_path / "jobs", tmp_path, closed="")
    with pytest.raises(ItdaError):
        queue.enqueue("models", [], "a job")
    queue.close()
    there = [path.name for path in (tmp_path / "jobs").iterdir()]
    assert there == ([] if is_renamed else ["00001"])
    assert is_renamed or other.read_text() == "of another"


# In a folder that can only be read


def test_a_closed_folder_shows_the_jobs_of_another_explorer_and_leaves_them_alone(
    tmp_path, monkeypatch
):
    """The other one runs a job, and has one that waits."""
    folder, why = tmp_path / "jobs", "the folder can't be written to"
    with monkeypatch.context() as patch:
        patch.setattr(JobQueue, "_step", lambda _self: False)
        other = JobQueue(folder, tmp_path)
        running, waiting = other.enqueue("models", [], "first"), other.enqueue("models", [], "next")
        other._save(replace(running, state="running", pid=4_194_999))
        other.close()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    told = []
    queue = JobQueue(folder, tmp_path, lambda: told.append(1), closed=why)
    wait_until(lambda: len(told) > 1)  # what another one trains is taken in
    assert [job.state for job in queue.active()] == ["running", "queued"]
    for write in (
        lambda: queue.enqueue("models", [], "third"),
        lambda: queue.cancel(running.job_id),
        lambda: queue.resume(waiting.job_id),
        lambda: queue.forget(running.job_id),
    ):
        with pytest.raises(ItdaError, match=why):
            write()
    queue.close()
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_closed_folder_without_jobs_has_none(tmp_path):
    queue = JobQueue(tmp_path / "jobs", tmp_path, closed="can't be written to")
    assert queue.jobs() == queue.active() == []
    queue.close()
    assert not (tmp_path / "jobs").exists()
