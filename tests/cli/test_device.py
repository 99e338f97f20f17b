"""The option --device: it says where the model runs, and nothing about what is made."""

import json
import os

import pytest

from itda_core.cli import app as app_module
from itda_core.cli.parser import make_parser
from itda_core.runs.run import list_runs
from tests.support.command_line import one_json
from tests.support.pretend_device import PretendDevice
from tests.support.trained_runs import tiny_config

RUN_A_MODEL = {
    "train", "evaluate", "probe", "detect", "decompose", "measure", "models", "import-sae",
    "import-published", "app", "capture", "move", "compare-latents", "score",
}  # fmt: skip


def commands():
    return next(one.choices for one in make_parser()._actions if one.dest == "command")


def test_every_command_that_runs_a_model_takes_a_device():
    taking = {
        name
        for name, command in commands().items()
        if any("--device" in one.option_strings for one in command._actions)
    }
    assert taking == RUN_A_MODEL


@pytest.mark.parametrize("command", sorted(RUN_A_MODEL))
def test_a_device_that_is_not_there_ends_with_two_before_anything_starts(cli, command):
    code, out, err = cli(command, "--device", "cuda:7")
    assert (code, out) == (2, "")
    assert err.startswith("Error: There is no device 'cuda:7' here. There is: ")


def test_a_training_runs_where_it_is_told_and_is_the_same_training(
    cli, tmp_path, tiny_model_folder, tiny_corpus_file
):
    config = tiny_config(tiny_model_folder, tiny_corpus_file, layers=(1,), max_atoms=20)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config.to_dict()))
    train = ("train", "--config", file, "--json")
    one_json(cli(*train, "--runs", tmp_path / "here", "--device", "cpu"))
    with PretendDevice() as seen:
        one_json(cli(*train, "--runs", tmp_path / "there", "--device", "pretend"))
    assert seen.calls["aten::linear"] > 0
    [here], [there] = (list_runs(tmp_path / name) for name in ("here", "there"))
    assert there.run_id == here.run_id
    assert (here.about["device"], there.about["device"]) == ("cpu", "pretend")
    assert there.dictionary().sources.equals(here.dictionary().sources)


@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", "L01", "--max-tokens", 100, "--l0s", "2"),
        ("measure", "L01", "L02", "--measures", "cka", "--max-tokens", 150),
        ("decompose", "L01", "--text", "the treaty with Spain"),
    ],
    ids=lambda command: command[0],
)
def test_what_is_measured_elsewhere_is_what_is_measured_here(cli, runs_folder, ids, command):
    names = {name[-3:]: name for name in ids}
    arguments = [names.get(word, word) for word in command]
    options = ("--runs", runs_folder, "--json")
    here = one_json(cli(*arguments, *options, "--device", "cpu"))
    with PretendDevice() as seen:
        there = one_json(cli(*arguments, *options, "--device", "pretend"))
    assert seen.calls["aten::linear"] > 0
    assert_alike(there, here)


def assert_alike(one, other):
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one.keys() - {"seconds", "created"}:
            assert_alike(one[name], other[name])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for first, second in zip(one, other, strict=True):
            assert_alike(first, second)
    else:
        assert one == (pytest.approx(other, rel=1e-3) if isinstance(other, float) else other)


def test_a_model_is_checked_on_the_device_that_is_named(cli, tiny_model_folder):
    options = ("--check", tiny_model_folder, "--dtype", "float32", "--json")
    with PretendDevice():
        told = one_json(cli("models", *options, "--device", "pretend"))
    assert told["device"] == "pretend:0"
    code, _, err = cli("models", "--device", "cpu")
    assert code == 2
    assert "leave out --device" in err


def test_the_app_hands_its_device_to_the_pages(cli, monkeypatch):
    def take_the_place(_program, _command, environment):
        raise SystemExit(environment["ITDA_DEVICE"])

    monkeypatch.setattr(app_module.os, "execve", take_the_place)
    monkeypatch.setenv("ITDA_DEVICE", "pretend")
    assert cli("app", "--device", "cpu")[0] == "cpu"
    assert cli("app")[0] == "pretend"
    assert os.environ["ITDA_DEVICE"] == "pretend"


def test_the_app_does_not_open_where_its_device_is_missing(cli, monkeypatch):
    monkeypatch.setattr(app_module.os, "execve", lambda *_: pytest.fail("the app was opened"))
    monkeypatch.setenv("ITDA_DEVICE", "nonsense")
    code, out, err = cli("app")
    assert code == 2
    assert "There is no device 'nonsense' here" in err
    assert "opens at" not in out
