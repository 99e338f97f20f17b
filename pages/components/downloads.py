"""A table as CSV, Parquet and JSON, and what it was made of: nothing that is read back differs."""

import io
import json
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import streamlit as st

_FORMULA = re.compile(r"\A(?=[\t\r\n=+\-@＝＋－＠])|(?<=[;\t\r\n])(?=\"*[=+\-@＝＋－＠])")
"""Before what a spreadsheet takes for the beginning of a formula, or for nothing before one. Where
it parts cells by semicolons, as it does in half of Europe, or by tabs, a cell can begin in the
midst of a text; quotation marks around the text do not count, and those before the sign are taken
for the marks of an empty text, as they stand twice in the file."""


def as_csv(table: pd.DataFrame, for_spreadsheets: bool = True) -> bytes:
    """The rows alone: settings beside them would take the place of columns of the same name. A list
    in a cell is JSON.

    for_spreadsheets: text that a spreadsheet would calculate gets an apostrophe before it, which
    says there that it is text, also within a text where a cell may begin; numbers stay as they are.
    Else all text is as it was.
    """
    lists = [name for name in table if table[name].map(_is_list).any()]
    flat = {name: table[name].map(lambda cell: json.dumps(_plain(cell))) for name in lists}
    table = table.assign(**flat)
    if for_spreadsheets:
        texts = [name for name in table if not pd.api.types.is_numeric_dtype(table[name])]
        table = table.assign(**{name: table[name].astype(object).map(_as_text) for name in texts})
        table = table.rename(columns=_as_text)
    # With these ends of lines, those of RFC 4180, a lone CR within a text is quoted as well.
    return table.to_csv(index=False, lineterminator="\r\n").encode()


def _as_text(cell: Any) -> Any:
    return _FORMULA.sub("'", cell) if isinstance(cell, str) else cell


def as_settings(about: dict[str, Any]) -> bytes:
    """What a table was made of, as JSON."""
    return json.dumps(_plain(about), ensure_ascii=False, indent=1).encode()


def as_parquet(table: pd.DataFrame, about: dict[str, Any]) -> bytes:
    """The rows, with `about` as JSON in the file's metadata under "about"."""
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    note = {b"about": json.dumps(_plain(about), ensure_ascii=False).encode()}
    content = io.BytesIO()
    pq.write_table(
        arrow.replace_schema_metadata({**(arrow.schema.metadata or {}), **note}), content
    )
    return content.getvalue()


def as_json(table: pd.DataFrame, about: dict[str, Any]) -> bytes:
    """{"about": …, "rows": [{…}, …]}, each number with all of its digits; what is not a number is
    null."""
    rows = [_plain(row) for row in table.to_dict("records")]
    return json.dumps(
        {"about": _plain(about), "rows": rows}, ensure_ascii=False, indent=1, allow_nan=False
    ).encode()


def _is_list(cell: Any) -> bool:
    return isinstance(cell, list | tuple | np.ndarray)


def _plain(value: Any) -> Any:
    """As JSON has it."""
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if _is_list(value):
        return [_plain(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    if value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value


_FORMATS = {
    "CSV": ("csv", "text/csv", None),
    "Parquet": ("parquet", "application/vnd.apache.parquet", as_parquet),
    "JSON": ("json", "application/json", as_json),
}


def offer_downloads(
    table: pd.DataFrame | Callable[[], pd.DataFrame], about: dict[str, Any], stem: str, key: str
) -> None:
    """A button for each format and one for the settings, which CSV has no place for. table: the
    rows, or what makes them once they are asked for; stem: the file's name without its ending."""
    places = st.columns(len(_FORMATS))
    for_spreadsheets = st.checkbox(
        "CSV for spreadsheets",
        value=True,
        key=f"{key}_spreadsheets",
        help="Text that begins with =, +, -, @, a tab or a line break gets an apostrophe before "
        "it, and such a sign within a text after a semicolon, a tab or a line break, since a "
        "spreadsheet would run it as a formula. For programs, switch it off or take Parquet or "
        "JSON, which have every text as it is.",
    )

    def content(write: Callable[..., bytes] | None) -> bytes:
        rows = table() if callable(table) else table
        return write(rows, about) if write else as_csv(rows, for_spreadsheets)

    for place, (name, (ending, mime, write)) in zip(places, _FORMATS.items(), strict=True):
        place.download_button(
            name,
            lambda write=write: content(write),  # made when it is asked for
            file_name=f"{stem}.{ending}",
            mime=mime,
            on_click="ignore",
            width="stretch",
            key=f"{key}_{ending}",
        )
    st.download_button(
        "Settings",
        lambda: as_settings(about),
        file_name=f"{stem}.settings.json",
        mime="application/json",
        on_click="ignore",
        width="stretch",
        key=f"{key}_settings",
        help="What the table was made of. Parquet and JSON hold it as well, CSV the rows alone.",
    )
