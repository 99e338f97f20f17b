"""How a file is read: what the page says of it, and where it is changed."""

import re
from typing import Any

import streamlit as st

from itda_core.corpus.csv_files import QUOTES, SEPARATORS
from itda_core.corpus.reading import ENCODINGS, Reading
from pages.components.text import literal
from pages.components.url import keep

_OPEN = "as the file shows"
_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar |"}
_QUOTES = {'"': 'double "', "'": "single '", "": "none: quotation marks are text"}
_HEADERS = {True: "yes", False: "no: it is a row like the others"}
_OPTION = re.compile(
    r"on the page,? or with --(separator|quote|header yes or no|encoding( [\w-]+)?)"
)
"""As the messages of `corpus` say where a way of reading is set"""
_TABLES = (".csv", ".tsv")


def on_the_page(message: str) -> str:
    """A message about a file, which also names options of the command line, for the page."""
    return _OPTION.sub("under “How the file is read”", message)


def is_about_reading(message: str) -> bool:
    """Whether saying how the file is read may help."""
    return _OPTION.search(message) is not None


def ask_how_to_read(key: str, ending: str | None = None, is_open: bool = False) -> Reading:
    """What the reader says of a file, None for what is left to the file. ending: of the format;
    None where any is possible; is_open: whether the fields are shown at once."""
    if ending == ".parquet":
        return Reading()
    with st.expander("How the file is read", expanded=is_open):
        encoding = _choose("Encoding", dict.fromkeys(ENCODINGS), f"{key}_encoding", "utf-8")
        if ending is not None and ending not in _TABLES:
            return Reading(encoding=encoding)
        first, second, third = st.columns(3)
        with first:
            separators = {one: _SEPARATORS[one] for one in SEPARATORS}
            separator = _choose("Separator of a .csv", separators, f"{key}_separator")
        with second:
            quotes = {one: _QUOTES[one] for one in QUOTES}
            quote = _choose("Quotation marks of a .csv", quotes, f"{key}_quote")
        with third:
            header = _choose("The first row names the columns", _HEADERS, f"{key}_header")
    return Reading(separator, quote, header, encoding)


def told(reading: Reading, column: str | None) -> str:
    """How a file was read, as Markdown."""
    parts = []
    if reading.separator is not None:
        named = _SEPARATORS.get(reading.separator, reading.separator)
        marks = _QUOTES.get(reading.quote, reading.quote).split(":")[0]
        first = "names the columns" if reading.header else "is a text like the others"
        parts += [f"separator {named}", f"quotation marks {marks}", f"the first row {first}"]
    if reading.encoding is not None:
        parts.append(reading.encoding.upper())
    if column is not None:
        parts.append(f"column {column}")
    return f"Read as: {literal(', '.join(parts))}." if parts else ""


def _choose(label: str, names: dict[Any, str | None], key: str, usual: str = _OPEN) -> Any:
    """One of `names`, or None for what is usual."""
    options = [None, *(value for value in names if value != usual)]
    shown = {value: name or str(value).upper() for value, name in names.items()}
    usual = usual.upper() if usual != _OPEN else usual
    keep(key)
    return st.selectbox(label, options, format_func=lambda one: shown.get(one, usual), key=key)
