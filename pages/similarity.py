"""Similarity: Jaccard between layers and models, and the tokens behind each cell."""

import io

import numpy as np
import pandas as pd
import streamlit as st

from itda_core.errors import ComparisonError
from itda_core.similarity import Comparison, compare, model_comparison
from pages.components.charts import heatmap
from pages.components.session import (
    explorer,
    follow_url,
    loaded_dictionary,
    nothing_yet,
    page,
    write_url,
)
from pages.components.text import literal, snippet, token_label

_KEYS = {"token": "token (same tokenizer)", "word": "word (any tokenizers)"}
_VIEWS = {"layers": "Layers of two models", "models": "Whole models"}
_MOST_ROWS = 500


def show() -> None:
    st.title("Similarity")
    runs = explorer().store.runs()
    if runs.empty:
        nothing_yet()
        return
    st.caption(
        "Latents are tokens of prompts, so two dictionaries built on the same prompts are sets. "
        "The Jaccard index |A ∩ B| / |A ∪ B| says how alike they are: 1 for the same tokens, 0 for "
        "none in common. The first d_model atoms of the paper's method are the first tokens of the "
        "corpus for every model, which lifts every value."
    )
    groups = _groups(runs)
    view, key = _ask_for_view()
    if view == "models":
        _show_models(groups, key)
    else:
        _show_layers(groups, key)


