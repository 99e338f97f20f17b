"""How a file's bytes become lines: unpacked, decoded, and never more than can be held."""

import codecs
import contextlib
import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from itda_core.errors import CorpusError

TEXT_ENDINGS = (".txt", ".csv", ".jsonl", ".tsv")
PACKED_ENDINGS = (".gz", ".zst")
FILE_ENDINGS = (".txt", ".csv", ".jsonl", ".parquet", ".tsv")
MAX_UNPACKED_BYTES = 2_000_000_000
"""Of text that a packed file may come to: a small one can hold more than any memory does."""
ENCODINGS = (
    "utf-8", "utf-16", "cp1252", "iso8859-15", "cp1250", "iso8859-2", "cp1251", "koi8-r", "cp1253",
    "cp1254", "cp1255", "cp1256", "cp932", "euc_jp", "gb18030", "big5", "cp949",
)  # fmt: skip
"""To choose from on the page; the command line takes any that Python knows."""
_SAMPLE_BYTES = 2_000_000
_MIN_FOREIGN_BYTES = 30
_SURE_GAP = 0.1
_READ_ERRORS = (OSError, EOFError, zlib.error, pa.ArrowException)


@dataclass(frozen=True)
class Reading:
    """How a text file is read; None is what the file itself shows."""

    separator: str | None = None
    """Of a .csv or .tsv: the character between two fields"""
    quote: str | None = None
    """Of a .csv or .tsv: the character around a field, "" for none"""
    header: bool | None = None
    """Of a .csv or .tsv: whether the first row names the columns"""
    encoding: str | None = None
    """As Python calls it; None is UTF-8"""


@dataclass(frozen=True)
class BadRow:
    """A row that can't be read."""

    line: int
    """where it ends, 1 for the first line of the file"""
    reason: str
    """completes the sentence "line 3 …" """
    unit: str = "line"
    """"row" in a file without lines"""
    is_encoding: bool = False
    """Whether bytes of another encoding are the reason"""
    first: int | None = None
    """where it begins, if that may be another line"""
    is_open: bool = False
    """Whether its lines may be rows, taken in by a quotation mark that stays open"""

    def __str__(self) -> str:
        if self.n_lines > 1:
            return f"the row of lines {self.first} to {self.line} {self.reason}"
        return f"{self.unit} {self.line} {self.reason}"

    @property
    def n_lines(self) -> int:
        """1 where it is not known where it begins."""
        return self.line - self.first + 1 if self.first is not None else 1

    @property
    def n_rows(self) -> int:
        """That are left out with it, as far as this can be told: each line of what is no row."""
        return self.n_lines if self.is_open else 1


def not_encoded(line: int, encoding: str | None) -> BadRow:
    """A row with bytes that are no text in the encoding."""
    return BadRow(line, f"is not {_shown(encoding)} text", is_encoding=True)


def file_format(path: Path) -> str:
    """The ending that tells the format, in small letters: ".csv" of a.csv and of a.csv.gz."""
    endings = [ending.lower() for ending in path.suffixes[-2:]]
    if len(endings) == 2 and endings[1] in PACKED_ENDINGS and endings[0] in TEXT_ENDINGS:
        return endings[0]
    return endings[-1] if endings else ""


@contextlib.contextmanager
def open_lines(path: Path, encoding: str | None = None) -> Iterator[Iterator[str]]:
    """The lines of a text file, unpacked, each with its line end. Only LF ends a line.

    Bytes that are no text stand in it as half characters, see `is_whole`. Raises CorpusError where
    the file is damaged or unpacks to more than MAX_UNPACKED_BYTES.
    """
    with open_bytes(path) as file:
        name = encoding or "utf-8"
        wrapped = io.TextIOWrapper(file, name, errors="surrogateescape", newline="\n")
        yield _without_mark(wrapped)


def is_whole(text: str) -> bool:
    """Whether every byte of it was text."""
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def whole_characters(text: str) -> str:
    """The text, each half character in it, as JSON and command lines can hold them, a "?"."""
    return text if is_whole(text) else text.encode("utf-8", "replace").decode("utf-8")


@contextlib.contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a file, unpacked where its ending says that it is packed."""
    if path.suffix.lower() not in PACKED_ENDINGS:
        with path.open("rb") as file:
            yield file
        return
    is_gzip = path.suffix.lower() == ".gz"
    with gzip.open(path, "rb") if is_gzip else pa.input_stream(str(path), "zstd") as file:
        yield io.BufferedReader(_Unpacked(file, path))


def refuse_no_text(path: Path) -> CorpusError:
    """For a file with zero bytes, which no text in UTF-8 has."""
    return CorpusError(
        f"{path.name} is not UTF-8 text, or not a text file at all: it has zero bytes. "
        f"{how_to_read(path)}"
    )


def how_to_read(path: Path) -> str:
    """What to do about bytes that are not UTF-8, with the encoding where it is certain."""
    if file_format(path) == ".parquet":
        return "Write its texts as UTF-8."
    encoding = sure_encoding(path)
    if encoding is None:
        return (
            "Save it as UTF-8, or say its encoding, such as cp1252, on the page or with --encoding."
        )
    return (
        f"It seems to be {_shown(encoding)}: choose this encoding on the page, or with "
        f"--encoding {encoding}."
    )


def sure_encoding(path: Path) -> str | None:
    """The encoding of a file that is not UTF-8; None where several fit, or none does.

    A mark of the byte order is sure, and so is a language that makes sense in one encoding alone.
    """
    with open_bytes(path) as file:
        content = file.read(_SAMPLE_BYTES)
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if sum(byte > 127 for byte in content) < _MIN_FOREIGN_BYTES:
        return None
    from charset_normalizer import from_bytes

    found = list(from_bytes(content))
    if not found or found[0].encoding in ("utf_8", "ascii"):
        return None
    is_alone = len(found) == 1 or found[1].chaos - found[0].chaos > _SURE_GAP
    makes_sense = found[0].coherence > 0 or found[0].language != "Unknown"
    return codecs.lookup(found[0].encoding).name if is_alone and makes_sense else None


def _shown(encoding: str | None) -> str:
    return (encoding or "utf-8").upper().replace("CP125", "Windows-125")


def _without_mark(lines: Iterator[str]) -> Iterator[str]:
    for number, line in enumerate(lines):
        yield line.removeprefix("\ufeff") if number == 0 else line


class _Unpacked(io.RawIOBase):
    """What a packed file holds, up to the limit."""

    def __init__(self, file: BinaryIO, path: Path):
        self._file, self._path, self._count = file, path, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        try:
            content = self._file.read(len(buffer))
        except _READ_ERRORS as error:
            raise CorpusError(
                f"{self._path.name} is damaged: it can't be unpacked to its end. Make it anew."
            ) from error
        self._count += len(content)
        if self._count > MAX_UNPACKED_BYTES:
            raise CorpusError(
                f"{self._path.name} holds more than {MAX_UNPACKED_BYTES / 1e9:g} GB unpacked. "
                "Use a part of it."
            )
        buffer[: len(content)] = content
        return len(content)
