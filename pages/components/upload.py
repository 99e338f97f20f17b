"""A file of texts from the reader's own machine."""

import streamlit as st

from itda_core.corpus import FILE_ENDINGS, parse_table, parse_texts, text_columns
from itda_core.errors import CorpusError
from pages.components.text import literal


def upload_texts(label: str, key: str) -> tuple[str, bytes, str | None, list[str]] | None:
    """Ask for a file and, where it has several text columns, for the column.

    Returns its name, its content, the column (None for .txt) and its texts; None while there is
    nothing to read yet. What is wrong with a file is said in place.
    """
    file = st.file_uploader(
        label,
        type=[ending.removeprefix(".") for ending in FILE_ENDINGS],
        key=key,
        help=".txt: one text a paragraph, or a line where there are no blank lines. .csv, .jsonl "
        "and .parquet: one text a row.",
    )
    if file is None:
        return None
    content = file.getvalue()
    try:
        column = _choose_column(file.name, content, key)
        texts = [text for text in parse_texts(content, file.name, column) if text.strip()]
        if not texts:
            raise CorpusError(f"{file.name} holds no text. Choose a file that does.")
        return file.name, content, column, texts
    except CorpusError as error:
        st.error(literal(str(error)))
        return None


def _choose_column(name: str, content: bytes, key: str) -> str | None:
    if name.lower().endswith(".txt") or not content.strip():
        return None
    table = parse_table(content, name)
    columns = text_columns(table)
    if len(columns) < 2:
        return None
    longest_first = sorted(columns, key=lambda column: -table[column].astype(str).str.len().mean())
    return st.selectbox("Column that holds the texts", longest_first, key=f"{key}_column")
