"""Machines know the folder of runs by a file, which goes however the process ends."""

import subprocess
import sys

import pytest

from itda_core.cluster.shared_folder import _start, check_shared, shared
from itda_core.errors import InputError, ItdaError

HELD_UNTIL_KILLED = """
import sys
from pathlib import Path
from itda_core.cluster.shared_folder import shared
with shared(Path(sys.argv[1])) as token:
    print(token, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """Another process that holds the folder, and its file there."""
    command = [sys.executable, "-c", HELD_UNTIL_KILLED, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        yield process, tmp_path / process.stdout.readline().strip()
        process.kill()


def test_what_a_killed_process_left_goes_on_the_next_start_and_nothing_else(other, tmp_path):
    process, file = other
    alike = f"{_start()}2-{32 * 'a'}"  # another machine, whose name begins like this one's
    elsewhere = tmp_path / alike
    elsewhere.touch()
    with shared(tmp_path) as token:
        assert file.exists(), "its process lives"
        check_shared(tmp_path, token)
        process.kill()
        process.wait()
    assert {*tmp_path.iterdir()} == {file, elsewhere}
    with shared(tmp_path) as token:
        assert {*tmp_path.iterdir()} == {tmp_path / token, elsewhere}
    assert {*tmp_path.iterdir()} == {elsewhere}


def test_a_folder_that_is_another_or_can_not_be_written_to_is_refused(tmp_path, monkeypatch):
    with shared(tmp_path / "runs") as token:
        with pytest.raises(InputError, match="is not the one of the machine that starts"):
            check_shared(tmp_path, token)

        def refuse(_path):
            raise PermissionError(13, "refused")

        monkeypatch.setattr("pathlib.Path.touch", refuse)
        with pytest.raises(ItdaError, match="can't be written to"):
            check_shared(tmp_path / "runs", token)
