"""Figures of the What-if panel: pure functions from a result to a plotly figure."""

import plotly.graph_objects as go

from itda_core.analysis.what_if import WhatIf
from pages.components.charts.latent import GREY, ORANGE
from pages.components.text import in_chart

_MOST_NAMED = 40
"""Tokens that there is room to name on the axis; of more only the numbers are there"""
_LEAST_TOP = 0.1
"""Nats, to which the axis goes at least: what is next to nothing looks so"""


def divergence_by_token(outcome: WhatIf, names: list[str]) -> go.Figure:
    """KL of the next token after each token: of the edit, and of the reconstruction alone. names:
    [n_tokens], made to be shown."""
    figure, names = go.Figure(), [in_chart(name) for name in names]
    numbers = list(range(len(names)))
    for name, values, colour, dash in (
        ("reconstruction alone", outcome.kl_reconstruction, GREY, "dot"),
        ("the edit", outcome.kl_edit, ORANGE, "solid"),
    ):
        figure.add_scatter(
            x=numbers,
            y=values,
            name=name,
            mode="lines+markers",
            line={"color": colour, "dash": dash},
            customdata=names,
            hovertemplate="after token %{x}, %{customdata}: %{y:.4f} nats<extra>"
            + name
            + "</extra>",
        )
    if len(names) <= _MOST_NAMED:
        figure.update_xaxes(tickvals=numbers, ticktext=names, tickangle=-45)
    largest = max(float(outcome.kl_edit.max()), float(outcome.kl_reconstruction.max()))
    figure.update_layout(
        height=290,
        margin={"l": 10, "r": 10, "t": 30, "b": 10},
        xaxis={"title": "token", "fixedrange": True},
        yaxis={
            "title": "KL, nats",
            "range": [0, 1.05 * max(largest, _LEAST_TOP)],
            "fixedrange": True,
        },
        legend={"orientation": "h", "y": 1.12, "yanchor": "bottom"},
    )
    return figure
