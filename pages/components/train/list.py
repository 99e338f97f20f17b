"""Several trainings from one file, as one job."""

import streamlit as st

from itda_core.errors import InputError
from itda_core.training.training_list import ListedTraining, listed_trainings
from pages.components.text import literal

_EXAMPLE = """[defaults]
max-tokens = 16384

[[training]]
model = ["tiny-6x128-0", "tiny-6x128-1"]
layers = [2, 4]"""
_SHOWN = 20
"""Trainings that are named"""


def ask_for_list() -> str | None:
    """The text of a list that can be trained; None while there is none. Raises InputError where
    one of its trainings is wrong."""
    text = st.text_area(
        "Trainings, as TOML or JSON",
        key="list_text",
        height=220,
        placeholder=_EXAMPLE,
        help="A table [[training]] for each, with the names of the command line's options, and "
        "[defaults] for what they share. Several values in brackets stand for a training of each.",
    )
    file = st.file_uploader("or a file", type=["toml", "json"], key="list_file")
    if file is not None:
        text = _content(file)
    if not text.strip():
        return None
    listed = listed_trainings(text, "The list")
    _show(listed)
    return text


def _content(file) -> str:
    try:
        return file.getvalue().decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{file.name} is no text in UTF-8. Choose another file.") from None


def _show(listed: list[ListedTraining]) -> None:
    """What the list stands for."""
    titles = [f"{one.number}. {one.title}" for one in listed[:_SHOWN]]
    if len(listed) > _SHOWN:
        titles.append(f"… and {len(listed) - _SHOWN:,} more")
    count = "1 training" if len(listed) == 1 else f"{len(listed):,} trainings"
    st.caption(f"{count}. One that fails costs no other; what is finished is not made again.")
    st.caption("  \n".join(map(literal, titles)))
