"""An interrupted training goes on to the same runs, and nobody else writes to it meanwhile."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import psutil
import pytest

from itda_core.config import run_id
from itda_core.errors import InputError, RunError
from itda_core.runs.interrupted import interrupted_trainings
from itda_core.runs.run import list_runs
from itda_core.runs.workspace import Workspace
from itda_core.training import trainer as training
from itda_core.training.trainer import resume, train
from tests.support.trained_runs import (
    advance,
    assert_same_runs,
    finish,
    tiny_config,
    trained,
)


@pytest.fixture
def checkpoint_always(monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)


def training_id(runs):
    return list_runs(runs)[0].about["training_id"]


# Interruptions


@pytest.mark.parametrize(
    ("stage", "number"),
    [
        *[("training", number) for number in (1, 4, 9, 13)],
        *[("encoding", number) for number in (1, 2, 3)],
    ],
)
def test_a_closed_training_resumes_to_the_same_runs(config, undisturbed, tmp_path, stage, number):
    steps = train(config, tmp_path)
    at = advance(steps, stage, number).training_id
    steps.close()
    assert interrupted_trainings(tmp_path) == {at: config}
    finish(at, tmp_path)
    assert interrupted_trainings(tmp_path) == {}
    assert_same_runs(tmp_path, undisturbed)


def test_a_training_closed_after_every_single_window_gives_the_same_runs(
    config, undisturbed, tmp_path
):
    tokens = [0]
    while not list_runs(tmp_path):
        steps = train(config, tmp_path)
        for progress in steps:
            if progress.tokens > tokens[-1]:
                tokens.append(progress.tokens)
                steps.close()
    assert len(tokens) > 12
    assert tokens[-1] == 1_000
    assert_same_runs(tmp_path, undisturbed)


@pytest.mark.parametrize("number", [1, 3, 6])
def test_what_a_killed_process_leaves_at_any_moment_resumes_to_the_same_runs(
    config, undisturbed, tmp_path, number, checkpoint_always, monkeypatch
):
    """The folder is copied while the training runs: what a kill at that moment would leave."""
    steps = train(config, tmp_path / "running")
    advance(steps, "training", number)
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 1e9)  # two more windows, to be lost
    at = advance(steps, "training", 2).training_id
    left = tmp_path / "left"
    shutil.copytree(tmp_path / "running", left)
    steps.close()
    finish(at, left)
    assert_same_runs(left, undisturbed)


def test_a_process_killed_in_the_middle_resumes_to_the_same_runs(config, undisturbed, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    code = (
        "import sys, time; from itda_core.training import trainer as training\n"
        "training.CHECKPOINT_SECONDS = 0.0\n"
        "save = training.Workspace.save_checkpoint\n"
        "def slowly(self, number, *rest):\n"
        "    save(self, number, *rest)\n"
        "    if number == 5: print('checkpoint', file=sys.stderr, flush=True); time.sleep(60)\n"
        "training.Workspace.save_checkpoint = slowly\n"
        "from itda_core.__main__ import main; main(sys.argv[1:])"
    )
    runs = tmp_path / "runs"
    command = [sys.executable, "-c", code, "train", "--config", str(tmp_path / "config.json")]
    with subprocess.Popen([*command, "--runs", str(runs)], stderr=subprocess.PIPE) as process:
        for line in process.stderr:
            if line == b"checkpoint\n":
                process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert list_runs(runs) == []
    [at] = interrupted_trainings(runs)
    assert (runs / f".{at}" / "lock").exists()
    finish(at, runs)
    assert_same_runs(runs, undisturbed)


def test_a_kill_before_the_first_checkpoint_starts_from_the_beginning(
    config, undisturbed, tmp_path
):
    steps = train(config, tmp_path / "running")
    at = advance(steps, "training", 2).training_id
    shutil.copytree(tmp_path / "running", tmp_path / "left")
    steps.close()
    finish(at, tmp_path / "left")
    assert_same_runs(tmp_path / "left", undisturbed)


def test_a_half_written_checkpoint_is_not_used(config, undisturbed, tmp_path):
    steps = train(config, tmp_path)
    at = advance(steps, "training", 4).training_id
    steps.close()
    half = tmp_path / f".{at}" / "checkpoint.tmp"
    half.mkdir()
    (half / "0.safetensors").write_bytes(b"half")
    finish(at, tmp_path)
    assert_same_runs(tmp_path, undisturbed)


@pytest.mark.parametrize("is_folder", [True, False])
def test_what_lies_in_the_place_of_a_run_costs_no_training(
    config, undisturbed, tmp_path, is_folder
):
    """As what another program left of a run that was deleted: the layer is not taken for written,
    and what was read for it is kept."""
    steps = train(config, tmp_path)
    at = advance(steps, "training", 4).training_id
    place = tmp_path / run_id(at, config.layers[1])
    if is_folder:
        place.mkdir()
    file = place / "evaluation.json" if is_folder else place
    file.write_text("{}")
    with pytest.raises(RunError, match=f"{place.name} is not a whole run.*moved away"):
        list(steps)
    with pytest.raises(RunError, match=f"{place.name} is not a whole run.*moved away"):
        trained(config, tmp_path)
    assert file.read_text() == "{}"
    assert interrupted_trainings(tmp_path) == {at: config}
    shutil.rmtree(place) if is_folder else place.unlink()
    finish(at, tmp_path)
    assert_same_runs(tmp_path, undisturbed)


def left_at(config, runs, number):
    """Close a training at its `number`th window; its id, its tokens, and the file of layer 1."""
    steps = train(config, runs)
    progress = advance(steps, "training", number)
    at, tokens = progress.training_id, progress.tokens
    steps.close()
    [file] = (runs / f".{at}").glob("activations-1.*")
    return at, tokens, file


def tokens_at_first(name, runs):
    """Resume to the end; the tokens that the first progress of the pass tells."""
    steps = [dataclasses.replace(step) for step in resume(name, runs)]
    assert steps[-1].stage == "done"
    return next(step.tokens for step in steps if step.stage == "training")


@pytest.mark.parametrize("kept_bytes", [None, 0, 1_000, -1], ids=["gone", "empty", "cut", "a byte"])
@pytest.mark.parametrize("number", [4, 13])
def test_activations_lost_since_the_checkpoint_are_captured_again(
    config, undisturbed, tmp_path, kept_bytes, number
):
    at, tokens, file = left_at(config, tmp_path, number)
    assert file.stat().st_size == min(tokens, 600) * 16 * 4
    if kept_bytes is None:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:kept_bytes])
    assert tokens_at_first(at, tmp_path) < 100  # it starts anew
    assert_same_runs(tmp_path, undisturbed)


@pytest.mark.parametrize("number", [1, 4, 9])
def test_rows_written_after_the_checkpoint_are_written_again(config, undisturbed, tmp_path, number):
    """Whatever they are: a kill can leave a part of a window, a row cut in the middle."""
    at, tokens, file = left_at(config, tmp_path, number)
    more = np.full((600 - tokens) * 16, np.nan, np.float32).tobytes()
    with file.open("ab") as opened:
        opened.write(more[: -7 if number == 4 else None])
    assert tokens_at_first(at, tmp_path) > tokens  # it goes on
    assert_same_runs(tmp_path, undisturbed)


def test_a_training_that_starts_anew_takes_nothing_from_the_rows_left_behind(
    config, undisturbed, tmp_path
):
    at, _, file = left_at(config, tmp_path, 13)
    for other in file.parent.glob("activations-*"):
        other.write_bytes(np.full(600 * 16, np.nan, np.float32).tobytes())
    for checkpoint in file.parent.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    assert tokens_at_first(at, tmp_path) < 100
    assert_same_runs(tmp_path, undisturbed)


def test_a_training_killed_twice_resumes_to_the_same_runs(
    config, undisturbed, tmp_path, checkpoint_always, monkeypatch
):
    """The second checkpoint is made with the first kill's rows still in the file."""
    at, _, _ = left_at(config, tmp_path / "0", 2)
    for kill in (1, 2):
        before, after = tmp_path / str(kill - 1), tmp_path / str(kill)
        monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
        steps = resume(at, before)
        advance(steps, "training", 2)
        monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 1e9)
        advance(steps, "training", 3)
        shutil.copytree(before, after)
        steps.close()
    finish(at, after)
    assert_same_runs(after, undisturbed)


