"""The queries about comparisons between dictionaries."""

from collections.abc import Sequence

import pandas as pd

from itda_core.store.database import Database


class ComparisonQueries:
    """What measures say of pairs of dictionaries, from `store.comparisons`."""

    def __init__(self, database: Database):
        self._database = database

    def table(self, measure: str, run_ids: Sequence[str]) -> pd.DataFrame:
        """What is known of a measure between dictionaries: run_a, run_b, value (NaN where there is
        none), tokens, unit, created, and reason, why there is no value. From a to b where the
        measure is not symmetric, otherwise a pair once, in either order."""
        return self._database.query(
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
