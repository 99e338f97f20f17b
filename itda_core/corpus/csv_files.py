"""Comma-separated files, and those that say so: the separator, quotes and header that they show.

What a file does not show clearly is refused, and has to be said.
"""

import itertools
import re
import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from itda_core.corpus.csv_rows import CsvFormat, numbered_rows, refuse_open, without_zero_bytes
from itda_core.corpus.reading import (
    BadRow,
    Reading,
    file_format,
    open_lines,
)
from itda_core.errors import CorpusError

USUAL_COLUMNS = ("text", "prompt", "content")
SEPARATORS = (",", ";", "\t", "|")
QUOTES = ('"', "'", "")
_SAMPLE_LINES = 1_000
_SAMPLE_CHARACTERS = 4_000_000
_KNOWN_NAMES = frozenset({
    "abstract", "answer", "answers", "article", "author", "body", "caption", "category", "class",
    "code", "comment", "comments", "completion", "context", "country", "date", "description",
    "document", "documents", "feedback", "group", "id", "index", "input", "instruction", "key",
    "label", "labels", "lang", "language", "line", "message", "name", "note", "notes", "number",
    "output", "page", "paragraph", "passage", "post", "prompts", "question", "questions",
    "rating", "reply", "response", "review", "reviews", "row", "score", "sentence", "sentences",
    "sentiment", "snippet", "source", "speaker", "speech", "split", "story", "string", "subject",
    "summary", "target", "text", "texts", "time", "timestamp", "title", "token", "topic",
    "transcript", "translation", "tweet", "type", "url", "user", "utterance", "value", "word",
    "words", "year", "prompt",
})  # fmt: skip
"""That columns have, in small letters"""
_NAME = re.compile(r"[^\W\d][\w.\-/#]*( [\w.\-/#()]+)?")
_NUMBER = re.compile(
    r"[-+]?(\d[\d.,]*|[.,]\d+)(e[-+]?\d+)?%?|\d{4}-\d\d-\d\d.*|\d\d?[./]\d\d?[./]\d{2,4}.*",
    re.IGNORECASE,
)
_MISSING = {"", "na", "n/a", "nan", "null", "none", "-"}


def csv_format(path: Path, reading: Reading) -> CsvFormat:
    """How a file is to be read: as `reading` says, and what it leaves open as the file shows.

    Raises CorpusError where the file does not show it clearly.
    """
    lines = _sample(path, reading.encoding)
    said = re.fullmatch(r"sep=(.)\r?\n", lines[0]) if lines else None
    if said:
        lines = lines[1:]
    separator, quote = _dialect(path, lines, reading, said[1] if said else None)
    taken = Reading(separator, quote, reading.header, reading.encoding or "utf-8")
    first, others, usual_lines = _first_rows(path, lines, taken, 1 if said else 0)
    header = reading.header
    if header is None:
        header = _has_header(first, others)
    if header is None:
        raise _no_header_known(path, first)
    names = first if header else [""] * len(first)
    columns = tuple(name.strip() or f"column {number}" for number, name in enumerate(names, 1))
    taken = replace(taken, header=header)
    return CsvFormat(taken, columns, 1 if said else 0, usual_lines, reading.quote is not None)


def _first_rows(
    path: Path, lines: list[str], reading: Reading, skipped: int
) -> tuple[list[str], list[list[str]], int]:
    """The first row, those of the others with as many fields, and of how many lines most are.
    Raises CorpusError where there is no row, or the first is no CSV."""
    rows, counts, last = [], [], skipped
    for row, line in numbered_rows(lines, reading, skipped):
        if row:
            rows.append(row)
            counts.append(line - last)
        last = line
    if not rows:
        raise CorpusError(f"{path.name} is empty. Choose a file that holds text.")
    first = rows[0]
    if isinstance(first, BadRow):
        if first.n_lines > 1:
            raise refuse_open(path, first)
        raise CorpusError(f"The first row of {path.name} can't be read: {first}.")
    others = [row for row in rows[1:] if isinstance(row, list) and len(row) == len(first)]
    usual = [count for row, count in zip(rows, counts, strict=True) if isinstance(row, list)]
    return first, others, statistics.median_low(usual)


