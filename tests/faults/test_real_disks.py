"""Disks that are really full, closed or limited, as libraries meet them that write themselves."""

import os
import shutil
import signal
import stat

import pytest

from itda_core.cli.main import main
from itda_core.runs.run import list_runs
from tests.faults.test_disks import assert_says_it_in_a_sentence, files_of_runs
from tests.support import dying
from tests.support.confined import Little, read_only, without_rights_of_root
from tests.support.writing_commands import KINDS, assert_runs_are_whole

IS_LONG = "ITDA_FAULT_KILLS" in os.environ
N_SIZES = int(os.environ.get("ITDA_FAULT_KILLS", 4)) // 4 or 1
"""of each kind"""
NAMES = KINDS if IS_LONG else ("threshold", "evaluate", "rebuild")
CANT = 77
"""exit code of a child that the system does not let try"""
PAGE = 4_096
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")


def confined(writing, name, folder, confine):
    """Run a command in a child that `confine` was done to; what it left, and how it ended."""
    kind = writing.kinds[name]
    texts = [str(argument) for argument in kind.command]
    life = dying.live(_confined, folder, confine, texts, kind.prepare)
    if life.code == CANT:
        pytest.skip(f"the system lets nobody try it: {life.printed}")
    return life


def _confined(folder, _sender, confine, texts, prepare):
    signal.alarm(dying.PATIENCE)
    try:
        confine(folder)
    except OSError as error:
        print(error)
        return CANT
    if prepare:
        prepare(folder)
    code = main(texts)
    if confine.leaves_nothing:
        shutil.copytree(folder, folder.with_name(f"{folder.name}-left"))
    return code


class ReadOnly:
    leaves_nothing = False

    def __call__(self, folder):
        read_only(folder)


class WithoutRights:
    """mode: of all files; folders have the right to be entered as far as files may be read."""

    leaves_nothing = False

    def __init__(self, mode):
        self.mode = mode

    def __call__(self, folder):
        for path in [*folder.rglob("*"), folder]:
            path.chmod(self.mode | (0o111 if self.mode and path.is_dir() else 0))
        without_rights_of_root()


def on_disk(folder):
    """Bytes that a small disk gives to what is in a folder."""
    sizes = (path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return sum(-(-size // PAGE) * PAGE for size in sizes)


@pytest.mark.parametrize("name", NAMES)
def test_a_disk_that_fills_up_costs_nothing(writing, name, tmp_path):
    whole, _ = writing.whole(name)
    for part in range(N_SIZES):
        folder = tmp_path / f"small-{part}"
        writing.begin(name, folder)
        before, held = files_of_runs(folder) if name in BEFORE else {}, on_disk(folder)
        room = max(2 * PAGE, (on_disk(whole) - held) * (2 * part + 1) // (2 * N_SIZES))
        life = confined(writing, name, folder, Little("disk", held + room))
        left = folder.with_name(f"{folder.name}-left")
        why = f"a disk with {room:,} free bytes"
        assert_says_it_in_a_sentence(life, why)
        assert_runs_are_whole(left, {path.split("/")[0] for path in before}, why)
        moved = left.rename(tmp_path / f"again-{part}")
        writing.assert_done_again_comes_to_the_same(name, moved, why)


BEFORE = ("move", "evaluate", "rebuild")
"""Commands on runs that are there"""


@pytest.mark.parametrize("name", ["import-sae", "rebuild"])
def test_a_limit_on_the_size_of_files_costs_nothing(writing, name, tmp_path):
    for kilobytes in (2, 20) if IS_LONG else (8,):
        folder, why = tmp_path / f"limited-{kilobytes}", f"files of {kilobytes} KB"
        writing.begin(name, folder)
        before = {run.run_id for run in list_runs(folder / "runs")}
        life = confined(writing, name, folder, Little("files", 1_000 * kilobytes))
        assert life.code, why
        assert_says_it_in_a_sentence(life, why)
        assert_runs_are_whole(folder, before, why)
        writing.assert_done_again_comes_to_the_same(name, folder, why)


@pytest.mark.parametrize("closed", [ReadOnly(), WithoutRights(0o444), WithoutRights(0)])
@pytest.mark.parametrize("name", NAMES)
def test_a_closed_folder_is_left_as_it_is(writing, name, closed, tmp_path):
    folder, why = tmp_path / "closed", type(closed).__name__
    writing.begin(name, folder)
    folder.mkdir(exist_ok=True)
    modes = {path: path.stat().st_mode for path in [folder, *folder.rglob("*")]}
    before = contents(folder)
    life = confined(writing, name, folder, closed)
    for path, mode in modes.items():
        path.chmod(stat.S_IMODE(mode))
    assert life.code, why
    assert_says_it_in_a_sentence(life, why)
    assert contents(folder) == before
    writing.assert_done_again_comes_to_the_same(name, folder, why)


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
