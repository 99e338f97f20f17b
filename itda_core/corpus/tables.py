"""Rows of .jsonl and .parquet files: the values of one column, and which columns hold text."""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from itda_core.corpus import reading
from itda_core.corpus.reading import BadRow, is_whole, not_encoded, open_lines, whole_characters
from itda_core.errors import CorpusError
from itda_core.files.foreign import check_parquet, check_unfolding

_BATCH_ROWS, _SAMPLED_ROWS = 4_096, 256
_KINDS = {
    bool: ("true or false", "true or false"),
    int: ("a number", "numbers"),
    float: ("a number", "numbers"),
    list: ("a list", "lists"),
    dict: ("an object", "objects"),
}


def json_rows(
    path: Path, encoding: str | None, column: str | None = None
) -> Iterator[tuple[int, dict[str, Any]] | BadRow]:
    """Each line as a row, blank ones left out, and a bare string as a column `text`.

    column: the one that is to be read, which an object may not have twice.
    """
    named = json.dumps(column, ensure_ascii=False)
    with open_lines(path, encoding) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            if not is_whole(line):
                yield not_encoded(number, encoding)
                continue
            try:
                may_repeat = column is not None and (line.count(named) > 1 or "\\u" in line)
                yield number, _json_row(line, _pairs if may_repeat else None)
            except (ValueError, RecursionError) as error:  # of absurd depth or length, too
                yield BadRow(number, f"is not JSON ({getattr(error, 'msg', error)})")


def json_text(row: dict[str, Any], column: str) -> str | BadRow:
    """The text of a row, "" where it has none. A BadRow (of line 0) where it holds another thing,
    which is nobody's text."""
    value = row.get(column)
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, _Repeated):
        return BadRow(0, f"has {column!r} twice")
    return BadRow(0, f"has {_KINDS[type(value)][0]} in {column!r}, where a text belongs")


def held_by(value: Any) -> str:
    """What a value of JSON that is no text is, in the plural."""
    return _KINDS[type(value)][1]


def _json_row(line: str, pairs: Callable | None) -> dict[str, Any]:
    row = json.loads(line, object_pairs_hook=pairs) if pairs else json.loads(line)
    if "\\ud" in line.lower():  # half a character, which no table can hold
        row = _with_whole_characters(row)
    return row if isinstance(row, dict) else {"text": row}


class _Repeated:
    """The values of a name that an object has several times."""


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        row |= {name: _Repeated() for name, count in counts.items() if count > 1}
    return row


def _with_whole_characters(value: Any) -> Any:
    """A value of JSON with those of all its names and texts."""
    if isinstance(value, str):
        return whole_characters(value)
    if isinstance(value, dict):
        return {
            _with_whole_characters(name): _with_whole_characters(one) for name, one in value.items()
        }
    return [_with_whole_characters(one) for one in value] if isinstance(value, list) else value


def parquet_columns(path: Path) -> tuple[list[str], dict[str, str]]:
    """The columns that hold text, and what the others hold. Raises CorpusError where it is no
    Parquet file."""
    with _parquet(path) as file:
        return _columns_of(path, file)


def _columns_of(path: Path, file: pq.ParquetFile) -> tuple[list[str], dict[str, str]]:
    schema = _schema(path, file)
    names = Counter(schema.names)
    texts, others = [], {}
    for field in schema:
        if names[field.name] > 1:
            others[field.name] = "the data of two columns of this name"
        elif _is_text(field.type):
            texts.append(field.name)
        else:
            others[field.name] = _held_by(field.type)
    return texts, others


def parquet_sizes(path: Path) -> dict[str, int]:
    """The columns that hold text with about how many bytes each, by their first rows; 0 where
    these can't be read. What the file itself says of a column's size is not asked: Arrow ends the
    process where that is damaged."""
    with _parquet(path) as file:
        texts, _ = _columns_of(path, file)
        return {name: _likely_bytes(path, file, name) for name in texts}


def _likely_bytes(path: Path, file: pq.ParquetFile, column: str) -> int:
    try:
        first = next(_batches(path, file, column, _SAMPLED_ROWS), None)
        if not first:
            return 0
        n_bytes = pc.sum(_lengths(_encoded(path, column, first))).as_py() or 0
    except CorpusError:
        return 0
    return round(n_bytes * file.metadata.num_rows / len(first))


