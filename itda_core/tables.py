"""Parquet files whose pages have checksums, which are checked wherever a file is read."""

import io
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from itda_core.files.foreign import check_parquet, damage_as_one_error


def write_table(table: pa.Table, where: Path | BinaryIO, compression: str = "snappy") -> None:
    """A table as a file."""
    pq.write_table(table, where, compression=compression, write_page_checksum=True)


def table_writer(where: Path, schema: pa.Schema, compression: str = "snappy") -> pq.ParquetWriter:
    """Takes a table part by part; to be closed."""
    return pq.ParquetWriter(where, schema, compression=compression, write_page_checksum=True)


def write_frame(frame: pd.DataFrame, where: Path | BinaryIO, index: bool | None = None) -> None:
    """index: whether the index is a column; by default where it is more than a range."""
    frame.to_parquet(where, index=index, write_page_checksum=True)


def read_table(where: Path | BinaryIO, columns: list[str] | None = None) -> pa.Table:
    """columns: which; by default all. Raises OSError where a page is not what was written (a file
    of before has no checksums), ValueError where the table can't be read or unfolds to much more
    than its file holds.

    Rows are chosen once they are read: Arrow waits for ever where it is to filter a file whose
    footer is damaged.
    """
    _check(where)
    with damage_as_one_error():
        return pq.read_table(where, columns=columns, page_checksum_verification=True)


def read_frame(where: Path | BinaryIO, columns: list[str] | None = None) -> pd.DataFrame:
    """The same as pandas has it."""
    _check(where)
    with damage_as_one_error():
        return pd.read_parquet(where, columns=columns, page_checksum_verification=True)


def open_table(where: Path, **options: Any) -> pq.ParquetFile:
    """To be read part by part. options: those of `pyarrow.parquet.ParquetFile`."""
    _check(where)
    with damage_as_one_error():
        return pq.ParquetFile(where, page_checksum_verification=True, **options)


def _check(where: Path | BinaryIO) -> None:
    if isinstance(where, Path):
        check_parquet(where, where.name)
    elif isinstance(where, io.BytesIO):
        check_parquet(where.getvalue(), "a table within it")