def _no_header_known(path: Path, first: list[str]) -> CorpusError:
    """Columns are told by number: a name that is offered would be taken, and a text lost by it."""
    values = ", ".join(value.strip()[:40] for value in first[:20])
    asked = f"{path.name} has one column, which begins with {values!r}."
    if len(first) > 1:
        numbers = ", ".join(f"column {number}" for number in range(1, len(first[:20]) + 1))
        asked = f"{path.name} has {numbers} (first row: {values})."
    return CorpusError(
        f"{asked} It can't be told whether its first row names the columns: say this on the page, "
        "or with --header yes or no."
    )


def _sample(path: Path, encoding: str | None) -> list[str]:
    """The first lines; a row that is cut at the end is one that does not fit, and does no harm."""
    lines, characters = [], 0
    with open_lines(path, encoding) as opened:
        for line in without_zero_bytes(path, opened):
            lines.append(line)
            characters += len(line)
            if len(lines) == _SAMPLE_LINES or characters > _SAMPLE_CHARACTERS:
                break
    if len(lines) == 1 and "\r" in lines[0].rstrip("\r\n"):
        raise lone_returns(path)
    return lines


def lone_returns(path: Path) -> CorpusError:
    """For a file of one line that others would take for many."""
    return CorpusError(
        f"The lines of {path.name} end with a lone CR, as on old Macs, and make one line. Save it "
        "with LF or CR LF."
    )


def _dialect(path: Path, lines: list[str], reading: Reading, said: str | None) -> tuple[str, str]:
    """Separator and quotation mark."""
    lines = _first_characters(lines)  # they are parsed with every separator and quotation mark
    separator = reading.separator or said or ("\t" if file_format(path) == ".tsv" else None)
    if separator is None:
        separator = _separator(path, lines, reading.quote)
    quote = reading.quote
    if quote is None:
        quote = "'" if _has_single_quotes(lines, separator) else '"'
    return separator, quote


def _first_characters(lines: list[str]) -> list[str]:
    """The lines without a last one that is longer than a sample is to be, or its beginning where
    there is no other: it may be nearly the whole file."""
    if not lines or len(lines[-1]) <= _SAMPLE_CHARACTERS:
        return lines
    return lines[:-1] or [lines[0][:_SAMPLE_CHARACTERS]]


def _separator(path: Path, lines: list[str], quote: str | None) -> str:
    """The one that cuts the first row and most others into as many fields, two at least; the comma
    where none cuts any. Raises CorpusError where two do, or the first row differs from the others.
    """
    fitting, cutting, usual = [], [], []
    for separator in SEPARATORS:
        marks = (quote,) if quote is not None else ('"', "'")
        rows = max((_counts(lines, separator, mark) for mark in marks), key=_share)
        if not rows:
            continue
        share = _share(rows)
        if rows[0] > 1:
            cutting.append(separator)
        if rows[0] > 1 and share > 0.5:
            fitting.append(separator)
        others = Counter(rows[1:]).most_common(1)
        if rows[0] == 1 and others and others[0][0] > 1 and others[0][1] * 2 > len(rows) - 1:
            usual.append(separator)
    if len(fitting) == 1:
        return fitting[0]
    if not fitting and (cutting == [","] or (not cutting and not usual)):
        return ","
    found = [_named(separator) for separator in (*dict.fromkeys([*cutting, *usual]),)]
    raise CorpusError(
        f"What separates the fields of {path.name} can't be told: its rows do not agree "
        f"({' '.join(found)} may be it). Say it on the page, "
        "or with --separator."
    )


