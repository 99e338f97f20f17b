"""What people write about latents: label, note, bookmark and lists, in place; as files."""

import dataclasses

import pandas as pd
import streamlit as st

from itda_core.runs.labels import LONGEST_LABEL, LONGEST_NOTE, Label, labels_file, read_labels
from pages.components.explorer import explorer
from pages.components.text import shown


def edit_label(run, latent: pd.Series) -> None:
    """The fields of one latent; a change is kept at once. run: a row of Store.runs.table();
    latent: a row of Store.latents.table()."""
    stored = Label(
        run.run_id,
        int(latent.latent),
        latent.prompt_id,
        int(latent.position),
        latent.label,
        latent.note,
        bool(latent.bookmarked),
        tuple(latent.lists),
    )
    fields = ("label", "note", "bookmarked", "lists")
    keys = {name: f"{name}_{run.run_id}_{stored.latent}" for name in fields}

    def keep(name: str) -> None:
        keep_change(stored, name, st.session_state[keys[name]])

    field, bookmark, note, files = st.columns([3, 1.3, 1.4, 1], vertical_alignment="bottom")
    field.text_input(
        "Label",
        stored.label,
        max_chars=LONGEST_LABEL,
        placeholder="What it stands for, in your words",
        key=keys["label"],
        on_change=keep,
        args=["label"],
    )
    bookmark.toggle(
        "Bookmark", stored.bookmarked, key=keys["bookmarked"], on_change=keep, args=["bookmarked"]
    )
    is_written = stored.note or stored.lists
    with note.popover("Note, lists ✎" if is_written else "Note, lists", width="stretch"):
        st.multiselect(
            "Lists",
            sorted({*explorer().store.latents.list_names(), *stored.lists}),
            list(stored.lists),
            format_func=shown,
            accept_new_options=True,
            placeholder="Type a name for a new list",
            key=keys["lists"],
            on_change=keep,
            args=["lists"],
        )
        st.text_area(
            "Note",
            stored.note,
            max_chars=LONGEST_NOTE,
            height=200,
            key=keys["note"],
            on_change=keep,
            args=["note"],
        )
    with files.popover("Files", width="stretch"):
        _offer_files()


def keep_change(stored: Label, name: str, value) -> None:
    """Keep what is written into a field. The browser also calls when the field is drawn for another
    latent: then nothing is changed, and nothing written."""
    changed = dataclasses.replace(stored, **{name: value})
    if changed != stored:
        explorer().keep_labels([changed])


def _offer_files() -> None:
    """All labels as a file, and labels from one."""
    file = labels_file(explorer().runs_folder)
    st.markdown("**Labels, notes, bookmarks and lists of all dictionaries**")
    st.download_button(
        "Download as JSON lines",
        file.read_bytes,  # read when it is asked for
        file_name=file.name,
        mime="application/jsonl",
        disabled=not file.exists(),
        on_click="ignore",
    )
    upload = st.file_uploader("Add those of a file", type=["jsonl"], key="labels_upload")
    if upload is None:
        return
    labels, bad = read_labels(upload.getvalue())
    if bad:
        st.warning(f"{bad:,} lines can't be read and are left out.")
    st.caption(
        f"{len(labels):,} latents. Where both have one of the same latent, the newer one counts."
    )
    if labels and st.button(f"Add {len(labels):,}", type="primary"):
        explorer().keep_labels(labels)
        st.rerun()
