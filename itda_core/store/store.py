"""The store: an index of the run directories, and every query that the app makes.

All SQL is here, in latent_store.py, indexing.py, importing.py and database.py. What is stored can
be made anew from the run directories, and the comparisons and labels beside them.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from itda_core.errors import RunError, StoreError, StoreNotOursError
from itda_core.store.database import FILE_NAME, SCHEMA_VERSION
from itda_core.store.latent_queries import LatentStore

__all__ = ["FILE_NAME", "SCHEMA_VERSION", "Store", "rebuild"]


class Store(LatentStore):
    """The explorer's database with the queries of the pages."""

    def stored(self) -> tuple[int, int, str | None]:
        """How many runs and evaluated rows there are, and when the newest was evaluated: what
        changes when something has come or gone."""
        found = self.query(
            """SELECT (SELECT count(*) FROM runs) AS runs, count(*) AS evaluated,
                max(created) AS newest FROM evaluations"""
        ).iloc[0]
        newest = found["newest"]
        return int(found["runs"]), int(found["evaluated"]), newest if newest == newest else None

    def runs(self) -> pd.DataFrame:
        """One row a dictionary, in order of model and layer."""
        return self.query("SELECT * FROM runs ORDER BY model, layer, created")

    def evaluations(self, run_ids: list[str] | None = None) -> pd.DataFrame:
        """What evaluations found, one row a dictionary and L0: run_id, l0, each measure of
        metrics.py, and what it was measured on. By default of all dictionaries."""
        return self.query(
            """SELECT run_id, e.* EXCLUDE (run) FROM evaluations e JOIN runs r USING (run)
            WHERE ?::VARCHAR[] IS NULL OR list_contains(?::VARCHAR[], run_id)
            ORDER BY model, layer, r.created, l0""",
            run_ids,
            run_ids,
        )

    def comparisons(self, measure: str, run_ids: Sequence[str]) -> pd.DataFrame:
        """What is known of a measure between dictionaries: run_a, run_b, value (NaN where there is
        none), tokens, unit, created, and reason, why there is no value. From a to b where the
        measure is not symmetric, otherwise a pair once, in either order."""
        return self.query(
            """SELECT a.run_id AS run_a, b.run_id AS run_b, value, c.tokens, unit, c.created,
                reason
            FROM comparisons c JOIN runs a ON a.activations = c.a
            JOIN runs b ON b.activations = c.b
            WHERE measure = ? AND list_contains(?::VARCHAR[], a.run_id)
                AND list_contains(?::VARCHAR[], b.run_id)""",
            measure,
            list(run_ids),
            list(run_ids),
        )

    def prompt_text(self, prompt_id: str) -> str | None:
        """The text of a prompt, None where it is not known."""
        found = self.query("SELECT text FROM prompts WHERE prompt_id = ?", prompt_id)["text"]
        return None if found.empty else str(found[0])

    def prompt_ids(self) -> list[str]:
        """The ids of all prompts."""
        return self.query("SELECT prompt_id FROM prompts")["prompt_id"].tolist()

    def prompt_texts(self, prompt_ids: list[str]) -> dict[str, str]:
        """Texts by prompt id."""
        found = self.query(
            "SELECT prompt_id, text FROM prompts WHERE list_contains(?::VARCHAR[], prompt_id)",
            list(prompt_ids),
        )
        return dict(zip(found["prompt_id"], found["text"], strict=True))

    def contents(self) -> dict[str, pd.DataFrame]:
        """Everything by name rather than internal number, sorted; equal for equal content."""
        joins = "JOIN runs r USING (run) JOIN prompts p USING (prompt)"
        return {
            "runs": self.query("SELECT * EXCLUDE (run) FROM runs ORDER BY run_id"),
            "prompts": self.query("SELECT * EXCLUDE (prompt) FROM prompts ORDER BY prompt_id"),
            "latents": self.query(
                f"SELECT run_id, prompt_id, l.* EXCLUDE (run, prompt) FROM latents l {joins} "
                "ORDER BY ALL"
            ),
            "codes": self.query(
                f"SELECT run_id, prompt_id, c.* EXCLUDE (run, prompt) FROM codes c {joins} "
                "ORDER BY ALL"
            ),
            "evaluations": self.evaluations(),
            "comparisons": self.query("SELECT * FROM comparisons ORDER BY measure, a, b"),
            "labels": self.query("SELECT * FROM labels ORDER BY run_id, latent"),
        }


def rebuild(path: Path, runs: Path) -> int:
    """Make the database anew from the run directories; returns how many there are.

    The old file is replaced only when the new one is whole. Raises StoreError where the old one
    is open in another process or of a newer version, and RunError after all other runs are in
    where one is damaged.
    """
    if path.exists():
        _check_replaceable(path)
    temporary = path.with_name(f".{path.name}-rebuild")
    temporary.unlink(missing_ok=True)
    store, damaged = Store(temporary), None
    try:
        store.import_new(runs)
    except RunError as error:  # the others are in all the same
        damaged = error
    finally:
        count = len(store.runs())
        store.close()
    temporary.replace(path)
    path.with_name(f"{path.name}.wal").unlink(missing_ok=True)
    if damaged:
        raise damaged
    return count


def _check_replaceable(path: Path) -> None:
    """A database that another process holds or that a newer version wrote is left alone."""
    try:
        Store(path).close()
    except StoreNotOursError:
        raise
    except StoreError:  # damaged, or of an older version: that is what a rebuild is for
        return
