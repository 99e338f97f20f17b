"""Comparisons of latents in the database: their tables, and what files have into these."""

from collections.abc import Sequence

import duckdb
import pyarrow as pa

from itda_core.runs.latent_comparisons import ABOUT, LATENT_COLUMNS, LatentComparison

_TYPES = {str: "VARCHAR", bool: "BOOLEAN", int: "BIGINT", float: "DOUBLE"}
_ABOUT = ", ".join(f"{name} {_TYPES[kind]}" for name, kind in ABOUT.items())
NAMESAKE_TABLES = f"""
CREATE TABLE latent_comparisons ({_ABOUT});
CREATE TABLE namesakes (run_a VARCHAR, run_b VARCHAR, latent_a INTEGER, latent_b INTEGER,
    correlation DOUBLE, rank_a INTEGER, rank_b INTEGER, uses_a BIGINT, uses_b BIGINT,
    uses_both BIGINT, chance DOUBLE);
"""
"""Each comparison stands there twice, from either side, so that who asks need not know from which
one it was made."""

CURRENT = """latent_comparisons c JOIN runs a ON a.run_id = c.run_a
    JOIN runs b ON b.run_id = c.run_b"""
"""Comparisons of runs that are there"""
IS_CURRENT = """a.created = try_cast(c.created_a AS TIMESTAMPTZ)
    AND b.created = try_cast(c.created_b AS TIMESTAMPTZ)"""
"""and have not been trained anew since"""
COMPARED = f"{CURRENT} JOIN namesakes n USING (run_a, run_b) WHERE {IS_CURRENT}"
"""Each pair of latents n with its comparison c"""


def insert_latent_comparisons(
    cursor: duckdb.DuckDBPyConnection, comparisons: Sequence[LatentComparison]
) -> None:
    """Have these comparisons instead of those that are there."""
    cursor.execute("DELETE FROM latent_comparisons")
    cursor.execute("DELETE FROM namesakes")
    for comparison in comparisons:
        for about, latents in (
            (comparison.about, comparison.latents),
            (_swapped(comparison.about), comparison.latents.rename_columns(_SWAPPED_LATENTS)),
        ):
            marks = ", ".join("?" for _ in ABOUT)
            values = [about[name] for name in ABOUT]
            cursor.execute(f"INSERT INTO latent_comparisons VALUES ({marks})", values)
            sides = about["run_a"], about["run_b"]
            cursor.register("read", _with_runs(latents, *sides))
            cursor.execute("INSERT INTO namesakes BY NAME SELECT * FROM read")
            cursor.unregister("read")


def _with_runs(latents: pa.Table, run_a: str, run_b: str) -> pa.Table:
    for name, run in (("run_a", run_a), ("run_b", run_b)):
        latents = latents.append_column(name, pa.array([run] * len(latents), pa.string()))
    return latents


def _other_side(name: str) -> str:
    """What a column is called from the other side: rank_b for rank_a."""
    return {"_a": f"{name[:-1]}b", "_b": f"{name[:-1]}a"}.get(name[-2:], name)


_SWAPPED_LATENTS = [_other_side(name) for name in LATENT_COLUMNS]


def _swapped(about: dict) -> dict:
    return {_other_side(name): value for name, value in about.items()}
