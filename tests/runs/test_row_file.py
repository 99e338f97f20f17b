"""Explored activations kept in a file: what was written is read back, across an interruption."""

import binascii
import errno
import json
import shutil
from pathlib import Path

import pytest
import torch

from itda_core.errors import ItdaError
from itda_core.files.disk_errors import disk_errors_as_sentences
from itda_core.runs.workspace import RowFile, Workspace
from itda_core.sealed import DIGESTS_FILE
from tests.support.checkpoints import load


def rows_of(count, width, seed=0):
    """Float32 rows, every number of them different, with values that only bits can keep."""
    x = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    x[count // 2, 0], x[-1, -1] = float("nan"), float("-inf")
    return x


def same(one, other):
    """Equal to the bit, NaN included."""
    return one.dtype == other.dtype == torch.float32 and (
        one.numpy().tobytes() == other.numpy().tobytes() and one.shape == other.shape
    )


@pytest.fixture
def workspace(tmp_path):
    workspace = Workspace(tmp_path, "tiny-00000000")
    workspace.directory.mkdir()
    return workspace


@pytest.fixture
def free(monkeypatch):
    """Sets how many bytes the disk has left."""

    def bytes_left(number):
        usage = shutil._ntuple_diskusage(10**12, 10**12, number)
        monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)

    return bytes_left


# Writing and reading


@pytest.mark.parametrize("width", [1, 3, 16, 576])
@pytest.mark.parametrize("pieces", [[100], [1] * 100, [7, 30, 0, 63], [99, 1]])
def test_rows_written_in_pieces_are_read_back_in_any_blocks(tmp_path, width, pieces):
    x = rows_of(100, width)
    file = RowFile(tmp_path / "a.f32", 100, width)
    assert len(file) == 100
    row = 0
    for piece in pieces:
        file.write(row, x[row : row + piece])
        row += piece
    for first, count in [(0, 100), (0, 1), (99, 1), (13, 50), (40, 0), (0, 100)]:
        assert same(file.read(first, count), x[first : first + count])
    file.close()
    assert (tmp_path / "a.f32").read_bytes() == x.numpy().tobytes()


def test_a_read_past_the_end_gives_the_rows_there_are(tmp_path):
    x = rows_of(10, 4)
    file = RowFile(tmp_path / "a.f32", 10, 4)
    file.write(0, x)
    assert same(file.read(7, 8_192), x[7:])
    assert file.read(10, 5).shape == (0, 4)
    assert file.read(11, 5).shape == (0, 4)


def test_rows_that_were_not_written_are_zero(tmp_path):
    x = rows_of(6, 4)
    file = RowFile(tmp_path / "a.f32", 10, 4)
    assert same(file.read(0, 10), torch.zeros(10, 4))
    file.write(0, x)
    assert same(file.read(4, 6), torch.cat([x[4:], torch.zeros(4, 4)]))
    file.write(8, x[:1])
    expected = torch.cat([x, torch.zeros(2, 4), x[:1], torch.zeros(1, 4)])
    assert same(file.read(0, 10), expected)


def test_rows_in_any_layout_in_memory_are_written_as_they_are(tmp_path):
    x = rows_of(12, 8)
    file = RowFile(tmp_path / "a.f32", 6, 8)
    file.write(0, x[::2])
    assert same(file.read(0, 6), x[::2])
    file.write(0, x[:8, :6].T)
    assert same(file.read(0, 6), x[:8, :6].T.contiguous())


def test_no_rows_at_all(tmp_path):
    file = RowFile(tmp_path / "a.f32", 0, 16)
    file.write(0, torch.zeros(0, 16))
    assert len(file) == 0
    assert file.read(0, 8_192).shape == (0, 16)


def test_what_is_read_does_not_change_with_the_file(tmp_path):
    x = rows_of(4, 4)
    file = RowFile(tmp_path / "a.f32", 4, 4)
    file.write(0, x)
    read = file.read(0, 4)
    file.write(0, torch.ones(4, 4))
    assert same(read, x)


