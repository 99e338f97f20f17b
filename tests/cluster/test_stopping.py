"""A training on a cluster can be stopped at any time, and knows how long it took before."""

import functools
import types
from collections import Counter

import pytest

from itda_core.cluster import capturing
from itda_core.cluster.far_model import far_model
from itda_core.cluster.messages import Orders
from itda_core.cluster.training import _run
from itda_core.cluster.worker import Worker
from itda_core.config import ModelSpec
from itda_core.runs.run import list_runs
from itda_core.training.trainer import train_from
from tests.support.trained_runs import advance, assert_same_runs, tiny_config


class PoolHere:
    """A worker of this process in place of a cluster's. Before each answer nothing comes for a
    while, which takes 100 s by a clock of its own."""

    workers, notes, without_room, machines = 1, (), (), Counter(here=1)

    def __init__(self, worker, clock):
        self._worker, self._clock = worker, clock

    def share(self, what):
        return lambda: what

    def run(self, calls, ahead=1):
        for call in calls:
            for _ in range(2):
                self._clock.now += 50
                yield None
            for event in self._worker.work(call.method, call.arguments):
                yield call, event


@pytest.fixture
def config(tiny_model_folder, tiny_corpus_file):
    changes = {"layers": (0,), "max_tokens": 500, "explored_tokens": 300, "max_atoms": 60}
    return tiny_config(tiny_model_folder, tiny_corpus_file, **changes)


@pytest.fixture
def steps(config, tiny_model, monkeypatch):
    """Begins a training in a folder, or goes on with it."""
    clock = types.SimpleNamespace(now=0.0)
    monkeypatch.setattr(capturing, "time", types.SimpleNamespace(monotonic=lambda: clock.now))

    def begin(runs):
        spec = ModelSpec(config.model.name, dtype="float32")
        worker = Worker(Orders(spec, "resid_post", config.layers, None, 1, runs, "", "."))
        worker._model = tiny_model
        run = functools.partial(_run, pool=PoolHere(worker, clock))
        return train_from(far_model(tiny_model), config, runs, run)

    return begin


def test_a_training_is_stopped_whatever_the_machines_do_and_goes_on(steps, tmp_path):
    """While they capture, choose and encode; it makes the runs of one that was not stopped, and
    says that it took at least as long, and no more than what was begun again."""
    whole, runs = tmp_path / "whole", tmp_path / "stopped"
    list(steps(whole))
    for stage, number in [("training", 7), ("choosing", 3), ("encoding", 4)]:
        begun = steps(runs)
        advance(begun, stage, number)
        begun.close()
        assert not list_runs(runs)
        assert not [*runs.glob(".writing-*")]
    list(steps(runs))
    assert_same_runs(runs, whole)
    seconds = [list_runs(folder)[0].metrics["seconds"] for folder in (whole, runs)]
    assert 500 < seconds[0] <= seconds[1] <= seconds[0] + 400
