"""The option --memory and ITDA_MEMORY: how much a model may use, and nothing about what is made."""

import json

import pytest

from itda_core.cli import app as app_module
from itda_core.cli.parser import make_parser
from itda_core.devices import Device
from itda_core.errors import InputError, SettingError
from itda_core.memory import memory_of_each, memory_setting, usable_memory
from itda_core.runs.run import list_runs
from itda_core.settings import MEMORY
from tests.support.command_line import one_json, strict_json
from tests.support.trained_runs import tiny_config

TAKING = {
    "train", "evaluate", "probe", "detect", "decompose", "measure", "import-sae",
    "import-published", "app", "capture", "move", "score", "compare-latents",
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("8GiB", 8 * 2**30), ("8 GB", 8_000_000_000), ("1.5gb", 1_500_000_000), ("2MiB", 2**21),
        ("3TiB", 3 * 2**40), ("4096KiB", 2**22), ("5000kB", 5_000_000), (" 8589934592B ", 2**33),
    ],
)  # fmt: skip
def test_a_size_is_a_number_with_its_unit(text, count):
    assert MEMORY.read(text) == count


NO_SIZES = ["", "8", "8G", "GiB", "-8GiB", "8 iB", "8iB", "1e9B", "8GiBs", "٨GB"]


@pytest.mark.parametrize("text", NO_SIZES)
def test_what_is_no_size_is_refused_with_one(text):
    with pytest.raises(SettingError, match=r"memory must be a size such as 8GiB or 500MB, got"):
        MEMORY.read(text)


def test_less_than_any_model_takes_is_refused():
    with pytest.raises(SettingError, match="memory must be at least 1MiB, got 12"):
        MEMORY.read("12B")
    assert usable_memory("cpu", 12) == 12
    for wrong in (0, "8GiB", True):
        with pytest.raises(SettingError, match="memory must be"):
            usable_memory("cpu", wrong)
    with pytest.raises(SettingError, match="memory must be at most"):
        MEMORY.read("9999999TiB")


def test_what_is_said_comes_before_the_setting_and_that_before_what_is_free(monkeypatch):
    there = Device("cpu", "A CPU", total=2_000_000_000, free=1_000_000_000)
    monkeypatch.setattr("itda_core.devices.described", lambda _name: there)
    monkeypatch.delenv("ITDA_MEMORY", raising=False)
    assert usable_memory("cpu") == 900_000_000
    monkeypatch.setenv("ITDA_MEMORY", "3GB")
    assert (usable_memory("cpu"), usable_memory("cpu", 2**30)) == (3 * 10**9, 2**30)
    monkeypatch.setenv("ITDA_MEMORY", "much")
    with pytest.raises(InputError, match=r"ITDA_MEMORY must be a size .* Change that, or unset it"):
        memory_setting()


def test_every_command_that_runs_a_model_takes_a_memory(cli):
    commands = next(one.choices for one in make_parser()._actions if one.dest == "command")
    taking = {
        name
        for name, command in commands.items()
        if any("--memory" in one.option_strings for one in command._actions)
    }
    assert taking == TAKING
    for command in sorted(TAKING):
        code, out, err = cli(command, "--memory", "8")
        assert (code, out) == (2, "")
        assert "--memory must be a size such as 8GiB" in err


def test_a_training_is_the_same_with_the_memory_that_is_said(
    cli, tmp_path, tiny_model_folder, tiny_corpus_file
):
    config = tiny_config(tiny_model_folder, tiny_corpus_file, layers=(1,), max_atoms=20)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config.to_dict()))
    train = ("train", "--config", file, "--json")
    one_json(cli(*train, "--runs", tmp_path / "free"))
    one_json(cli(*train, "--runs", tmp_path / "said", "--memory", "1GiB"))
    [free], [said] = (list_runs(tmp_path / name) for name in ("free", "said"))
    assert said.run_id == free.run_id
    assert said.dictionary().sources.equals(free.dictionary().sources)


def test_the_app_hands_its_memory_to_the_pages(cli, monkeypatch):
    def take_the_place(_program, _command, environment):
        raise SystemExit(environment["ITDA_MEMORY"])

    monkeypatch.setattr(app_module.os, "execve", take_the_place)
    monkeypatch.setenv("ITDA_MEMORY", "3GB")
    assert cli("app", "--memory", "8GiB")[0] == f"{8 * 2**30}B"
    assert cli("app")[0] == "3GB"
    monkeypatch.setattr(app_module.os, "execve", lambda *_: pytest.fail("the app was opened"))
    monkeypatch.setenv("ITDA_MEMORY", "much")
    code, _, err = cli("app")
    assert code == 2
    assert "ITDA_MEMORY must be a size" in err


def test_doctor_says_how_large_a_model_is_loaded(cli, monkeypatch):
    def told():
        checks = strict_json(cli("doctor", "--json")[1])["checks"]
        return next(one for one in checks if one["check"] == "memory")

    monkeypatch.setenv("ITDA_MEMORY", "3GB")
    assert told()["found"].startswith("weights of up to 3.0 GB (as ITDA_MEMORY says); larger")
    monkeypatch.setenv("ITDA_MEMORY", "much")
    assert not told()["ok"]


@pytest.mark.parametrize(
    ("free", "together", "each"),
    [
        (100_000, 1, None),  # nobody to share with: what is free, as ever
        (100_000, 4, 22_500),
        (60_000, 4, 22_500),  # another one has its share already
        (20_000, 4, 18_000),  # other programs take more
    ],
)
def test_processes_that_share_a_device_use_equal_parts_of_it(monkeypatch, free, together, each):
    device = Device("cpu", "a CPU", 100_000, free)
    monkeypatch.setattr("itda_core.devices.described", lambda _name: device)
    monkeypatch.delenv("ITDA_MEMORY", raising=False)
    assert memory_of_each(together) == each


def test_what_is_said_holds_for_each_of_them(monkeypatch):
    assert memory_of_each(4, 5_000) == 5_000
    monkeypatch.setenv("ITDA_MEMORY", "8GiB")
    assert usable_memory("cpu", memory_of_each(4)) == 8 * 2**30