# Across an interruption


def test_rows_are_found_again_and_written_over_from_a_checkpoint_on(workspace):
    x, other = rows_of(40, 4), rows_of(40, 4, seed=1)
    first = workspace.rows("activations-1", 40, 4)
    first.write(0, x[:30])
    first.flush()
    again = workspace.rows("activations-1", 40, 4)
    assert same(again.read(0, 30), x[:30])
    again.write(20, other[20:])  # the checkpoint was at row 20; ten more had been written
    assert same(again.read(0, 40), torch.cat([x[:20], other[20:]]))
    again.close()
    assert (workspace.directory / "activations-1.f32").stat().st_size == 40 * 4 * 4


def test_flushed_rows_are_in_the_file(workspace):
    """Else a checkpoint would count on rows that a kill takes away."""
    x = rows_of(3, 4)
    file = workspace.rows("activations-1", 40, 4)
    file.write(0, x)
    file.flush()
    assert (workspace.directory / "activations-1.f32").read_bytes() == x.numpy().tobytes()


def test_a_checkpoint_counts_with_the_bytes_there_are(workspace):
    """More may be there later, and nothing less."""
    file = workspace.rows("activations-1", 40, 4)
    file.write(0, rows_of(10, 4))
    file.flush()
    state = {"window": 3, "row": 10, "bad_rows": {}, "seconds": 1.5}
    workspace.save_checkpoint(3, {}, state)
    path = workspace.directory / "activations-1.f32"
    content = path.read_bytes()
    for there in (content, content + b"\0", content * 4):
        path.write_bytes(there)
        kept = {"bytes": 160, "crc32": binascii.crc32(content)}
        assert load(workspace) == ({}, {**state, "arrays": {path.name: kept}})
    path.write_bytes(content[:-1])
    assert load(workspace) is None
    path.write_bytes(content)
    assert load(workspace) is None  # it was dropped


@pytest.mark.parametrize("is_open", [True, False])
def test_a_checkpoint_counts_with_no_other_bytes(workspace, is_open):
    """However they came there: in order, over others, after a gap, or before this process."""
    path, x = workspace.directory / "activations-1.f32", rows_of(40, 4)
    path.write_bytes(x[:5].numpy().tobytes())
    file = workspace.rows("activations-1", 40, 4)
    for first, last in ((5, 9), (3, 12), (12, 13), (20, 30), (13, 20)):
        file.write(first, x[first:last])
        file.flush()
        assert file.checksum().to_dict() == _as_it_is(path)
    if not is_open:
        file.close()
    workspace.save_checkpoint(3, {}, {"window": 3, "row": 10, "bad_rows": {}, "seconds": 1.5})
    content = bytearray(path.read_bytes())
    assert content == x[:30].numpy().tobytes()
    content[200] ^= 1
    path.write_bytes(content)
    assert load(workspace) is None
    assert "the activations in activations-1.f32 are not what was written" in workspace.notes[0]


def test_rows_that_no_checkpoint_counts_are_cut_off(workspace):
    """What is left beyond a checkpoint by an earlier process is written anew, perhaps otherwise."""
    path, x = workspace.directory / "activations-1.f32", rows_of(40, 4)
    file = workspace.rows("activations-1", 40, 4)
    state = {"window": 3, "row": 10, "bad_rows": {}, "seconds": 1.5}
    for number, first, last in ((1, 0, 10), (2, 10, 20), (3, 20, 30)):
        file.write(first, x[first:last])
        file.flush()
        if number < 3:
            workspace.save_checkpoint(number, {}, state)
    file.close()
    (workspace.directory / "sample-1.f32").write_bytes(b"\1" * 7)  # later than the checkpoints
    assert load(Workspace(workspace.runs, workspace.training_id)) is not None
    assert path.read_bytes() == x[:20].numpy().tobytes()
    assert (workspace.directory / "sample-1.f32").read_bytes() == b""
    shutil.rmtree(workspace.directory / "checkpoint-000000002")
    assert load(Workspace(workspace.runs, workspace.training_id)) is not None
    assert path.read_bytes() == x[:10].numpy().tobytes()
    shutil.rmtree(workspace.directory / "checkpoint-000000001")
    assert load(Workspace(workspace.runs, workspace.training_id)) is None
    assert path.read_bytes() == b""


