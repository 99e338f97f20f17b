"""How a file's bytes become lines: unpacked, decoded, and never more than can be held."""

import codecs
import contextlib
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from itda_core.errors import CorpusError
from itda_core.files.foreign import check_unfolding, open_foreign

TEXT_ENDINGS = (".txt", ".csv", ".jsonl", ".tsv")
PACKED_ENDINGS = (".gz", ".zst")
FILE_ENDINGS = (".txt", ".csv", ".jsonl", ".parquet", ".tsv")
_ALWAYS_UNPACKED_BYTES = 2**27
"""However small the packed file is; it may be a line without an end, which memory has to hold"""
MAX_UNPACKED_BYTES = 2_000_000_000
"""Of text that a packed file may come to: a small one can hold more than any memory does."""
ENCODINGS = (
    "utf-8", "utf-16", "utf-16-le", "utf-16-be", "cp1252", "iso8859-15", "cp1250", "iso8859-2",
    "cp1251", "koi8-r", "cp1253", "cp1254", "cp1255", "cp1256", "cp932", "euc_jp", "gb18030",
    "big5", "cp949",
)  # fmt: skip
"""To choose from on the page; the command line takes any that Python knows."""
_SAMPLE_BYTES = 2_000_000
_MIN_FOREIGN_BYTES = 30
_NAMED_ROWS = 5
_SURE_GAP = 0.1
_MARKS = (  # of the byte order; that of UTF-32 begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_MIN_ZEROS = 4
"""Zero bytes from which on they may be every other byte of an encoding"""
_MIN_WIDE_SHARE = 0.4
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


def left_out(rows: Sequence[BadRow], name: str) -> str:
    """A sentence on the rows of a file that are left out, with the first of them and why."""
    named = "; ".join(str(row) for row in rows[:_NAMED_ROWS])
    more = f"; and {len(rows) - _NAMED_ROWS:,} more" if len(rows) > _NAMED_ROWS else ""
    n_rows = sum(row.n_rows for row in rows)
    count = f"1 row of {name} was" if n_rows == 1 else f"{n_rows:,} rows of {name} were"
    return f"{count} left out: {named}{more}."


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
    the file is damaged, unpacks to more than MAX_UNPACKED_BYTES, or is no text in an encoding that
    can't go on after a fault, as UTF-16.
    """
    with open_bytes(path) as file:
        name = encoding or "utf-8"
        try:
            wrapped = io.TextIOWrapper(file, name, errors="surrogateescape", newline="\n")
        except LookupError:
            raise CorpusError(
                f"There is no encoding {name!r}. Give one that Python knows, such as cp1252."
            ) from None
        yield _decoded(path, name, wrapped)


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
    try:
        opened = open_foreign(path)
    except ValueError as error:
        raise CorpusError(f"{error}. Choose another.") from error
    if path.suffix.lower() not in PACKED_ENDINGS:
        with opened as file:
            yield file
        return
    opened.close()
    is_gzip = path.suffix.lower() == ".gz"
    with gzip.open(path, "rb") if is_gzip else pa.input_stream(str(path), "zstd") as file:
        yield io.BufferedReader(_Unpacked(file, path))


def refuse_no_text(path: Path) -> CorpusError:
    """For a file with zero bytes, which no text has but in encodings of two or four bytes."""
    with open_bytes(path) as file:
        content = file.read(_SAMPLE_BYTES)
    if _wide_encoding(content) is not None:
        return CorpusError(f"{path.name} is not UTF-8 text: it has zero bytes. {how_to_read(path)}")
    before, zero, _ = content.partition(b"\x00")
    line = before.count(b"\n") + 1
    where = f", the first in line {line}" if zero else ""
    return CorpusError(
        f"{path.name} has zero bytes{where}: no text has them. Take them out, or choose another "
        "file if it is no text at all."
    )


def how_to_read(path: Path) -> str:
    """What to do about bytes that are not UTF-8, with the encoding where it is certain."""
    if file_format(path) == ".parquet":
        return "Write its texts as UTF-8."
    return _how(sure_encoding(path))


def _how(encoding: str | None) -> str:
    """The remedy; encoding: that is certain."""
    if encoding is None:
        return (
            "Save it as UTF-8, or say its encoding, such as cp1252, on the page or with --encoding."
        )
    return (
        f"It seems to be {_shown(encoding)}: choose this encoding on the page, or with "
        f"--encoding {encoding}."
    )


def has_wide_encoding(path: Path) -> bool:
    """Whether a text file has two or four bytes a character, by its mark or zeros."""
    if file_format(path) == ".parquet":
        return False
    with open_bytes(path) as file:
        return _wide_encoding(file.read(_SAMPLE_BYTES)) is not None


def sure_encoding(path: Path) -> str | None:
    """The encoding of a file that is not UTF-8; None where several fit, or none does.

    A mark of the byte order is sure, so are zeros in every other byte, and so is a language that
    makes sense in one encoding alone.
    """
    with open_bytes(path) as file:
        content = file.read(_SAMPLE_BYTES)
    if wide := _wide_encoding(content):
        return wide
    if sum(byte > 127 for byte in content) < _MIN_FOREIGN_BYTES:
        return None
    from charset_normalizer import from_bytes

    found = list(from_bytes(content))
    if not found or found[0].encoding in ("utf_8", "ascii"):
        return None
    is_alone = len(found) == 1 or found[1].chaos - found[0].chaos > _SURE_GAP
    makes_sense = found[0].coherence > 0 or found[0].language != "Unknown"
    return codecs.lookup(found[0].encoding).name if is_alone and makes_sense else None


def _wide_encoding(content: bytes) -> str | None:
    """The encoding of two or four bytes a character that begins with `content`, by its mark or by
    the zeros beside letters; None where there are neither."""
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return encoding
    even, odd = content[0::2], content[1::2]
    for zeros, others, encoding in ((odd, even, "utf-16-le"), (even, odd, "utf-16-be")):
        share = zeros.count(0) / max(1, len(zeros))
        if zeros.count(0) < _MIN_ZEROS:
            continue
        if share > _MIN_WIDE_SHARE and others.count(0) * 10 <= zeros.count(0):
            return encoding
    return None


def _decoded(path: Path, encoding: str, lines: io.TextIOWrapper) -> Iterator[str]:
    try:
        yield from _without_mark(lines)
    except UnicodeError as error:
        raise _refuse_encoding(path, encoding) from error


def _refuse_encoding(path: Path, encoding: str) -> CorpusError:
    """For a file that is no text in the encoding that was said."""
    with open_bytes(path) as file:
        content = file.read(_SAMPLE_BYTES)
    sure = "utf-8" if _is_utf8(content) else sure_encoding(path)
    what = f"{path.name} is not {_shown(encoding)} text"
    if encoding in ("utf-16", "utf-32") and _wide_encoding(content) != encoding:
        what += ": it does not begin with a mark of the byte order"
    return CorpusError(f"{what}. {_how(None if sure == encoding else sure)}")


def _is_utf8(content: bytes) -> bool:
    """Whether the beginning of a file is, a character that is cut at its end aside."""
    if b"\x00" in content:
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(content)
    except UnicodeDecodeError:
        return False
    return True


def _shown(encoding: str | None) -> str:
    return (encoding or "utf-8").upper().replace("CP125", "Windows-125")


def _without_mark(lines: Iterator[str]) -> Iterator[str]:
    for number, line in enumerate(lines):
        yield line.removeprefix("\ufeff") if number == 0 else line


class _Unpacked(io.RawIOBase):
    """What a packed file holds, up to the limit."""

    def __init__(self, file: BinaryIO, path: Path):
        self._file, self._path, self._count = file, path, 0
        self._packed = path.stat().st_size

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
        try:
            check_unfolding(self._path.name, self._packed, self._count, _ALWAYS_UNPACKED_BYTES)
        except ValueError as error:
            raise CorpusError(f"{error}. Use another file.") from error
        if self._count > MAX_UNPACKED_BYTES:
            raise CorpusError(
                f"{self._path.name} holds more than {MAX_UNPACKED_BYTES / 1e9:g} GB unpacked. "
                "Use a part of it."
            )
        buffer[: len(content)] = content
        return len(content)
