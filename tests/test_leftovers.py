"""What is half written is removed once nobody writes it any more, and never before."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from filelock import FileLock

from itda_core import leftovers
from itda_core.config import CorpusSpec, ModelSpec, TrainConfig
from itda_core.files.writing import write_atomically
from itda_core.leftovers import remove_leftovers, temporary_name
from itda_core.runs.interrupted import delete_interrupted, interrupted_trainings
from itda_core.runs.run import new_run
from itda_core.runs.workspace import Workspace

WRITES = """
import sys, time
from pathlib import Path
from itda_core.leftovers import temporary_name
from itda_core.runs.run import new_run
runs = Path(sys.argv[1])
(runs / "whole").mkdir(exist_ok=True)
(runs / "whole" / temporary_name("scores.parquet")).write_bytes(b"half")
with new_run(runs, "a-L00") as folder:
    (folder / "config.json").write_text("{}")
    print("writing", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def writer(tmp_path):
    """A process in the middle of writing a run, and a result into another."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITES, str(tmp_path)], stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        yield process
        process.kill()


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_what_a_living_process_writes_stays_and_what_a_killed_one_left_goes(tmp_path, writer):
    there = names(tmp_path)
    assert len(there) == 2
    assert remove_leftovers(tmp_path) == []
    assert names(tmp_path) == there
    writer.send_signal(signal.SIGKILL)
    # Before anybody asks for its exit code, as when the app that started it has gone.
    os.waitid(os.P_PID, writer.pid, os.WEXITED | os.WNOWAIT)
    assert len(remove_leftovers(tmp_path)) == 2
    assert names(tmp_path) == []
    assert (tmp_path / "whole").is_dir()


def test_a_discarded_training_takes_what_was_half_written_with_it(tmp_path, writer):
    writer.kill()
    writer.wait()
    delete_interrupted(tmp_path, "a")  # whatever is known of it
    (tmp_path / ".a").mkdir()
    FileLock(tmp_path / ".a" / "lock").acquire().lock.release()
    (tmp_path / ".a" / "config.json").write_text("{}")
    delete_interrupted(tmp_path, "a")
    assert names(tmp_path) == []


def test_a_number_that_another_process_has_by_now_is_no_owner(tmp_path):
    name = temporary_name("writing-a")
    _, before, machine, pid, begun, thread = name.split(".")
    (tmp_path / name).mkdir()
    earlier = f".{before}.{machine}.{pid}.{int(begun) + 1}.{thread}"
    elsewhere = f".{before}.{'0' * 8}.{pid}.{int(begun) + 1}.{thread}"
    (tmp_path / earlier).mkdir()
    (tmp_path / elsewhere).mkdir()  # nobody here knows of its processes
    assert remove_leftovers(tmp_path) == [tmp_path / earlier]
    assert (tmp_path / name).is_dir()
    assert (tmp_path / elsewhere).is_dir()


@pytest.mark.parametrize("has_proc", [False, True])
def test_without_a_look_at_a_process_it_owns_what_it_writes_as_long_as_it_lives(
    tmp_path, monkeypatch, writer, has_proc
):
    """On systems without /proc, where setting the clock may change when a process began, and where
    /proc hides the processes of other users."""
    if has_proc:
        (tmp_path / "proc" / "self").mkdir(parents=True)
    monkeypatch.setattr(leftovers, "_PROC", tmp_path / "proc")
    _, _, machine, *_ = temporary_name("a").split(".")
    folder = tmp_path / "folder"
    folder.mkdir()
    living, dead = (folder / f".a.{machine}.{pid}.1.0" for pid in (writer.pid, 2**31 - 1))
    living.write_text("half")
    dead.write_text("half")
    assert remove_leftovers(folder) == [dead]
    assert living.exists()


def test_a_container_with_the_name_of_its_machine_is_another_machine(tmp_path, monkeypatch):
    if not os.path.islink("/proc/self/ns/pid"):  # noqa: PTH114
        pytest.skip("a system without containers of this kind")
    (tmp_path / "self" / "ns").mkdir(parents=True)
    (tmp_path / "self" / "ns" / "pid").symlink_to("pid:[1]")
    outside = leftovers._machine.__wrapped__()
    monkeypatch.setattr(leftovers, "_PROC", tmp_path)
    assert leftovers._machine.__wrapped__() != outside


def test_what_earlier_versions_left_goes_when_it_has_been_silent_for_a_day(tmp_path):
    for name in (".writing-a-L00", ".deleted-b-L00"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    assert remove_leftovers(tmp_path) == []
    before = time.time() - 2 * 86_400
    for path in [*tmp_path.rglob("*")]:
        os.utime(path, (before, before))
    assert len(remove_leftovers(tmp_path)) == 2


def test_a_training_that_cannot_be_resumed_goes_when_nobody_holds_it(tmp_path):
    folder = tmp_path / ".writing-tiny-00000000"
    folder.mkdir()
    with FileLock(folder / "lock"):
        assert remove_leftovers(tmp_path) == []
    assert remove_leftovers(tmp_path) == [folder]


def test_links_are_not_followed_and_other_hidden_names_stay(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    dead = ".a." + ".".join(temporary_name("a").split(".")[2:4]) + ".1.1"
    (outside / dead).write_text("kept")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link").symlink_to(outside)
    (inside / dead).symlink_to(outside)
    (inside / ".git").mkdir()
    (inside / ".tiny-00000000").mkdir()
    assert remove_leftovers(inside) == [inside / dead]
    assert (outside / dead).read_text() == "kept"
    assert sorted(path.name for path in inside.iterdir()) == [".git", ".tiny-00000000", "link"]


def test_two_that_write_the_same_run_do_not_write_into_one_folder(tmp_path):
    with new_run(tmp_path, "a") as first:
        (first / "one").write_text("1")
        shutil.copytree(first, tmp_path / "kept")
    write_atomically(tmp_path / "file", b"x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "file", "kept"]


@pytest.mark.parametrize("model", ["/models/Writing-LM", "me/deleted-scenes", "writing-", "tiny"])
def test_a_training_that_can_go_on_is_no_leftover_whatever_its_model_is_called(tmp_path, model):
    config = TrainConfig(ModelSpec(model), CorpusSpec("texts.txt"), (1,))
    training_id = config.training_id("model", "corpus")
    workspace = Workspace(tmp_path, training_id)
    with workspace.locked(config):  # it is interrupted, and nobody has its lock
        pass
    os.utime(workspace.directory, (0, 0))
    assert remove_leftovers(tmp_path) == []
    assert interrupted_trainings(tmp_path) == {training_id: config}
