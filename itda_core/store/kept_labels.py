"""Labels that the database has and their file has lost: they are written back, so that an empty, a
missing or a shortened file costs nothing."""

from pathlib import Path
from typing import Any

import duckdb

from itda_core.errors import InputError
from itda_core.runs.labels import (
    FIELDS,
    Change,
    Label,
    Newest,
    add_changes,
    read_said,
)

_COLUMNS = {
    "run_id": None, "latent": None, "prompt_id": None, "position": None, "label": "''",
    "note": "''", "bookmarked": "false", "lists": "[]", "changed": "''",
    "label_changed": "changed", "note_changed": "changed", "alone": "false", "start": "NULL",
    "end": "NULL", "of_source": "true", "closes": "NULL", "root": "NULL", "origin": "NULL",
    "root_digest": "NULL",
}  # fmt: skip
"""Of the table `labels`, with what stands for one that an earlier version did not have"""
_TIMES = {"label": "label_changed", "note": "note_changed"}
"""Fields of which the database keeps when they were written"""


def write_back_labels(
    cursor: duckdb.DuckDBPyConnection,
    path: Path | str,
    file: Path,
    said: Newest | None = None,
) -> str:
    """Add to the file of the labels what the database has and the file has not. A sentence on what
    was added, "" where nothing was. path: of the database, whose labels are those of the file
    beside it and of no other; said: what the file says, where it was read already. Raises OSError
    or ItdaError where the file can't be read or written."""
    if path == ":memory:" or Path(path).absolute().parent.resolve() != file.parent.resolve():
        return ""
    lost = lost_labels(cursor, read_said(file).newest if said is None else said)
    if not lost:
        return ""
    add_changes(file, [change for found in lost for change in found])
    count = "1 label" if len(lost) == 1 else f"{len(lost):,} labels"
    return f"{file} had lost {count} that the database still had: written back."


def lost_labels(cursor: duckdb.DuckDBPyConnection, said: Newest) -> list[list[Change]]:
    """What the database has and a file has not, of each latent and source. said: by the file."""
    return [found for row in _rows(cursor) if (found := _lost(row, said))]


def _rows(cursor: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """What the database has, also one of an earlier version."""
    there = cursor.execute("SELECT column_name FROM duckdb_columns() WHERE table_name = 'labels'")
    names = {name for [name] in there.fetchall()}
    if not names >= {name for name, instead in _COLUMNS.items() if instead is None}:
        return []
    asked = [
        f'"{name}"' if name in names else f'{instead} AS "{name}"'
        for name, instead in _COLUMNS.items()
    ]
    found = cursor.execute(f"SELECT {', '.join(asked)} FROM labels").fetchall()
    return [dict(zip(_COLUMNS, row, strict=True)) for row in found]


def _label(row: dict[str, Any]) -> Label:
    fields = {name: row[name] for name in ("run_id", "latent", "prompt_id", "position")}
    texts = {name: row[name] or "" for name in ("label", "note", "changed")}
    flags = {name: bool(row[name]) for name in ("bookmarked", "alone")}
    return Label(**fields, **texts, **flags, lists=tuple(row["lists"] or ()))


def _lost(row: dict[str, Any], said: Newest) -> list[Change]:
    """What the database has of a latent and its file has not, field by field: what the file says
    that is as new counts, and so does what was taken away there."""
    try:
        label = _label(row)
    except InputError:  # of an earlier version that took what no file may hold: its line says so
        return []
    there = said.get(label.source, {})
    newest = max((there[name][0] for name in FIELDS if name in there), default="")
    lost = []
    for name, value in label.fields.items():
        time, value_there = there.get(name, ("", Label(*label.source).fields[name]))
        if name in _TIMES:
            written = row[_TIMES[name]] or label.changed
            is_newer = written > time
        else:  # its time is not kept: newer than all that the file says, or never said there
            written = label.changed
            is_newer = written > newest or name not in there
        if is_newer and value != value_there:
            lost.append(Change(label, (name,), **_place(row)).at(written))
    return lost


def _place(row: dict[str, Any]) -> dict[str, Any]:
    span = (row["start"], row["end"]) if row["start"] is not None else None
    origin = (row["root"], row["origin"]) if row["root"] and row["origin"] is not None else None
    if origin and row["root_digest"]:
        origin = (*origin, row["root_digest"])
    return {"span": span if row["of_source"] else (), "closes": row["closes"], "origin": origin}
