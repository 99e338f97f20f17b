"""What people write about latents: label, note, bookmark and lists, in place; as files; what they
wrote of the same source elsewhere."""

import dataclasses
import threading
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from itda_core.errors import ItdaError
from itda_core.runs.labels import (
    FIELDS,
    LONGEST_LABEL,
    LONGEST_NOTE,
    BadLine,
    Change,
    Label,
    kept_label,
    labels_file,
    merged,
    read_changes,
)
from pages.components.explorer import explorer
from pages.components.latents.elsewhere import origins, show_elsewhere
from pages.components.text import literal, shown

_NAMES = {
    "label": "label",
    "note": "note",
    "bookmarked": "bookmark",
    "lists": "lists",
    "alone": "whether others are left out",
}
_NAMED_LINES = 5
_editing = threading.Lock()
"""Between what is there and what is written instead, nobody else may write: of two people who put
a latent into a list at once both would say it is in theirs alone"""
_drafts = st.components.v2.component(
    "itda.drafts", js=(Path(__file__).parent / "drafts.js").read_text("utf-8")
)


def edit_label(run, latent: pd.Series) -> None:
    """The fields of one latent; a change is kept at once, and said to be. Below them what was
    written of its source elsewhere. run: a row of Store.runs.table(); latent: a row of
    Store.latents.table()."""
    store = explorer().store
    written = store.known(store.labels.of_latent, run.run_id, int(latent.latent))
    stored = _own_label(run, latent, written)
    others = written[~written["is_own"].astype(bool)]
    keys = {name: f"{name}_{run.run_id}_{stored.latent}" for name in FIELDS}
    _follow_store(stored, keys)

    def options(name: str) -> dict[str, Any]:
        return {
            "key": keys[name],
            "on_change": lambda: keep_change(stored, name, st.session_state[keys[name]]),
        }

    field, bookmark, note, files = st.columns([3, 1.3, 1.4, 1], vertical_alignment="bottom")
    field.text_input(
        "Label",
        max_chars=LONGEST_LABEL,
        placeholder=_placeholder(run, latent),
        **options("label"),
    )
    bookmark.toggle("Bookmark", **options("bookmarked"))
    is_written = stored.note or stored.lists
    with note.popover("Note, lists ✎" if is_written else "Note, lists", width="stretch"):
        st.multiselect(
            "Lists",
            sorted({*store.known(store.latents.list_names), *stored.lists}),
            format_func=shown,
            accept_new_options=True,
            placeholder="Type a name for a new list",
            **options("lists"),
        )
        st.text_area("Note", max_chars=LONGEST_NOTE, height=110, **options("note"))
    with files.popover("Files", width="stretch"):
        _offer_files(stored)
    _say_what_was_kept(stored)
    if not others.empty:
        _show_others(run, stored, others, options("alone"))
    _drafts(data={"fields": ["Label", "Note"]}, key="drafts")


def _own_label(run, latent: pd.Series, written: pd.DataFrame) -> Label:
    """What this dictionary itself says of a latent. written: of Store.labels.of_latent()."""
    source = run.run_id, int(latent.latent), latent.prompt_id, int(latent.position)
    for own in written[written["is_own"].astype(bool)].itertuples():
        fields = own.label, own.note, bool(own.bookmarked), tuple(own.lists)
        return Label(*source, *fields, alone=bool(own.alone))
    return Label(*source)


def _placeholder(run, latent: pd.Series) -> str:
    if not latent.label_from:
        return "What it stands for, in your words"
    [origin] = origins(run, pd.Series([latent.label_from]))
    return f"{shown(latent.label)}, from {origin}"


def _show_others(run, stored: Label, others: pd.DataFrame, options: dict[str, Any]) -> None:
    """What other dictionaries say of the same source, or that it is left out here."""
    count = "another dictionary" if len(others) == 1 else f"{len(others):,} other dictionaries"
    said, switch = st.columns([3, 1.3], vertical_alignment="center")
    said.caption(f"Of the same source, in {count}" + (", left out here:" if stored.alone else ":"))
    switch.toggle(
        "Leave out",
        help="Where it does not fit: nothing that other dictionaries say of this source is shown, "
        "searched or counted in this one.",
        **options,
    )
    show_elsewhere(run, others, lambda other: take_over(stored, other))


def _follow_store(stored: Label, keys: dict[str, str]) -> None:
    """Show what is kept now, also where another tab changed it since the fields were drawn."""
    shown = st.session_state.get("_labels_shown", {})
    for name, value in stored.fields.items():
        if keys[name] not in st.session_state or shown.get(keys[name]) != value:
            st.session_state[keys[name]] = list(value) if name == "lists" else value
    st.session_state["_labels_shown"] = {keys[name]: value for name, value in stored.fields.items()}