def test_a_checkpoint_made_over_what_was_left_counts_with_what_was_written(workspace):
    """A flipped bit, a start anew, two checkpoints before that place, and a kill after it."""
    path, x = workspace.directory / "activations-1.f32", rows_of(40, 4)
    left = bytearray(x.numpy().tobytes())
    left[36 * 16] ^= 1
    path.write_bytes(left)
    assert load(workspace) is None
    file, state = workspace.rows("activations-1", 40, 4), {"bad_rows": {}, "seconds": 1.5}
    for number, first, last in ((1, 0, 12), (2, 12, 24), (3, 24, 38)):
        file.write(first, x[first:last])
        file.flush()
        if number < 3:
            state |= {"window": number, "row": last}
            workspace.save_checkpoint(number, {}, state)
    file.close()
    again = Workspace(workspace.runs, workspace.training_id)
    kept = {"bytes": 24 * 16, "crc32": binascii.crc32(x[:24].numpy().tobytes())}
    assert load(again) == ({}, {**state, "arrays": {path.name: kept}})
    assert again.notes == []


def _as_it_is(path):
    content = path.read_bytes()
    return {"bytes": len(content), "crc32": binascii.crc32(content)}


def test_a_checkpoint_of_an_earlier_version_knows_sizes_alone(workspace):
    file = workspace.rows("activations-1", 40, 4)
    file.write(0, rows_of(10, 4))
    file.flush()
    workspace.save_checkpoint(3, {}, {"window": 3, "row": 10, "bad_rows": {}, "seconds": 1.5})
    [checkpoint] = workspace.directory.glob("checkpoint-*")
    state = json.loads((checkpoint / "state.json").read_text())
    state["arrays"] = {"activations-1.f32": 160}
    (checkpoint / "state.json").write_text(json.dumps(state))
    (checkpoint / DIGESTS_FILE).unlink()
    assert load(workspace) is not None
    (workspace.directory / "activations-1.f32").write_bytes(b"\0" * 159)
    assert load(workspace) is None


# Room on the disk


@pytest.mark.parametrize("there", [0, 100, 640])
def test_only_the_bytes_that_are_not_there_yet_need_room(workspace, free, there):
    (workspace.directory / "activations-1.f32").write_bytes(b"\1" * there)
    free(640 - there)
    assert len(workspace.rows("activations-1", 40, 4)) == 40
    if there < 640:
        free(640 - there - 1)
        with pytest.raises(OSError, match="not enough space") as caught:
            workspace.rows("activations-1", 40, 4)
        assert caught.value.errno == errno.ENOSPC
    assert (workspace.directory / "activations-1.f32").read_bytes() == b"\1" * there


def test_too_little_room_is_told_with_the_remedy(workspace, free):
    free(10)
    with (
        pytest.raises(ItdaError, match=r"no space left on the disk of .*Free some space and"),
        disk_errors_as_sentences(workspace.runs),
    ):
        workspace.rows("activations-1", 40, 4)
    assert not list(workspace.directory.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is always full")
@pytest.mark.parametrize("count", [1, 100_000])
def test_a_disk_that_fills_up_is_told_and_ends_no_process(workspace, count):
    """A few rows wait in a buffer until they are flushed, many do not. A memory map would have
    ended the process."""
    file = RowFile(Path("/dev/full"), count, 4)
    with (
        pytest.raises(ItdaError, match="no space left on the disk"),
        disk_errors_as_sentences(workspace.runs),
    ):
        file.write(0, rows_of(count, 4))
        file.flush()
