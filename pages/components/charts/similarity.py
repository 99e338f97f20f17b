"""Figures of the Similarity page: pure functions from arrays to a plotly figure."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from pages.components.charts.latent import GREY, ORANGE
from pages.components.charts.ordering import best_cells
from pages.components.text import in_chart, visible

_MOST_PRINTED = 16
"""Rows or columns of a matrix whose values are printed; beyond, they are too small to read and
take the browser longer than the rest of the picture."""
_ON_WHITE = ("#f1f5f7", "#bcd6e3", "#7fb0c9", "#3f7f9f", "#0f4a66")
_ON_BLACK = ("#202a30", "#27475a", "#3a7593", "#7db4cf", "#dcedf5")
"""Evenly from the low end, which is near the page's ground, to the high one."""
_BLACK, _WHITE = "#1b1b1b", "#ffffff"
_LINE_PIXELS, _CHARACTER_PIXELS = 18, 7
"""Of text above a matrix"""
_STRONG_FROM = 0.62
"""The share of the colour scale from which a cell needs the other colour of text."""
_SETTLED = 1_200
"""Pixels that a page has for its charts on a laptop"""
_BESIDE = 400
"""Pixels that a chart beside a matrix needs"""


@dataclass(frozen=True)
class Look:
    """How a matrix is drawn."""

    low: float
    high: float
    """values at the ends of the colour scale"""
    title: str
    """of the colour scale"""
    but_itself: bool = False
    """rows and columns are the same things, so that no best match is on the diagonal"""
    chosen: tuple[int, int] | None = None
    """row and column of the cell to frame"""
    sides: tuple[str, ...] = ()
    """what rows and columns are of, a line each above the matrix"""
    is_told: np.ndarray | None = None
    """bool [n_rows, n_columns]: where a value says more than chance; others are no best match"""
    is_dark: bool = False
    """the page's ground is black"""

    @property
    def colours(self) -> tuple[str, ...]:
        return _ON_BLACK if self.is_dark else _ON_WHITE

    def text_colours(self, share: np.ndarray) -> np.ndarray:
        """Of what stands in cells at a share of the colour scale: an array of the same shape."""
        weak, strong = (_WHITE, _BLACK) if self.is_dark else (_BLACK, _WHITE)
        return np.where(share > _STRONG_FROM, strong, weak)


def matrix(
    values: np.ndarray,
    rows: list[str],
    columns: list[str],
    titles: tuple[str, str],
    hovers: list[list[str]],
    look: Look,
) -> go.Figure:
    """A matrix as square markers, which send clicks back where a plotly heatmap does not.

    values: [n_rows, n_columns], NaN where there is none; titles: of rows and columns; a point's
    customdata is [row, column].
    """
    size = _square_pixels(max(values.shape))
    y, x = (axis.ravel() for axis in np.indices(values.shape))
    share = (values - look.low) / max(look.high - look.low, 1e-12)
    figure = go.Figure(_cells(values, x, y, size, hovers, look))
    if max(values.shape) <= _MOST_PRINTED:
        figure.add_traces(_printed(values, share, x, y, 13 if size > 40 else 11, look))
    figure.add_traces(_marks(values, size, share, look))
    if look.chosen is not None:
        figure.add_trace(_frame(look.chosen, size))
    _lay_out_matrix(figure, rows, columns, titles, size)
    _name_sides(figure, look.sides)
    return figure


def _as_it_is(text: str) -> str:
    return in_chart(visible(text))


def _lines(texts: Iterable[str]) -> str:
    return "<br>".join(map(_as_it_is, texts))


def _square_pixels(cells_a_side: int) -> int:
    """The width of a cell; the 30 layers of a model fit beside another chart on a laptop."""
    if cells_a_side <= 8:
        return 84 if cells_a_side <= 5 else 64
    return int(np.clip(round(560 / cells_a_side) - 2, 11, 64))


def _gap(size: int) -> int:
    return 4 if size > 20 else 1


def _scale(colours: tuple[str, ...]) -> list[tuple[float, str]]:
    return [(place / (len(colours) - 1), colour) for place, colour in enumerate(colours)]


def columns_beside(figure: go.Figure) -> tuple[int, int] | None:
    """Widths of a matrix and of the chart beside it, to each other; None where both don't fit."""
    width = figure.layout.width
    return (width, max(_BESIDE, _SETTLED - width)) if width + _BESIDE <= _SETTLED else None


def _cells(
    values: np.ndarray, x: np.ndarray, y: np.ndarray, size: int, hovers: list, look: Look
) -> go.Scatter:
    flat = values.ravel()
    has_value = ~np.isnan(flat)
    return go.Scatter(
        x=x,
        y=y,
        mode="markers",
        marker={
            "symbol": "square",
            "size": size,
            "color": np.where(has_value, flat, look.low),
            "opacity": np.where(has_value, 1.0, 0.12),
            "colorscale": _scale(look.colours),
            "cmin": look.low,
            "cmax": look.high,
            "colorbar": {"title": look.title, "thickness": 12, "len": 0.9, "outlinewidth": 0},
            "line": {"width": 1 if size > 20 else 0, "color": GREY},
        },
        # Lists: of an array the browser sends back {"0": row, "1": column}.
        customdata=np.stack([y, x], axis=1).tolist(),
        hovertext=[_lines(text.split("\n")) for line in hovers for text in line],
        hovertemplate="%{hovertext}<extra></extra>",
        # A chosen cell must not fade the others: their colours are the content.
        selected={"marker": {"opacity": 1.0}},
        unselected={"marker": {"opacity": 1.0}},
    )