def _counts(lines: list[str], separator: str, quote: str) -> list[int]:
    """Fields of each row that is not blank, 0 where it is no CSV."""
    rows = _parsed(lines, separator, quote)
    return [len(row) if row is not None else 0 for row in rows if row != []]


def _share(counts: list[int]) -> float:
    """Of the rows after the first, those with as many fields; 1 where there are none, 0 where the
    first is no CSV."""
    if not counts or counts[0] < 2:
        return 0.0
    others = counts[1:]
    return sum(count == counts[0] for count in others) / len(others) if others else 1.0


def _parsed(lines: list[str], separator: str, quote: str) -> Iterator[list[str] | None]:
    """The rows, None for what is no CSV."""
    rows = numbered_rows(lines, Reading(separator, quote))
    return (row if isinstance(row, list) else None for row, _ in rows)


def _has_single_quotes(lines: list[str], separator: str) -> bool:
    """Whether fields stand between ' in every row but the first, and none between "."""
    text, edge = "".join(lines), f"(?:^|{re.escape(separator)})"
    starts = len(re.findall(f"{edge}'", text, re.MULTILINE))
    ends = len(re.findall(f"'(?=\\r?$|{re.escape(separator)})", text, re.MULTILINE))
    if not starts or re.search(f'{edge}"', text, re.MULTILINE):
        return False
    counts = _counts(lines, separator, "'")
    return len(set(counts)) == 1 and counts[0] > 0 and min(starts, ends) >= max(1, len(counts) - 1)


def _has_header(first: list[str], others: list[list[str]]) -> bool | None:
    """Whether the first row names the columns; None where it can't be told."""
    names = [field.strip() for field in first]
    if not others:
        return _alone(names)
    if any(name in USUAL_COLUMNS for name in names):
        return True
    below = [[row[n].strip() for row in others] for n in range(len(names))]
    if any(_is_above_numbers(name, values) for name, values in zip(names, below, strict=True)):
        return True
    are_known = any(name.casefold() in _KNOWN_NAMES for name in names)
    if any(map(_is_sentence, names)) or _recurs(names, below):
        return None if are_known else False
    if not all(_is_name(name) for name in names if name) or not any(names):
        return None
    if are_known:
        return True
    # Names of one word above sentences: several of them are a header, one may be "Hello".
    return True if len(names) > 1 and not all(map(_is_name, itertools.chain(*below))) else None


def _alone(names: list[str]) -> bool | None:
    """The same of a file whose other rows can't be read, or that has none."""
    if all(map(_is_name, names)):
        return True
    return False if any(map(_is_sentence, names)) else None


def _is_above_numbers(name: str, values: list[str]) -> bool:
    numbers = [value for value in values if value.casefold() not in _MISSING]
    if name.casefold() in _MISSING or _NUMBER.fullmatch(name) or not numbers:
        return False
    return all(map(_NUMBER.fullmatch, numbers))


def _recurs(names: list[str], below: list[list[str]]) -> bool:
    """Whether a value of the first row stands below too, or is a number as those below it while
    another is more than a name."""
    pairs = [(name, values) for name, values in zip(names, below, strict=True) if name]
    if any(name in values for name, values in pairs):
        return not all(name in values for name, values in pairs) or len(pairs) == 1
    has_number = any(
        _NUMBER.fullmatch(name) and all(map(_NUMBER.fullmatch, filter(None, values)))
        for name, values in pairs
    )
    others = [name for name, _ in pairs if not _NUMBER.fullmatch(name)]
    return has_number and not all(map(_is_name, others))


def _is_name(text: str) -> bool:
    return len(text) <= 40 and _NAME.fullmatch(text) is not None and not _is_sentence(text)


def _is_sentence(text: str) -> bool:
    if text.casefold() in ("no.", "nr."):
        return False
    return len(text) > 60 or len(text.split()) > 5 or text.endswith((".", "!", "…", "。", "！"))


def _named(separator: str) -> str:
    return "tab" if separator == "\t" else f"“{separator}”"
