"""The rows of a comma-separated file, and what a quotation mark that stays open takes with it."""

import csv
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from itda_core.corpus.reading import (
    BadRow,
    Reading,
    is_whole,
    not_encoded,
    open_lines,
    refuse_no_text,
)
from itda_core.errors import CorpusError

_MAX_LOST_SHARE = 0.1
_MANY_LINES = 20
_MANY_TIMES = 10

csv.field_size_limit(2**31 - 1)


@dataclass(frozen=True)
class CsvFormat:
    """How a file is read, and its columns."""

    reading: Reading
    """with nothing left open"""
    columns: tuple[str, ...]
    """names as they stand in the file, or "column 1" and so on"""
    skipped: int = 0
    """Lines before the first row: "sep=;", as spreadsheets write it"""
    usual_lines: int = 1
    """of a row: the median of the first rows"""
    is_quote_said: bool = False
    """Whether the quotation mark is the reader's word, so that a long text is one"""


def csv_rows(path: Path, form: CsvFormat) -> Iterator[list[str] | BadRow]:
    """The rows below the header, a field for each column.

    Raises CorpusError at the end where quotation marks that stay open have taken more than one line
    and more than a tenth of all into rows that begin before them.
    """
    last, awaits_header, open_rows = form.skipped, form.reading.header, []
    with open_lines(path, form.reading.encoding) as opened:
        lines = itertools.islice(without_zero_bytes(path, opened), form.skipped, None)
        watched = _Watched(lines, form.reading)
        for row, line in numbered_rows(watched, form.reading, form.skipped):
            first, last = last + 1, line
            if row and awaits_header:
                awaits_header = False
                if isinstance(row, BadRow) or _is_run_over(row, line - first + 1, form):
                    raise refuse_open(path, BadRow(line, "", first=first))
            elif row:
                if watched.is_odd or line > first or not _fits(row, form):
                    row = _checked_row(row, first, line, form)
                if isinstance(row, BadRow) and row.is_open:
                    open_rows.append(row)
                yield row
            watched.is_odd = False
    _refuse_many(path, open_rows, last)


def numbered_rows(
    lines: Iterable[str], reading: Reading, skipped: int = 0
) -> Iterator[tuple[list[str] | BadRow, int]]:
    """Each row, [] for a blank line, and a BadRow for what is no CSV, with the line where it ends.

    skipped: lines of the file that come before `lines`.
    """
    reader = csv.reader(lines, **options(reading.separator, reading.quote))
    last = skipped
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            reason = f"is not CSV ({_plain(error)})"
            row = BadRow(reader.line_num + skipped, reason, first=last + 1, is_open=True)
        last = reader.line_num + skipped
        yield row, last


class _Watched:
    """Lines, with whether one since `is_odd` was set to False needs a closer look."""

    def __init__(self, lines: Iterator[str], reading: Reading):
        self._lines, self._space = lines, f" {reading.quote}" if reading.quote else "\x00"
        self.is_odd = False

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            if self._space in line or not is_whole(line):
                self.is_odd = True
            yield line


def _fits(row: list[str] | BadRow, form: CsvFormat) -> bool:
    return isinstance(row, list) and len(row) == len(form.columns)


def _checked_row(
    row: list[str] | BadRow, first: int, line: int, form: CsvFormat
) -> list[str] | BadRow:
    """row: the one from line `first` to `line`."""
    if isinstance(row, BadRow):
        return row
    if _is_run_over(row, line - first + 1, form):
        reason = "is one text of lines that look like rows"
        return BadRow(line, reason, first=first, is_open=True)
    if len(row) != len(form.columns):
        whose = "the header" if form.reading.header else "the first row"
        return BadRow(line, f"has {len(row)} fields, {whose} {len(form.columns)}", first=first)
    quote = form.reading.quote
    if quote and any(field[:1] == " " and field.lstrip(" ")[:1] == quote for field in row):
        return BadRow(line, "has a space before a quotation mark")
    return row if all(map(is_whole, row)) else not_encoded(line, form.reading.encoding)


def _is_run_over(row: list[str], n_lines: int, form: CsvFormat) -> bool:
    """Whether a row has many more lines than the others, and they are as rows are: a quotation mark
    that was text has opened a field, and another one, far below, has closed it."""
    if form.is_quote_said or n_lines <= max(_MANY_LINES, _MANY_TIMES * form.usual_lines):
        return False
    inner = max(row, key=lambda field: field.count("\n")).split("\n")[1:-1]
    like_rows = sum(
        line.count(form.reading.separator) == len(form.columns) - 1
        for line in inner
        if line.strip()
    )
    return like_rows * 2 > sum(map(bool, map(str.strip, inner)))


def _refuse_many(path: Path, open_rows: list[BadRow], n_lines: int) -> None:
    """n_lines: of the file."""
    lost = sum(row.n_lines - 1 for row in open_rows)
    if lost > 1 and lost > _MAX_LOST_SHARE * n_lines:
        raise refuse_open(path, max(open_rows, key=lambda row: row.n_lines))


def refuse_open(path: Path, row: BadRow) -> CorpusError:
    """For a file that loses much to a row whose quotation mark stays open."""
    return CorpusError(
        f"In {path.name} a quotation mark opens in the row that begins in line {row.first}, and "
        f"takes in what follows up to line {row.line}. Where quotation marks are text, say --quote "
        "none, or Quotation marks none on the page; else close it. Where this is one long text, "
        "say there which mark stands around it."
    )


def without_zero_bytes(path: Path, lines: Iterator[str]) -> Iterator[str]:
    """The lines. Raises CorpusError where one has a zero byte."""
    for line in lines:
        if "\x00" in line:
            raise refuse_no_text(path)
        yield line


def options(separator: str, quote: str) -> dict:
    """For `csv.reader`."""
    if not quote:
        return {"delimiter": separator, "quoting": csv.QUOTE_NONE, "strict": True}
    return {"delimiter": separator, "quotechar": quote, "strict": True}


def _plain(error: csv.Error) -> str:
    if "new-line character seen" in str(error):
        return "a lone CR outside of quotation marks"
    return str(error)