def _groups(runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Dictionaries of one model with one setting, by a name that tells them from others."""
    runs = runs.assign(
        group=[
            f"{run.model.rstrip('/').split('/')[-1]} · {run.corpus.split('/')[-1]} · "
            f"{run.max_atoms:,} atoms · L0 {run.l0} · seed {run.seed}"
            for run in runs.itertuples()
        ]
    )
    # Of several dictionaries for one layer the newest counts.
    newest = runs.sort_values("created").drop_duplicates(["group", "layer"], keep="last")
    return {
        name: members.sort_values("layer").reset_index(drop=True)
        for name, members in newest.groupby("group")
    }


def _ask_for_view() -> tuple[str, str]:
    for name, options in (("view", list(_VIEWS)), ("key", list(_KEYS))):
        follow_url(name, options)
    left, right = st.columns(2)
    view = left.segmented_control(
        "Compare", list(_VIEWS), format_func=_VIEWS.get, key="view", required=True
    )
    key = right.segmented_control(
        "Match sources by",
        list(_KEYS),
        format_func=_KEYS.get,
        key="key",
        required=True,
        help="By token: the same token position in the same prompt. By word: the white-space word "
        "that holds the token, which works for models that split text differently.",
    )
    write_url("view", view)
    write_url("key", key)
    return view, key


def _show_layers(groups: dict[str, pd.DataFrame], key: str) -> None:
    names = list(groups)
    first, second = st.columns(2)
    for place, name in ((first, "a"), (second, "b")):
        follow_url(name, names)
        chosen = place.selectbox(f"Model {name.upper()}", names, key=name)
        write_url(name, chosen)
    a, b = groups[st.session_state["a"]], groups[st.session_state["b"]]
    cells = [[_compared(x, y, key) for y in b["directory"]] for x in a["directory"]]
    _show_matrix(
        cells,
        [f"layer {layer}" for layer in a["layer"]],
        [f"layer {layer}" for layer in b["layer"]],
        ("A", "B"),
        key,
    )


def _show_models(groups: dict[str, pd.DataFrame], key: str) -> None:
    names = list(groups)
    if len(names) < 2:
        st.info("There is one model only. Train a second one on the same corpus to compare them.")
        st.page_link("pages/train.py", label="Train another model")
    cells = [[_models_compared(groups[x], groups[y], key) for y in names] for x in names]
    short = [name.split(" · ")[0] + f" ({n + 1})" for n, name in enumerate(names)]
    st.caption("Each value compares the unions of the sources over the layers both models have.")
    for label, name in zip(short, names, strict=True):
        layers = ", ".join(str(layer) for layer in groups[name]["layer"])
        st.caption(literal(f"{label}: {name} · layers {layers}"))
    _show_matrix(cells, short, short, ("A", "B"), key)


@st.cache_data(max_entries=4_096, show_spinner="Comparing …")
def _compared(a: str, b: str, key: str) -> Comparison | str:
    """The comparison of two run directories, or the reason why there is none."""
    try:
        return compare(loaded_dictionary(a), loaded_dictionary(b), key)
    except ComparisonError as error:
        return str(error)


def _models_compared(a: pd.DataFrame, b: pd.DataFrame, key: str) -> Comparison | str:
    a_layers = tuple(zip(a["layer"], a["directory"], strict=True))
    b_layers = tuple(zip(b["layer"], b["directory"], strict=True))
    return _unions_compared(a_layers, b_layers, key)


@st.cache_data(max_entries=512, show_spinner="Comparing …")
def _unions_compared(a: tuple, b: tuple, key: str) -> Comparison | str:
    try:
        return model_comparison(
            {layer: loaded_dictionary(directory) for layer, directory in a},
            {layer: loaded_dictionary(directory) for layer, directory in b},
            key,
        )
    except ComparisonError as error:
        return str(error)


def _show_matrix(
    cells: list[list[Comparison | str]],
    rows: list[str],
    columns: list[str],
    titles: tuple[str, str],
    key: str,
) -> None:
    values = np.array(
        [
            [cell.jaccard if isinstance(cell, Comparison) else np.nan for cell in line]
            for line in cells
        ]
    )
    reasons = {cell for line in cells for cell in line if isinstance(cell, str)}
    for reason in sorted(reasons)[:3]:
        st.warning(literal(reason))
    if np.isnan(values).all():
        return
    hovers = [
        [_hover(cell, row, column, key) for cell, column in zip(line, columns, strict=True)]
        for line, row in zip(cells, rows, strict=True)
    ]
    st.caption("Click a cell for the tokens behind it.")
    event = st.plotly_chart(
        heatmap(values, rows, columns, *titles, hovers),
        width="content",
        on_select="rerun",
        selection_mode="points",
        config={"displayModeBar": False},
        key=f"matrix_{key}_{'_'.join(rows)}_{'_'.join(columns)}",
    )
    _show_export(values, rows, columns)
    points = event["selection"]["points"]
    if not points:
        return
    row, column = (int(value) for value in points[0]["customdata"])
    cell = cells[row][column]
    if isinstance(cell, Comparison):
        _show_drilldown(cell, f"A {rows[row]}", f"B {columns[column]}", key)


def _hover(cell: Comparison | str, row: str, column: str, key: str) -> str:
    if isinstance(cell, str):
        return "not comparable"
    return (
        f"A {row} and B {column}\nJaccard {cell.jaccard:.4f}\n|A ∩ B| = {len(cell.shared):,}, "
        f"|A ∪ B| = {cell.union:,}\nmatched by {key}"
    )


def _show_export(values: np.ndarray, rows: list[str], columns: list[str]) -> None:
    table = io.StringIO()
    pd.DataFrame(values, index=rows, columns=columns).to_csv(table)
    st.download_button(
        "Download the matrix as CSV", table.getvalue(), file_name="jaccard.csv", mime="text/csv"
    )


def _show_drilldown(cell: Comparison, a: str, b: str, key: str) -> None:
    st.subheader(f"{a} and {b}")
    st.markdown(
        f"Jaccard **{cell.jaccard:.4f}** · {len(cell.shared):,} shared of {cell.union:,} in "
        f"either, matched by {key}"
    )
    shared, only_a, only_b = st.tabs(
        [
            f"Shared ({len(cell.shared):,})",
            f"Only {a} ({len(cell.only_a):,})",
            f"Only {b} ({len(cell.only_b):,})",
        ]
    )
    for tab, name, table in (
        (shared, "shared", cell.shared),
        (only_a, "only-a", cell.only_a),
        (only_b, "only-b", cell.only_b),
    ):
        with tab:
            _show_sources(table, name)


def _show_sources(table: pd.DataFrame, name: str) -> None:
    if table.empty:
        st.caption("No source token.")
        return
    shown = table.head(_MOST_ROWS)
    texts = explorer().store.prompt_texts(shown["prompt_id"].unique().tolist())
    contexts = [
        snippet(texts.get(source.prompt_id, ""), source.start, source.end, 60)
        for source in shown.itertuples()
    ]
    st.dataframe(
        shown.assign(context=contexts, token=shown["token"].map(token_label)),
        column_order=["token", "context", "latent", "latent_b", "prompt_id", "position"],
        column_config={
            "token": "source token",
            "context": st.column_config.TextColumn("source in context", width="large"),
            "latent": st.column_config.NumberColumn("latent", format="%d"),
            "latent_b": st.column_config.NumberColumn("latent in B", format="%d"),
            "prompt_id": "prompt",
        },
        hide_index=True,
        height=380,
        key=f"sources_{name}",
    )
    if len(table) > _MOST_ROWS:
        st.caption(f"The first {_MOST_ROWS:,} of {len(table):,}; the download has all of them.")
    st.download_button(
        "Download as CSV",
        table.to_csv(index=False).encode(),
        file_name=f"sources-{name}.csv",
        mime="text/csv",
        key=f"download_{name}",
    )


with page("Similarity"):
    show()
