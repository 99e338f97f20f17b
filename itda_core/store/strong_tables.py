"""Strong uses in the database: every use from its latent's threshold up, found when scores come.

They are a small part of all uses, so that a search through them need not read the rest.
"""

from typing import TYPE_CHECKING

import duckdb

from itda_core.runs.latent_scores import NONE

if TYPE_CHECKING:
    from itda_core.store.database import Database

STRONG_TABLES = """
CREATE TABLE strong_uses (run INTEGER, latent INTEGER, prompt INTEGER, position INTEGER,
    coefficient FLOAT);
"""
"""Of runs whose scores tell strong uses from filler; of a latent without a threshold all uses"""
_STRONG = "SELECT c.* FROM strong_uses c JOIN runs r USING (run) {} WHERE r.run_id = $run"
_CODES = """SELECT c.run, c.latent, c.prompt, c.position, c.coefficient
    FROM codes c JOIN runs r USING (run) {} WHERE r.run_id = $run"""
_SUMMED = """SELECT c.run, c.latent, c.prompt, c.position,
        sum(c.coefficient)::FLOAT AS coefficient
    FROM codes c JOIN runs r USING (run) {} WHERE r.run_id = $run GROUP BY ALL"""
_FILL = """INSERT INTO strong_uses
    SELECT u.run, u.latent, u.prompt, u.position, u.coefficient FROM (
        SELECT run, latent, prompt, position, sum(coefficient)::FLOAT AS coefficient
        FROM codes WHERE run IN (SELECT run FROM scored WHERE judged = 'strong' AND {})
        GROUP BY ALL) u
    JOIN latent_scores q USING (run, latent)
    WHERE q.threshold IS NULL OR u.coefficient >= q.threshold
    ORDER BY u.run, u.latent, u.prompt, u.position"""
STRONG_OF_ALL_RUNS = _FILL.format("true")
"""Takes in those of every run that has scores"""
_IS_NONE = f"threshold IS NULL AND why = '{NONE}'"
NONE_STRONG = f"""
DELETE FROM strong_uses WHERE (run, latent) IN (
    SELECT (run, latent) FROM latent_scores WHERE {_IS_NONE});
UPDATE latent_scores SET threshold = 'inf', filler = 1, strong = 0, strong_squares = 0
WHERE {_IS_NONE};
"""
"""What an earlier version's tables hold of latents none of whose uses is strong"""


def insert_strong_uses(cursor: duckdb.DuckDBPyConnection, number: int) -> None:
    """Take in the strong uses of a run as its scores in the database tell them. number: of the
    run."""
    cursor.execute(_FILL.format("run = ?"), [number])


def judged(database: "Database", run_id: str) -> str:
    """Which uses the scores of a run are of: "strong" or "all"; "" without scores."""
    select = "SELECT judged FROM scored JOIN runs USING (run) WHERE run_id = ?"
    return next(iter(database.query(select, run_id)["judged"]), "")


def uses_of(database: "Database", run_id: str, of_strong: bool, where: str = "") -> str:
    """The query for the uses of a run's latents, once each: run, latent, prompt, position and
    coefficient; it names $run. of_strong: strong ones alone, where scores tell them, and
    all of a latent without a threshold; where: a join that says which of the uses c."""
    if of_strong and database.known(judged, database, run_id) == "strong":
        return _STRONG.format(where)
    select = _SUMMED if database.known(_repeats, database, run_id) else _CODES
    return select.format(where)


def _repeats(database: "Database", run_id: str) -> bool:
    """Whether a token of a run uses a latent twice, as plain pursuit may."""
    counts = database.query(
        """SELECT (SELECT count(*) FROM codes c WHERE c.run = r.run) AS codes,
            (SELECT sum(l.tokens) FROM latents l WHERE l.run = r.run) AS tokens
        FROM runs r WHERE r.run_id = ?""",
        run_id,
    )
    return bool((counts["codes"] != counts["tokens"]).any())
