"""doctor names what can't be used and what to do; it changes nothing but what it is asked to."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from itda_core.cli import doctor as command
from itda_core.data_folder import data_directory
from itda_core.jobs.kept import KeptJobs
from itda_core.leftovers import temporary_name
from itda_core.runs.run import list_runs
from itda_core.sealed import DIGESTS_FILE
from itda_core.store.store import FILE_NAME, rebuild
from tests.support.trained_runs import strict_json


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """The devices are tried elsewhere."""
    monkeypatch.setattr(command, "_devices", list)
    monkeypatch.setattr(command, "_memory_check", lambda: ("memory", "enough", True))


@pytest.fixture
def data(runs_folder):
    """A data folder in order: three runs and their database."""
    data = data_directory()
    shutil.copytree(runs_folder, data / "runs")
    rebuild(data / FILE_NAME, data / "runs")
    return data


def told(cli, *options):
    """The exit code, and what is not in order, as (check, found)."""
    code, out, _ = cli("doctor", *options, "--json")
    said = strict_json(out)
    bad = [(one["check"], one["found"]) for one in said["checks"] if not one["ok"]]
    assert said["to_mend"] == len(bad)
    return code, bad


def content_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 8
    path.write_bytes(content)


def test_a_folder_in_order_has_nothing_to_mend_and_is_left_as_it_is(cli, data):
    before = content_of(data)
    assert told(cli) == (0, [])
    assert told(cli, "--deep") == (0, [])
    assert content_of(data) == before


_LOADED = """
import sys
from itda_core.cli.main import main
code = main(["doctor", "--json"])
print(code, *sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""


def test_what_takes_seconds_to_import_is_left_alone_but_for_torch():
    ran = subprocess.run([sys.executable, "-c", _LOADED], capture_output=True, text=True)
    code, *loaded = ran.stderr.split()
    assert code in "01", ran.stderr
    assert "torch" in loaded
    assert not {"transformers", "numba", "streamlit", "plotly", "sklearn"} & {*loaded}


def test_a_folder_that_can_only_be_read_is_named_and_may_be_meant_so(cli, data, monkeypatch):
    access = os.access

    def no_writing(path, mode, **named):
        return not mode & os.W_OK and access(path, mode, **named)

    with monkeypatch.context() as patch:
        patch.setattr(os, "access", no_writing)
        code, out, _ = cli("doctor", "--json")
    [folder] = [one for one in strict_json(out)["checks"] if one["check"] == "data folder"]
    assert f"{data} can't be written to" in folder["found"]
    assert (code, folder["ok"]) == (0, True)


def test_an_empty_folder_has_nothing_to_mend(cli):
    assert told(cli) == (0, [])
    assert not (data_directory() / FILE_NAME).exists()


def test_a_file_of_another_size_is_named_at_once_and_a_flipped_bit_by_a_deep_look(cli, data):
    first, second, _ = list_runs(data / "runs")
    flip(first.directory / "codes.parquet")
    assert told(cli) == (0, [])
    code, [(check, found)] = told(cli, "--deep")
    assert (code, check) == (1, "run")
    assert str(first.directory / "codes.parquet") in found
    path = second.directory / "prompts.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    code, [(check, found)] = told(cli)
    assert (code, check) == (1, "run")
    assert f"{path} is damaged (it has" in found


def test_all_that_can_not_be_used_is_named(cli, data):
    runs = list_runs(data / "runs")
    (runs[0].directory / "config.json").write_text("[" * 100_000)
    (data / "labels.jsonl").write_text('{"run_id": 5}\nno JSON\n')
    (data / "names.json").write_text("[]")
    (data / "jobs" / "00003").mkdir(parents=True)
    (data / "jobs" / "00003" / "job.json").write_text("null")
    (data / "comparisons").mkdir()
    (data / "comparisons" / "x.parquet").write_bytes(b"none")
    (data / FILE_NAME).write_bytes(b"none" * 3_000)
    code, bad = told(cli)
    assert code == 1
    named = " ".join(found for _, found in bad)
    for path in (
        runs[0].directory, data / "jobs" / "00003" / "job.json", data / "names.json",
        data / "comparisons" / "x.parquet", data / FILE_NAME,
    ):  # fmt: skip
        assert str(path) in named
    assert "line 1" in named
    assert "line 2" in named


def test_jobs_that_came_with_the_folder_are_counted_and_nothing_to_mend(cli, data):
    queue = KeptJobs(data / "jobs")
    queue.enqueue("map", ["a"], "of this folder")
    job = queue.enqueue("map", ["b"], "of another")
    queue._save(replace(job, folder="0123456789abcdef"))
    _, out, _ = cli("doctor", "--json")
    said = [one["found"] for one in strict_json(out)["checks"] if one["check"] == "jobs"]
    assert said[1:] == [
        "1 were queued in another folder, by another person or by an earlier version, or have "
        "changed since: they wait to be let in on Train"
    ]
    assert told(cli) == (0, [])


def test_what_the_next_start_removes_is_told_and_what_a_living_process_writes_is_not(cli, data):
    living = data / "runs" / temporary_name("writing-y-L00")
    living.mkdir()
    *owner, _, number = living.name.split(".")
    dead = living.with_name(".".join([*owner, "1", number]))  # of another beginning
    dead.mkdir()
    (data / f"{FILE_NAME}.damaged-1").write_bytes(b"")
    _, out, _ = cli("doctor", "--json")
    [found] = [one for one in strict_json(out)["checks"] if one["check"] == "leftovers"]
    assert found["ok"]
    aside = data / f"{FILE_NAME}.damaged-1"
    assert found["found"] == f"1 that the next start removes: {dead}; 1 kept aside: {aside}"


def test_what_is_only_unreadable_is_not_to_be_deleted(cli, data, monkeypatch):
    run = list_runs(data / "runs")[0]
    scandir = os.scandir

    def refuse(path):
        if str(path) == str(run.directory):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    code, bad = told(cli)
    assert code == 1
    assert any("make it readable" in found for _, found in bad)
    assert not any("elete" in found for _, found in bad)


def test_runs_of_before_are_in_order_and_get_digests_when_asked(cli, data):
    for run in list_runs(data / "runs"):
        (run.directory / DIGESTS_FILE).unlink()
    code, out, _ = cli("doctor", "--json")
    [found] = [one for one in json.loads(out)["checks"] if one["check"] == "digests"]
    assert (code, found["ok"]) == (0, True)
    assert "3 of 3 runs were written without" in found["found"]
    damaged = list_runs(data / "runs")[1].directory
    flip(damaged / "prompts.parquet")
    code, bad = told(cli, "--seal")
    assert code == 1
    assert str(damaged / "prompts.parquet") in bad[0][1]
    sealed = [(run.directory / DIGESTS_FILE).exists() for run in list_runs(data / "runs")]
    assert sealed == [True, False, True]


def test_a_rebuild_lists_what_it_left_out_and_ends_with_one(cli, data):
    run = list_runs(data / "runs")[0]
    flip(run.directory / "dictionary.safetensors")
    code, out, err = cli("rebuild", "--json")
    said = strict_json(out)
    assert (code, said["runs"]) == (1, 2)
    assert str(run.directory) in said["left_out"][0]
    assert str(run.directory) in err
