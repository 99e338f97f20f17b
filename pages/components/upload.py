"""A file of texts from the reader's own machine, kept in the data folder and read from there."""

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from itda_core.config import CorpusSpec, slug
from itda_core.corpus.files import FileTexts, read_texts, text_columns
from itda_core.corpus.reading import (
    FILE_ENDINGS,
    PACKED_ENDINGS,
    BadRow,
    Reading,
    file_format,
    how_to_read,
    left_out,
)
from itda_core.digests import digest
from itda_core.errors import CorpusError
from itda_core.files.disk_errors import disk_errors_as_sentences
from itda_core.files.writing import write_atomically
from pages.components.explorer import explorer
from pages.components.file_reading import ask_how_to_read, is_about_reading, on_the_page, told
from pages.components.text import last_part, literal, visible
from pages.components.url import keep

_KEPT_NAME = re.compile(r"([a-z0-9.-]+)-[0-9a-f]{12}((?:\.[a-z]+){1,2}\b)")
"""See `_kept`"""


@dataclass(frozen=True)
class Upload:
    """A file that was uploaded."""

    spec: CorpusSpec
    """the file where it is kept, named after its content, and how it is read"""
    texts: list[str]
    """that hold more than white space"""


def upload_texts(label: str, key: str) -> Upload | None:
    """Ask for a file and, where it has several text columns, for the column.

    None while there is nothing to read yet. How the file is read is shown, and can be changed, all
    the more where it can't be told. What is wrong with a file is said in place, and rows that
    can't be read are named. The file stays chosen while other pages are looked at.
    """
    file = st.file_uploader(
        label,
        type=[ending.removeprefix(".") for ending in (*FILE_ENDINGS, *PACKED_ENDINGS)],
        key=key,
        on_change=_forget,
        args=[key],
        help=".txt: one text a paragraph, or a line where there are no blank lines. .csv, .tsv, "
        ".jsonl and .parquet: one text a row. Text files may be packed as .gz or .zst. Rows that "
        "can't be read are left out and named.",
    )
    try:
        chosen = _chosen_before(key) if file is None else (_kept(file), file.name)
    except CorpusError as error:
        st.error(literal(str(error)))
        return None
    if chosen is None:
        return None
    st.session_state[f"_chosen_{key}"] = chosen
    path, name = chosen
    key = f"{key}_{path.name}"
    try:
        how = ask_how_to_read(key, file_format(path), st.session_state.get(f"_wrong_{key}", False))
        column = _choose_column(path, how, key)
        content = _read(path, column, how)
    except CorpusError as error:
        _say_what_is_wrong(str(error), name, path, key)
        return None
    texts = [text for text in content.texts if text.strip()]
    _name_bad_rows(path, name, content.bad_rows)
    if not texts:
        st.error(literal(f"{name} holds no text. Choose a file that does."))
        return None
    st.caption(told(content.reading, content.column))
    return Upload(CorpusSpec(str(path), column, *dataclasses.astuple(how)), texts)


def _chosen_before(key: str) -> tuple[Path, str] | None:
    """The file that was chosen before another page was looked at, where it is kept, and its name.
    The browser's field forgets it then."""
    chosen = st.session_state.get(f"_chosen_{key}")
    if chosen is None or not chosen[0].exists():
        return None
    told, away = st.columns([3, 1], vertical_alignment="center")
    told.markdown(f"{literal(chosen[1])} is still chosen.")
    label = "Choose no file"
    away.button(label, key=f"forget_{key}", on_click=_forget, args=[key], width="stretch")
    return chosen


def _forget(key: str) -> None:
    st.session_state.pop(f"_chosen_{key}", None)


def as_uploaded(text: str) -> str:
    """Text with uploaded files named about as they were, and not after their content too."""

    def name(found: re.Match) -> str:
        is_kept = (explorer().data / "corpora" / found[0]).exists()
        return found[1] + found[2] if is_kept else found[0]

    return _KEPT_NAME.sub(name, text)


def corpus_name(name: str | None) -> str:
    """A corpus as every page calls it: a file without its folder, an upload as it was uploaded."""
    name = name or ""
    is_file = name.startswith(("/", "~", ".")) or "\\" in name
    return as_uploaded(last_part(name.replace("\\", "/"))) if is_file else name


def short_corpus_name(name: str | None) -> str:
    """The same in a list of what tells dictionaries apart: without its owner on the hub."""
    return visible(last_part(corpus_name(name)))


def _say_what_is_wrong(message: str, name: str, path: Path, key: str) -> None:
    """In the page's words; where the way of reading is wrong, its fields open. name: of the file
    as it was uploaded."""
    if is_about_reading(message) and not st.session_state.get(f"_wrong_{key}"):
        st.session_state[f"_wrong_{key}"] = True
        st.rerun()
    st.error(literal(on_the_page(message.replace(path.name, name))))


def _kept(file) -> Path:
    """The uploaded file in the data folder, named after its content."""
    name, folder = Path(file.name), explorer().data / "corpora"
    content = file.getbuffer()
    ending = file_format(name)
    if name.suffix.lower() != ending:
        ending += name.suffix.lower()
    with disk_errors_as_sentences(folder):
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{slug(name.name[: -len(ending)])}-{digest(content, size=6)}{ending}"
        if not path.exists():
            write_atomically(path, content)
    return path


def _choose_column(path: Path, how: Reading, key: str) -> str | None:
    if file_format(path) not in FILE_ENDINGS or file_format(path) == ".txt":
        return None
    columns = _columns(path, how)
    if len(columns) < 2:
        return None
    longest_first = sorted(columns, key=lambda column: -columns[column])
    keep(f"{key}_column")
    return st.selectbox("Column that holds the texts", longest_first, key=f"{key}_column")


def _name_bad_rows(path: Path, name: str, rows: tuple[BadRow, ...]) -> None:
    """name: of the file as it was uploaded"""
    if rows:
        is_foreign = any(row.is_encoding for row in rows)
        remedy = f" {on_the_page(_remedy(path))}" if is_foreign else ""
        st.warning(literal(f"{left_out(rows, name)}{remedy}"))


# A page runs anew with every click, and a large file takes seconds to read.


@st.cache_resource(max_entries=2, show_spinner="Reading the file …")
def _read(path: Path, column: str | None, how: Reading) -> FileTexts:
    return read_texts(path, column, how)


@st.cache_data(max_entries=2, show_spinner=False)
def _remedy(path: Path) -> str:
    return how_to_read(path)


@st.cache_resource(max_entries=2, show_spinner=False)
def _columns(path: Path, how: Reading) -> dict[str, int]:
    return text_columns(path, how)
