"""The matrix of the Similarity page with what goes with it: order, words, pictures, exports."""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from itda_core.similarity.measures import JACCARD
from pages.components.charts.beside_matrix import dendrogram, match_path
from pages.components.charts.camera import ask_for_format, picture_config
from pages.components.charts.ordering import cluster_order, comparable, profile_orders
from pages.components.charts.similarity import Look, columns_beside, matrix
from pages.components.downloads import offer_downloads
from pages.components.frame import is_dark, scrolling
from pages.components.similarity.choice import Choice, Item
from pages.components.similarity.sentences import (
    cell_sentence,
    chance_summary,
    hovers,
    is_told,
    path_summary,
    summary,
)
from pages.components.similarity.values import Values
from pages.components.text import literal
from pages.components.url import follow_url, write_url

_LIMITS = (
    "A value says how alike two dictionaries are, not why: the lists below a cell say which tokens "
    "make the difference. Values depend on the settings, so compare dictionaries of the same "
    "corpus, seed, size and selection, and compare values with each other and with what chance "
    "gives rather than with 1. Two trainings that differ in their seed alone show what is the most "
    "that can be expected."
)


def show_matrix(choice: Choice, values: Values, chosen: tuple[int, int] | None) -> None:
    """The matrix beside the best matches or the dendrogram, and what it says in words.

    chosen: row and column number of the cell that is looked at.
    """
    if values.values.size == 1:
        _show_only_pair(choice, values)
        return
    orders = _orders(choice, values)
    figure = _figure(choice, values, chosen, orders)
    widths = columns_beside(figure)
    left, right = st.columns(widths) if widths else (st.container(), st.container())
    with left:
        _show_cells(choice, values, figure, orders)
    with right:
        if choice.view == "layers":
            _show_path(choice, values)
        else:
            _show_dendrogram(choice, values)
    _show_words(choice, values)


def _show_only_pair(choice: Choice, values: Values) -> None:
    """A sentence in place of a matrix of one cell."""
    if not choice.is_same:
        st.markdown(
            f"{literal(choice.rows[0].name)} and {literal(choice.columns[0].name)}: "
            f"{cell_sentence(choice.kind, values, 0, 0)}"
        )
    elif choice.view == "layers":
        st.info(
            "One layer compared with itself says nothing. Choose another model, or train more "
            "layers with “Train what is missing”."
        )
    else:
        st.caption("One model compared with itself says nothing. Choose a second one.")


def choose_cell(choice: Choice) -> tuple[int, int] | None:
    """Two select boxes for a cell, which follow clicks and the link: row and column number."""
    picked = []
    labels = ("A: layer", "B: layer") if choice.view == "layers" else ("Row", "Column")
    for place, label, name, items in zip(
        st.columns(2), labels, ("row", "column"), (choice.rows, choice.columns), strict=True
    ):
        names = {item.value: item.name for item in items}
        place.selectbox(
            label,
            list(names),
            format_func=names.get,
            index=None,
            placeholder="Choose one, or click a cell",
            key=name,
            on_change=_forget_click,
        )
        write_url(name, st.session_state[name])
        picked.append(_place_of(items, st.session_state[name]))
    return None if None in picked else tuple(picked)


def follow_cell(choice: Choice) -> tuple[int, int] | None:
    """The cell that the link or the last click asks for, before its widgets are drawn."""
    picked = []
    for name, items in (("row", choice.rows), ("column", choice.columns)):
        st.session_state.setdefault(name, None)
        follow_url(name, [None, *(item.value for item in items)])
        picked.append(_place_of(items, st.session_state[name]))
    return None if None in picked else tuple(picked)


def _place_of(items: tuple[Item, ...], value) -> int | None:
    return next((place for place, item in enumerate(items) if item.value == value), None)


def _forget_click() -> None:
    """The chart is built anew, so that its last clicked cell can be clicked again."""
    st.session_state["_matrix"] = st.session_state.get("_matrix", 0) + 1


def _show_cells(
    choice: Choice, values: Values, figure: go.Figure, orders: tuple[np.ndarray, np.ndarray]
) -> None:
    rows, columns = (order.tolist() for order in orders)
    # Another matrix is another chart, which nothing was clicked in yet.
    what = (choice.view, choice.groups, choice.kind.name, choice.key, choice.seeds, choice.order)
    key = f"matrix_{st.session_state.get('_matrix', 0)}_{hash(what)}"

    def choose() -> None:
        points = st.session_state[key]["selection"]["points"]
        if points and points[0].get("customdata"):
            row, column = (int(value) for value in points[0]["customdata"])
            st.session_state["row"] = choice.rows[rows[row]].value
            st.session_state["column"] = choice.columns[columns[column]].value

    with scrolling("matrix", figure.layout.width):
        st.plotly_chart(
            figure,
            width="content",
            on_select=choose,
            selection_mode="points",
            config=picture_config("similarity-matrix"),
            key=key,
        )
    itself = ", itself left out" if choice.is_same else ""
    told = ", where its interval lies above chance" if "chance" in values.counts else ""
    st.caption(
        f"● best of its row, ○ best of its column{itself}{told}. Click a cell for its tokens."
    )


