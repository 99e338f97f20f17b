"""The texts in a file: .txt, .csv, .tsv, .jsonl and .parquet, read row by row from the disk.

A row that can't be read keeps no other out: it is left out and named by its line. How a file is
read is taken from the file where it shows it, and told with the texts.
"""

import itertools
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from itda_core.corpus.csv_files import USUAL_COLUMNS, csv_format, lone_returns
from itda_core.corpus.csv_rows import csv_rows
from itda_core.corpus.reading import (
    FILE_ENDINGS,
    PACKED_ENDINGS,
    TEXT_ENDINGS,
    BadRow,
    Reading,
    file_format,
    has_wide_encoding,
    how_to_read,
    is_whole,
    not_encoded,
    open_bytes,
    open_lines,
    refuse_no_text,
)
from itda_core.corpus.tables import (
    held_by,
    json_rows,
    json_text,
    parquet_columns,
    parquet_sizes,
    parquet_texts,
)
from itda_core.errors import CorpusError

_AS_SHOWN = Reading()
_COUNTED_ROWS = 10_000
_MAX_FOREIGN_ROWS = 1
_MAX_FOREIGN_SHARE = 0.1


@dataclass(frozen=True)
class FileTexts:
    """The texts of a file in its own order, empty and repeated ones too."""

    texts: list[str]
    bad_rows: tuple[BadRow, ...] = ()
    reading: Reading = _AS_SHOWN
    """as which it was read; fields that its format does not have are None"""
    column: str | None = None
    """that the texts are from; None in a .txt"""


def read_texts(path: Path, column: str | None = None, reading: Reading = _AS_SHOWN) -> FileTexts:
    """The texts of one file; its ending gives the format, .gz and .zst unpacked.

    .txt: paragraphs, or lines where there are no blank lines, as they stand. .csv, .tsv, .jsonl,
    .parquet: one text a row, from `column` (by default the only text column, or the one called
    text). reading: how, where it is not to be as the file shows. Raises CorpusError where no row
    can be read, what the file shows is unclear, or many rows have another encoding.
    """
    _check(path)
    reader = {".txt": _txt, ".jsonl": _jsonl, ".parquet": _parquet}.get(file_format(path), _csv)
    rows, taken, column = reader(path, column, reading)
    texts: list[str] = []
    bad: list[BadRow] = []
    for row in rows:
        (bad if isinstance(row, BadRow) else texts).append(row)
    _refuse_unreadable(path, len(texts), bad)
    return FileTexts(texts, tuple(bad), taken, column)


def text_columns(path: Path, reading: Reading = _AS_SHOWN) -> dict[str, int]:
    """The columns of a table that hold text, and about how much of it each; of a .csv all count.
    Raises CorpusError where no row can be read."""
    _check(path)
    if file_format(path) == ".parquet":
        return parquet_sizes(path)
    if file_format(path) == ".jsonl":
        return _json_columns(path, reading)[0]
    return _csv_sizes(path, reading)


def choose_column(
    path: Path, column: str | None, columns: Iterable[str], others: dict[str, str]
) -> str:
    """The text column to use. columns: that hold text; others: what the others hold, by name.
    Raises CorpusError naming the columns where the choice is open."""
    columns = list(columns)
    if column is not None and column not in columns and column.strip() in columns:
        column = column.strip()  # as the names of a .csv are
    usual = [choice for choice in USUAL_COLUMNS if choice in columns]
    wanted = column or (usual[0] if usual else columns[0] if len(set(columns)) == 1 else None)
    if wanted is None:
        of_others = "".join(f" {name!r} holds {what}." for name, what in [*others.items()][:3])
        raise CorpusError(
            f"Say which column of {path.name} holds the texts. It has: {_listed(columns)}."
            f"{of_others if not columns else ''}"
        )
    if wanted in others:
        raise CorpusError(
            f"The column {wanted!r} of {path.name} holds {others[wanted]}, not texts. Columns with "
            f"texts: {_listed(columns)}."
        )
    if wanted not in columns:
        raise CorpusError(f"{path.name} has no text column {wanted!r}. It has: {_listed(columns)}.")
    if columns.count(wanted) > 1:
        raise CorpusError(f"{path.name} has two columns called {wanted!r}. Rename one of them.")
    return wanted


