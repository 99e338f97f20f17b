"""Labels that the database has and their file has lost: they are written back, so that an empty, a
missing or a shortened file costs nothing."""

from pathlib import Path
from typing import Any

import duckdb

from itda_core.runs.labels import (
    Change,
    Label,
    add_changes,
    labels_file,
    read_labels_file,
)

_COLUMNS = {
    "run_id": None, "latent": None, "prompt_id": None, "position": None, "label": "''",
    "note": "''", "bookmarked": "false", "lists": "[]", "changed": "''",
    "label_changed": "changed", "note_changed": "changed", "alone": "false", "start": "NULL",
    "end": "NULL", "of_source": "true", "closes": "NULL", "root": "NULL", "origin": "NULL",
    "root_digest": "NULL",
}  # fmt: skip
"""Of the table `labels`, with what stands for one that an earlier version did not have"""


def write_back_labels(cursor: duckdb.DuckDBPyConnection, path: Path | str, runs: Path) -> str:
    """Add to the file of the labels what the database has and the file has not. A sentence on what
    was added, "" where nothing was. path: of the database, whose labels are those of the file
    beside it and of no other. Raises OSError or ItdaError where the file can't be read or
    written."""
    file = labels_file(runs)
    if path == ":memory:" or Path(path).absolute().parent.resolve() != file.parent.resolve():
        return ""
    rows = _rows(cursor)
    if not rows:
        return ""
    newest: dict[tuple, str] = {}
    for change in read_labels_file(file)[0]:
        source, changed = change.label.source, change.label.changed
        newest[source] = max(changed, newest.get(source, ""))
    lost = [row for row in rows if _is_lost(row, newest)]
    if not lost:
        return ""
    add_changes(file, [change for row in lost for change in _changes(row)])
    count = "1 label" if len(lost) == 1 else f"{len(lost):,} labels"
    return f"{file} had lost {count} that the database still had: written back."


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


def _is_lost(row: dict[str, Any], newest: dict[tuple, str]) -> bool:
    """Whether the file says nothing of the latent that is as new."""
    label = _label(row)
    return label.source not in newest or label.changed > newest[label.source]


def _changes(row: dict[str, Any]) -> list[Change]:
    """Each field as it was written, and when."""
    label = _label(row)
    span = (row["start"], row["end"]) if row["start"] is not None else None
    origin = (row["root"], row["origin"]) if row["root"] and row["origin"] is not None else None
    if origin and row["root_digest"]:
        origin = (*origin, row["root_digest"])
    place = {"span": span if row["of_source"] else (), "closes": row["closes"], "origin": origin}
    told = {"label": row["label_changed"], "note": row["note_changed"]}
    one_by_one = [Change(label, (name,), **place).at(time) for name, time in told.items() if time]
    return [*one_by_one, Change(label, ("bookmarked", "lists", "alone"), **place)]
