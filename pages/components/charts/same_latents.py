"""Figures of the same latents in two models: pure functions from a table to a plotly figure."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from pages.components.charts.latent import BLUE, GREY, ORANGE
from pages.components.text import in_chart, token_label, visible

_MARGIN = {"l": 10, "r": 10, "t": 34, "b": 10}
_HEIGHT = 360
_DRAWN_ONE_BY_ONE = 3_000
"""Points above which the graphics card draws them"""
_SCALE = [[0, ORANGE], [0.5, "#d9d9d9"], [1, BLUE]]


def correlation_histogram(
    bins: pd.DataFrame, median: float | None, of_strong: bool = False, of: str = ""
) -> go.Figure:
    """How many latents have which correlation with their namesake, and beside it with the one that
    chance gives. bins: low, high, latents, chance; median: of the correlations, a line; of_strong:
    whether they are of strong uses; of: what is said after the median, where it is not of all."""
    figure = go.Figure()
    title = f"correlation of {'strong uses' if of_strong else 'coefficients'}"
    middle, width = (bins["low"] + bins["high"]) / 2, bins["high"] - bins["low"]
    edges = bins[["low", "high"]].round(2).to_numpy().tolist()
    for name, column, colour, opacity in (
        ("with sources drawn by chance", "chance", GREY, 0.55),
        ("with their namesake", "latents", BLUE, 0.85),
    ):
        if not bins[column].any():
            continue
        figure.add_bar(
            x=middle,
            y=bins[column],
            width=width,
            name=name,
            customdata=edges,
            marker={"color": colour, "opacity": opacity, "line": {"width": 0}},
            hovertemplate="%{y:,} latents from %{customdata[0]} to %{customdata[1]}<extra></extra>",
        )
    if median is not None and median == median:
        figure.add_vline(median, line={"color": ORANGE, "width": 2, "dash": "dash"})
        figure.add_annotation(
            x=median, y=1, yref="paper", yanchor="bottom", showarrow=False,
            text=f"median{of} {median:.2f}",
        )  # fmt: skip
    figure.update_layout(
        height=_HEIGHT,
        margin=_MARGIN,
        barmode="overlay",
        bargap=0,
        xaxis={"title": title, "range": [-1.02, 1.02], "fixedrange": True},
        yaxis={"title": "latents", "fixedrange": True, **_count_ticks(bins)},
        legend={"orientation": "h", "y": -0.22, "yanchor": "top", "x": 0},
    )
    return figure


def _count_ticks(bins: pd.DataFrame) -> dict:
    """Whole numbers alone: plotly would write 0.5 latents where there are few."""
    return {"dtick": 1} if bins[["latents", "chance"]].to_numpy().max(initial=0) < 8 else {}


def density_scatter(
    points: pd.DataFrame, tokens: int, chosen: int | None, of_strong: bool = False
) -> go.Figure:
    """The share of tokens that use each latent in A against that in B, on logarithmic axes; what is
    not used stands at their ends. points: of Store.namesakes.points(); tokens: that were compared;
    chosen: latent of A that is framed; of_strong: whether shares are of strong uses. A point's
    customdata is [latent of A]."""
    lowest = 0.5 / max(1, tokens)
    x, y = (np.maximum(points[f"density_{side}"].to_numpy(float), lowest) for side in "ab")
    kind = go.Scatter if len(points) <= _DRAWN_ONE_BY_ONE else go.Scattergl
    correlation = points["correlation"].to_numpy(float)
    is_known = ~np.isnan(correlation)
    figure = go.Figure(
        kind(
            x=x,
            y=y,
            mode="markers",
            customdata=[[int(latent)] for latent in points["latent_a"]],
            hovertext=[_hover(row, of_strong) for row in points.itertuples()],
            hovertemplate="%{hovertext}<extra></extra>",
            marker={
                "symbol": "square",
                "size": 7,
                "color": np.where(is_known, correlation, 0.0),
                "cmin": -1,
                "cmax": 1,
                "colorscale": _SCALE,
                "opacity": 0.85,
                "line": {"width": 0.5, "color": "#808080"},
                "colorbar": {"title": "corr.", "thickness": 8, "outlinewidth": 0, "len": 0.8},
            },
            selected={"marker": {"opacity": 0.85}},
            unselected={"marker": {"opacity": 0.85}},
        )
    )
    highest = float(max(x.max(initial=lowest), y.max(initial=lowest)))
    figure.add_shape(
        type="line", x0=lowest, y0=lowest, x1=highest, y1=highest, layer="below",
        line={"color": GREY, "dash": "dash", "width": 1.5},
    )  # fmt: skip
    for place in np.flatnonzero(points["latent_a"].to_numpy() == chosen):
        frame = {"symbol": "square-open", "size": 15, "color": ORANGE, "opacity": 1}
        frame["line"] = {"width": 3, "color": ORANGE}
        opaque = {"marker": {"opacity": 1}}
        figure.add_trace(
            kind(
                x=[x[place]], y=[y[place]], mode="markers", marker=frame, hoverinfo="skip",
                selected=opaque, unselected=opaque,
            )
        )  # fmt: skip
    figure.update_layout(
        height=_HEIGHT,
        margin=_MARGIN,
        showlegend=False,
        clickmode="event+select",
        dragmode=False,
        hoverlabel={"align": "left"},
        xaxis={
            "title": f"share of the tokens that use it{' strongly' * of_strong} in A",
            **_axis(lowest, highest),
        },
        yaxis={"title": "in B", **_axis(lowest, highest)},
    )
    return figure


def _axis(lowest: float, highest: float) -> dict:
    ticks = [10.0**power for power in range(-6, 1) if 3 * lowest < 10.0**power <= 2 * highest]
    return {
        "type": "log",
        "fixedrange": True,
        "zeroline": False,
        "range": [np.log10(lowest) - 0.15, np.log10(highest) + 0.15],
        "tickvals": [lowest, *ticks],
        "ticktext": ["not used", *(f"{100 * tick:g} %" for tick in ticks)],
    }


def _hover(row, of_strong: bool) -> str:
    """Plotly takes what it shows for a kind of HTML."""
    name = in_chart(token_label(row.token))
    lines = [f"latent {row.latent_a} · {name}"]
    lines += [in_chart(f"“{visible(row.label)}”")] if row.label else []
    lines += [
        f"used{' strongly' * of_strong} on {row.density_a:.2%} in A, {row.density_b:.2%} in B"
    ]
    known = row.correlation == row.correlation
    lines += [f"correlation {row.correlation:+.3f}" if known else "no correlation"]
    return "<br>".join(lines)
