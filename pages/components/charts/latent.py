"""Figures: pure functions from a table or an array to a plotly figure."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

BLUE, ORANGE, GREY = "#2f6f8f", "#c85a14", "#9aa5ab"


def coefficient_histogram(coefficients: np.ndarray, marked: float | None = None) -> go.Figure:
    """How often each coefficient occurs, negative and positive ones in their colours. marked: the
    coefficient of a token that was decomposed, drawn as a line."""
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
        height=190,
        margin={"l": 10, "r": 10, "t": 18, "b": 10},
        xaxis_title="coefficient",
        yaxis_title="tokens",
        showlegend=False,
        bargap=0.03,
    )
    if marked is not None:
        annotation = f"decomposed token {marked:+.2f}"
        figure.add_vline(marked, line={"color": GREY, "dash": "dot"}, annotation_text=annotation)
        figure.update_layout(margin_t=30)
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
            text=np.where(terms["coefficient"] > 0, "+", "−"),  # colour is not the only sign
            textposition="outside",
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
