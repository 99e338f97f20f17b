"""A table as CSV, Parquet and JSON, each with what it was made of."""

import io
import json
from collections.abc import Callable
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import streamlit as st


def as_csv(table: pd.DataFrame, about: dict[str, Any]) -> bytes:
    """The rows, with each simple setting of `about` as a column of its own."""
    simple = {name: value for name, value in about.items() if not isinstance(value, dict | list)}
    return table.assign(**simple).to_csv(index=False).encode()


def as_parquet(table: pd.DataFrame, about: dict[str, Any]) -> bytes:
    """The rows, with `about` as JSON in the file's metadata under "about"."""
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    note = {b"about": json.dumps(about, ensure_ascii=False).encode()}
    content = io.BytesIO()
    pq.write_table(
        arrow.replace_schema_metadata({**(arrow.schema.metadata or {}), **note}), content
    )
    return content.getvalue()


def as_json(table: pd.DataFrame, about: dict[str, Any]) -> bytes:
    """{"about": …, "rows": [{…}, …]}; what is not a number is null."""
    rows = json.loads(table.to_json(orient="records", force_ascii=False, double_precision=10))
    return json.dumps({"about": about, "rows": rows}, ensure_ascii=False, indent=1).encode()


_FORMATS = {
    "CSV": ("csv", "text/csv", as_csv),
    "Parquet": ("parquet", "application/vnd.apache.parquet", as_parquet),
    "JSON": ("json", "application/json", as_json),
}


def offer_downloads(
    table: pd.DataFrame | Callable[[], pd.DataFrame], about: dict[str, Any], stem: str, key: str
) -> None:
    """A button for each format. table: the rows, or what makes them once they are asked for; stem:
    the file's name without its ending."""

    def content(write: Callable[..., bytes]) -> bytes:
        return write(table() if callable(table) else table, about)

    for place, (name, (ending, mime, write)) in zip(
        st.columns(len(_FORMATS)), _FORMATS.items(), strict=True
    ):
        place.download_button(
            name,
            lambda write=write: content(write),  # made when it is asked for
            file_name=f"{stem}.{ending}",
            mime=mime,
            on_click="ignore",
            width="stretch",
            key=f"{key}_{ending}",
        )
