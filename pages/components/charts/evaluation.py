"""Figures of the Evaluate page: pure functions from a table to a plotly figure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from pages.components.charts.latent import BLUE, GREY, ORANGE
from pages.components.text import in_chart, visible

_COLOURS = (BLUE, ORANGE, "#3d9a68", "#a05fae", "#a8851c", "#c4507a", "#71808a", "#6470d2")
"""Dark enough for a white page and light enough for a black one."""
_SHAPES = ("circle", "square", "diamond", "triangle-up", "cross", "star", "pentagon", "hexagon")
_MARGIN = {"l": 10, "r": 10, "t": 34, "b": 10}
"""Above the plot there is room for its buttons."""

Bins = Sequence[dict[str, float | int | None]]


@dataclass(frozen=True)
class Reference:
    """What dictionaries are compared with: no dictionary of this explorer."""

    name: str
    l0: Sequence[int]
    values: Sequence[float]
    hovers: Sequence[str]
    dash: str
    """of the line; empty where there are points alone"""


def pareto(
    points: pd.DataFrame,
    y_title: str,
    better: str,
    chosen: tuple | None,
    references: Sequence[Reference] = (),
) -> go.Figure:
    """L0 against a measure, one line a dictionary, in colours and shapes of their own.

    points: run_id, label, is_sae, l0, mean_l0, value; better: "lower" or "higher"; chosen: the
    (run_id, l0) to draw larger; references: drawn in grey. A point's customdata is [run_id, l0,
    label]; those of references have none.
    """
    figure = go.Figure()
    for number, (run_id, rows) in enumerate(points.groupby("run_id", sort=False)):
        sizes = [15 if chosen == (run_id, l0) else 9 for l0 in rows["l0"]]
        figure.add_trace(_line(rows, number % len(_COLOURS), sizes))
    for reference in references:
        figure.add_trace(_grey(reference))
    ticks = sorted(set(points["l0"].tolist()))
    figure.update_layout(
        height=360 + 22 * len(figure.data),
        margin={**_MARGIN, "t": 10},
        clickmode="event+select",
        dragmode=False,
        xaxis={
            "title": "L0: terms used for a token, mean",
            "type": "log",
            "tickvals": ticks,
            "ticktext": [str(tick) for tick in ticks],
            "fixedrange": True,
        },
        yaxis={"title": f"{y_title} ({better} is better)", "fixedrange": True},
        # Below the plot and one under the other, so that long names are not cut.
        legend={"orientation": "v", "x": 0, "xanchor": "left", "y": -0.22, "yanchor": "top"},
        showlegend=True,
    )
    return figure


def _line(rows: pd.DataFrame, number: int, sizes: list[int]) -> go.Scatter:
    first = rows.iloc[0]
    name = in_chart(visible(first["label"]))
    shape = _SHAPES[number] + ("-open" if first["is_sae"] else "")
    return go.Scatter(
        x=rows["mean_l0"],
        y=rows["value"],
        name=name,
        mode="lines+markers",
        line={"color": _COLOURS[number], "dash": "dot" if first["is_sae"] else "solid"},
        marker={"symbol": shape, "size": sizes, "opacity": 1.0, "color": _COLOURS[number]},
        customdata=rows[["run_id", "l0"]].assign(name=name).to_numpy(),
        hovertemplate="%{customdata[2]}<br>L0 %{customdata[1]}, %{x:.2f} terms used<br>%{y:.4f}"
        "<extra></extra>",
        # A chosen point must not fade the others.
        selected={"marker": {"opacity": 1.0}},
        unselected={"marker": {"opacity": 1.0}},
    )


def _grey(reference: Reference) -> go.Scatter:
    return go.Scatter(
        x=list(reference.l0),
        y=list(reference.values),
        name=reference.name,
        mode="lines" if reference.dash else "markers",
        line={"color": GREY, "dash": reference.dash or None},
        marker={"symbol": "x-thin-open", "size": 10, "color": GREY, "line": {"width": 2}},
        text=list(reference.hovers),
        hovertemplate="%{text}<br>%{y:.4f}<extra></extra>",
        selected={"marker": {"opacity": 1.0}},
        unselected={"marker": {"opacity": 1.0}},
    )


def density_histogram(bins: Bins) -> go.Figure:
    """How many latents are used on which share of the tokens; bins of log10: from, to, latents."""
    shown = [bar for bar in bins if bar["latents"]] or bins
    first, last = bins.index(shown[0]), bins.index(shown[-1])
    drawn = bins[max(0, first - 1) : last + 2]
    figure = go.Figure(
        go.Bar(
            x=[(bar["from"] + bar["to"]) / 2 for bar in drawn],
            y=[bar["latents"] for bar in drawn],
            width=[bar["to"] - bar["from"] for bar in drawn],
            marker={"color": BLUE, "line": {"width": 1, "color": "rgba(127, 127, 127, 0.6)"}},
            customdata=[[_percent(bar["from"]), _percent(bar["to"])] for bar in drawn],
            hovertemplate="%{y:,} latents are used on %{customdata[0]} to %{customdata[1]} of the "
            "tokens<extra></extra>",
        )
    )
    ticks = _log_ticks(drawn[0]["from"], drawn[-1]["to"])
    figure.update_layout(
        height=280,
        margin=_MARGIN,
        xaxis={
            "title": "density: share of tokens that use the latent",
            "tickvals": ticks,
            "ticktext": [_percent(tick) for tick in ticks],
            "range": [drawn[0]["from"], drawn[-1]["to"]],
        },
        yaxis_title="latents",
        bargap=0,
    )
    return figure


def error_bars(bins: Bins, measure: str, x_title: str, special: str = "") -> go.Figure:
    """A measure of each bin of tokens as a bar, its number of tokens in the hover.

    bins: from, to, tokens, fvu, cosine; measure: "fvu" or "cosine"; special: the label of the last
    bin, if it is of another kind than the others.
    """
    names = [_range(bar) for bar in bins]
    if special:
        names[-1] = special
    title = {"fvu": "variance unexplained", "cosine": "cosine of x and x̂, mean"}[measure]
    figure = go.Figure(
        go.Bar(
            x=names,
            y=[bar[measure] for bar in bins],
            marker_color=[ORANGE if special and name == special else BLUE for name in names],
            customdata=[[bar["tokens"], bar["fvu"], bar["cosine"]] for bar in bins],
            hovertemplate="%{x}: %{customdata[0]:,} tokens<br>variance unexplained "
            "%{customdata[1]:.4f}<br>cosine %{customdata[2]:.4f}<extra></extra>",
        )
    )
    figure.update_layout(
        height=280,
        margin=_MARGIN,
        xaxis={"title": x_title, "type": "category"},
        yaxis={"title": title, "rangemode": "tozero"},
        bargap=0.15,
    )
    return figure


def _range(bar: dict[str, float | int | None]) -> str:
    """Such as "8–15" or "1k–10k"; a bin of one number is that number."""
    first, last = (_number(bar[edge]) for edge in ("from", "to"))
    return first if first == last else f"{first}–{last}"


def _number(value: float) -> str:
    if value >= 1_000:
        shown = round(value / 1_000, 1)
        return f"{shown:.0f}k" if shown >= 10 or shown == int(shown) else f"{shown}k"
    return f"{value:.0f}" if value == int(value) or value >= 10 else f"{value:.3g}"


def _log_ticks(first: float, last: float) -> list[float]:
    """Logarithms of 1, 2 and 5 times powers of ten; of the powers alone where there are many."""
    factors = (1, 2, 5) if last - first < 2.5 else (1,)
    exact = [
        power + math.log10(factor)
        for power in range(math.floor(first), math.ceil(last) + 1)
        for factor in factors
    ]
    return [tick for tick in exact if first - 1e-9 <= tick <= last + 1e-9]


def _percent(log10: float) -> str:
    return f"{100 * 10**log10:.2g} %"
