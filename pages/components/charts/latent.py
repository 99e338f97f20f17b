"""Figures: pure functions from a table or an array to a plotly figure."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

BLUE, ORANGE, GREY = "#2f6f8f", "#c85a14", "#9aa5ab"


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
        height=210,
        margin={"l": 10, "r": 10, "t": 10, "b": 10},
        xaxis_title="step of the pursuit",
        yaxis_title="share left",
        yaxis_tickformat=".0%",
        yaxis_rangemode="tozero",
    )
    return figure
