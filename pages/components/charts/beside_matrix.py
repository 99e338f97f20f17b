"""What stands beside a matrix of similarities: the best layer for each, and models joined."""

import numpy as np
import plotly.graph_objects as go
from scipy.cluster.hierarchy import dendrogram as scipy_dendrogram

from pages.components.charts.latent import BLUE, GREY, ORANGE
from pages.components.charts.ordering import best_cells, model_linkage
from pages.components.text import in_chart, visible


def match_path(
    values: np.ndarray,
    layers_a: list[int],
    layers_b: list[int],
    depths: tuple[int, int],
    but_itself: bool,
    is_told: np.ndarray | None = None,
) -> go.Figure:
    """Which layer of B each layer of A is most like, and the other way round.

    values: [n_layers_a, n_layers_b]; depths: blocks of both models, for the line of equal depth;
    is_told: as a Look has it.
    """
    figure = go.Figure()
    last_a, last_b = depths[0] - 1, depths[1] - 1
    figure.add_scatter(
        x=[0, last_a], y=[0, last_b], mode="lines", name="equal depth", hoverinfo="skip",
        line={"color": GREY, "dash": "dash", "width": 1.5},
    )  # fmt: skip
    a, b = np.array(layers_a), np.array(layers_b)
    for from_a, name, colour, symbol in (
        (True, "● best in B for each layer of A", BLUE, "circle"),
        (False, "○ best in A for each layer of B", ORANGE, "circle-open"),
    ):
        rows, columns = best_cells(values, but_itself, from_a, is_told)
        order = np.argsort((a[rows] if from_a else b[columns]), kind="stable")
        rows, columns = rows[order], columns[order]
        figure.add_scatter(
            x=a[rows], y=b[columns], mode="markers", name=name,
            customdata=values[rows, columns],
            marker={
                "symbol": symbol, "size": 11 if from_a else 15, "color": colour,
                "line": {"width": 2},
            },
            hovertemplate="layer %{x} of A, layer %{y} of B: %{customdata:.3f}<extra></extra>",
        )  # fmt: skip
    figure.update_layout(
        height=400,
        margin={"l": 10, "r": 10, "t": 34, "b": 10},
        xaxis={"title": "layer of A", "range": [-0.6, last_a + 0.6], "fixedrange": True},
        yaxis={"title": "layer of B", "range": [-0.6, last_b + 0.6], "fixedrange": True},
        legend={"orientation": "v", "x": 0, "y": -0.2, "yanchor": "top"},
    )
    return figure


def dendrogram(values: np.ndarray, names: list[str]) -> go.Figure:
    """Models joined where the mean similarity of their members lies. values: [n, n], n ≥ 2."""
    tree = scipy_dendrogram(model_linkage(values), labels=names, no_plot=True)
    figure = go.Figure()
    for heights, places in zip(tree["dcoord"], tree["icoord"], strict=True):
        figure.add_scatter(
            x=[1.0 - height for height in heights], y=places, mode="lines",
            line={"color": BLUE, "width": 2}, showlegend=False,
            hovertemplate="joined at %{x:.3f}<extra></extra>",
        )  # fmt: skip
    figure.update_layout(
        height=130 + 34 * len(names),
        margin={"l": 10, "r": 10, "t": 34, "b": 10},
        xaxis={"title": "mean similarity", "autorange": "reversed"},
        yaxis={
            "tickvals": [5 + 10 * place for place in range(len(names))],
            "ticktext": [in_chart(visible(name)) for name in tree["ivl"]],
            "showgrid": False,
            "zeroline": False,
            "automargin": True,
        },
    )
    figure.update_xaxes(fixedrange=True)
    figure.update_yaxes(fixedrange=True)
    return figure
