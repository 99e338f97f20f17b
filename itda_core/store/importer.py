"""A run directory into the tables of the database."""

import re
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd

from itda_core.errors import ItdaError
from itda_core.runs.comparisons import COLUMNS
from itda_core.runs.results import read_evaluation
from itda_core.runs.run import RUN_COLUMNS, Run, read_run
from itda_core.store.database import CLOSES, Database
from itda_core.store.refusals import is_of_the_database

_MEASURES = (
    "mean_l0",
    "mean_latents",
    "fvu",
    "fvu_without_massive",
    "median_unexplained",
    "explained_variance",
    "cosine",
    "norm_ratio",
    "ce_loss_score",
    "kl",
    "cross_entropy",
)
"""Columns of `evaluations` that each row of an evaluation gives, where it knows them"""
_OF_ONE_TRAINING = ("atoms", "tokens", "explored_tokens", "fvu", "explored_fvu", "seconds")
"""What metrics.json says that tells a training from another one, with the time that it took"""
_OPEN = dict.fromkeys(("offset", "pursuit", "budget"))
"""Columns of `runs` that say how atoms are used; an autoencoder has an encoder instead."""


def _read(name: str, path: str = "?", *more: str) -> str:
    """The known columns of a table of a run, as SQL: none that somebody added, and none that DuckDB
    finds in the names of folders such as step=1000. path: the parameter; more: columns."""
    columns = ", ".join(f'"{column}"' for column in (*RUN_COLUMNS[name], *more))
    return f"(SELECT {columns} FROM read_parquet({path}, hive_partitioning = false))"


def insert_run(cursor: duckdb.DuckDBPyConnection, run: Run) -> bool:
    """Insert a run inside the caller's transaction; False where it is there already.

    Raises duckdb.Error, which `why_not_imported` explains.
    """
    if cursor.execute("SELECT 1 FROM runs WHERE run_id = ?", [run.run_id]).fetchone():
        return False
    number = cursor.execute("SELECT coalesce(max(run), 0) + 1 FROM runs").fetchone()[0]
    _insert_run(cursor, number, run)
    _insert_prompts(cursor, number, run.directory)
    _insert_codes(cursor, number, run.directory)
    _tell_roots(cursor)
    return True


def is_as_taken_in(database: Database, run: Run) -> bool:
    """Whether a run that is in the database is still the one that was taken in: another may have
    taken its place under its id, trained anew or copied from another machine."""
    told = {name: run.about[name] for name in ("training_id", "layer", "d_model")}
    told |= {name: run.metrics[name] for name in _OF_ONE_TRAINING}
    equal = " AND ".join(f'"{name}" IS NOT DISTINCT FROM ?' for name in told)
    asked = f"""SELECT 1 FROM runs WHERE run_id = ? AND created = try_cast(? AS TIMESTAMPTZ)
        AND {equal}"""
    try:
        return len(database.query(asked, run.run_id, run.about["created"], *told.values())) > 0
    except (duckdb.Error, ArithmeticError, TypeError, ValueError) as error:
        if is_of_the_database(error):
            raise
        return False  # it says what the database can't hold, and so never was in it


def insert_evaluation(cursor: duckdb.DuckDBPyConnection, run: Run) -> bool:
    """Bring the evaluation of a run that is in the database up to date; False where it is.

    Raises RunError where the file is damaged; what was imported of an earlier one stays then.
    """
    number = cursor.execute("SELECT run FROM runs WHERE run_id = ?", [run.run_id]).fetchone()[0]
    [imported] = cursor.execute(
        "SELECT max(created) FROM evaluations WHERE run = ?", [number]
    ).fetchone()
    evaluation = read_evaluation(run)
    if imported == (evaluation["created"] if evaluation else None):
        return False
    cursor.execute("DELETE FROM evaluations WHERE run = ?", [number])
    for row in evaluation["by_l0"] if evaluation else []:
        _insert(cursor, "evaluations", {"run": number, **_evaluation_values(evaluation, row)})
    return True


def insert_comparisons(cursor: duckdb.DuckDBPyConnection, table: pd.DataFrame) -> None:
    """Have these comparisons instead of those that are there. table: the columns of
    `comparisons.COLUMNS`, each measure and pair once."""
    cursor.execute("DELETE FROM comparisons")
    cursor.register("read", table[list(COLUMNS)])
    cursor.execute(
        """INSERT INTO comparisons SELECT measure, a, b, if(isnan(value), NULL, value), reason,
            tokens, unit, created FROM read"""
    )
    cursor.unregister("read")


