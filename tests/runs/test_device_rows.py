"""Rows kept on a device with a file behind them: read back as written, and safe in the file once
flushed, whether they are copied at once or by a thread.

On CUDA the thread has a stream and pinned memory besides; no GPU has shown this yet.
"""

import errno
import threading

import pytest
import torch

from itda_core.runs import rows as rows_module
from itda_core.runs.rows import Copies, DeviceRows, RowFile, RowRoom
from tests.support.pretend_device import PretendDevice

DEVICE = torch.device("pretend")


@pytest.fixture
def make(tmp_path):
    """Rows of a device in `a.f32`, 40 of width 4; found again when made again."""

    def make_rows(is_kept, copies=None):
        file = RowFile(tmp_path / "a.f32", 40, 4)
        return DeviceRows(file, DEVICE, is_kept, Copies(DEVICE) if copies else None)

    return make_rows


def rows_of(count, seed=0):
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    x[count // 2, 0] = float("nan")
    return x


def same(one, other):
    return one.cpu().numpy().tobytes() == other.numpy().tobytes() and one.shape == other.shape


WAYS = pytest.mark.parametrize("copies", [False, True], ids=["at once", "by a thread"])
PLACES = pytest.mark.parametrize("is_kept", [True, False], ids=["kept", "in the file alone"])


@WAYS
@PLACES
def test_rows_are_read_back_as_written_and_are_in_the_file_once_flushed(
    make, tmp_path, is_kept, copies
):
    x = rows_of(30)
    with PretendDevice():
        rows = make(is_kept, copies)
        for first in range(0, 30, 7):
            rows.write(first, x[first : first + 7].to("pretend"))
        assert len(rows) == 40
        assert same(rows.read(0, 30), x)
        assert same(rows.read(25, 100), torch.cat([x[25:], torch.zeros(10, 4)]))
        assert rows.read(41, 5).shape == (0, 4)
        assert rows.read(0, 40).device.type == ("pretend" if is_kept else "cpu")
        rows.flush()
        assert (tmp_path / "a.f32").read_bytes() == x.numpy().tobytes()
        rows.close()


@WAYS
@PLACES
def test_rows_are_found_again_and_written_over_from_a_checkpoint_on(make, is_kept, copies):
    x, other = rows_of(30), rows_of(40, seed=1)
    with PretendDevice():
        first = make(is_kept, copies)
        first.write(0, x.to("pretend"))
        first.flush()
        again = make(is_kept, copies)
        assert same(again.read(0, 30), x)
        again.write(20, other[20:].to("pretend"))  # the checkpoint was at row 20
        expected = torch.cat([x[:20], other[20:]])
        assert same(again.read(0, 40), expected)
        again.flush()
        assert same(make(is_kept, copies).read(0, 40), expected)


def test_a_file_that_was_cut_in_the_middle_of_a_row_is_taken_up(make, tmp_path):
    x = rows_of(10)
    (tmp_path / "a.f32").write_bytes(x.numpy().tobytes()[:-3])
    with PretendDevice():
        found = make(is_kept=True).read(0, 40).cpu()
    assert same(found[:9], x[:9])
    assert not found[10:].any()


def test_the_file_is_larger_than_what_is_read_of_it_at_once(make, tmp_path, monkeypatch):
    monkeypatch.setattr(rows_module, "_BUFFER_BYTES", 3 * 16)
    x = rows_of(40)
    with PretendDevice():
        first = make(is_kept=True, copies=True)
        first.write(0, x.to("pretend"))
        first.flush()
        assert same(make(is_kept=True).read(0, 40), x)


@PLACES
def test_what_the_thread_could_not_write_is_raised(make, is_kept, monkeypatch):
    def refuse(*_arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    with PretendDevice():
        rows = make(is_kept, copies=True)
        monkeypatch.setattr(RowFile, "write", refuse)
        with pytest.raises(OSError, match="No space"):
            for first in range(4):
                rows.write(first, torch.zeros(1, 4).to("pretend"))
            rows.flush()


def test_rows_that_the_device_does_not_keep_wait_two_windows_at_most(make, monkeypatch):
    may_write, write = threading.Semaphore(0), RowFile.write

    def slowly(self, first, rows):
        may_write.acquire()
        write(self, first, rows)

    monkeypatch.setattr(RowFile, "write", slowly)
    with PretendDevice():
        rows, begun = make(is_kept=False, copies=True), []

        def write_all():
            for first in range(5):
                rows.write(first, torch.full((1, 4), float(first)))
                begun.append(first)

        writer = threading.Thread(target=write_all)
        writer.start()
        writer.join(0.2)
        assert begun == [0, 1]
        for _ in range(5):
            may_write.release()
        writer.join(10)
        assert rows.read(0, 5)[:, 0].tolist() == [0, 1, 2, 3, 4]


def test_closed_rows_leave_the_rest_unwritten(make, monkeypatch):
    """What a finished run no longer needs does not keep it waiting."""
    started, may_end, write, written = threading.Event(), threading.Event(), RowFile.write, []

    def slowly(self, first, rows):
        started.set()
        may_end.wait(10)
        written.append(first)
        write(self, first, rows)

    monkeypatch.setattr(RowFile, "write", slowly)
    with PretendDevice():
        rows = make(is_kept=True, copies=True)
        for first in range(6):
            rows.write(first, torch.zeros(1, 4).to("pretend"))
        started.wait(10)
        threading.Timer(0.1, may_end.set).start()
        rows.close()
    assert written == [0]


def test_a_share_of_what_is_free_is_given_to_rows_and_the_rest_go_to_files(tmp_path, monkeypatch):
    free = 3 * 40 * 16 / rows_module.ROWS_SHARE
    monkeypatch.setattr(rows_module, "free_memory", lambda _device: free - 1)
    with PretendDevice():
        room = RowRoom(DEVICE)
        files = [RowFile(tmp_path / f"{number}.f32", 40, 4) for number in range(4)]
        places = [room.take(file).read(0, 1).device.type for file in files]
    assert places == ["pretend", "pretend", "cpu", "cpu"]


def test_rows_that_do_not_fit_after_all_go_to_their_file(tmp_path, monkeypatch):
    """Another program may have taken the room meanwhile."""
    x, zeros = rows_of(40), torch.zeros

    def full(*shape, device=None, **options):
        if device is not None and torch.device(device).type == "pretend":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return zeros(*shape, device=device, **options)

    monkeypatch.setattr(rows_module, "free_memory", lambda _device: 10**12)
    with PretendDevice():
        room = RowRoom(DEVICE)
        monkeypatch.setattr(torch, "zeros", full)
        rows = room.take(RowFile(tmp_path / "a.f32", 40, 4))
        rows.write(0, x.to("pretend"))
        found = rows.read(0, 40)
    assert found.device.type == "cpu"
    assert same(found, x)


@PLACES
def test_all_rows_go_to_a_device_part_by_part(make, is_kept, monkeypatch):
    """Those not in the file yet as well; a transfer pins no more than a buffer of main memory."""
    monkeypatch.setattr(rows_module, "_BUFFER_BYTES", 3 * 16)
    x, sent, to_device = rows_of(30), [], rows_module.to_device

    def send(rows, device):
        sent.append(len(rows))
        return to_device(rows, device)

    monkeypatch.setattr(rows_module, "to_device", send)
    with PretendDevice():
        rows = make(is_kept, copies=True)
        rows.write(0, x.to("pretend"))
        there, here = rows.on(DEVICE), rows.on(torch.device("cpu"))
        assert (there.device.type, here.device.type) == ("pretend", "cpu")
        expected = torch.cat([x, torch.zeros(10, 4)])
        assert same(there, expected)
        assert same(here, expected)
    assert sent == ([] if is_kept else [3] * 10)


def test_on_a_cpu_the_file_alone_holds_the_rows(tmp_path):
    file = RowFile(tmp_path / "a.f32", 40, 4)
    assert RowRoom(torch.device("cpu")).take(file) is file