def _printed(
    values: np.ndarray, share: np.ndarray, x: np.ndarray, y: np.ndarray, size: int, look: Look
) -> list[go.Scatter]:
    flat = values.ravel()
    is_known = ~np.isnan(flat)
    texts = np.array(
        [f"{value:.2f}" if known else "–" for value, known in zip(flat, is_known, strict=True)],
        object,
    )
    traces = []
    colours = np.where(is_known, look.text_colours(share.ravel()), GREY)
    for colour in (_BLACK, _WHITE, GREY):
        chosen = colours == colour
        font = {"textfont": {"color": colour}}
        traces.append(
            _silent(
                x[chosen],
                y[chosen],
                "text",
                text=texts[chosen],
                textfont={"size": size, "color": colour},
                selected=font,
                unselected=font,
            )
        )
    return traces


def _marks(values: np.ndarray, size: int, share: np.ndarray, look: Look) -> list[go.Scatter]:
    """A filled dot for each row's largest value, a ring for each column's, where it says more than
    chance: in the corners of a cell, or one around the other where it is small."""
    is_large, traces = size > 30, []
    aside = 0.34 if is_large else 0.0
    for by_row, symbol, shift in ((True, "circle", -aside), (False, "circle-open", aside)):
        y, x = best_cells(values, look.but_itself, by_row, look.is_told)
        colours = look.text_colours(share[y, x])
        marker = {
            "symbol": symbol,
            "size": 8 if is_large else size * (0.3 if by_row else 0.6),
            "color": colours,
            "opacity": 1.0,
        }
        marker["line"] = {"width": 1.5 if is_large else 1, "color": colours}
        opaque = {"marker": {"opacity": 1.0}}
        traces.append(
            _silent(
                x + shift, y - aside, "markers", marker=marker, selected=opaque, unselected=opaque
            )
        )
    return traces


def _frame(chosen: tuple[int, int], size: int) -> go.Scatter:
    marker = {
        "symbol": "square-open",
        "size": size,
        "color": ORANGE,
        "opacity": 1.0,
        "line": {"width": 3, "color": ORANGE},
    }
    opaque = {"marker": {"opacity": 1.0}}
    return _silent(
        [chosen[1]], [chosen[0]], "markers", marker=marker, selected=opaque, unselected=opaque
    )


def _silent(x, y, mode: str, **options) -> go.Scatter:
    """A trace that the mouse goes through."""
    return go.Scatter(x=x, y=y, mode=mode, hoverinfo="skip", showlegend=False, **options)


def _lay_out_matrix(
    figure: go.Figure, rows: list[str], columns: list[str], titles: tuple[str, str], size: int
) -> None:
    cell = size + _gap(size)
    columns, upright, depth = _column_labels(columns, cell)
    left = 68 + 6 * max((len(row) for row in rows), default=0)
    below = 40 + depth
    figure.update_layout(
        width=cell * len(columns) + left + 100,
        height=max(220, cell * len(rows) + below + 34),
        margin={"l": left, "r": 100, "t": 34, "b": below},
        clickmode="event+select",
        dragmode=False,
        plot_bgcolor="rgba(0, 0, 0, 0)",
        showlegend=False,
    )
    axis = {"showgrid": False, "zeroline": False, "fixedrange": True, "automargin": False}
    figure.update_xaxes(
        tickvals=list(range(len(columns))),
        ticktext=columns,
        # Below narrow columns labels stand upright, each under its own; else plotly turns them.
        tickangle=-90 if upright else 0,
        title={"text": titles[1], "standoff": 10},
        range=[-0.6, len(columns) - 0.4],
        **axis,
    )
    figure.update_yaxes(
        tickvals=list(range(len(rows))),
        ticktext=[_as_it_is(row) for row in rows],
        title={"text": titles[0], "standoff": 10},
        range=[len(rows) - 0.4, -0.6],
        **axis,
    )


def _name_sides(figure: go.Figure, sides: tuple[str, ...]) -> None:
    """Names of models are longer than most axes: they stand above the matrix, which is made as wide
    as they need."""
    if not sides:
        return
    layout, head = figure.layout, _LINE_PIXELS * len(sides)
    lacking = max(0, _CHARACTER_PIXELS * max(map(len, sides)) + 20 - layout.width)
    figure.update_layout(
        width=layout.width + lacking,
        height=layout.height + head,
        margin={"t": layout.margin.t + head, "r": layout.margin.r + lacking},
        title={
            "text": _lines(sides),
            "font": {"size": 13},
            "x": 0,
            "xanchor": "left",
            "xref": "container",
            "y": 1,
            "yanchor": "top",
            "yref": "container",
            "pad": {"t": 26, "l": 4},
        },
    )


def _column_labels(columns: list[str], cell: int) -> tuple[list[str], bool, int]:
    """Labels of columns, whether they stand upright, and the pixels below the axis they need.

    Wide cells take their parts one under the other; below narrow ones each stands upright.
    """
    stacked = [column.split(" · ") for column in columns]
    widest = max((len(part) for parts in stacked for part in parts), default=0)
    if 6.5 * widest <= cell + (10 if cell > 40 else -1):
        return [_lines(parts) for parts in stacked], False, 16 * max(map(len, stacked))
    return [_as_it_is(column) for column in columns], True, int(5.5 * max(map(len, columns)))