def _insert_run(cursor: duckdb.DuckDBPyConnection, number: int, run: Run) -> None:
    config, metrics = run.config, run.metrics
    values = {
        "run": number,
        "run_id": run.run_id,
        "training_id": run.about["training_id"],
        "model": config.model.name,
        "layer": run.layer,
        "site": run.site,
        "d_model": run.about["d_model"],
        "n_layers": run.about["n_layers"],
        "atoms": metrics["atoms"],
        "max_atoms": config.max_atoms,
        "l0": config.l0,
        "tokens": metrics["tokens"],
        "explored_tokens": metrics["explored_tokens"],
        "fvu": metrics["fvu"],
        "explored_fvu": metrics["explored_fvu"],
        "kind": run.kind,
        "method": run.method,
        "selection": config.selection,
        "threshold": config.threshold,
        **(_OPEN if run.kind == "sae" else {name: getattr(config, name) for name in _OPEN}),
        "mean_l0": metrics.get("mean_l0"),
        "seed": config.seed,
        "corpus": config.corpus.name,
        "dtype": run.about["dtype"],
        "created": run.about["created"],
        "seconds": metrics["seconds"],
        "directory": str(run.directory.resolve()),
        "activations": run.activations_id,
        "moved_from": config.moved_from and config.moved_from.run_id,
        "root": run.root,
        "root_digest": config.moved_from and config.moved_from.first.digest,
    }
    _insert(cursor, "runs", values)


def _tell_roots(cursor: duckdb.DuckDBPyConnection) -> None:
    """Which dictionaries the runs have that others here were moved from, which say by its digest
    which one it was; "" of one that can't be read, which is no other's. Of other runs nobody asks,
    and reading it takes longer than the rest."""
    asked = cursor.execute(
        """SELECT run, directory FROM runs WHERE coalesce(root_digest, '') = ''
            AND run_id IN (SELECT root FROM runs WHERE root <> run_id)"""
    ).fetchall()
    for number, directory in asked:
        try:
            found = read_run(Path(directory)).dictionary().digest
        except (ItdaError, OSError):
            found = ""
        cursor.execute("UPDATE runs SET root_digest = ? WHERE run = ?", [found, number])


def _evaluation_values(evaluation: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """A row of `evaluations`; measures that an earlier version did not know are left open."""
    return {
        "l0": row["l0"],
        **{name: row.get(name) for name in _MEASURES},
        "model_cross_entropy": evaluation.get("model_cross_entropy"),
        "zeros_cross_entropy": evaluation.get("zeros_cross_entropy"),
        "quick": bool(evaluation.get("quick", False)),
        "unused_share": evaluation.get("unused_share"),
        "massive_tokens": evaluation.get("massive_tokens"),
        "tokens": evaluation["tokens"],
        "prompts": evaluation["measured_on"].get("prompts"),
        "corpus": evaluation["measured_on"].get("corpus"),
        "held_out": evaluation["measured_on"].get("held_out"),
        "created": evaluation["created"],
    }


def _insert(cursor: duckdb.DuckDBPyConnection, table: str, values: dict[str, Any]) -> None:
    marks = ", ".join("?" for _ in values)
    columns = ", ".join(f'"{name}"' for name in values)
    cursor.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", [*values.values()])


def _insert_prompts(cursor: duckdb.DuckDBPyConnection, number: int, directory: Path) -> None:
    path = _literally(directory / "prompts.parquet")
    cursor.execute(
        f"""INSERT INTO prompts
        SELECT (SELECT coalesce(max(prompt), 0) FROM prompts) + row_number() OVER (), prompt_id,
            text, title
        FROM {_read("prompts.parquet")} WHERE prompt_id NOT IN (SELECT prompt_id FROM prompts)""",
        [path],
    )
    cursor.execute(
        f"""INSERT INTO run_prompts SELECT ?, prompt, explored, starts, ends
        FROM {_read("prompts.parquet")} JOIN prompts USING (prompt_id)""",
        [number, path],
    )


def _insert_codes(cursor: duckdb.DuckDBPyConnection, number: int, directory: Path) -> None:
    """Codes sorted by latent, so that a latent's uses lie together, then the latents."""
    cursor.execute(
        f"""INSERT INTO codes SELECT ?, latent, prompt, position, step, coefficient
        FROM {_read("codes.parquet")} JOIN prompts USING (prompt_id)
        ORDER BY latent, prompt, position""",
        [number, _literally(directory / "codes.parquet")],
    )
    path = _literally(directory / "sources.parquet")
    named = "SELECT 1 FROM parquet_schema(?) WHERE name = 'origin'"
    is_moved = cursor.execute(named, [path]).fetchone() is not None
    origin = "s.origin" if is_moved else "s.latent"
    sources = _read("sources.parquet", "$path", *(["origin"] if is_moved else []))
    cursor.execute(
        f"""INSERT INTO latents
        WITH uses AS (
            SELECT latent, count(*) AS tokens, max(abs(coefficient)) AS strongest FROM (
                SELECT latent, sum(coefficient) AS coefficient FROM codes WHERE run = $run
                GROUP BY latent, prompt, position)
            GROUP BY latent)
        SELECT $run, s.latent, prompts.prompt, s.position, s."start", s."end", s.token,
            coalesce(u.tokens, 0), coalesce(u.strongest, 0), {CLOSES}, {origin}
        FROM {sources} s JOIN prompts USING (prompt_id)
        LEFT JOIN uses u USING (latent)
        LEFT JOIN run_prompts rp ON rp.run = $run AND rp.prompt = prompts.prompt
        ORDER BY s.latent""",
        {"run": number, "path": path},
    )


def _literally(path: Path) -> str:
    """A path as DuckDB reads it, for which a[1] is a pattern and stands for a1."""
    return re.sub(r"[*?\[]", r"[\g<0>]", str(path))
