"""Which text is decomposed: typed, a starter, of the corpus, from a file, or from a link."""

import random

import pandas as pd
import streamlit as st

from itda_core.errors import ItdaError
from itda_core.runs.texts import keep_text, kept_text, texts_folder
from pages.components.explorer import explorer
from pages.components.text import literal, shown
from pages.components.upload import upload_texts
from pages.components.url import keep, write_url

STARTERS = {
    "Treaty": "The Senate will ratify the treaty with Spain, and commerce will flow again.",
    "Speech": "My fellow Americans, tonight the state of our Union is strong.",
    "Code": "def fibonacci(n):\n    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)",
    "Everyday": "The cat sat on the mat while the rain fell on the roof.",
}
_URL_CHARACTERS = 1_000
_MOST_PROMPTS = 1_000
"""Kept in the list"""


def choose_text() -> str:
    """Ask for a text, following the link's and writing it there; "" while there is none."""
    keep("text")
    _take_text_from_url()
    text = _ask_for_text()
    if not text.strip():
        text = ""
    is_short = 0 < len(text) <= _URL_CHARACTERS
    prompt_id = st.session_state.get("_prompts_by_text", {}).get(text)
    write_url("text", text if is_short else None)
    write_url("prompt", None if is_short else prompt_id)
    is_kept = bool(text) and not is_short and prompt_id is None
    write_url("kept", _kept(text) if is_kept else None)
    return text


def _kept(text: str) -> str | None:
    """The name by which a link finds a long text again; said, since it holds in this folder only.
    None where the text can't be kept."""
    said = f"The link leaves out texts of more than {_URL_CHARACTERS:,} characters."
    folder = texts_folder(explorer().runs_folder)
    try:
        name = keep_text(folder, text)
    except ItdaError as error:
        st.warning(f"{said} This one can't be kept for it: {literal(str(error))}")
        return None
    st.caption(
        f"{said} This one is kept in {literal(str(folder))} and named in the link by its digest, "
        "so that the link finds it again in this explorer, and in no other."
    )
    return name


def _take_text_from_url() -> None:
    """A link gives the text itself, a prompt of the corpus by its id, or a kept text's digest."""
    prompt_id, kept, text = (st.query_params.get(name) for name in ("prompt", "kept", "text"))
    is_new = "text" not in st.session_state
    if prompt_id and (is_new or prompt_id != st.session_state.get("_written_prompt")):
        if not _set_prompt(prompt_id):
            st.warning(f"The prompt {literal(prompt_id)} of this link is not in the store.")
    elif kept and (is_new or kept != st.session_state.get("_written_kept")):
        _take_kept(kept)
    elif text and (is_new or text != st.session_state.get("_written_text")):
        st.session_state["text"] = text
    st.session_state.setdefault("text", STARTERS["Treaty"])


def _take_kept(name: str) -> None:
    text = kept_text(texts_folder(explorer().runs_folder), name)
    if text is None:
        st.warning(
            f"The text {literal(name)} of this link is not kept here: it was typed into another "
            "explorer, or has made room for newer ones."
        )
    else:
        st.session_state["text"] = text


def _ask_for_text() -> str:
    names = ["Type or paste", "Several prompts", "Upload a file"]
    # Known to the server, so that a page that is drawn anew meanwhile keeps the open one.
    typed, several, uploaded = st.tabs(names, on_change="rerun", key="text_from")
    with typed:
        _ask_for_one()
    with several:
        _ask_for_several()
    with uploaded:
        _ask_for_file()
    return st.session_state["text"]


def _ask_for_one() -> None:
    st.text_area("Text", key="text", height=86, label_visibility="collapsed")
    columns = st.columns([1, 1, 1, 1, 1])
    for column, (name, starter) in zip(columns, STARTERS.items(), strict=False):
        column.button(
            name, on_click=_set_text, args=[starter], help=literal(starter), width="stretch"
        )
    columns[4].button(
        "Random prompt", on_click=_set_random_text, width="stretch", help="One of the corpus"
    )


def _ask_for_several() -> None:
    """A list that prompts are added to, one a line, and chosen from."""
    prompts = st.session_state.setdefault("prompts", [])
    # In a form one click sends what was typed and adds it.
    with st.form("several", border=False):
        st.text_area("Prompts, one a line", height=110, key="lines")
        st.form_submit_button("Add to the list", on_click=_add_lines)
    st.button("Clear the list", on_click=prompts.clear, disabled=not prompts)
    if not prompts:
        st.caption("The list is empty. A file can be added to it as well.")
        return

    def choose() -> None:
        rows = st.session_state["prompt_list"]["selection"]["rows"]
        if rows:
            _set_text(prompts[rows[0]])

    st.dataframe(
        pd.DataFrame({"prompt": [shown(prompt[:300]) for prompt in prompts]}),
        column_config={"prompt": f"{len(prompts):,} prompts: choose one to decompose it"},
        placeholder="–",
        hide_index=True,
        height=min(38 + 35 * len(prompts), 250),
        on_select=choose,
        selection_mode="single-row",
        key="prompt_list",
    )


def _ask_for_file() -> None:
    upload = upload_texts("File with one or more texts", key="upload")
    if upload is None:
        return
    texts = upload.texts
    number = st.selectbox(
        f"Text ({len(texts):,} in the file)",
        range(len(texts)),
        format_func=lambda n: f"{n + 1}: {shown(texts[n][:100])}",
        key="upload_text",
    )
    one, every = st.columns([1, 1])
    one.button("Decompose this text", on_click=_set_text, args=[texts[number]], width="stretch")
    every.button(
        f"Add the first {min(len(texts), _MOST_PROMPTS):,} to the list",
        on_click=_add_prompts,
        args=[texts[:_MOST_PROMPTS]],
        width="stretch",
    )


def _add_lines() -> None:
    lines = map(str.strip, st.session_state["lines"].split("\n"))
    _add_prompts([line for line in lines if line])


def _add_prompts(texts: list[str]) -> None:
    """Those that are not in the list yet, in their order."""
    prompts = st.session_state.setdefault("prompts", [])
    prompts += [text for text in dict.fromkeys(texts) if text not in prompts]
    left_out = len(prompts) - _MOST_PROMPTS
    if left_out > 0:
        st.toast(f"The list holds {_MOST_PROMPTS:,} prompts: {left_out:,} were left out.")
    del prompts[_MOST_PROMPTS:]
    st.session_state["lines"] = ""


def _set_text(text: str) -> None:
    st.session_state["text"] = text


def _set_random_text() -> None:
    prompt_ids = explorer().store.runs.prompt_ids()
    if not prompt_ids or not _set_prompt(random.choice(prompt_ids)):
        _set_text(STARTERS["Treaty"])


def _set_prompt(prompt_id: str) -> bool:
    """Take the text of a stored prompt; False where there is none of that id."""
    text = explorer().store.runs.prompt_text(prompt_id)
    if text is None:
        return False
    st.session_state["_prompts_by_text"] = {text: prompt_id}
    _set_text(text)
    return True
