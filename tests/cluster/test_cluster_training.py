"""A training over many machines gives the runs of one machine, whatever happens to the machines."""

import contextlib
import dataclasses
import os
import random
import signal
import time
from collections import deque
from pathlib import Path

import psutil
import pytest
import torch

from itda_core.cluster.capturing import ClusterCapture
from itda_core.cluster.training import train_on_cluster
from itda_core.runs.interrupted import interrupted_trainings
from itda_core.runs.run import list_runs
from tests.cluster.conftest import machine
from tests.support.swept_models import too_little
from tests.support.trained_runs import assert_same_runs, tiny_config, trained

BYTES = ("dictionary.safetensors", "codes.parquet", "nearly.parquet", "prompts.parquet")


@pytest.fixture(scope="module")
def coverage(tiny_model_folder, tiny_corpus_file):
    """Two layers, of which tokens take a number of terms that varies, by the orthogonal pursuit."""
    changes = {"layers": (0, 2), "selection": "coverage", "pursuit": "orthogonal"}
    changes |= {"budget": "mean"}
    return tiny_config(tiny_model_folder, tiny_corpus_file, **changes)


@pytest.fixture(scope="module")
def one_thread():
    """This process computes with as many threads as a worker of the cluster, which has one CPU."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def on_one(coverage, tmp_path_factory, one_thread):
    """The folder of the runs that one process makes."""
    folder = tmp_path_factory.mktemp("one") / "runs"
    trained(coverage, folder)
    return folder


def assert_equal(folder, other):
    """The same runs, byte for byte but for times."""
    assert_same_runs(folder, other)
    for run in list_runs(folder):
        for name in BYTES:
            there = Path(other) / run.run_id / name
            assert (run.directory / name).read_bytes() == there.read_bytes(), name


def written(runs):
    """When each part was written, by its name."""
    return {path.name: path.stat().st_mtime_ns for path in runs.glob(".*/parts-*/part-*")}


@pytest.fixture
def all_at_work(monkeypatch):
    """The pass begins when all workers are there: the first one could make so little alone."""
    run = ClusterCapture.run

    def later(capture):
        pool, until = capture._pool, time.monotonic() + 180
        while pool.machines.total() < pool.workers:
            assert time.monotonic() < until, [*pool.without_room, *pool.notes]
            list(pool._heard(deque()))
        yield from run(capture)

    monkeypatch.setattr(ClusterCapture, "run", later)


def lose(cluster):
    """Take a machine away, and wait until its worker has ended as well."""
    [raylet] = cluster.machines[1].all_processes["raylet"]
    processes = psutil.Process(raylet.process.pid).children(recursive=True)
    cluster.remove_node(cluster.machines[1], allow_graceful=False)
    cluster.machines[1] = None
    psutil.wait_procs(processes, timeout=60)


def test_a_machine_that_is_lost_leaves_its_work_to_the_others_and_the_runs_are_those_of_one_machine(
    cluster, coverage, on_one, tmp_path, capfd, all_at_work
):
    runs, seen, steps = tmp_path / "runs", {}, []
    for progress in train_on_cluster(coverage, runs, cluster.address):
        steps.append(dataclasses.replace(progress))
        for name, when in written(runs).items():
            assert seen.setdefault(name, when) == when, "written twice"
        if progress.tokens and cluster.machines[1] is not None:
            lose(cluster)
    cluster.machines[1] = cluster.add_node(**machine())
    assert capfd.readouterr() == ("", "")
    assert any(note.startswith("2 workers on ") for step in steps for note in step.notes)
    assert any("was lost. Others make again" in note for note in steps[-1].notes)
    assert [step.stage for step in steps if step.tokens][-1] == "done"
    tokens = [step.tokens for step in steps]
    assert tokens == sorted(tokens)
    assert tokens[-1] == steps[-1].total_tokens == coverage.max_tokens
    # 16 windows or so and the held-out prompts, of two layers.
    assert len(seen) >= 2 * 15
    assert_equal(runs, on_one)
    assert sorted(path.name for path in runs.iterdir()) == sorted(steps[-1].finished)


@pytest.mark.skipif("ITDA_FAULT_KILLS" not in os.environ, reason="minutes: in `make faults`")
@pytest.mark.parametrize("seed", range(int(os.environ.get("ITDA_FAULT_KILLS", 0)) // 25))
def test_workers_that_are_killed_at_any_moment_cost_nothing(
    cluster, coverage, on_one, tmp_path, seed
):
    """Two of them, since a call that ends three is given up: one while parts are written, one at
    any later moment."""
    draw, killed = random.Random(seed), []
    at = [draw.randint(1, 8), draw.randint(9, 40)]
    for number, _ in enumerate(train_on_cluster(coverage, tmp_path / "runs", cluster.address)):
        if len(killed) < len(at) and number >= at[len(killed)] and (found := at_work(cluster)):
            killed.append(draw.choice(found))
            time.sleep(0.5 * draw.random())  # until it is in the middle of something
            with contextlib.suppress(psutil.NoSuchProcess):
                killed[-1].kill()
    assert killed
    assert_equal(tmp_path / "runs", on_one)


def at_work(cluster):
    """The processes that work for a training on the cluster's machines."""
    raylets = [node.all_processes["raylet"][0].process.pid for node in cluster.machines]
    found = [child for pid in raylets for child in psutil.Process(pid).children(recursive=True)]
    return [one for one in found if _title(one).startswith("ray::Worker")]


def _title(process):
    with contextlib.suppress(psutil.Error):  # it has ended meanwhile
        return " ".join(process.cmdline())
    return ""


def test_a_model_that_is_read_block_by_block_gives_them_too(
    cluster, coverage, on_one, tiny_model_folder, tmp_path
):
    runs = tmp_path / "runs"
    memory = too_little(tiny_model_folder)
    steps = train_on_cluster(coverage, runs, cluster.address, memory)
    fractions = [step.fraction for step in steps]
    assert fractions == sorted(fractions)
    assert_equal(runs, on_one)


def test_a_training_that_is_stopped_goes_on_from_the_parts_that_are_there(
    cluster, tiny_model_folder, tiny_corpus_file, tmp_path, one_thread
):
    """The threshold takes atoms in the order of the prompts, whatever the order of the parts."""
    config, runs = tiny_config(tiny_model_folder, tiny_corpus_file), tmp_path / "runs"
    before = signal.getsignal(signal.SIGTERM)
    steps = train_on_cluster(config, runs, cluster.address, workers=1)
    for progress in steps:
        if progress.tokens > 200:
            break
    steps.close()
    kept = written(runs)
    assert kept
    assert signal.getsignal(signal.SIGTERM) is before, "by which commands stop"
    assert len(interrupted_trainings(runs)) == 1
    assert not [*runs.glob(".shared-*")]
    n_checked, n_parts = 0, len({name.split(".")[0] for name in kept})
    for progress in train_on_cluster(config, runs, cluster.address, workers=1):
        n_checked += progress.stage == "checking"  # told for each, and can be stopped there
        if progress.stage == "choosing":
            now = written(runs)
            assert {name: now[name] for name in kept} == kept
    assert n_checked >= n_parts
    trained(config, tmp_path / "one")
    assert_equal(runs, tmp_path / "one")
