"""train --list: several trainings of one file, one after another or on a cluster."""

import json

import pytest

from itda_core.progress import Progress
from itda_core.runs.run import list_runs
from itda_core.training import in_turn
from itda_core.training.training_list import read_list
from tests.support.command_line import one_json, table
from tests.support.trained_runs import assert_same_runs, trained


@pytest.fixture
def list_file(tmp_path, tiny_model_folder, tiny_corpus_file):
    """Two seeds of one model, and a layer alone."""
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
        context-length = 32

        [[training]]
        seed = [0, 1]

        [[training]]
        layers = 3
        """,
        encoding="utf-8",
    )
    return file


def test_a_list_makes_the_runs_that_its_trainings_make_one_by_one(cli, tmp_path, list_file):
    progress = tmp_path / "progress.jsonl"
    command = ["train", "--list", list_file, "--runs", tmp_path / "runs", "--json"]
    told = one_json(cli(*command, "--progress", progress))
    for one in read_list(list_file):
        trained(one.config, tmp_path / "one by one")
    assert_same_runs(tmp_path / "runs", tmp_path / "one by one")
    assert told["failures"] == []
    assert [run["layer"] for run in told["runs"]] == [1, 2, 1, 2, 3]
    lines = [json.loads(line) for line in progress.read_text().splitlines()]
    fractions = [line["fraction"] for line in lines]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1], lines[-1]["stage"]) == (0, 1, "done")
    assert lines[-1]["finished"] == [run["run_id"] for run in told["runs"]]
    states = {tuple(row["state"] for row in line["trainings"]) for line in lines}
    assert ("done", "running", "waiting") in states
    assert one_json(cli(*command)) == told  # nothing is made again


def test_one_that_fails_costs_no_other_and_is_named_at_the_end(cli, tmp_path, list_file):
    wrong = '[[training]]\nmodel = "/no/model"\nlayers = 1\n'
    list_file.write_text(wrong + list_file.read_text(), encoding="utf-8")
    list_file.write_text(list_file.read_text().replace("seed = [0, 1]", ""), encoding="utf-8")
    command = ["train", "--list", list_file, "--runs", tmp_path / "runs"]
    code, out, err = cli(*command)
    assert code == 1
    head, *rows = table((0, out, err))
    assert [row[head.index("layer")] for row in rows] == ["1", "2", "3", "1"]
    assert rows[-1][:3] == ["failed: training 1", "/no/model", "1"]
    last = err.splitlines()[-1]
    assert last.startswith("Error: 1 of 3 trainings failed, the first for this: There is no model")
    told = "Training 1 (/no/model, layer 1, seed 0) failed: There is no model folder"
    assert err.count(told) == 1
    assert err.index(told) < err.index("1 failed"), "before the first one begins"
    code, out, _ = cli(*command, "--json")
    told = json.loads(out)
    assert (code, len(told["runs"]), len(told["failures"])) == (1, 3, 1)
    assert told["failures"][0]["training"] == 1
    assert len(list_runs(tmp_path / "runs")) == 3


def test_models_and_layers_are_checked_before_the_first_training_starts(
    monkeypatch, tmp_path, list_file
):
    wrong = "[[training]]\nlayers = [2, 77]\n[[training]]\nmodel = '/no/model'\nlayers = 1\n"
    list_file.write_text(list_file.read_text() + wrong, encoding="utf-8")
    monkeypatch.setattr(in_turn, "train", lambda *_: (one for one in [Progress("done")]))
    steps = in_turn.train_in_turn(read_list(list_file), tmp_path / "runs")
    next(steps)
    first = next(steps)
    states = [row["state"] for row in first.trainings]
    assert states == ["done", "waiting", "waiting", "failed", "failed"]
    assert [note.partition(" failed: ")[0][:10] for note in first.notes] == [
        "Training 4", "Training 5"
    ]  # fmt: skip
    assert "there is no layer 77." in first.notes[0]
    assert [row["state"] for row in [*steps][-1].trainings].count("done") == 3


def test_a_list_with_an_error_starts_nothing(cli, tmp_path, list_file):
    list_file.write_text(f"{list_file.read_text()}\nl0 = 0", encoding="utf-8")
    code, _, err = cli("train", "--list", list_file, "--runs", tmp_path / "runs")
    assert code == 2
    assert f"Error: {list_file}, training 2: l0 must be at least 1, got 0.\n" in err
    assert not (tmp_path / "runs").exists()


def test_what_has_no_word_for_it_is_told_with_its_kind(monkeypatch, tmp_path, list_file):
    def breaks(config, *_):
        if config.seed == 1:
            raise ValueError("not said\nin full")
        yield Progress("done", finished=[f"{config.layers}"])

    monkeypatch.setattr(in_turn, "train", breaks)
    last = [*in_turn.train_in_turn(read_list(list_file), tmp_path / "runs")][-1]
    assert [row["state"] for row in last.trainings] == ["done", "failed", "done"]
    assert last.trainings[1]["error"] == "ValueError: not said"
    assert (last.stage, last.fraction) == ("training", 1)
    assert last.finished == ["(1, 2)", "(3,)"]


def test_stopping_a_list_stops_the_training_that_is_under_way(monkeypatch, tmp_path, list_file):
    closed = []

    def endless(config, *_):
        try:
            while True:
                yield Progress("training", fraction=0.5)
        except GeneratorExit:
            closed.append(config.seed)
            raise

    monkeypatch.setattr(in_turn, "train", endless)
    steps = in_turn.train_in_turn(read_list(list_file), tmp_path / "runs")
    progress = [next(steps) for _ in range(3)][-1]
    assert [row["state"] for row in progress.trainings] == ["running", "waiting", "waiting"]
    assert progress.fraction == pytest.approx(0.5 / 3)
    steps.close()
    assert closed == [0]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--layers", "1"], "says what is trained: leave out --layers."),
        (["--workers", "2"], "Without --ray this machine trains alone: leave out --workers."),
        (["--ray", "auto", "--device", "cpu"], "takes its own device: leave out --device."),
        (["--ray", "nowhere"], "A Ray cluster is named auto, for the one that this machine"),
    ],
)
def test_options_that_do_not_go_with_a_list_are_refused(cli, list_file, options, told):
    code, _, err = cli("train", "--list", list_file, *options)
    assert code == 2
    assert told in err