def test_progress_goes_on_from_where_it_stopped(config, tmp_path):
    steps = train(config, tmp_path)
    stopped = advance(steps, "training", 5)
    tokens, fraction = stopped.tokens, stopped.fraction
    steps.close()
    again = trained(config, tmp_path)
    first = next(step for step in again if step.stage == "training")
    assert first.tokens > tokens
    assert fraction < first.fraction < 1
    assert [step.fraction for step in again] == sorted(step.fraction for step in again)


# Which training


def test_a_training_is_resumed_by_its_own_id_or_that_of_one_of_its_runs(
    config, undisturbed, tmp_path
):
    for name in (training_id(undisturbed), f"{training_id(undisturbed)}-L01"):
        runs = tmp_path / name
        steps = train(config, runs)
        advance(steps, "training", 2)
        steps.close()
        finish(name, runs)
        assert_same_runs(runs, undisturbed)


@pytest.mark.parametrize("name", ["", "nothing", "../..", "nothing-L01"])
def test_a_training_that_was_not_interrupted_cannot_be_resumed(config, tmp_path, name):
    steps = train(config, tmp_path)
    at = advance(steps, "training", 1).training_id
    steps.close()
    with pytest.raises(InputError, match=at):  # the sentence says which ones there are
        next(resume(name, tmp_path))


