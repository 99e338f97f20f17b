"""A page of every place that Streamlit and Plotly show text in, each with every payload."""

import plotly.graph_objects as go
import streamlit as st

from pages.components.frame import page
from pages.components.text import in_chart, literal, visible
from tests.support.payloads import PAYLOADS

with page("Places"):
    st.tabs([literal(text) for text in PAYLOADS])
    for number, text in enumerate(PAYLOADS):
        made = literal(text)
        with st.container(key=f"place_{number}"):
            st.markdown(f"Between {made} words")
            st.markdown(f"**{made}**")
            st.markdown(f"#### {made}")
            st.caption(made)
            st.warning(made)
            st.expander(made)
            st.button(made, key=f"button_{number}", help=made)
            st.checkbox(made, key=f"box_{number}")
            st.metric(made, made)
            st.page_link("https://localhost/", label=made)
            st.segmented_control(made, [made, "another"], key=f"control_{number}")
            st.progress(0.5, made)
    shown = [in_chart(visible(text)) for text in PAYLOADS]
    figure = go.Figure(
        go.Scatter(
            x=list(range(len(shown))),
            y=[0] * len(shown),
            text=shown,
            mode="markers+text",
            hovertext=shown,
            hovertemplate="%{hovertext}<extra></extra>",
            marker={"size": 14},
        )
    )
    figure.update_layout(title=shown[0], width=1_100, height=900, margin={"b": 500})
    figure.update_xaxes(tickvals=list(range(len(shown))), ticktext=shown, tickangle=-90)
    st.plotly_chart(figure, key="chart")
