"""The table of terms in which “What if” is asked: buttons at each, or any factor and another latent
in its place."""

import dataclasses

import pandas as pd
import streamlit as st

from itda_core.analysis.decomposition import Decomposition
from itda_core.analysis.what_if import Edit
from pages.components.decompose.edits_url import (
    LARGEST,
    Edits,
    editor_key,
    edits_of,
    first_edits,
    put_edits,
    write_edits,
)
from pages.components.decompose.terms import (
    FROM,
    label_column,
    label_columns,
    with_context,
    with_filler,
)
from pages.components.latent_rows.rows import Action, Column, show_rows_of
from pages.components.run_names import words_of
from pages.components.url import choose, follow_url, keep

_MAX_LATENTS = 20
_WHERE = {"token": "At the locked token", "all": "At all tokens"}
_ACTIONS = (
    Action("0", "×0", "Remove"),
    Action("2", "×2", "Double"),
    Action("-1", "−1", "Turn round"),
)


def edited_row(row: int | None) -> int | None:
    """The row whose token is edited, None for all tokens. row: of the locked token."""
    keep("at")
    follow_url("at", list(_WHERE))
    return None if st.session_state["at"] == "all" else row


def edits_scope(run, result: Decomposition, row: int | None) -> tuple:
    """What edits are made to: all tokens of a text, or one. row: of `edited_row`."""
    return run.run_id, result.text, None if row is None else int(result.positions[row])


def ask_for_edits(
    run, result: Decomposition, latents: pd.DataFrame, row: int | None
) -> tuple[Edit, ...]:
    """What was changed in the table of the locked token's terms, or of the text's latents, as
    edits. run: a row of Store.runs.table(); latents: of `latents_of`; row: of the locked token."""
    if row is not None:
        look = {"required": True, "label_visibility": "collapsed"}
        choose(st.segmented_control, "Change a latent", _WHERE, "at", **look)
    edited = edited_row(row)
    scope = edits_scope(run, result, edited)
    rows, size = _rows(run, result, latents, row, edits_of(scope))
    shown = with_context(run, rows)
    _show_buttons(run, shown, size, scope)
    with st.expander("Any factor, or another latent instead"):
        changes = _ask_in_table(run, shown, size, scope)
    where = None if edited is None else (int(result.positions[edited]),)
    edits = tuple(Edit(latent, *change, where) for latent, change in changes.items())
    listed = set(rows["latent"].tolist())
    drawn = {latent: change for latent, change in edits_of(scope).items() if latent in listed}
    write_edits(scope, edits, listed)
    if drawn != changes:  # typed into the table of factors just now
        st.rerun()
    return edits


def _rows(
    run, result: Decomposition, latents: pd.DataFrame, row: int | None, edits: Edits
) -> tuple[pd.DataFrame, str]:
    """The latents that have a row, and the column of their size. What is changed already has one,
    however little it explains. Of a token's filler is `pale`, where that is told."""
    if row is None:
        others = latents[_MAX_LATENTS:]
        is_changed = others["latent"].isin(edits)
        return pd.concat([latents.head(_MAX_LATENTS), others[is_changed]]), "strongest"
    terms = with_filler(run, result.terms(row)).drop_duplicates("latent")
    is_elsewhere = latents["latent"].isin(edits) & ~latents["latent"].isin(terms["latent"])
    if st.session_state["at"] != "all" or not is_elsewhere.any():
        return terms, "coefficient"
    others = latents[is_elsewhere].assign(**{"pale": False} if "pale" in terms else {})
    return pd.concat([terms, others], ignore_index=True), "coefficient"


