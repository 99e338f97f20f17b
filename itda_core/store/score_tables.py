"""Scores of latents in the database: their tables, and what a run's file has into these."""

import duckdb
import pyarrow as pa

from itda_core.runs.latent_scores import SCORE_COLUMNS, read_scores, when_scored
from itda_core.runs.run import Run
from itda_core.store.strong_tables import insert_strong_uses

_TYPES = {
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE",
    pa.string(): "VARCHAR",
}
_COLUMNS = ", ".join(f"{name} {_TYPES[kind]}" for name, kind in SCORE_COLUMNS.items())
SCORE_TABLES = f"""
CREATE TABLE scored (run INTEGER, judged VARCHAR, embedder VARCHAR, created VARCHAR);
CREATE TABLE latent_scores (run INTEGER, {_COLUMNS});
"""
"""Which runs have scores, and the scores"""
SCORED = "LEFT JOIN latent_scores q ON q.run = l.run AND q.latent = l.latent"
"""Has the scores q, where there are any, beside the latents l"""
_OWN = [name for name in SCORE_COLUMNS if name not in ("latent", "uses")]
SHOWN_SCORES = ", ".join(f"q.{name}" for name in _OWN)
"""What is shown of the scores of a latent"""


def insert_scores(cursor: duckdb.DuckDBPyConnection, run: Run) -> bool:
    """Bring the scores of a run that is in the database up to date; False where they are.

    Raises RunError where the file is damaged or of other codes; what was imported of an earlier one
    stays then.
    """
    number = cursor.execute("SELECT run FROM runs WHERE run_id = ?", [run.run_id]).fetchone()[0]
    imported = cursor.execute("SELECT created FROM scored WHERE run = ?", [number]).fetchone()
    if when_scored(run) == (imported and imported[0]):
        return False
    scores = read_scores(run)
    for table in ("scored", "latent_scores", "strong_uses"):
        cursor.execute(f"DELETE FROM {table} WHERE run = ?", [number])
    if scores is None:
        return True
    about = [number, *(scores.about[name] for name in ("judged", "embedder", "created"))]
    cursor.execute("INSERT INTO scored VALUES (?, ?, ?, ?)", about)
    cursor.register("read", scores.latents)
    cursor.execute(f"INSERT INTO latent_scores SELECT {number}, * FROM read")
    cursor.unregister("read")
    insert_strong_uses(cursor, number)
    return True
