"""Similarity: Jaccard between layers and models, and the tokens behind each cell."""

import dataclasses
import io

import numpy as np
import pandas as pd
import streamlit as st

from itda_core.config import TrainConfig
from itda_core.similarity import Comparison, Matrix
from pages.components.cells import Side, compare_all_sides, compare_sides
from pages.components.charts import heatmap
from pages.components.session import (
    explorer,
    follow_url,
    loaded_run,
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
        "none in common. With the published method (threshold) the first d_model atoms are the "
        "first tokens of the corpus for every model, which lifts every value; with the coverage "
        "they are not."
    )
    groups = _groups(runs)
    view, key = _ask_for_view()
    if view == "models":
        _show_models(groups, key)
    else:
        _show_layers(groups, key)


def _groups(runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Dictionaries that differ in nothing but the layer, by a name that tells them from others."""
    groups: dict[tuple[TrainConfig, str], list] = {}
    for run in runs.sort_values("created").itertuples():
        config = dataclasses.replace(loaded_run(run.directory).config, layers=(0,))
        groups.setdefault((config, run.method), []).append(run)
    named: dict[str, pd.DataFrame] = {}
    for (config, method), members in groups.items():
        name = (
            f"{config.model.name} · {config.corpus.name} · {config.max_atoms:,} atoms · "
            f"L0 {config.l0} · {config.max_tokens:,} tokens · {method} · "
            f"seed {config.seed}"
        )
        name += f" ({len(named) + 1})" if name in named else ""
        # Of several dictionaries for one layer the newest counts.
        table = pd.DataFrame(members).drop_duplicates("layer", keep="last")
        named[name] = table.sort_values("layer").reset_index(drop=True)
    return named


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
    for place, name in zip(st.columns(2), ("a", "b"), strict=True):
        follow_url(name, names)
        chosen = place.selectbox(f"Model {name.upper()}", names, key=name)
        write_url(name, chosen)
    a, b = groups[st.session_state["a"]], groups[st.session_state["b"]]
    rows = {f"layer {run.layer}": ((0, run.directory),) for run in a.itertuples()}
    columns = {f"layer {run.layer}": ((0, run.directory),) for run in b.itertuples()}
    _show_matrix(rows, columns, key)


def _show_models(groups: dict[str, pd.DataFrame], key: str) -> None:
    if len(groups) < 2:
        st.info("There is one model only. Train a second one on the same corpus to compare them.")
        st.page_link("pages/train.py", label="Train another model")
    st.caption("Each value compares the unions of the sources over the layers both models have.")
    sides = {}
    for number, (name, runs) in enumerate(groups.items(), start=1):
        label = f"{name.split(' · ')[0].rstrip('/').split('/')[-1]} ({number})"
        layers = ", ".join(str(layer) for layer in runs["layer"])
        st.caption(literal(f"{label}: {name} · layers {layers}"))
        sides[label] = tuple(zip(runs["layer"], runs["directory"], strict=True))
    _show_matrix(sides, sides, key)


def _show_matrix(rows: dict[str, Side], columns: dict[str, Side], key: str) -> None:
    matrix = compare_all_sides(tuple(rows.values()), tuple(columns.values()), key)
    values, is_known = matrix.jaccard, matrix.reasons == ""
    for reason in sorted(set(matrix.reasons[~is_known]))[:3]:
        st.warning(literal(reason))
    if not is_known.any():
        return
    st.caption("Hover a cell for its value, click it for the tokens behind it.")
    event = st.plotly_chart(
        heatmap(values, list(rows), list(columns), "A", "B", _hovers(matrix, rows, columns, key)),
        width="content",
        on_select="rerun",
        selection_mode="points",
        config={"displayModeBar": False},
        key=f"matrix_{key}_{hash((tuple(rows.items()), tuple(columns.items())))}",
    )
    _show_export(values, list(rows), list(columns))
    points = event["selection"]["points"]
    if points:
        row, column = (int(value) for value in points[0]["customdata"])
        if is_known[row, column]:
            a, b = list(rows)[row], list(columns)[column]
            compared = compare_sides(rows[a], columns[b], key)
            _show_drilldown(compared, f"A {a}", f"B {b}", key)


def _hovers(
    matrix: Matrix, rows: dict[str, Side], columns: dict[str, Side], key: str
) -> list[list[str]]:
    def hover(row: int, column: int, a: str, b: str) -> str:
        if matrix.reasons[row, column]:
            return "not comparable"
        return (
            f"A {a} and B {b}\nJaccard {index[row, column]:.4f}\n"
            f"|A ∩ B| = {matrix.shared[row, column]:,}, |A ∪ B| = {matrix.union[row, column]:,}\n"
            f"matched by {key}"
        )

    index = matrix.jaccard
    return [[hover(i, j, a, b) for j, b in enumerate(columns)] for i, a in enumerate(rows)]


def _show_export(values: np.ndarray, rows: list[str], columns: list[str]) -> None:
    table = io.StringIO()
    pd.DataFrame(values, index=rows, columns=columns).to_csv(table)
    st.download_button(
        "Download the matrix as CSV", table.getvalue(), file_name="jaccard.csv", mime="text/csv"
    )


def _show_drilldown(found: Comparison, a: str, b: str, key: str) -> None:
    st.subheader(literal(f"{a} and {b}"))
    st.markdown(
        f"Jaccard **{found.jaccard:.4f}** · {len(found.shared):,} shared of {found.union:,} in "
        f"either, matched by {key}"
    )
    shared, only_a, only_b = st.tabs(
        [
            f"Shared ({len(found.shared):,})",
            f"Only {literal(a)} ({len(found.only_a):,})",
            f"Only {literal(b)} ({len(found.only_b):,})",
        ]
    )
    for tab, name, table in (
        (shared, "shared", found.shared),
        (only_a, "only-a", found.only_a),
        (only_b, "only-b", found.only_b),
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
