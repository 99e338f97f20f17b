"""The tensors of a model's safetensors files: where each lies, and reading one.

They are read by ordinary reads, not through a memory map: what a map has touched counts as the
process's memory, and a disk that fails under it ends the process.
"""

import functools
import io
import math
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from itda_core.errors import ModelError, WeightsGone
from itda_core.files.json_files import parse_json
from itda_core.model.rooms import Rooms

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Data types by their names in a safetensors header"""
_LONGEST_HEADER = 100_000_000
"""Bytes, as the format limits it"""
_KNOWN_HEADERS = 512
"""Files whose headers are remembered"""
_READ_TOGETHER = 2**28
"""Bytes of one read: systems refuse more than 2 GB"""


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies."""

    path: Path
    kind: str
    """its data type, as a header names it"""
    shape: tuple[int, ...]
    start: int
    """its first byte in the file"""
    n_bytes: int
    version: tuple[int, int]
    """size and time of change of the file when its header was read"""

    @property
    def dtype(self) -> torch.dtype:
        """Raises ModelError for a type in which quantised models are kept."""
        if self.kind not in DTYPES:
            raise ModelError(
                f"{self.path} holds tensors of the type {self.kind}, as quantised models do, and "
                "those can't be read block by block. Choose one in bfloat16, float16 or float32."
            )
        return DTYPES[self.kind]

    @property
    def count(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    def bytes_as(self, dtype: torch.dtype) -> int:
        """Bytes that it takes in a model of some data type; what is no usual number stays as it
        is."""
        is_number = self.kind in DTYPES and DTYPES[self.kind].is_floating_point
        return self.count * dtype.itemsize if is_number else self.n_bytes

    def read(self, rooms: Rooms | None = None) -> torch.Tensor:
        """The tensor, in main memory; rooms: whose it is, by default its own. Raises WeightsGone
        where the file can't be read or is another one than when its header was read, ModelError
        where it ends before the tensor does."""
        raw = (rooms or Rooms()).take(self.n_bytes)
        try:
            with self.path.open("rb", buffering=0) as file:
                self._fill(memoryview(raw.numpy()), file)
        except OSError as error:
            raise WeightsGone(
                f"{self.path} can't be read any more ({error.strerror or error}), and the weights "
                "of the model are read from there. Put it back, or load the model again."
            ) from error
        return raw.view(self.dtype).view(self.shape)

    def _fill(self, view: memoryview, file: io.RawIOBase) -> None:
        if _version(os.fstat(file.fileno())) != self.version:
            raise WeightsGone(f"{self.path} has changed since the model was loaded. Load it again.")
        file.seek(self.start)
        done = 0
        while done < self.n_bytes:
            count = file.readinto(view[done : done + _READ_TOGETHER])
            if not count:
                raise _damaged(self.path, "it ends in the middle of a tensor")
            done += count

    def empty(self) -> torch.Tensor:
        """A tensor of its shape and type that has no memory."""
        return torch.empty(self.shape, dtype=self.dtype, device="meta")


def stored_tensors(
    source: str, revision: str | None, is_local: bool = False
) -> dict[str, StoredTensor]:
    """Every tensor of a model by its name on disk: of a folder, or of a model of the hub, which
    comes into its cache, or with `is_local` has to be there. The files are those that transformers
    would read. Raises ModelError where there are none, or one is damaged."""
    paths = _files(source, revision, is_local)
    return {name: tensor for path in paths for name, tensor in _known_header(path).items()}


def _files(source: str, revision: str | None, is_local: bool) -> list[Path]:
    from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME
    from transformers.utils.hub import cached_file, get_checkpoint_shard_files

    where = {"revision": revision, "local_files_only": is_local}
    options = {**where, "_raise_exceptions_for_missing_entries": False}
    if whole := cached_file(source, SAFE_WEIGHTS_NAME, **options):
        return [Path(whole)]
    if index := cached_file(source, SAFE_WEIGHTS_INDEX_NAME, **options):
        parts, _ = get_checkpoint_shard_files(source, index, **where)
        return [Path(part) for part in parts]
    raise ModelError(
        f"{source} has neither {SAFE_WEIGHTS_NAME} nor {SAFE_WEIGHTS_INDEX_NAME}, so its blocks "
        "can't be read one by one. Save it anew with save_pretrained."
    )


def check_file(path: Path) -> None:
    """Raises ModelError where what a file says of its tensors can't be so."""
    _header(path)


def _known_header(path: Path) -> dict[str, StoredTensor]:
    """The same as `_header`, read anew where the file is another one or has changed: a page asks at
    every click, and a model may have a hundred files."""
    about = path.stat()
    return _header_of(path, about.st_ino, about.st_size, about.st_mtime_ns)


@functools.lru_cache(maxsize=_KNOWN_HEADERS)
def _header_of(path: Path, *_about: int) -> dict[str, StoredTensor]:
    return _header(path)


def _header(path: Path) -> dict[str, StoredTensor]:
    """What a file says of its tensors; that they lie within it is checked."""
    with path.open("rb") as file:
        size, _ = version = _version(os.fstat(file.fileno()))
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= min(_LONGEST_HEADER, size - 8):
            raise _damaged(path, "its header is cut short")
        try:
            header = parse_json(file.read(length))
            header.pop("__metadata__", None)
            found = {
                name: _stored(path, version, 8 + length, **said) for name, said in header.items()
            }
        except (ValueError, TypeError, AttributeError) as error:
            raise _damaged(path, "its header can't be read") from error
    for name, tensor in found.items():
        if tensor.start + tensor.n_bytes > size:
            raise _damaged(path, f"it ends before its tensor {name} does")
    return found


def _version(about: os.stat_result) -> tuple[int, int]:
    return about.st_size, about.st_mtime_ns


def _stored(
    path: Path, version: tuple[int, int], first: int, dtype: str, shape: list, data_offsets: list
) -> StoredTensor:
    """first: the byte from which offsets count."""
    start, end = (int(offset) for offset in data_offsets)
    shape = tuple(int(side) for side in shape)
    if not 0 <= start <= end or min(shape, default=0) < 0:
        raise ValueError(data_offsets)
    if dtype in DTYPES and end - start != math.prod(shape) * DTYPES[dtype].itemsize:
        raise ValueError(shape)
    return StoredTensor(path, dtype, shape, first + start, end - start, version)


def _damaged(path: Path, reason: str) -> ModelError:
    return ModelError(f"{path} is damaged: {reason}. Get the model again.")
