"""What people write about latents: label, note and bookmark, edited in place; as files."""

import dataclasses

import pandas as pd
import streamlit as st

from itda_core.labels import LONGEST_LABEL, LONGEST_NOTE, Label, labels_file, read_labels
from pages.components.session import explorer


def edit_label(run, latent: pd.Series) -> None:
    """The fields of one latent; a change is kept at once. run: a row of Store.runs(); latent: a row
    of Store.latents()."""
    known = Label(
        run.run_id,
        int(latent.latent),
        latent.prompt_id,
        int(latent.position),
        latent.label,
        latent.note,
        bool(latent.bookmarked),
    )
    keys = {name: f"{name}_{run.run_id}_{known.latent}" for name in ("label", "note", "bookmarked")}

    def keep(name: str) -> None:
        changed = dataclasses.replace(known, **{name: st.session_state[keys[name]]})
        explorer().keep_labels([changed])

    field, bookmark, note, files = st.columns([3, 1.3, 1, 1], vertical_alignment="bottom")
    field.text_input(
        "Label",
        known.label,
        max_chars=LONGEST_LABEL,
        placeholder="What it stands for, in your words",
        key=keys["label"],
        on_change=keep,
        args=["label"],
    )
    bookmark.toggle(
        "Bookmark", known.bookmarked, key=keys["bookmarked"], on_change=keep, args=["bookmarked"]
    )
    with note.popover("Note ✎" if known.note else "Note", width="stretch"):
        st.text_area(
            "Note",
            known.note,
            max_chars=LONGEST_NOTE,
            height=200,
            key=keys["note"],
            on_change=keep,
            args=["note"],
        )
    with files.popover("Files", width="stretch"):
        _offer_files()


def _offer_files() -> None:
    """All labels as a file, and labels from one."""
    file = labels_file(explorer().runs_folder)
    content = file.read_bytes() if file.exists() else b""
    st.markdown("**Labels, notes and bookmarks of all dictionaries**")
    st.download_button(
        "Download as JSON lines",
        content,
        file_name=file.name,
        mime="application/jsonl",
        disabled=not content,
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
