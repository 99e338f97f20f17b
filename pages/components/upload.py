"""A file of texts from the reader's own machine, kept in the data folder and read from there."""

from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from itda_core.config import slug
from itda_core.corpus.files import FILE_ENDINGS, BadRow, FileTexts, read_texts, text_columns
from itda_core.digests import digest
from itda_core.errors import CorpusError
from itda_core.files import disk_errors_as_sentences, write_atomically
from pages.components.explorer import explorer
from pages.components.text import literal

_NAMED_ROWS = 5


@dataclass(frozen=True)
class Upload:
    """A file that was uploaded."""

    path: Path
    """where it is kept, named after its content"""
    column: str | None
    """that holds the texts; None for .txt"""
    texts: list[str]
    """that hold more than white space"""


def upload_texts(label: str, key: str) -> Upload | None:
    """Ask for a file and, where it has several text columns, for the column.

    None while there is nothing to read yet. What is wrong with a file is said in place, and rows
    that can't be read are named.
    """
    file = st.file_uploader(
        label,
        type=[ending.removeprefix(".") for ending in FILE_ENDINGS],
        key=key,
        help=".txt: one text a paragraph, or a line where there are no blank lines. .csv, .jsonl "
        "and .parquet: one text a row. Rows that can't be read are left out and named.",
    )
    if file is None:
        return None
    try:
        path = _kept(file)
        column = _choose_column(path, key)
        content = _read(path, column)
        texts = [text for text in content.texts if text.strip()]
        _name_bad_rows(content.bad_rows)
        if not texts:
            raise CorpusError(f"{file.name} holds no text. Choose a file that does.")
        return Upload(path, column, texts)
    except CorpusError as error:
        st.error(literal(str(error)))
        return None


def _kept(file) -> Path:
    """The uploaded file in the data folder, named after its content."""
    name, folder = Path(file.name), explorer().data / "corpora"
    content = file.getbuffer()
    with disk_errors_as_sentences(folder):
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{slug(name.stem)}-{digest(content, size=6)}{name.suffix.lower()}"
        if not path.exists():
            write_atomically(path, content)
    return path


def _choose_column(path: Path, key: str) -> str | None:
    if path.suffix == ".txt":
        return None
    columns = _columns(path)
    if len(columns) < 2:
        return None
    longest_first = sorted(columns, key=lambda column: -columns[column])
    return st.selectbox("Column that holds the texts", longest_first, key=f"{key}_column")


def _name_bad_rows(rows: tuple[BadRow, ...]) -> None:
    if not rows:
        return
    named = "; ".join(str(row) for row in rows[:_NAMED_ROWS])
    more = f"; and {len(rows) - _NAMED_ROWS:,} more" if len(rows) > _NAMED_ROWS else ""
    count = "1 row was" if len(rows) == 1 else f"{len(rows):,} rows were"
    st.warning(literal(f"{count} left out: {named}{more}."))


# A page runs anew with every click, and a large file takes seconds to read.


@st.cache_resource(max_entries=2, show_spinner="Reading the file …")
def _read(path: Path, column: str | None) -> FileTexts:
    return read_texts(path, column)


@st.cache_resource(max_entries=2, show_spinner=False)
def _columns(path: Path) -> dict[str, int]:
    return text_columns(path)
