"""What one block of a model gave for every batch of texts, until the next block takes it."""

import json
import os
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import torch

from itda_core.digests import digest
from itda_core.files.json_files import read_json, write_json

Batch = int | tuple[str, int]
"""A batch's number, with the name of what it is one of where that is not the usual"""
Place = tuple[int, torch.Size, torch.dtype]
"""Where a batch's states begin in the file, their shape and type"""


class HiddenStates:
    """Hidden states of each batch, [n_texts, longest, d_model]: in memory as far as that has room,
    the others in a file that nobody else sees."""

    def __init__(self, room: int, folder: Path):
        """room: bytes of main memory that they may take; folder: where the file may be."""
        self._room, self._folder = room, folder
        self._held: dict[Batch, torch.Tensor] = {}
        self._places: dict[Batch, Place] = {}
        self._file = None
        self._end = 0

    def __len__(self) -> int:
        return len(self._held) + len(self._places)

    def write(self, number: Batch, hidden: torch.Tensor) -> None:
        """Keep the states of a batch in place of those before, which have the same shape."""
        n_bytes = hidden.numel() * hidden.itemsize
        if number in self._held:
            self._held[number] = hidden.cpu()
        elif number not in self._places and n_bytes <= self._room:
            self._room -= n_bytes
            self._held[number] = hidden.cpu()
        else:
            self._to_file(number, hidden, n_bytes)

    def read(self, number: Batch) -> torch.Tensor:
        """The states of a batch, on the host."""
        if number in self._held:
            return self._held[number]
        start, shape, dtype = self._places[number]
        hidden = torch.empty(shape, dtype=dtype, device="cpu")
        self._file.seek(start)
        self._file.readinto(_bytes(hidden))
        return hidden

    def _to_file(self, number: Batch, hidden: torch.Tensor, n_bytes: int) -> None:
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
        if number not in self._places:
            self._places[number] = self._end, hidden.shape, hidden.dtype
            self._end += n_bytes
        self._file.seek(self._places[number][0])
        self._file.write(_bytes(hidden.cpu().contiguous()))

    def named(self, name: str) -> "NamedStates":
        """Room for others beside these, of batches of their own, in the same memory and file."""
        return NamedStates(self, name)

    def close(self) -> None:
        """Let go of everything."""
        self._held.clear()
        self._places.clear()
        if self._file is not None:
            self._file.close()


class NamedStates:
    """Hidden states of other batches beside those of `states`."""

    def __init__(self, states: HiddenStates, name: str):
        self._states, self._name = states, name

    def write(self, number: int, hidden: torch.Tensor) -> None:
        """As `HiddenStates.write`."""
        self._states.write((self._name, number), hidden)

    def read(self, number: int) -> torch.Tensor:
        """As `HiddenStates.read`."""
        return self._states.read((self._name, number))


class KeptStates:
    """The hidden states of a sweep in a folder, from where it can go on after an interruption:
    those of the newest block that were brought there whole."""

    def __init__(self, folder: Path, shapes: Sequence[tuple[int, ...]], dtype: torch.dtype):
        """shapes: of each batch; dtype: of the states. What has others there is of no use."""
        self._folder, self._shapes, self._dtype = folder, list(shapes), dtype
        self._name = digest(json.dumps([self._shapes, str(dtype)]))

    def save(self, block: int, states: HiddenStates) -> None:
        """Bring the output of a block to the disk, then drop what was there of others. What did not
        get there whole is dropped, and what was there before stays."""
        path, marker = self._path(block), self._marker(block)
        try:
            said = {"block": block, "batches": self._name, "crc32": self._write(path, states)}
            write_json(marker, said)
        except BaseException:
            marker.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            raise
        for other in self._folder.glob("hidden-*"):
            if other not in (path, marker):
                other.unlink(missing_ok=True)

    def _write(self, path: Path, states: HiddenStates) -> int:
        """The CRC-32 of what was written."""
        crc = 0
        with path.open("wb") as file:
            for number in range(len(self._shapes)):
                content = _bytes(states.read(number).contiguous())
                file.write(content)
                crc = zlib.crc32(content, crc)
            file.flush()
            os.fsync(file.fileno())
        return crc

    def newest(self) -> int | None:
        """The block whose output is there; None where nothing is that fits."""
        blocks = []
        for marker in self._markers():
            try:
                said = read_json(marker)
                is_own = said["batches"] == self._name and self._marker(said["block"]) == marker
                is_whole = marker.with_suffix("").stat().st_size == self._n_bytes
            except Exception:  # whatever the file holds, the sweep can begin anew
                continue
            if is_own and is_whole:
                blocks.append(said["block"])
        return max(blocks, default=None)

    def load(self, block: int, states: HiddenStates) -> bool:
        """Take up what `save` brought to the disk; false, and it is dropped, where that is not what
        is there any more."""
        written, crc = read_json(self._marker(block)).get("crc32"), 0
        with self._path(block).open("rb") as file:
            for number, shape in enumerate(self._shapes):
                hidden = torch.empty(shape, dtype=self._dtype, device="cpu")
                file.readinto(_bytes(hidden))
                crc = zlib.crc32(_bytes(hidden), crc)
                states.write(number, hidden)
        is_whole = written in (None, crc)  # earlier versions kept none
        if not is_whole:
            self.remove()
        return is_whole

    def remove(self) -> None:
        """Drop what is there, of whatever batches."""
        for path in self._folder.glob("hidden-*"):
            path.unlink()

    @property
    def _n_bytes(self) -> int:
        return sum(torch.Size(shape).numel() for shape in self._shapes) * self._dtype.itemsize

    def _path(self, block: int) -> Path:
        return self._folder / f"hidden-{block:05d}"

    def _marker(self, block: int) -> Path:
        return self._folder / f"hidden-{block:05d}.json"

    def _markers(self) -> list[Path]:
        return sorted(self._folder.glob("hidden-*.json"))


def _bytes(tensor: torch.Tensor) -> memoryview:
    """A contiguous tensor of the host as bytes."""
    return memoryview(tensor.flatten().view(torch.uint8).numpy())
