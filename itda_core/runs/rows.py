"""Rows of activations that a training keeps until it is finished: in a file, or on a device with a
file behind them.

The file is what a checkpoint counts on. A device keeps rows as well, so that nothing has to come
back to it, as far as a share of its memory goes.
"""

import os
import zlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from itda_core.devices import free_cached_memory, free_memory, is_out_of_memory, to_device

ROWS_SHARE = 0.25
"""Of what is free on a device, beside the model: what the rows of all layers may take there. As
much may go to a Gram matrix, and choosing takes the rows of one layer some four times."""
_BUFFER_BYTES = 2**24
"""Pinned memory through which rows leave a CUDA device"""
_PART_BYTES = 2**20
_WINDOWS = 2
"""Windows that wait to be written, at most, where the device does not keep them anyway"""


class Checksum:
    """Of the first bytes of a file, by which a bit that has flipped is noticed. CRC-32, since rows
    are written as fast as a disk takes them: BLAKE2b takes three times as long."""

    def __init__(self) -> None:
        self.n_bytes = self.crc = 0

    def add(self, part: bytes | np.ndarray) -> None:
        """The bytes that follow."""
        self.crc = zlib.crc32(part, self.crc)
        self.n_bytes += memoryview(part).nbytes

    def to_dict(self) -> dict[str, int]:
        """As a checkpoint keeps it."""
        return {"bytes": self.n_bytes, "crc32": self.crc}


def checksum_of(path: Path, n_bytes: int) -> Checksum:
    """Of the first bytes of a file, or of all where it has fewer. Raises OSError where it can't be
    read."""
    found = Checksum()
    with path.open("rb") as file:
        while part := file.read(min(_PART_BYTES, n_bytes - found.n_bytes)):
            found.add(part)
    return found


