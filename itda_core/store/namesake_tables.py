"""Comparisons of latents in the database: their tables, and what files have into these."""

from collections.abc import Sequence

import duckdb
import pyarrow as pa

from itda_core.runs.latent_comparisons import (
    ABOUT,
    LATENT_COLUMNS,
    STRONG,
    LatentComparison,
)

_TYPES = {str: "VARCHAR", bool: "BOOLEAN", int: "BIGINT", float: "DOUBLE"}
_ABOUT = ", ".join(f"{name} {_TYPES[kind]}" for name, kind in ABOUT.items())
NAMESAKE_TABLES = f"""
CREATE TABLE latent_comparisons ({_ABOUT}, of_strong BOOLEAN DEFAULT false);
CREATE TABLE namesakes (run_a VARCHAR, run_b VARCHAR, latent_a INTEGER, latent_b INTEGER,
    correlation DOUBLE, rank_a INTEGER, rank_b INTEGER, uses_a BIGINT, uses_b BIGINT,
    uses_both BIGINT, chance DOUBLE, of_strong BOOLEAN DEFAULT false);
"""
"""Each comparison stands there twice, from either side, so that who asks need not know from which
one it was made; and where it tells strong uses, twice more, of these."""
OF_STRONG_USES = """
ALTER TABLE latent_comparisons ADD COLUMN IF NOT EXISTS of_strong BOOLEAN DEFAULT false;
ALTER TABLE namesakes ADD COLUMN IF NOT EXISTS of_strong BOOLEAN DEFAULT false;
"""
"""What an earlier version's tables lack"""

CURRENT = """latent_comparisons c JOIN runs a ON a.run_id = c.run_a
    JOIN runs b ON b.run_id = c.run_b"""
"""Comparisons of runs that are there"""
IS_CURRENT = """a.created = try_cast(c.created_a AS TIMESTAMPTZ)
    AND b.created = try_cast(c.created_b AS TIMESTAMPTZ)"""
"""and have not been trained anew since"""
COMPARED = f"{CURRENT} JOIN namesakes n USING (run_a, run_b, of_strong) WHERE {IS_CURRENT}"
"""Each pair of latents n with its comparison c, of all uses and of strong ones"""


def insert_latent_comparisons(
    cursor: duckdb.DuckDBPyConnection, comparisons: Sequence[LatentComparison]
) -> None:
    """Have these comparisons instead of those that are there."""
    cursor.execute("DELETE FROM latent_comparisons")
    cursor.execute("DELETE FROM namesakes")
    for comparison in comparisons:
        about, latents = comparison.about, comparison.latents
        _insert(cursor, about, latents.select(list(LATENT_COLUMNS)), False)
        if comparison.strong is not None:
            _insert(cursor, {**about, **comparison.strong}, _of_strong_uses(latents), True)


def _of_strong_uses(latents: pa.Table) -> pa.Table:
    """The numbers of strong uses under the names of those of all."""
    strong = [f"{STRONG}{name}" for name in LATENT_COLUMNS]
    here = [name if name in latents.column_names else name[len(STRONG) :] for name in strong]
    return latents.select(here).rename_columns(list(LATENT_COLUMNS))


def _insert(
    cursor: duckdb.DuckDBPyConnection, about: dict, latents: pa.Table, of_strong: bool
) -> None:
    """From either side. latents: the columns of LATENT_COLUMNS."""
    swapped = _swapped(about), latents.rename_columns(_SWAPPED_LATENTS)
    for its_about, its_latents in ((about, latents), swapped):
        marks = ", ".join("?" for _ in (*ABOUT, of_strong))
        values = [its_about[name] for name in ABOUT]
        cursor.execute(f"INSERT INTO latent_comparisons VALUES ({marks})", [*values, of_strong])
        cursor.register("read", its_latents)
        cursor.execute(
            "INSERT INTO namesakes BY NAME SELECT *, ? AS run_a, ? AS run_b, ? AS of_strong "
            "FROM read",
            [its_about["run_a"], its_about["run_b"], of_strong],
        )
        cursor.unregister("read")


def _other_side(name: str) -> str:
    """What a column is called from the other side: rank_b for rank_a."""
    return {"_a": f"{name[:-1]}b", "_b": f"{name[:-1]}a"}.get(name[-2:], name)


_SWAPPED_LATENTS = [_other_side(name) for name in LATENT_COLUMNS]


def _swapped(about: dict) -> dict:
    return {_other_side(name): value for name, value in about.items()}
