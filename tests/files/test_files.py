"""What is written is on the disk before it has its name, and its name after it."""

import contextlib
import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from itda_core.errors import ItdaError
from itda_core.files.writing import append_lines, rename_whole, write_atomically
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


# Lines that are added


def test_a_line_that_a_crash_cut_short_swallows_no_other(tmp_path):
    (tmp_path / "lines").write_bytes(b"one\ntw")
    append_lines(tmp_path / "lines", b"three\n")
    append_lines(tmp_path / "lines", b"four\nfive\n")
    assert (tmp_path / "lines").read_bytes() == b"one\ntw\nthree\nfour\nfive\n"


@pytest.mark.parametrize("n_written", [0, 3, 6])
def test_what_can_not_be_added_whole_is_taken_back(tmp_path, monkeypatch, n_written):
    """The disk takes a part, or all of it and does not bring it to the platter."""
    file, write = tmp_path / "lines", os.write
    file.write_bytes(b"one\n")
    left = [n_written]

    def some(opened, content):
        if not left[0]:
            raise OSError(errno.ENOSPC, "no space")
        n = write(opened, content[: left[0]])
        left[0] -= n
        return n

    def refuse(_opened):
        raise OSError(errno.EIO, "it fails")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", some)
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(OSError, match=r"no space|it fails"):
            append_lines(file, b"two..\n")
    assert file.read_bytes() == b"one\n"


def test_what_a_program_without_the_lock_wrote_behind_a_part_stays(tmp_path, monkeypatch):
    file, write = tmp_path / "lines", os.write

    def part(opened, content):
        write(opened, content[:2])
        with file.open("ab") as other:
            other.write(b"\nother\n")
        raise OSError(errno.ENOSPC, "no space")

    file.write_bytes(b"one\n")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", part)
        with pytest.raises(OSError, match="no space"):
            append_lines(file, b"two, which is longer\n")
    assert file.read_bytes() == b"one\ntw\nother\n"


WRITER = r"""
import os, sys, time
from pathlib import Path
from itda_core.files.writing import append_lines
file, name, fails = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "fails"
write = os.write
def slowly(opened, content):
    n = write(opened, content[:3])
    if fails:
        time.sleep(0.002)
        raise OSError(28, "no space")
    return n
os.write = slowly
for number in range(60):
    try:
        append_lines(file, f"{name} {number}\n".encode())
    except OSError:
        assert fails
os.write = write
"""


def test_a_write_that_fails_takes_no_line_of_another_process_with_it(tmp_path):
    """Three write line after line in small parts, one of which fails after each first part."""
    file = tmp_path / "lines"
    jobs = [
        subprocess.Popen([sys.executable, "-c", WRITER, file, name, how])
        for name, how in (("a", "writes"), ("b", "writes"), ("c", "fails"))
    ]
    assert [job.wait() for job in jobs] == [0, 0, 0]
    lines = file.read_text().splitlines()
    assert sorted(lines) == sorted(f"{name} {number}" for name in "ab" for number in range(60))
    of_a = [line for line in lines if line.startswith("a")]
    assert of_a == [f"a {number}" for number in range(60)]


@pytest.mark.skipif(os.name == "nt", reason="flock is of POSIX")
def test_a_process_that_does_not_let_go_is_a_sentence(tmp_path, monkeypatch):
    import fcntl

    monkeypatch.setattr("itda_core.write_lock._PATIENCE_SECONDS", 0.0)
    file = tmp_path / "lines"
    file.write_bytes(b"one\n")
    with file.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ItdaError, match="being written by another process"):
            append_lines(file, b"two\n")
    append_lines(file, b"three\n")
    assert file.read_bytes() == b"one\nthree\n"


@pytest.mark.skipif(os.name == "nt", reason="flock is of POSIX")
def test_a_file_system_without_locks_is_written_to_all_the_same(tmp_path, monkeypatch):
    import fcntl

    def refuse(*_arguments):
        raise OSError(errno.ENOLCK, "it has none")

    monkeypatch.setattr(fcntl, "flock", refuse)
    append_lines(tmp_path / "lines", b"one\n")
    assert (tmp_path / "lines").read_bytes() == b"one\n"
