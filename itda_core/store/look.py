"""A look at the database that changes nothing, for whoever wants to know whether it is whole."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import duckdb

from itda_core.errors import StoreError, StoreOutdatedError
from itda_core.store.database import SCHEMA_VERSION, connect
from itda_core.store.trouble import out_of_reach, why_damaged, why_newer


@dataclass(frozen=True)
class Looked:
    """What a database holds."""

    run_ids: frozenset[str]
    labels: int


def look(path: Path, deep: bool = False) -> Looked:
    """Look at a database without changing it. deep: read all of it, by which DuckDB checks its own
    checksums. Raises StoreError as opening it does."""
    with contextlib.closing(connect(path, read_only=True)) as connection:
        try:
            [[version]] = connection.execute("SELECT version FROM meta").fetchall()
            if version != SCHEMA_VERSION:
                raise _of_another_version(path, version)
            for [name] in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall():
                if deep:
                    connection.execute(f'SELECT bit_xor(hash(t)) FROM "{name}" t').fetchall()
            run_ids = connection.execute("SELECT run_id FROM runs").fetchall()
            [[labels]] = connection.execute("SELECT count(*) FROM labels").fetchall()
            return Looked(frozenset(name for [name] in run_ids), labels)
        except duckdb.Error as error:
            if failed := out_of_reach(path, str(error)):
                raise failed from error
            raise why_damaged(path, error) from error


def _of_another_version(path: Path, version: int) -> StoreError:
    if version > SCHEMA_VERSION:
        return why_newer(path, version, SCHEMA_VERSION)
    return StoreOutdatedError(f"{path} was written by an earlier version of the explorer.")