def parquet_texts(path: Path, column: str) -> Iterator[str | BadRow]:
    """The texts of one column, "" where there is none; no other column is read. Raises CorpusError
    where they come to more than MAX_UNPACKED_BYTES, or to so much more than the file holds that
    they can only be meant to fill the memory."""
    row, n_bytes, packed = 0, 0, path.stat().st_size
    with _parquet(path, column) as file:
        for batch in _batches(path, file, column):
            texts = _encoded(path, column, batch)
            n_bytes += pc.sum(_lengths(texts)).as_py() or 0
            _check_size(path, packed, n_bytes)  # before a text that is there once is there often
            for value in _values(texts):
                row += 1
                yield _decoded(value, row)


def _encoded(path: Path, column: str, batch: pa.RecordBatch) -> pa.DictionaryArray:
    """The column's values as bytes, each distinct one once. A batch may hold others too: Parquet
    writes the part `text` of a structure `a` as it does a column `a.text`, and both are read when
    one is asked for."""
    values = batch.column(batch.schema.get_field_index(column))
    try:
        if not pa.types.is_dictionary(values.type):
            values = values.cast(pa.large_binary()).dictionary_encode()
        texts = values.dictionary.cast(pa.large_binary())
        return pa.DictionaryArray.from_arrays(values.indices, texts)
    except pa.ArrowException as error:
        raise CorpusError(
            f"The column {column!r} of {path.name} can't be read as text: it holds "
            f"{_held_by(values.type)}. Write it as strings."
        ) from error


def _lengths(texts: pa.DictionaryArray) -> pa.Array:
    """Bytes of each row's text; null where there is none."""
    return pc.binary_length(texts.dictionary).take(texts.indices)


def _values(texts: pa.DictionaryArray) -> Iterator[bytes | None]:
    distinct = texts.dictionary.to_pylist()
    for number in texts.indices.to_pylist():
        yield None if number is None else distinct[number]


def _check_size(path: Path, packed: int, n_bytes: int) -> None:
    if n_bytes > reading.MAX_UNPACKED_BYTES:
        limit = reading.MAX_UNPACKED_BYTES / 1e9
        raise CorpusError(f"{path.name} holds more than {limit:g} GB of text. Use a part.")
    try:
        check_unfolding(path.name, packed, n_bytes)
    except ValueError as error:
        raise CorpusError(f"{error}. Use another file.") from error


def _decoded(value: bytes | None, row: int) -> str | BadRow:
    try:
        return (value or b"").decode("utf-8")
    except UnicodeDecodeError:
        return BadRow(row, "is not UTF-8 text", unit="row", is_encoding=True)


def _batches(
    path: Path, file: pq.ParquetFile, column: str, n_rows: int = _BATCH_ROWS
) -> Iterator[pa.RecordBatch]:
    try:
        yield from file.iter_batches(n_rows, columns=[column], use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise CorpusError(
            f"The column {column!r} of {path.name} is damaged: it can't be read to its end."
        ) from error


def _parquet(path: Path, column: str | None = None) -> pq.ParquetFile:
    """column: that is read as the file has it, where each of its texts may stand once for many
    rows."""
    try:
        check_parquet(path, path.name)
        try:
            texts = [] if column is None else [column]
            return pq.ParquetFile(path, read_dictionary=texts, pre_buffer=False)
        except KeyError:  # the column has parts, and is no text
            return pq.ParquetFile(path, pre_buffer=False)
    except ValueError as error:
        if isinstance(error, pa.ArrowException):
            raise _no_parquet(path) from error
        raise CorpusError(f"{error}. Use another file.") from error
    except (pa.ArrowException, OSError) as error:
        raise _no_parquet(path) from error


def _no_parquet(path: Path) -> CorpusError:
    return CorpusError(f"{path.name} is not a Parquet file, whatever its ending says.")


def _schema(path: Path, file: pq.ParquetFile) -> pa.Schema:
    try:
        return file.schema_arrow
    except (pa.ArrowException, OSError) as error:
        raise CorpusError(f"The columns of {path.name} are of no kind known here.") from error


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _held_by(kind: pa.DataType) -> str:
    if pa.types.is_nested(kind):
        return "objects" if pa.types.is_struct(kind) or pa.types.is_map(kind) else "lists"
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return "bytes"
    return f"values of the type {kind}"