def keep_change(stored: Label, name: str, value: Any) -> None:
    """Keep what is written into a field, and no other field. stored: as the fields were drawn. The
    browser also calls when the field is drawn for another latent: then nothing is changed, and
    nothing written."""
    try:
        changed = dataclasses.replace(stored, **{name: value})
        if changed.fields[name] == stored.fields[name]:
            return
        with _editing:
            now = kept_label(labels_file(explorer().runs_folder), stored)
            if name == "lists":  # another tab may have put it into other ones meanwhile
                changed = dataclasses.replace(changed, lists=_with_others(stored, changed, now))
            explorer().keep_changes([Change(changed, (name,))])
    except ItdaError as error:
        _tell(f"Not saved: {_NAMES[name]} of latent {stored.latent}. {error}", stored, False)
        return
    said = f"Saved: {_NAMES[name]} of latent {stored.latent}."
    replaced = now.fields[name]
    if name in ("label", "note") and replaced not in (stored.fields[name], changed.fields[name]):
        said += f" It takes the place of “{replaced}”, which was written elsewhere meanwhile."
    _tell(said, stored)


def take_over(stored: Label, other: Any) -> None:
    """Keep as this dictionary's own what another says: what it says nothing of stays, and lists are
    added to those of now, into which another tab may have put it. stored: as the fields were drawn;
    other: a row of Store.labels.of_latent()."""
    try:
        with _editing:
            now = kept_label(labels_file(explorer().runs_folder), stored)
            changed = dataclasses.replace(
                now,
                label=other.label or now.label,
                note=other.note or now.note,
                bookmarked=now.bookmarked or bool(other.bookmarked),
                lists=tuple(dict.fromkeys([*now.lists, *other.lists])),
                changed="",
            )
            names = tuple(name for name in FIELDS if changed.fields[name] != now.fields[name])
            if names:
                explorer().keep_changes([Change(changed, names)])
    except ItdaError as error:
        _tell(f"Not copied to latent {stored.latent}. {error}", stored, False)
        return
    what = ", ".join(_NAMES[name] for name in names) or "nothing that was not here"
    said = f"Copied: {what} of latent {stored.latent}."
    for name in ("label", "note"):
        if now.fields[name] and name in names:
            said += f" The {name} takes the place of “{now.fields[name]}”."
    _tell(said, stored)


def _with_others(stored: Label, changed: Label, now: Label) -> tuple[str, ...]:
    """The lists of now, with those that were added here and without those that were taken away."""
    gone = set(stored.lists) - set(changed.lists)
    return tuple(dict.fromkeys([*(one for one in now.lists if one not in gone), *changed.lists]))


def _tell(said: str, stored: Label, is_kept: bool = True) -> None:
    """What became of what was written, to be said when the page is drawn next."""
    st.session_state["_kept_label"] = said, is_kept, _key(stored)
    st.session_state["_kept_just_now"] = True


def _key(stored: Label) -> tuple[str, int]:
    return stored.run_id, stored.latent


def _say_what_was_kept(stored: Label) -> None:
    """Of this latent; of another one at once, since a field is also kept on the way to the next
    latent, or if it could not be kept. stored: of the latent that is drawn."""
    said, is_kept, of = st.session_state.get("_kept_label", ("", True, None))
    is_new = st.session_state.pop("_kept_just_now", False)
    if not is_kept:
        st.error(literal(said))
        return
    is_ours = is_new or of == _key(stored)
    st.caption(literal(said if is_ours else "What you write is saved when you pause."))


def _offer_files(stored: Label) -> None:
    """All labels as a file, and labels from one. stored: of the latent that is drawn."""
    file = labels_file(explorer().runs_folder)
    st.markdown("**Labels, notes, bookmarks and lists of all dictionaries**")
    st.download_button(
        "Export labels",
        file.read_bytes,  # read when it is asked for
        file_name=file.name,
        mime="application/jsonl",
        disabled=not file.exists(),
        on_click="ignore",
    )
    upload = st.file_uploader("Import labels", type=["jsonl"], key="labels_upload")
    if upload is None:
        return
    changes, bad = read_changes(upload.getvalue())
    if bad:
        st.warning(literal(left_out(upload.name, bad)))
    labels = merged(changes)
    st.caption(
        f"{len(labels):,} latents. Where both have one of the same latent, the newer one counts, "
        "field by field."
    )
    if changes and st.button(f"Import {len(labels):,}", type="primary"):
        explorer().keep_changes(changes)
        _tell(f"Saved: {len(labels):,} latents of {upload.name}.", stored)
        st.rerun()


def left_out(name: str, bad: list[BadLine]) -> str:
    """Which lines of a file are left out, and why."""
    count = "1 line" if len(bad) == 1 else f"{len(bad):,} lines"
    more = f"; and {len(bad) - _NAMED_LINES:,} more" if len(bad) > _NAMED_LINES else ""
    return f"{count} of {name} can't be used and will be left out: " + (
        "; ".join(map(str, bad[:_NAMED_LINES])) + more + "."
    )
