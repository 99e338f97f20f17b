"""Lists of trainings on a cluster of several machines (which are processes of this one)."""

import json
import os
from contextlib import closing

import pytest
import torch

from itda_core.cluster import machine as machine_module
from itda_core.cluster import task
from itda_core.cluster.board import Attempt, Board
from itda_core.cluster.machine import packages
from itda_core.cluster.trainings import train_each_on_cluster
from itda_core.errors import InputError, ItdaError, RunError, TrainingHeld
from itda_core.runs.training_lock import break_lock, holder_of, is_held
from itda_core.runs.workspace import Workspace
from itda_core.training.trainer import train
from itda_core.training.training_list import ListedTraining
from tests.cluster.conftest import machine
from tests.support.trained_runs import advance, assert_same_runs, long_config, tiny_config, trained


@pytest.fixture(autouse=True)
def same_data_folder(tmp_path_factory, monkeypatch):
    """Ray keeps a process for the next task of the same environment: torch is imported once."""
    monkeypatch.setenv("ITDA_DATA", str(tmp_path_factory.getbasetemp() / "cluster-data"))


@pytest.fixture
def one_thread():
    """As a machine of one processor computes: how many threads share the rows of a product shows
    in the last digit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_a_list_on_a_cluster_makes_the_same_runs_as_one_process(
    cluster, cli, tmp_path, tiny_model_folder, tiny_corpus_file
):
    """Its files byte for byte, a training that fails named at the end, and nothing of Ray's on
    standard output."""
    file = tmp_path / "list.toml"
    file.write_text(
        f"""
        [defaults]
        model = '{tiny_model_folder}'
        corpus = '{tiny_corpus_file}'
        dtype = "float32"
        layers = [1, 2]
        max-tokens = 400
        max-atoms = 40
        l0 = 4

        [[training]]
        seed = [0, 1]

        [[training]]
        model = "/no/model"

        [[training]]
        selection = "threshold"
        """,
        encoding="utf-8",
    )
    command = ["train", "--list", file, "--json"]
    code, out, err = cli(*command, "--ray", cluster.address, "--runs", tmp_path / "cluster")
    told = json.loads(out)
    assert (code, len(told["runs"])) == (1, 6)
    [failure] = told["failures"]
    assert (failure["training"], failure["error"][:24]) == (3, "There is no model folder")
    assert " on " in err  # which machine
    assert "raylet" not in err
    code, out, _ = cli(*command, "--runs", tmp_path / "here")
    assert [run["run_id"] for run in json.loads(out)["runs"]] == [
        run["run_id"] for run in told["runs"]
    ]
    assert_same_runs(tmp_path / "cluster", tmp_path / "here")
    for run in told["runs"]:
        for name in ("dictionary.safetensors", "codes.parquet", "nearly.parquet"):
            file = f"{run['run_id']}/{name}"
            there = (tmp_path / "cluster" / file).read_bytes()
            assert there == (tmp_path / "here" / file).read_bytes()
    left = {path.name for path in (tmp_path / "cluster").iterdir()}
    assert left == {run["run_id"] for run in told["runs"]}


@pytest.mark.skipif("ITDA_FAULT_KILLS" not in os.environ, reason="two minutes: in `make faults`")
@pytest.mark.usefixtures("one_thread")
def test_a_training_whose_machine_dies_goes_on_on_another(
    cluster, tmp_path, tiny_model_folder, tiny_texts
):
    """Also one that was stopped before goes on, and stopping keeps a checkpoint."""
    config = long_config(tmp_path, tiny_model_folder, tiny_texts, copies=12, max_tokens=64_000)
    listed, runs = [ListedTraining(1, 1, config)], tmp_path / "runs"
    with closing(train_each_on_cluster(listed, runs, cluster.address)) as steps:
        next(progress for progress in steps if progress.tokens)
    [workspace] = runs.iterdir()  # it was stopped well before its end, which takes some 8 s
    assert [*workspace.glob("checkpoint-*")]
    dead = []
    for progress in train_each_on_cluster(listed, runs, cluster.address, workers=1):
        if progress.tokens and not dead:
            dead = [_machine_of(workspace, cluster)]
            cluster.remove_node(dead[0], allow_graceful=False)
    cluster.machines.remove(dead[0])
    cluster.machines.append(cluster.add_node(**machine()))
    assert progress.stage == "done"
    trained(config, tmp_path / "here")
    assert_same_runs(runs, tmp_path / "here")


def _machine_of(workspace, cluster):
    """The machine that runs the training's process: its parent is Ray's on that machine."""
    import psutil

    parents = psutil.Process(int(holder_of(workspace).split()[0])).parents()
    pids = {parent.pid for parent in parents}
    nodes = {
        process.process.pid: node
        for node in cluster.machines
        for processes in node.all_processes.values()
        for process in processes
    }
    return next(node for pid, node in nodes.items() if pid in pids)


class _Here:
    """A board that is asked in this process."""

    number = 1

    def ask(self, method, *_):
        return False if method == "is_stopped" else None


@pytest.fixture
def held(tmp_path, tiny_model_folder, tiny_corpus_file):
    """A training that another process holds, as a file server tells it."""
    workspace = Workspace(tmp_path, "a-training")
    with workspace.locked(tiny_config(tiny_model_folder, tiny_corpus_file)):
        (workspace.directory / "holder").write_text("41 on gone")
        yield workspace


BEFORE = [Attempt("node-1", "41 on gone")]


def test_a_dead_machine_loses_its_training_once_it_is_silent(held, monkeypatch):
    monkeypatch.setattr(task, "_of_dead_machines", lambda _before: {"41 on gone"})
    monkeypatch.setattr(task, "SILENT_SECONDS", -1.0)
    assert is_held(held.directory)
    assert task._wait_until_free(held.directory, BEFORE, _Here(), until=0.0)
    assert not is_held(held.directory)


@pytest.mark.parametrize(("dead", "silent"), [(set(), -1.0), ({"41 on gone"}, 60.0)])
def test_a_machine_that_may_live_keeps_its_training(held, monkeypatch, dead, silent):
    monkeypatch.setattr(task, "_of_dead_machines", lambda _before: dead)
    monkeypatch.setattr(task, "SILENT_SECONDS", silent)
    assert not task._wait_until_free(held.directory, BEFORE, _Here(), until=0.0)
    assert is_held(held.directory)


@pytest.mark.parametrize("stage", ["training", "encoding"])
def test_a_machine_that_was_given_up_and_lives_on_writes_nothing_more(
    tmp_path, tiny_model_folder, tiny_corpus_file, stage
):
    """Where a partition kept it from the others: what took its training over goes on alone."""
    config = tiny_config(tiny_model_folder, tiny_corpus_file, layers=(0,))
    steps = train(config, tmp_path)
    advance(steps, stage)
    [directory] = tmp_path.iterdir()
    break_lock(directory)
    other = Workspace(tmp_path, directory.name[1:])
    with other.locked(config):
        (directory / "holder").write_text("7 on other")
        before = {path: path.stat().st_mtime_ns for path in directory.iterdir()}
        with pytest.raises(TrainingHeld, match=r"taken over by another process \(7 on other\)"):
            list(steps)
        after = {path: path.stat().st_mtime_ns for path in directory.iterdir()}
        rows = {path for path in before if path.suffix == ".f32"}  # as the other writes them
        assert {path: after[path] for path in before if path not in rows} == {
            path: before[path] for path in before if path not in rows
        }
        assert [*tmp_path.iterdir()] == [directory]


def test_a_training_that_another_machine_holds_says_which(held):
    told = r"\(pid 41 on gone\).* If gone is gone for good, delete .*lock"
    other = Workspace(held.runs, held.training_id)
    with pytest.raises(RunError, match=told), other.locked(None):
        raise AssertionError("it is not held")


def test_the_board_knows_the_attempts_and_passes_on_that_all_stop():
    board = Board()
    assert board.begin(3, "a", "1 on a") == []
    assert not board.follow(3, {"fraction": 0.5})
    assert board.begin(3, "b", "2 on b") == [Attempt("a", "1 on a")]
    assert board.look() == {3: (Attempt("b", "2 on b"), {"fraction": 0.5})}
    board.stop()
    assert board.follow(3, {})


def order(tmp_path, **changes):
    (tmp_path / "token").touch()
    where = {"runs": str(tmp_path), "folder": str(tmp_path), "token": "token"}
    return task.Order(1, {}, **{"memory": None, "packages": packages(), **where, **changes})


@pytest.fixture
def node_7(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "node-7")


@pytest.mark.usefixtures("node_7")
def test_a_machine_that_would_write_something_else_is_refused_by_name(tmp_path):
    task._check(order(tmp_path), [])
    with pytest.raises(ItdaError, match=r"is not the one of .* on node-7\. Put .* --runs"):
        task._check(order(tmp_path, token="not there"), [])
    with pytest.raises(ItdaError, match="was killed 5 times, perhaps for want of memory"):
        task._check(order(tmp_path), BEFORE * 5)


@pytest.mark.usefixtures("node_7")
@pytest.mark.parametrize("name", ["itda-explorer", "torch", "transformers", "numpy"])
def test_a_machine_that_would_write_other_numbers_is_refused_by_name(tmp_path, name):
    """Other code, or another library that computes."""
    others = {**packages(), name: "0.1"}
    told = rf"node-7 has another {name} \(.*\) than the one that starts the training \(0\.1\)"
    with pytest.raises(InputError, match=told):
        task._check(order(tmp_path, packages=others), [])


def test_code_that_was_changed_or_moved_is_other_code(tmp_path, monkeypatch):
    monkeypatch.setattr(machine_module, "__file__", str(tmp_path / "core" / "cluster" / "m.py"))
    file, found = tmp_path / "core" / "cluster" / "a.py", set()
    file.parent.mkdir(parents=True)
    for content, path in [("x = 1", file), ("x = 2", file), ("x = 2", tmp_path / "core" / "a.py")]:
        for old in tmp_path.rglob("*.py"):
            old.unlink()
        path.write_text(content)
        found.add(packages.__wrapped__()["itda-explorer"])
    assert len(found) == 3
