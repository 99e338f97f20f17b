"""What people wrote of latents, from their file into the table of the database."""

import dataclasses
from collections.abc import Collection
from typing import Any

import duckdb
import pyarrow as pa

from itda_core.runs.labels import KeptLabel, Label

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
        "closes": pa.bool_(),
        "root": pa.string(),
        "origin": pa.int32(),
        "root_digest": pa.string(),
    }
)
_SOURCE = pa.schema(
    [_COLUMNS.field(name) for name in ("run_id", "latent", "prompt_id", "position")]
)
_OF_LABEL = tuple(field.name for field in dataclasses.fields(Label))


_SHARED = """SELECT b.run_id, b.latent, b.label, b.note, b.bookmarked, b.lists, b.changed,
        b.label_changed, b.note_changed, p.prompt, b.position,
        coalesce(l."start", b."start") AS "start", coalesce(l."end", b."end") AS "end",
        CASE WHEN l.latent IS NOT NULL THEN l.closes WHEN b.closes IS NOT NULL THEN b.closes
            ELSE b."end" > b."start" AND (unicode(substr(p.text, b."end", 1)) < 128 OR NULL)
            END AS closes,
        CASE WHEN l.latent IS NOT NULL THEN r.root ELSE coalesce(b.root, b.run_id) END AS root,
        CASE WHEN l.latent IS NOT NULL THEN l.origin WHEN b.root IS NOT NULL THEN b.origin
            WHEN r.run IS NULL THEN b.latent END AS origin,
        CASE WHEN l.latent IS NOT NULL THEN r.root_digest ELSE b.root_digest END AS root_digest
    FROM labels b JOIN prompts p USING (prompt_id) LEFT JOIN runs r ON r.run_id = b.run_id
    LEFT JOIN latents l ON l.run = r.run AND l.latent = b.latent AND l.prompt = p.prompt
        AND l.position = b.position
    WHERE b.of_source AND coalesce(r.kind, 'itda') = 'itda'
        AND (b.label <> '' OR b.note <> '' OR b.bookmarked OR len(b.lists) > 0)"""
"""Labels with where their source stands in its prompt: as the run has it, else as their file says.
Where neither is known (an earlier version wrote the line, and the run is gone) start, end and
closes are open. root and origin: the run at the root of a chain of moves, itself where it was not
moved, and the latent's number there, and root_digest of the dictionary there; also as the run has
them, else as the file says. Of a run that was trained anew, with another source under that number,
the number is open where the file does not say it."""


_OF_THE_SAID = """EXISTS (FROM said s WHERE s.run_id = b.run_id AND s.latent = b.latent
    AND s.prompt_id = b.prompt_id AND s.position = b.position)"""


def insert_labels(cursor: duckdb.DuckDBPyConnection, labels: list[KeptLabel]) -> None:
    """Have these labels instead of those that are there, and those that other runs may show."""
    cursor.execute("DELETE FROM labels")
    _insert(cursor, labels)
    share_labels(cursor)


def replace_labels(
    cursor: duckdb.DuckDBPyConnection, sources: Collection[tuple], labels: list[KeptLabel]
) -> None:
    """Have these labels of some sources instead of those that are there of them, and of these those
    that other runs may show."""
    if not sources:
        return
    columns = map(pa.array, zip(*sources, strict=True))
    cursor.register("said", pa.table([*columns], schema=_SOURCE))
    cursor.execute(f"DELETE FROM labels b WHERE {_OF_THE_SAID}")
    cursor.execute(
        """DELETE FROM shared_labels USING prompts p, said s
        WHERE p.prompt = shared_labels.prompt AND s.prompt_id = p.prompt_id
            AND s.run_id = shared_labels.run_id AND s.latent = shared_labels.latent
            AND s.position = shared_labels.position"""
    )
    _insert(cursor, labels)
    cursor.execute(f"INSERT INTO shared_labels BY NAME {_SHARED} AND {_OF_THE_SAID}")
    cursor.unregister("said")


def _insert(cursor: duckdb.DuckDBPyConnection, labels: list[KeptLabel]) -> None:
    cursor.register("read", pa.Table.from_pylist(list(map(_row, labels)), schema=_COLUMNS))
    cursor.execute("INSERT INTO labels BY NAME SELECT * FROM read")
    cursor.unregister("read")


def share_labels(cursor: duckdb.DuckDBPyConnection) -> None:
    """Find again which labels other runs may show, and where their sources stand: for when labels
    or runs have come or gone."""
    cursor.execute("DELETE FROM shared_labels")
    cursor.execute(f"INSERT INTO shared_labels BY NAME {_SHARED}")


def _row(kept: KeptLabel) -> dict[str, Any]:
    """start, end and closes: of the source, root, origin and root_digest: the run and number that
    it was moved from at first and the dictionary there, where the file says it; of_source: false
    where the label is of a latent that was not made of a token."""
    start, end = kept.span or (None, None)
    root, origin, root_digest = (*(kept.origin or ()), None, None, None)[:3]
    return {
        **{name: getattr(kept.label, name) for name in _OF_LABEL},
        "label_changed": kept.times.get("label", ""),
        "note_changed": kept.times.get("note", ""),
        "start": start,
        "end": end,
        "of_source": kept.span != (),
        "closes": kept.closes,
        "root": root,
        "origin": origin,
        "root_digest": root_digest,
    }
