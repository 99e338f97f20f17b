"""The texts in a file: .txt, .csv, .jsonl and .parquet, read row by row from the disk.

A row that can't be read keeps no other out: it is left out and named by its line.
"""

import csv
import io
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from itda_core.errors import CorpusError

FILE_ENDINGS = (".txt", ".csv", ".jsonl", ".parquet")
_USUAL_COLUMNS = ("text", "prompt", "content")
_BATCH_ROWS = 4_096
_LONGEST_FIELD = 2**31 - 1


@dataclass(frozen=True)
class BadRow:
    """A row that can't be read."""

    line: int
    """where it ends, 1 for the first line of the file"""
    reason: str
    """completes the sentence "line 3 …" """

    def __str__(self) -> str:
        return f"line {self.line} {self.reason}"


@dataclass(frozen=True)
class FileTexts:
    """The texts of a file in its own order, empty and repeated ones too."""

    texts: list[str]
    bad_rows: tuple[BadRow, ...] = ()


def read_texts(path: Path, column: str | None = None) -> FileTexts:
    """The texts of one file; its ending gives the format.

    .txt: paragraphs, or lines where there are no blank lines. .csv, .jsonl, .parquet: one text
    a row, from `column` (by default the only text column, or the one called text). Raises
    CorpusError where no row can be read.
    """
    _check(path)
    if path.suffix.lower() == ".txt":
        return FileTexts(_paragraphs(_whole_text(path)))
    column = choose_column(path, column)
    texts, bad = [], []
    for row in _rows(path):
        if isinstance(row, BadRow):
            bad.append(row)
        else:
            value = row.get(column)
            texts.append("" if value is None or value != value else str(value))
    return FileTexts(texts, tuple(bad))


def text_columns(path: Path) -> dict[str, int]:
    """The columns of a .csv, .jsonl or .parquet file that hold text, and how many characters each
    holds. Raises CorpusError where no row can be read."""
    _check(path)
    characters: dict[str, int] = {}
    first_bad, n_rows = None, 0
    for row in _rows(path):
        if isinstance(row, BadRow):
            first_bad = first_bad or row
            continue
        n_rows += 1
        for name, value in row.items():
            if isinstance(value, str):
                characters[str(name)] = characters.get(str(name), 0) + len(value)
    if not n_rows and first_bad:
        raise CorpusError(f"No row of {path.name} can be read: {first_bad}.")
    if not n_rows:
        raise CorpusError(f"{path.name} is empty: it has no row. Choose a file that holds text.")
    return characters


def choose_column(path: Path, column: str | None) -> str:
    """The text column to use. Raises CorpusError naming the columns where the choice is open."""
    columns = list(text_columns(path))
    if column is not None:
        if column in columns:
            return column
        raise CorpusError(f"{path.name} has no text column {column!r}. It has: {_listed(columns)}.")
    usual = [choice for choice in _USUAL_COLUMNS if choice in columns]
    if usual:
        return usual[0]
    if len(columns) == 1:
        return columns[0]
    raise CorpusError(
        f"Say which column of {path.name} holds the texts. It has: {_listed(columns)}."
    )


def _listed(columns: list[str]) -> str:
    return ", ".join(columns[:20]) or "no column with text"


def _check(path: Path) -> None:
    if path.is_dir():
        raise CorpusError(f"{path} is a folder. Give one file ({' '.join(FILE_ENDINGS)}).")
    if not path.exists():
        raise CorpusError(f"There is no file {path}. Check the path.")
    if path.suffix.lower() not in FILE_ENDINGS:
        raise CorpusError(
            f"{path.name} is none of {' '.join(FILE_ENDINGS)}. Convert it to one of them."
        )
    if not os.access(path, os.R_OK):
        raise CorpusError(f"{path} can't be read. Change its rights.")
    if path.stat().st_size < 4 and not path.read_bytes().strip(b"\xef\xbb\xbf \n\t\r"):
        raise CorpusError(f"{path.name} is empty. Choose a file that holds text.")


def _rows(path: Path) -> Iterator[dict[str, Any] | BadRow]:
    """The rows of a table by column, one after another."""
    read = {".csv": _csv_rows, ".jsonl": _json_rows, ".parquet": _parquet_rows}
    yield from read[path.suffix.lower()](path)


def _csv_rows(path: Path) -> Iterator[dict[str, Any] | BadRow]:
    csv.field_size_limit(_LONGEST_FIELD)
    with path.open("rb") as file:
        lines = (_decoded(line, path.name, is_first) for is_first, line in _first_marked(file))
        reader = csv.reader(lines, strict=True)
        header = None
        while True:
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield BadRow(reader.line_num, f"is not CSV ({error})")
                continue
            if header is None:
                header = row or None
            elif row and len(row) != len(header):
                yield BadRow(reader.line_num, f"has {len(row)} fields, the header {len(header)}")
            elif row:
                yield dict(zip(header, row, strict=True))


def _json_rows(path: Path) -> Iterator[dict[str, Any] | BadRow]:
    with path.open("rb") as file:
        for number, (is_first, line) in enumerate(_first_marked(file), start=1):
            try:
                row = _json_row(line.decode("utf-8-sig" if is_first else "utf-8"))
            except UnicodeDecodeError:
                yield BadRow(number, "is not UTF-8 text")
            except (ValueError, RecursionError) as error:  # of absurd depth or length, too
                yield BadRow(number, f"is not JSON ({getattr(error, 'msg', error)})")
            else:
                if row is not None:
                    yield row


def _json_row(line: str) -> dict[str, Any] | None:
    """A line as a row; None for a blank one, and a bare string as a column `text`."""
    if not line.strip():
        return None
    row = json.loads(line)
    if "\\ud" in line.lower():  # half a character, which no table can hold
        row = json.loads(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace"))
    return row if isinstance(row, dict) else {"text": row}


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH_ROWS):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise CorpusError(
            f"{path.name} is not a Parquet file, whatever its ending says."
        ) from error


def _first_marked(file: io.BufferedReader) -> Iterator[tuple[bool, bytes]]:
    """The lines of a file, each with whether it is the first."""
    for number, line in enumerate(file):
        yield number == 0, line


def _whole_text(path: Path) -> str:
    text = _decoded(path.read_bytes(), path.name, True)
    if not text.strip():
        raise CorpusError(f"{path.name} is empty. Choose a file that holds text.")
    return text


def _decoded(content: bytes, name: str, is_first: bool) -> str:
    """is_first: whether a mark of the byte order may come before the text."""
    try:
        text = content.decode("utf-8-sig" if is_first else "utf-8")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{name} is not UTF-8 text. Save it as UTF-8 and try again.") from error
    if "\x00" in text:
        raise CorpusError(f"{name} is not a text file, whatever its ending says.")
    return text


def _paragraphs(text: str) -> list[str]:
    paragraphs = [part.strip() for part in re.split(r"\n[^\S\n]*\n", text.replace("\r\n", "\n"))]
    if len(paragraphs) == 1:
        paragraphs = [line.strip() for line in paragraphs[0].split("\n")]
    return [paragraph for paragraph in paragraphs if paragraph]
