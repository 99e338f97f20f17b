"""The map of latents: a pure function from a table to a plotly figure."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from pages.components.charts.latent import BLUE, GREY, ORANGE
from pages.components.charts.map_regions import map_regions, without_overlaps
from pages.components.text import in_chart, token_label, visible

COLOURS = {
    "density": "How often they are used",
    "strongest": "Strongest coefficient",
    "layers": "Other layers with the same source",
    "hits": "What the list holds",
}
_HEIGHT = 620
_WIDTHS = {None: 1000, 1100: 560, 640: 260}
"""Pixels that the points have at least, beside the scale of the colours, by the widest page of
which that is so"""
_PERCENTS = [digit * 10.0**n for n in range(-3, 3) for digit in (1, 1.5, 2, 3, 5, 7)]
_SCALE = [[0, "#9ecae1"], [1, BLUE]]
_ENDS = [0.05, 0.95]
"""Of the scale: the shares of the latents that have its end's colour, or less, and no more"""
_TITLES = {"density": "used on", "strongest": "strongest", "layers": "layers"}
_LINE = {"width": 0.5, "color": "#808080"}
"""Around each point: pale ones are seen on white by it, dark ones on black"""


def latent_map(
    table: pd.DataFrame,
    colour: str,
    listed: set[int],
    chosen: int,
    is_dark: bool = False,
    regions: pd.DataFrame | None = None,
) -> go.Figure:
    """A point a latent, and words where they tell a region from all others. table: latent, x, y,
    token, density, strongest, layers, before, after; colour: one of COLOURS; listed: the latents
    that the list holds; chosen: the one that is ringed; is_dark: the page's ground is black;
    regions: of `named_regions`, which are found where they are not given.
    """
    figure = go.Figure(
        go.Scattergl(
            x=table["x"],
            y=table["y"],
            mode="markers",
            customdata=table["latent"],
            hovertext=[_hover(row) for row in table.itertuples()],
            hovertemplate="%{hovertext}<extra></extra>",
            marker=_marker(table, colour, listed),
            selected={"marker": {"opacity": 1}},
            unselected={"marker": {"opacity": 0.8}},
        )
    )
    [place] = np.flatnonzero(table["latent"].to_numpy() == chosen)
    figure.add_scattergl(
        x=[table["x"].iloc[place]],
        y=[table["y"].iloc[place]],
        mode="markers",
        marker={"symbol": "circle-open", "size": 16, "color": ORANGE, "line": {"width": 3}},
        hoverinfo="skip",
    )
    figure.update_layout(
        height=_HEIGHT,
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        showlegend=False,
        dragmode="pan",  # while the lasso is on, Streamlit takes no clicks
        uirevision="map",
        xaxis={"visible": False},
        yaxis={"visible": False},
        hoverlabel={"align": "left"},
        annotations=_words(named_regions(table) if regions is None else regions, is_dark),
    )
    return figure


def named_regions(table: pd.DataFrame) -> pd.DataFrame:
    """The regions whose words have room on a wide page, as `map_regions` gives them."""
    regions = map_regions(table)
    return regions.iloc[_with_room(regions, table, None)].reset_index(drop=True)


def _with_room(regions: pd.DataFrame, table: pd.DataFrame, page: int | None) -> list[int]:
    return without_overlaps(regions, table, (_WIDTHS[page], _HEIGHT))


def narrow_pages(regions: pd.DataFrame, table: pd.DataFrame, place: str) -> str:
    """Style that hides on narrow pages the words which would cover others there: how wide a page is
    only the browser knows. regions: of `named_regions`; table: as of `latent_map`; place: selects
    what the map is in."""
    rules = []
    for page in filter(None, _WIDTHS):
        hidden = sorted(set(range(len(regions))) - set(_with_room(regions, table, page)))
        if hidden:
            which = ", ".join(f'[data-index="{number}"]' for number in hidden)
            rules.append(
                f"@media (max-width: {page}px) "
                f"{{ {place} .annotation:is({which}) {{ display: none; }} }}"
            )
    return "\n".join(rules)


def _words(regions: pd.DataFrame, is_dark: bool) -> list[dict]:
    """Annotations, since points are drawn above the text of other traces."""
    colour, ground = (
        ("#ffffff", "rgba(0,0,0,0.6)") if is_dark else ("#111111", "rgba(255,255,255,0.75)")
    )
    return [
        {
            "x": row.x,
            "y": row.y,
            "text": in_chart(visible(row.words)),
            "showarrow": False,
            "font": {"size": 13, "color": colour},
            "bgcolor": ground,
            "borderpad": 1,
        }
        for row in regions.itertuples()
    ]


def _marker(table: pd.DataFrame, colour: str, listed: set[int]) -> dict:
    if colour == "hits":
        is_listed = table["latent"].isin(listed).to_numpy()
        return {
            "color": np.where(is_listed, BLUE, GREY).tolist(),
            "size": np.where(is_listed, 7, 4).tolist(),
            "opacity": 0.8,
            "line": _LINE,
        }
    values, ticks = table[colour].to_numpy(), {}
    if colour == "density":  # a few latents are used a thousand times as often as most
        values = np.log10(np.maximum(values, 1e-5))
        low, high = np.quantile(values, _ENDS)
        marks = [m for m in _PERCENTS if low <= np.log10(m / 100) <= high]
        ticks = {
            "tickvals": [float(np.log10(mark / 100)) for mark in marks],
            "ticktext": [f"{mark:g} %" for mark in marks],
        }
    if colour == "layers":
        ticks = {"dtick": 1}
    low, high = np.quantile(values, _ENDS)
    ends = {"cmin": float(low), "cmax": float(high)} if low < high else {}
    return {
        "color": values.tolist(),
        "colorscale": _SCALE,
        "size": 6,
        "opacity": 0.9,
        "line": _LINE,
        "colorbar": {
            "title": _TITLES[colour],
            "thickness": 8,
            "outlinewidth": 0,
            "len": 0.6,
            **ticks,
        },
        **ends,
    }


def _hover(row) -> str:
    """Plotly takes what it shows for a kind of HTML."""
    before, token, after = (in_chart(visible(text)) for text in (row.before, row.token, row.after))
    about = f"latent {row.latent} · {in_chart(token_label(row.token))} · {row.density:.2%}"
    return f"{about}<br>…{before}<b>⟦{token}⟧</b>{after}…"
