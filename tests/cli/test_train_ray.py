"""train --ray: one training on a cluster, which here is a stand-in that trains in this process."""

import json
import sys
from types import ModuleType

import pytest

from itda_core.runs.run import list_runs
from itda_core.training.trainer import train
from tests.support.command_line import one_json, train_options
from tests.support.trained_runs import advance, tiny_config


@pytest.fixture
def calls(monkeypatch):
    """What `train_on_cluster` is called with."""
    found, module = [], ModuleType("itda_core.cluster.training")

    def train_on_cluster(config, runs, address, memory=None, workers=None):
        found.append((config, address, memory, workers))
        yield from train(config, runs)

    module.train_on_cluster = train_on_cluster
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return found


@pytest.fixture
def config(tiny_model_folder, tiny_corpus_file):
    return tiny_config(tiny_model_folder, tiny_corpus_file, layers=(1,), max_atoms=20)


def test_one_training_goes_to_the_cluster_as_it_is(cli, tmp_path, config, calls):
    options = [*train_options(config), "--dtype", "float32", "--runs", tmp_path, "--json"]
    where = ["--ray", "head:6379", "--workers", 3, "--memory", "2MiB"]
    told = one_json(cli("train", *options, *where))
    assert calls == [(config, "head:6379", 2 * 2**20, 3)]
    assert [run["run_id"] for run in told["runs"]] == [run.run_id for run in list_runs(tmp_path)]


def test_one_that_was_stopped_goes_on_on_a_cluster(cli, tmp_path, config, calls):
    steps = train(config, tmp_path)
    name = advance(steps, "training").training_id
    steps.close()
    code, _, _ = cli("train", "--resume", name, "--ray", "auto", "--runs", tmp_path)
    assert code == 0
    assert calls == [(config, "auto", None, None)]
    assert len(list_runs(tmp_path)) == 1


def test_a_folder_of_activations_is_sent_to_a_list(cli, tmp_path, config, calls):
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config.but(activations="/data/a").to_dict()), encoding="utf-8")
    code, _, err = cli("train", "--config", file, "--ray", "auto", "--runs", tmp_path)
    assert code == 2
    assert "is read by one machine: leave out --ray, or put the training into a list" in err
    assert not calls
