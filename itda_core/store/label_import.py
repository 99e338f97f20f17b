"""What people wrote of latents, from their file into the table of the database."""

import dataclasses
from typing import Any

import duckdb
import pyarrow as pa

from itda_core.runs.labels import KeptLabel

_COLUMNS = pa.schema(
    {
        "run_id": pa.string(),
        "latent": pa.int32(),
        "prompt_id": pa.string(),
        "position": pa.int32(),
        "label": pa.string(),
        "note": pa.string(),
        "bookmarked": pa.bool_(),
        "lists": pa.list_(pa.string()),
        "changed": pa.string(),
        "label_changed": pa.string(),
        "note_changed": pa.string(),
        "alone": pa.bool_(),
        "start": pa.int32(),
        "end": pa.int32(),
        "of_source": pa.bool_(),
    }
)


def insert_labels(cursor: duckdb.DuckDBPyConnection, labels: list[KeptLabel]) -> None:
    """Have these labels instead of those that are there."""
    cursor.execute("DELETE FROM labels")
    cursor.register("read", pa.Table.from_pylist(list(map(_row, labels)), schema=_COLUMNS))
    cursor.execute("INSERT INTO labels BY NAME SELECT * FROM read")
    cursor.unregister("read")


def _row(kept: KeptLabel) -> dict[str, Any]:
    """start and end: of the source, where the file says it; of_source: false where the label is of
    a latent that was not made of a token."""
    start, end = kept.span or (None, None)
    return {
        **dataclasses.asdict(kept.label),
        "label_changed": kept.times.get("label", ""),
        "note_changed": kept.times.get("note", ""),
        "start": start,
        "end": end,
        "of_source": kept.span != (),
    }
