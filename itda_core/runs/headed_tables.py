"""A Parquet table that says what it is of: its header is JSON in the metadata of the file."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from itda_core.errors import RunError
from itda_core.files.json_files import parse_json
from itda_core.sealed import write_sealed
from itda_core.tables import write_table

_METADATA = b"itda"


def write_headed_table(
    path: Path, table: pa.Table, version: int, header: Mapping[str, Any], begin: bool = False
) -> None:
    """The file appears whole or not at all. version: of what the header and the table hold;
    begin: whether to begin the digests of a folder that has none."""
    said = json.dumps({"version": version, **header}, allow_nan=False)
    content = io.BytesIO()
    write_table(table.replace_schema_metadata({_METADATA: said}), content)
    write_sealed(path, content.getvalue(), begin)


def read_header(schema: pa.Schema, path: Path, version: int, what: str) -> dict[str, Any]:
    """The header of the file that has this schema. version: the newest that is known; what: should
    be there. Raises ValueError where there is no header, RunError for one of a newer version."""
    header = parse_json((schema.metadata or {}).get(_METADATA, b"null"))
    if not isinstance(header, dict) or not isinstance(header.get("version"), int):
        raise ValueError(f"it is no {what}")
    if header["version"] > version:
        raise RunError(f"{path} was written by a newer version: update the explorer.")
    return header


def checked_fields(
    header: Mapping[str, Any], kinds: Mapping[str, type], may_lack: bool = False
) -> dict[str, Any]:
    """The fields of a header, each of its kind and such that the database can hold it. may_lack:
    whether those that are float may be None. Raises KeyError or ValueError."""
    for name, kind in kinds.items():
        value = header[name]
        if not (fits(value, kind) or (may_lack and kind is float and value is None)):
            raise ValueError(f"its {name} is {value!r}")
    return {name: header[name] for name in kinds}


def fits(value: Any, kind: type) -> bool:
    """Whether the database can hold a value as what it should be."""
    if kind is float:
        return isinstance(value, int | float)
    if kind is str:
        return isinstance(value, str) and value == value.encode(errors="ignore").decode()
    return isinstance(value, kind) and value >= 0
