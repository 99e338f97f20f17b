"""What is written is on the disk before it has its name, and its name after it."""

import contextlib
import errno
import os
import stat
from pathlib import Path

import pytest

from itda_core.errors import ItdaError
from itda_core.files import rename_whole, write_atomically
from itda_core.runs.run import new_run
from itda_core.sealed import DIGESTS_FILE


@pytest.fixture
def done(monkeypatch):
    """What was brought to the disk and what was renamed, in that order: inodes, and names."""
    order, sync, replace, rename = [], os.fsync, os.replace, Path.rename

    def synced(number):
        order.append(os.fstat(number).st_ino)
        sync(number)

    def replaced(before, after):
        order.append(Path(after).name)
        replace(before, after)

    def renamed(before, after):
        order.append(Path(after).name)
        return rename(before, after)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    monkeypatch.setattr(Path, "rename", renamed)
    return order


def inode(path):
    return path.stat().st_ino


def test_a_file_is_synced_before_its_name_and_its_folder_after(tmp_path, done):
    write_atomically(tmp_path / "a", b"content")
    assert done == [inode(tmp_path / "a"), "a", inode(tmp_path)]


@pytest.mark.parametrize("write", [rename_whole, None], ids=["a folder", "a run"])
def test_a_folder_is_synced_with_all_that_lies_in_it(tmp_path, done, write):
    if write is None:
        with new_run(tmp_path, "named") as folder:  # which gets digests
            (folder / "one").write_bytes(b"content")
            (folder / "two").write_bytes(b"more")
    else:
        folder = tmp_path / "temporary"
        folder.mkdir()
        _fill(folder)
        write(folder, tmp_path / "named")
    named = tmp_path / "named"
    before = {inode(path) for path in [named, *named.rglob("*")]}
    at = done.index("named")
    assert len(before) == 4
    assert set(done[:at]) - {DIGESTS_FILE} == before
    assert done[at + 1 :] == [inode(tmp_path)]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO])
def test_a_file_system_without_a_sync_of_folders_is_written_to_all_the_same(
    tmp_path, monkeypatch, number
):
    sync = os.fsync

    def refuse(opened):
        if stat.S_ISDIR(os.fstat(opened).st_mode):
            raise OSError(number, "it says why")
        sync(opened)

    monkeypatch.setattr(os, "fsync", refuse)
    failed = pytest.raises(ItdaError, match=r"does not answer as it should \(it says why\)")
    expected = contextlib.nullcontext() if number == errno.EINVAL else failed
    with expected, new_run(tmp_path, "named") as folder:
        (folder / "one").write_bytes(b"content")
    assert (tmp_path / "named").exists() == (number == errno.EINVAL)


def _fill(folder):
    (folder / "file").write_bytes(b"content")
    (folder / "inner").mkdir()
    (folder / "inner" / "file").write_bytes(b"more")