def _show_buttons(run, shown: pd.DataFrame, size: str, scope: tuple) -> None:
    edits = edits_of(scope)
    factors = [edits.get(latent, (1.0, None))[0] for latent in shown["latent"]]
    instead = [edits.get(latent, (1.0, None))[1] for latent in shown["latent"]]
    rows = shown.assign(
        named=shown["source_token"],
        factor=factors,
        instead=pd.array(instead, dtype="Int64"),
        pressed=[f"{factor:g}" for factor in factors],
    )
    columns = [
        Column("actions", "change", "actions"),
        Column("source_token", words_of(run).source, "latent"),
        *label_columns(shown),
        Column(size, size, "number", digits=2, sign=size == "coefficient"),
        Column("factor", "factor", "number", digits=2),
        *[Column("instead", "instead", "number", is_name=True)]
        * bool(rows["instead"].notna().any()),
        Column("latent", "no.", "number", is_name=True),
        Column("context", f"{words_of(run).source} in context", "quote"),
    ]
    acted = show_rows_of(run, rows, columns, "edit_rows", 380, _ACTIONS)
    if "pale" in rows:
        st.caption("Pale: filler on this token. The sizes of filler change with every other term.")
    if acted:
        put_edits(scope, _with_action(edits, *acted))
        st.rerun()


def _with_action(edits: Edits, action: str, key: str) -> Edits:
    """Edits after a button was pressed; pressed again it takes its change back. An other latent
    that was put in the place stays."""
    latent, factor = int(key), float(action)
    before, instead = edits.get(latent, (1.0, None))
    factor = 1.0 if before == factor else factor
    if factor == 1.0 and instead is None:
        return {other: change for other, change in edits.items() if other != latent}
    return {**edits, latent: (factor, instead)}


def _ask_in_table(run, shown: pd.DataFrame, size: str, scope: tuple) -> Edits:
    """What stands in the table of factors."""
    editor = editor_key(scope, shown["latent"].tolist())
    first = first_edits(scope, editor)
    pairs = [first.get(latent, (1.0, None)) for latent in shown["latent"]]
    shown = shown.assign(factor=[factor for factor, _ in pairs])
    shown["instead"] = pd.array([instead for _, instead in pairs], dtype="Int64")
    word = words_of(run).source
    edited = st.data_editor(
        shown[
            ["latent", *label_column(shown), "source_token", "factor", "instead", size, "context"]
        ],
        column_config={
            "latent": st.column_config.NumberColumn("latent", format="%d", width=60),
            "label_from": FROM,
            "source_token": st.column_config.TextColumn(word, width=95),
            "context": f"{word} in context",
            size: st.column_config.NumberColumn(size, format="%+.2f", width=90),
            "factor": st.column_config.NumberColumn(
                "factor", min_value=-LARGEST, max_value=LARGEST, step=0.1, format="%.2f", width=80
            ),
            "instead": st.column_config.NumberColumn(
                "instead", min_value=0, max_value=int(run.atoms) - 1, step=1, width=90
            ),
        },
        disabled=["latent", "label", "label_from", "source_token", "context", size],
        hide_index=True,
        key=editor,
    )
    return {int(one.latent): change for one in edited.itertuples() if (change := _change(one))}


def _change(row) -> tuple[float, int | None] | None:
    """Factor and other latent of a row of the table; None where it changes nothing."""
    factor = 1.0 if pd.isna(row.factor) else float(row.factor)
    instead = None if pd.isna(row.instead) else int(row.instead)
    return None if factor == 1 and instead is None else (factor, instead)


def edits_in_words(edits: tuple[Edit, ...], names: dict[int, str]) -> str:
    """Such as "treaty ×0, war → peace". names: of latents, by number, made to be shown."""

    def name(latent: int) -> str:
        return f"{names[latent]} ({latent})" if names.get(latent) else str(latent)

    parts = []
    for edit in edits:
        factor = f" ×{edit.factor:g}".replace("-", "−") if edit.factor != 1 else ""
        instead = "" if edit.instead is None else f" → {name(edit.instead)}"
        parts.append(f"{name(edit.latent)}{factor}{instead}")
    return ", ".join(parts)


def as_dicts(edits: tuple[Edit, ...]) -> list[dict]:
    """For the settings of a file."""
    return [dataclasses.asdict(edit) for edit in edits]
