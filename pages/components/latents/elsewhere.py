"""What was written of the same source in other dictionaries: shown as from there, taken over."""

from collections.abc import Callable

import pandas as pd
import streamlit as st

from pages.components.explorer import explorer
from pages.components.run_names import origin_text
from pages.components.text import literal, shown

_FIRST = 3
"""So many are shown at once, the newest; the others on demand"""


def origins(run, run_ids: pd.Series) -> pd.Series:
    """Where labels are from, in words, "" for those of this dictionary. run: a row of
    Store.runs.table(); run_ids: such as label_from of Store.latents.table()."""
    store = explorer().store
    runs = store.known(store.runs.table)
    words = {run_id: shown(origin_text(run_id, run, runs)) for run_id in set(run_ids) - {""}}
    return run_ids.map(words | {"": ""})


def label_text(run, latent: pd.Series) -> str:
    """The label of a latent as Markdown, and where it is from; "" without one. latent: a row of
    Store.latents.table()."""
    if not latent.label:
        return ""
    [origin] = origins(run, pd.Series([latent.label_from]))
    return literal(f"“{latent.label}”" + (f" from {origin}" if origin else ""))


def labels_of_side(directories: list[str]) -> pd.DataFrame:
    """The labels of some dictionaries: prompt_id and position of the source, each once, label,
    label_from ("" where it is of that dictionary's own), and text, both in words."""
    store = explorer().store
    runs = store.known(store.runs.table)
    tables = [pd.DataFrame(columns=["prompt_id", "position", "label", "label_from", "text"])]
    for run in runs[runs["directory"].isin(directories)].itertuples():
        labels = store.known(store.labels.shown, run.run_id)
        words = origins(run, labels["label_from"]).map(lambda words: words and f" (from {words})")
        tables.append(labels.assign(text=labels["label"].map(shown) + words).drop(columns="latent"))
    return pd.concat(tables, ignore_index=True).drop_duplicates(["prompt_id", "position"])


def show_elsewhere(run, others: pd.DataFrame, take_over: Callable[[pd.Series], None]) -> None:
    """What others say of a latent, each with a link and a button that takes it over. others: the
    rows of Store.labels.of_latent() that are not its own."""
    words = origins(run, others["run_id"])
    for row, origin in zip(others.head(_FIRST).itertuples(), words, strict=False):
        _show_one(row, origin, take_over)
    rest = others.iloc[_FIRST:]
    if not rest.empty:
        with st.popover(f"{len(rest):,} more"):
            for row, origin in zip(rest.itertuples(), words[_FIRST:], strict=True):
                _show_one(row, origin, take_over)


def _show_one(row, origin: str, take_over: Callable[[pd.Series], None]) -> None:
    said, where, button = st.columns([3, 2, 1.2], vertical_alignment="center")
    said.caption(literal(_said(row)))
    if pd.isna(row.model):
        where.caption(literal(f"from {origin}"))
    else:
        link = {"run": row.run_id, "latent": str(row.latent)}
        where.page_link("pages/latents.py", label=literal(f"from {origin}"), query_params=link)
    button.button(
        "Copy here",
        on_click=take_over,
        args=[row],
        key=f"take_{row.run_id}_{row.latent}",
        type="tertiary",
        help="Makes it this dictionary's own, to be changed here. There it stays as it is.",
    )


def _said(row) -> str:
    """All that one dictionary says of a latent, on one line."""
    parts = [f"“{row.label}”"] * bool(row.label)
    parts += ["☆"] * bool(row.bookmarked)
    parts += [f"note: {row.note}"] * bool(row.note)
    parts += [f"in {', '.join(row.lists)}"] * bool(len(row.lists))
    return " · ".join(parts)