def test_a_finished_training_cannot_be_resumed(undisturbed):
    with pytest.raises(InputError, match="none"):
        next(resume(training_id(undisturbed), undisturbed))


def test_a_training_whose_corpus_has_changed_is_not_resumed(
    tiny_model_folder, tiny_texts, tmp_path
):
    corpus = tmp_path / "changing.txt"
    corpus.write_text("\n\n".join(tiny_texts), encoding="utf-8")
    steps = train(tiny_config(tiny_model_folder, corpus), tmp_path / "runs")
    at = advance(steps, "training", 2).training_id
    steps.close()
    corpus.write_text("\n\n".join(tiny_texts[1:]), encoding="utf-8")
    with pytest.raises(InputError, match=r"has changed since, or .* Start anew"):
        list(resume(at, tmp_path / "runs"))


# Locks


def test_a_training_that_runs_is_neither_started_again_nor_listed_as_interrupted(config, tmp_path):
    steps = train(config, tmp_path)
    advance(steps, "training", 2)
    assert interrupted_trainings(tmp_path) == {}
    with pytest.raises(RunError, match=rf"already running \(pid {os.getpid()}\)"):
        list(train(config, tmp_path))
    assert advance(steps, "done").finished  # the one that runs is none the worse for it


HOLD = """
import json, sys
from pathlib import Path
from itda_core.config import TrainConfig
from itda_core.errors import RunError
from itda_core.runs.workspace import Workspace

folder, config = Path(sys.argv[1]), TrainConfig.from_dict(json.loads(sys.argv[2]))
for line in sys.stdin:
    try:
        with Workspace(folder, line.strip()).locked(config):
            print("won", flush=True)
            sys.stdin.readline()
    except RunError as error:
        print(error, flush=True)
        sys.stdin.readline()
"""
"""A process that tries for the lock of each training whose name it is given, and keeps a lock that
it gets until it is given another line."""


@pytest.fixture
def holders(config, tmp_path):
    """Two such processes."""
    command = [sys.executable, "-c", HOLD, str(tmp_path), json.dumps(config.to_dict())]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    with subprocess.Popen(command, **pipes) as one, subprocess.Popen(command, **pipes) as other:
        yield one, other
        one.kill()
        other.kill()


def answers(processes, name):
    for process in processes:
        process.stdin.write(f"{name}\n")
    return [process.stdout.readline().strip() for process in processes]


def test_of_two_processes_that_race_for_a_lock_exactly_one_wins(holders):
    answers(holders, "both are ready")
    for number in range(20):
        for process in holders:
            process.stdin.write("\n")
        messages = answers(holders, f"race-{number}")
        assert messages.count("won") == 1
        winner, loser = messages.index("won"), 1 - messages.index("won")
        assert f"already running (pid {holders[winner].pid})" in messages[loser]


def test_the_lock_of_another_living_process_is_respected_until_it_dies(
    config, tmp_path, undisturbed, holders
):
    at = training_id(undisturbed)
    assert answers(holders[:1], at) == ["won"]
    assert interrupted_trainings(tmp_path) == {}
    with pytest.raises(RunError, match=rf"\(pid {holders[0].pid}\). Wait for it, or stop"):
        list(train(config, tmp_path))
    Workspace(tmp_path, at).remove()
    assert (tmp_path / f".{at}" / "config.json").exists()
    holders[0].kill()
    holders[0].wait()
    assert interrupted_trainings(tmp_path) == {at: config}
    finish(at, tmp_path)


@pytest.mark.parametrize("lock", ["of a living process", "{}", "half a fi"])
def test_what_an_earlier_version_left_in_a_lock_file_is_no_obstacle(
    config, tmp_path, undisturbed, lock
):
    """It wrote its process id and start time into the file, and whoever did so held it."""
    at, process = training_id(undisturbed), psutil.Process()
    if lock == "of a living process":
        lock = json.dumps({"pid": process.pid, "started": process.create_time()})
    workspace = Workspace(tmp_path, at)
    workspace.directory.mkdir()
    (workspace.directory / "lock").write_text(lock)
    (workspace.directory / "config.json").write_text(json.dumps(config.to_dict()))
    assert interrupted_trainings(tmp_path) == {at: config}
    finish(at, tmp_path)
    assert not workspace.directory.exists()
