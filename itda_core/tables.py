"""Parquet files whose pages have checksums, which are checked wherever a file is read.

All are read by Arrow's plain reader, in the thread that asks. The reader of datasets, which
`pyarrow.parquet.read_table` and pandas take, waits for ever where one of its own threads has no
memory left, or is to filter a file whose footer is damaged.
"""

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
    """columns: which, in this order; by default all. Raises OSError where a page is not what was
    written (a file of before has no checksums), ValueError where the table can't be read, lacks a
    column or has it twice, or unfolds to much more than its file holds."""
    with open_table(where) as file, damage_as_one_error():
        if columns is None:
            return file.read(use_threads=False)
        for name in columns:
            if file.schema_arrow.names.count(name) != 1:
                raise ValueError(f"it has no single column {name}")
        return file.read(columns, use_threads=False).select(columns)


def read_frame(where: Path | BinaryIO, columns: list[str] | None = None) -> pd.DataFrame:
    """The same as pandas has it."""
    table = read_table(where, columns)
    with damage_as_one_error():
        return as_frame(table)


def as_frame(table: pa.Table | pa.RecordBatch) -> pd.DataFrame:
    """A table of Arrow's as pandas has it."""
    return table.to_pandas(use_threads=False)


def open_table(where: Path | BinaryIO, **options: Any) -> pq.ParquetFile:
    """To be read part by part. options: those of `pyarrow.parquet.ParquetFile`."""
    _check(where)
    with damage_as_one_error():
        return pq.ParquetFile(where, page_checksum_verification=True, pre_buffer=False, **options)


def _check(where: Path | BinaryIO) -> None:
    if isinstance(where, Path):
        check_parquet(where, where.name)
    elif isinstance(where, io.BytesIO):
        check_parquet(where.getvalue(), "a table within it")