def _txt(path: Path, _column: str | None, reading: Reading):
    with open_lines(path, reading.encoding) as opened:
        lines = list(opened)
    if any("\x00" in line for line in lines):
        raise refuse_no_text(path)
    if not any(line.strip() for line in lines):
        raise CorpusError(f"{path.name} is empty. Choose a file that holds text.")
    _refuse_lone_returns(path, lines)
    return _paragraphs(lines, reading.encoding), Reading(encoding=reading.encoding or "utf-8"), None


def _refuse_lone_returns(path: Path, lines: list[str]) -> None:
    """Raises CorpusError where CR alone seems to end a line: of all of them, or of some in a file
    of mixed ends. A single one among lines that end with LF is a character of its text."""
    counts = [line.rstrip("\r\n").count("\r") for line in lines]
    if not any(counts):
        return
    if len(lines) == 1:
        raise lone_returns(path)
    if sum(counts) >= len(lines) or any(line.endswith("\r\n") for line in lines):
        first = next(number for number, count in enumerate(counts, 1) if count)
        raise CorpusError(
            f"The lines of {path.name} have mixed ends: line {first} has a lone CR in it, which "
            "ends a line on old Macs, and others end with LF. Save it with LF or CR LF."
        )


def _paragraphs(lines: list[str], encoding: str | None) -> Iterator[str | BadRow]:
    """What stands between blank lines, or each line where there are none between the first line
    with text and the last."""
    numbered = [(n, line.removesuffix("\n").removesuffix("\r")) for n, line in enumerate(lines, 1)]
    with_text = [n for n, line in numbered if line.strip()]
    has_blank = len(with_text) < with_text[-1] - with_text[0] + 1
    groups = itertools.groupby(numbered, key=lambda one: (one[1].strip() == "", has_blank or one))
    for (is_blank, _), part in groups:
        if is_blank:
            continue
        part = list(part)
        text = "\n".join(line for _, line in part)
        yield text if is_whole(text) else not_encoded(part[-1][0], encoding)


def _csv(path: Path, column: str | None, reading: Reading):
    form = csv_format(path, reading)
    try:
        column = choose_column(path, column, form.columns, {})
    except CorpusError:
        _csv_sizes(path, reading)  # says why where no row can be read, which comes first
        raise
    number = form.columns.index(column)
    rows = csv_rows(path, form)
    return (
        (row if isinstance(row, BadRow) else row[number] for row in rows),
        form.reading,
        column,
    )


def _jsonl(path: Path, column: str | None, reading: Reading):
    column = choose_column(path, column, *_json_columns(path, reading))
    rows = json_rows(path, reading.encoding, column)
    return _json_texts(rows, column), Reading(encoding=reading.encoding or "utf-8"), column


def _json_texts(rows: Iterator, column: str) -> Iterator[str | BadRow]:
    for row in rows:
        if isinstance(row, BadRow):
            yield row
            continue
        text = json_text(row[1], column)
        yield replace(text, line=row[0]) if isinstance(text, BadRow) else text


def _parquet(path: Path, column: str | None, _reading: Reading):
    columns, others = parquet_columns(path)
    column = choose_column(path, column, columns, others)
    return parquet_texts(path, column), _AS_SHOWN, column


def _json_columns(path: Path, reading: Reading) -> tuple[dict[str, int], dict[str, str]]:
    """The columns that hold text with how many characters each, and what the others hold."""
    _refuse_array(path, reading)
    characters: dict[str, int] = {}
    others: dict[str, str] = {}
    first_bad, n_rows = None, 0
    for row in json_rows(path, reading.encoding):
        if isinstance(row, BadRow):
            first_bad = first_bad or row
            continue
        n_rows += 1
        for name, value in row[1].items():
            if isinstance(value, str):
                characters[name] = characters.get(name, 0) + len(value)
            elif value is not None and name not in others:
                others[name] = held_by(value)
    if not n_rows:
        raise _no_row(path, first_bad)
    return characters, {name: what for name, what in others.items() if name not in characters}


