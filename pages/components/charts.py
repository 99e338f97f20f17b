"""Figures: pure functions from a table or an array to a plotly figure."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

BLUE, ORANGE, GREY = "#2f6f8f", "#c85a14", "#9aa5ab"
_MARGIN_PIXELS = 130


def coefficient_histogram(coefficients: np.ndarray) -> go.Figure:
    """How often each coefficient occurs, negative and positive ones in their colours."""
    edges = np.histogram_bin_edges(coefficients, bins=40)
    figure = go.Figure()
    for name, colour, chosen in (
        ("positive", BLUE, coefficients > 0),
        ("negative", ORANGE, coefficients < 0),
    ):
        if chosen.any():
            # Counted here: the most used latents have more uses than a browser likes to receive.
            counts, _ = np.histogram(coefficients[chosen], edges)
            figure.add_bar(
                x=(edges[:-1] + edges[1:]) / 2,
                y=counts,
                width=edges[1] - edges[0],
                name=name,
                marker_color=colour,
                hovertemplate="%{y:,} tokens near %{x:.3g}<extra></extra>",
            )
    figure.update_layout(
        barmode="overlay",
        height=230,
        margin={"l": 10, "r": 10, "t": 10, "b": 10},
        xaxis_title="coefficient",
        yaxis_title="tokens",
        showlegend=False,
        bargap=0.03,
    )
    return figure


def pursuit_waterfall(terms: pd.DataFrame) -> go.Figure:
    """What is left of a token's squared norm after each step. terms: step, share_left, latent,
    coefficient, source_token."""
    left = terms["share_left"].to_numpy()
    before = np.concatenate([[1.0], left[:-1]])
    figure = go.Figure(
        go.Bar(
            x=terms["step"],
            y=before - left,
            base=left,
            marker_color=np.where(terms["coefficient"] > 0, BLUE, ORANGE),
            customdata=np.stack([terms["latent"], terms["coefficient"], left], axis=1),
            hovertemplate="step %{x}: latent %{customdata[0]:.0f}, coefficient "
            "%{customdata[1]:+.3f}<br>left after it: %{customdata[2]:.1%}<extra></extra>",
        )
    )
    figure.update_layout(
        height=260,
        margin={"l": 10, "r": 10, "t": 10, "b": 10},
        xaxis_title="step of the pursuit",
        yaxis_title="share left",
        yaxis_tickformat=".0%",
        yaxis_rangemode="tozero",
    )
    return figure


_MOST_PRINTED = 20
"""Rows or columns of a matrix whose values are printed; beyond, they are too small to read and
take the browser longer than the rest of the picture."""
_DARK_FROM = 0.55
"""Above this value a cell is dark enough for white text."""


def heatmap(
    values: np.ndarray,
    rows: list[str],
    columns: list[str],
    row_title: str,
    column_title: str,
    hovers: list[list[str]],
) -> go.Figure:
    """A matrix as square markers, which send clicks back where a plotly heatmap does not.

    values: [n_rows, n_columns] in [0, 1], NaN where there is none; a point's customdata is
    [row, column].
    """
    grid = [(r, c) for r in range(len(rows)) for c in range(len(columns))]
    flat = np.array([values[r, c] for r, c in grid], dtype=float)
    size = _square_pixels(max(len(rows), len(columns)))
    cell = size + 4
    figure = go.Figure(_cells(grid, flat, size, hovers))
    is_dark = flat > _DARK_FROM
    if max(len(rows), len(columns)) <= _MOST_PRINTED:
        for colour, chosen in (("white", is_dark), ("#1b1b1b", ~is_dark)):
            figure.add_trace(_cell_texts(grid, flat, chosen, colour, 13 if size > 40 else 10))
    figure.update_layout(
        width=max(420, cell * len(columns) + 2 * _MARGIN_PIXELS),
        height=max(260, cell * len(rows) + _MARGIN_PIXELS),
        margin={"l": 10, "r": 10, "t": 10, "b": 10},
        clickmode="event+select",
        dragmode=False,
        plot_bgcolor="rgba(0, 0, 0, 0)",
        showlegend=False,
    )
    axis = {"showgrid": False, "zeroline": False, "fixedrange": True}
    figure.update_xaxes(
        tickvals=list(range(len(columns))),
        ticktext=columns,
        # Below narrow columns labels stand upright, each under its own; else plotly turns them.
        tickangle=None if size > 40 else -90,
        title=column_title,
        range=[-0.6, len(columns) - 0.4],
        **axis,
    )
    figure.update_yaxes(
        tickvals=list(range(len(rows))),
        ticktext=rows,
        title=row_title,
        range=[len(rows) - 0.4, -0.6],
        **axis,
    )
    return figure


def _square_pixels(cells_a_side: int) -> int:
    """The width of a cell; the 30 layers of a model fit a laptop's screen."""
    if cells_a_side <= 10:
        return 60
    return 30 if cells_a_side <= 20 else 26


def _cells(
    grid: list[tuple[int, int]], flat: np.ndarray, size: int, hovers: list[list[str]]
) -> go.Scatter:
    known = ~np.isnan(flat)
    return go.Scatter(
        x=[c for _, c in grid],
        y=[r for r, _ in grid],
        mode="markers",
        marker={
            "symbol": "square",
            "size": size,
            "color": np.where(known, flat, 0.0),
            "opacity": np.where(known, 1.0, 0.15),
            "colorscale": "Blues",
            "cmin": 0.0,
            "cmax": 1.0,
            "colorbar": {"title": "Jaccard", "thickness": 14},
            "line": {"width": 1, "color": GREY},
        },
        customdata=grid,
        hovertext=[hovers[r][c].replace("\n", "<br>") for r, c in grid],
        hovertemplate="%{hovertext}<extra></extra>",
        # A chosen cell must not fade the others: their colours are the content.
        selected={"marker": {"opacity": 1.0}},
        unselected={"marker": {"opacity": 1.0}},
    )


def _cell_texts(
    grid: list[tuple[int, int]], flat: np.ndarray, chosen: np.ndarray, colour: str, size: int
) -> go.Scatter:
    shown = [(r, c, value) for (r, c), value, ok in zip(grid, flat, chosen, strict=True) if ok]
    return go.Scatter(
        x=[c for _, c, _ in shown],
        y=[r for r, _, _ in shown],
        mode="text",
        text=["–" if np.isnan(value) else f"{value:.2f}" for *_, value in shown],
        textfont={"size": size, "color": colour},
        selected={"textfont": {"color": colour}},
        unselected={"textfont": {"color": colour}},
        hoverinfo="skip",
    )