def _figure(
    choice: Choice,
    values: Values,
    chosen: tuple[int, int] | None,
    orders: tuple[np.ndarray, np.ndarray],
) -> go.Figure:
    rows, columns = (order.tolist() for order in orders)
    names = [item.name for item in choice.rows], [item.name for item in choice.columns]
    texts = hovers(choice.kind, values, *names, choice.key)
    look = _look(choice, values.values)
    told = is_told(values)[np.ix_(rows, columns)]
    place = None if chosen is None else (rows.index(chosen[0]), columns.index(chosen[1]))
    return matrix(
        values.values[np.ix_(rows, columns)],
        [choice.rows[row].tick for row in rows],
        [choice.columns[column].tick for column in columns],
        _axis_titles(choice),
        [[texts[row][column] for column in columns] for row in rows],
        dataclasses.replace(look, chosen=place, is_told=told, is_dark=is_dark()),
    )


def _look(choice: Choice, values: np.ndarray) -> Look:
    low, high = choice.kind.low, choice.kind.high
    off_diagonal = values.astype(float).copy()
    if choice.is_same:
        np.fill_diagonal(
            off_diagonal, np.nan
        )  # 1 by definition, which would leave nothing to stretch
    if choice.stretch and not np.isnan(off_diagonal).all():
        low, high = float(np.nanmin(off_diagonal)), float(np.nanmax(off_diagonal))
    title = "Jaccard" if choice.kind is JACCARD else ""
    return Look(low, high, title, choice.is_same, sides=_sides(choice))


def _axis_titles(choice: Choice) -> tuple[str, str]:
    return ("", "") if choice.view == "models" else ("layer of A", "layer of B")


def _sides(choice: Choice) -> tuple[str, ...]:
    """What A and B are; whole models stand at the axes."""
    if choice.view == "models":
        return ()
    return tuple(
        f"{letter}: {group.name}" for letter, group in zip("AB", choice.groups, strict=True)
    )


def _orders(choice: Choice, values: Values) -> tuple[np.ndarray, np.ndarray]:
    if choice.order == "original":
        return np.arange(len(choice.rows)), np.arange(len(choice.columns))
    if choice.is_same and choice.kind.is_symmetric:
        order = cluster_order(values.values)
        return order, order
    return profile_orders(values.values)


def _show_path(choice: Choice, values: Values) -> None:
    a, b = choice.groups
    layers_a, layers_b = list(a.layers), list(b.layers)
    if np.isnan(values.values).all() or (choice.is_same and len(layers_a) < 2):
        return
    st.markdown("**Best matches**")
    st.plotly_chart(
        match_path(
            values.values,
            layers_a,
            layers_b,
            (a.n_layers, b.n_layers),
            choice.is_same,
            is_told(values),
        ),
        config=picture_config("best-matches"),
        key="path",
    )
    if a.n_layers == b.n_layers and not choice.is_same:
        st.caption(path_summary(values, layers_a, layers_b))


def _show_dendrogram(choice: Choice, values: Values) -> None:
    rows = comparable(values.values)
    if len(rows) < 3:
        return
    st.markdown("**Which models belong together**")
    st.plotly_chart(
        dendrogram(values.values[np.ix_(rows, rows)], [choice.rows[place].tick for place in rows]),
        config=picture_config("dendrogram"),
        key="dendrogram",
    )
    st.caption("Two branches meet at the mean similarity of their members.")
    if len(rows) < len(choice.rows):
        left = [item.tick for place, item in enumerate(choice.rows) if place not in rows]
        st.caption(literal(f"Left out, since not all of its pairs are known: {', '.join(left)}."))


def _show_words(choice: Choice, values: Values) -> None:
    names = [item.name for item in choice.rows], [item.name for item in choice.columns]
    is_half = choice.is_same and choice.kind.is_symmetric
    texts = summary(values.values, *names, is_half), chance_summary(values, is_half)
    if any(texts):
        st.markdown(literal(" ".join(texts)))
    with st.expander("What these numbers mean, and what they can't say"):
        st.markdown(literal(choice.kind.explanation))
        st.markdown(literal(_LIMITS))


def show_cell_words(choice: Choice, values: Values, cell: tuple[int, int]) -> None:
    """The head of a chosen cell, and its value in a sentence."""
    row, column = cell
    st.subheader(literal(f"{choice.rows[row].name} and {choice.columns[column].name}"))
    st.markdown(cell_sentence(choice.kind, values, row, column))


def offer_exports(choice: Choice, values: Values) -> None:
    """The matrix as a table of pairs, and which picture the chart's button gives."""
    with st.popover("Download the matrix"):
        st.markdown("**The matrix**, a row for each pair")
        offer_downloads(
            pair_table(choice, values), about(choice), f"similarity-{choice.kind.name}", "matrix"
        )
        ask_for_format()


def pair_table(choice: Choice, values: Values) -> pd.DataFrame:
    """One row a pair: names and run ids of both, value, what it was counted from, or why not."""
    y, x = (axis.ravel() for axis in np.indices(values.values.shape))
    columns: dict[str, Any] = {
        "row": [choice.rows[place].name for place in y],
        "column": [choice.columns[place].name for place in x],
        "row_runs": [" ".join(choice.rows[place].run_ids) for place in y],
        "column_runs": [" ".join(choice.columns[place].run_ids) for place in x],
        "value": values.values.ravel(),
    }
    columns |= {name: array.ravel() for name, array in values.counts.items()}
    return pd.DataFrame(columns | {"reason": values.reasons.ravel().astype(str)})


def about(choice: Choice) -> dict[str, Any]:
    """All settings that a table was made with."""
    return {
        "view": choice.view,
        "measure": choice.kind.name,
        "key": choice.key if choice.kind is JACCARD else None,
        "seeds": choice.seeds,
        "models": [
            {
                "id": group.group_id,
                "layers": list(group.layers),
                "runs": list(group.run_ids),
                "settings": group.config.to_dict(),
            }
            for group in choice.groups
        ],
    }