def _refuse_array(path: Path, reading: Reading) -> None:
    """Raises CorpusError where the whole file is one JSON array, in one line or in many."""
    with open_lines(path, reading.encoding) as opened:
        lines = (line.strip() for line in opened if line.strip())
        first = last = next(lines, "")
        if not first.startswith("["):
            return
        for line in lines:
            last = line
    if last.endswith("]") and (last is first or not _is_json(first)):
        raise CorpusError(
            f"{path.name} is one JSON array. Write one object a line, without the brackets around "
            "them and the commas between them."
        )


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _csv_sizes(path: Path, reading: Reading) -> dict[str, int]:
    form = csv_format(path, reading)
    sizes = dict.fromkeys(form.columns, 0)
    first_bad, n_rows = None, 0
    for row in itertools.islice(csv_rows(path, form), _COUNTED_ROWS):
        if isinstance(row, BadRow):
            first_bad = first_bad or row
            continue
        n_rows += 1
        for name, field in zip(form.columns, row, strict=True):
            sizes[name] += len(field)
    if not n_rows:
        raise _no_row(path, first_bad)
    return sizes


def _refuse_unreadable(path: Path, n_texts: int, bad: list[BadRow]) -> None:
    """Raises CorpusError where nothing is left, or a good part is in another encoding: what is left
    would be the texts of those who write without accents."""
    foreign = [row for row in bad if row.is_encoding]
    n_rows = n_texts + len(bad)
    is_foreign = len(foreign) > max(_MAX_FOREIGN_ROWS, _MAX_FOREIGN_SHARE * n_rows)
    if foreign and (is_foreign or not n_texts):
        raise CorpusError(
            f"{len(foreign):,} of {n_rows:,} rows of {path.name} are no text in the encoding that "
            f"it is read in, the first: {foreign[0]}. {how_to_read(path)}"
        )
    if not n_texts:
        raise _no_row(path, bad[0] if bad else None)


def _no_row(path: Path, first_bad: BadRow | None) -> CorpusError:
    if first_bad is None:
        return CorpusError(f"{path.name} is empty: it has no row. Choose a file that holds text.")
    is_foreign = first_bad.is_encoding or has_wide_encoding(path)
    remedy = f" {how_to_read(path)}" if is_foreign else ""
    return CorpusError(f"No row of {path.name} can be read: {first_bad}.{remedy}")


def _listed(columns: list[str]) -> str:
    return ", ".join(columns[:20]) or "no column with text"


def _check(path: Path) -> None:
    if path.is_dir():
        raise CorpusError(f"{path} is a folder. Give one file ({' '.join(FILE_ENDINGS)}).")
    if not path.exists():
        raise CorpusError(f"There is no file {path}. Check the path.")
    if file_format(path) not in FILE_ENDINGS:
        raise CorpusError(
            f"{path.name} is none of {' '.join(FILE_ENDINGS)}, nor one of "
            f"{' '.join(TEXT_ENDINGS)} packed as {' or '.join(PACKED_ENDINGS)}. Convert it."
        )
    if not os.access(path, os.R_OK):
        raise CorpusError(f"{path} can't be read. Change its rights.")
    with open_bytes(path) as file:
        if not file.read(4).strip(b"\xef\xbb\xbf \n\t\r"):
            _refuse_blank(path)


def _refuse_blank(path: Path) -> None:
    with open_bytes(path) as file:
        while part := file.read(1 << 20):
            if part.strip(b"\xef\xbb\xbf \n\t\r"):
                return
    raise CorpusError(f"{path.name} is empty. Choose a file that holds text.")