class RowFile:
    """Float32 rows in a file, written in order and read in blocks: memory holds one block.

    A memory map would do the same, but a disk that fills up under it ends the process.
    """

    def __init__(self, path: Path, length: int, width: int):
        self._length, self.width = length, width
        path.touch()
        self._file = path.open("r+b")
        self._sum = Checksum()

    def __len__(self) -> int:
        return self._length

    @property
    def written(self) -> int:
        """Rows, from the first on, that the file has room for: none after them was written."""
        return min(self._length, -(-os.fstat(self._file.fileno()).st_size // (4 * self.width)))

    def write(self, first: int, rows: torch.Tensor) -> None:
        """Put rows, [n, width] float32 of any device, at row `first` and after."""
        content, start = rows.cpu().contiguous().numpy(), 4 * first * self.width
        self._file.seek(start)
        self._file.write(content)
        if start < self._sum.n_bytes:  # what was there before is none of it any more
            self._sum = Checksum()
        elif start == self._sum.n_bytes:
            self._sum.add(content)

    def checksum(self) -> Checksum:
        """Of the file, made while it is written: by parts of it that were there when it was opened
        it is read once."""
        self._file.seek(self._sum.n_bytes)  # which also writes what waits
        while part := self._file.read(_PART_BYTES):
            self._sum.add(part)
        return self._sum

    @property
    def is_closed(self) -> bool:
        return self._file.closed

    def read(self, first: int, count: int) -> torch.Tensor:
        """Up to `count` rows from row `first` on, [n, width] float32 on the host; zero where none
        was written."""
        rows = torch.zeros(
            max(0, min(count, self._length - first)), self.width, dtype=torch.float32
        )
        self._file.seek(4 * first * self.width)
        self._file.readinto(rows.numpy().reshape(-1).view(np.uint8))
        return rows

    def on(self, device: torch.device) -> torch.Tensor:
        """All rows on a device, [length, width] float32. They go there part by part: of main
        memory, which a transfer pins, it takes little."""
        if device.type == "cpu":
            return self.read(0, self._length)
        self._file.flush()  # `written` looks at the file's size
        rows = torch.zeros((self._length, self.width), dtype=torch.float32, device=device)
        together = max(1, _BUFFER_BYTES // (4 * self.width))
        for first in range(0, self.written, together):
            part = self.read(first, together)
            rows[first : first + len(part)] = to_device(part, device)
        return rows

    def flush(self) -> None:
        """Bring what was written to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


class DeviceRows:
    """Rows of a device, kept there or not, with a file behind them: written, read, flushed and
    closed as a `RowFile` is."""

    def __init__(self, file: RowFile, device: torch.device, is_kept: bool, copies: "Copies | None"):
        """Takes up what the file holds. is_kept: on the device, too; copies: what writes the file
        beside the device's work, None for at once."""
        self._file, self._copies = file, copies
        self._waiting: deque[Future] = deque()
        self._rows = file.on(device) if is_kept else None

    def __len__(self) -> int:
        return len(self._file)

    def write(self, first: int, rows: torch.Tensor) -> None:
        """Put rows, [n, width] float32 of the device, at row `first` and after. They must not be
        changed afterwards. Raises what writing earlier ones to the file raised."""
        if self._rows is not None:
            self._rows[first : first + len(rows)] = rows
            rows = self._rows[first : first + len(rows)]
        if self._copies is None:
            self._file.write(first, rows)
            return
        self._waiting.append(self._copies.start(rows, self._file, first))
        self._settle(len(self._waiting) if self._rows is not None else _WINDOWS)

    def read(self, first: int, count: int) -> torch.Tensor:
        """Up to `count` rows from row `first` on, [n, width] float32, on the device where they are
        kept there, else on the host; zero where none was written."""
        if self._rows is not None:
            return self._rows[first : first + count]
        self._settle(0)
        return self._file.read(first, count)

    def on(self, device: torch.device) -> torch.Tensor:
        """All rows on a device, [length, width] float32: as they are, where it keeps them."""
        if self._rows is not None:
            return self._rows.to(device)
        self._settle(0)
        return self._file.on(device)

    def flush(self) -> None:
        """Bring what was written to the disk."""
        self._settle(0)
        self._file.flush()

    def close(self) -> None:
        """Let go of the rows; what is not in the file yet does not get there."""
        for copy in self._waiting:
            copy.cancel()
        while self._waiting:
            copy = self._waiting.popleft()
            if not copy.cancelled():
                copy.exception()  # waits for the one that has begun
        self._rows = None
        self._file.close()

    def _settle(self, most: int) -> None:
        """Wait until at most `most` copies are not in the file."""
        while self._waiting and (len(self._waiting) > most or self._waiting[0].done()):
            self._waiting.popleft().result()


class Copies:
    """Copies rows from a device into files while it computes: one thread, one buffer and, on CUDA,
    a stream of its own."""

    def __init__(self, device: torch.device):
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rows")
        self._device, self._is_cuda = device, device.type == "cuda"
        size, pinned = _BUFFER_BYTES // 4, self._is_cuda
        self._buffer = torch.empty(size, dtype=torch.float32, device="cpu", pin_memory=pinned)
        self._stream = torch.cuda.Stream(device) if self._is_cuda else None

    def start(self, rows: torch.Tensor, file: RowFile, first: int) -> Future:
        """Write rows at row `first` of a file, once the device has computed them."""
        computed = None
        if self._is_cuda:
            computed = torch.cuda.Event()
            computed.record(torch.cuda.current_stream(self._device))
        return self._thread.submit(self._copy, rows, computed, file, first)

    def _copy(self, rows: torch.Tensor, computed, file: RowFile, first: int) -> None:
        if self._is_cuda:
            self._stream.wait_event(computed)
        together = max(1, len(self._buffer) // rows.shape[1])
        for start in range(0, len(rows), together):
            file.write(first + start, self._on_host(rows[start : start + together]))

    def _on_host(self, rows: torch.Tensor) -> torch.Tensor:
        """Through the buffer, which is free again once the file has it."""
        there = self._buffer[: rows.numel()].view(rows.shape)
        if not self._is_cuda:
            return there.copy_(rows)
        with torch.cuda.stream(self._stream):
            there.copy_(rows, non_blocking=True)
        self._stream.synchronize()
        return there


class RowRoom:
    """Where a training's rows go: to a device as far as `ROWS_SHARE` of its free memory goes, the
    others to their files alone; to files on a CPU."""

    def __init__(self, device: torch.device):
        self._device = device
        self._left = 0 if device.type == "cpu" else int(ROWS_SHARE * free_memory(device))
        self._copies = Copies(device) if device.type == "cuda" else None

    def take(self, file: RowFile) -> RowFile | DeviceRows:
        """Room for the rows of a file; in the file alone where there is none after all, since other
        programs use the device, too."""
        if self._device.type == "cpu":
            return file
        n_bytes = 4 * len(file) * file.width
        if n_bytes <= self._left:
            self._left -= n_bytes
            try:
                return DeviceRows(file, self._device, True, self._copies)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            self._left = 0
            free_cached_memory()
        return DeviceRows(file, self._device, False, self._copies)
