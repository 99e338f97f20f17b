"""The ITDA explorer: the router and nothing else. Start it with `make app`."""

import streamlit as st

st.session_state["framed"] = True
st.navigation(
    [
        # No icons: a browser would fetch them from another host.
        st.Page("pages/overview.py", title="Overview", default=True),
        st.Page("pages/train.py", title="Train"),
        st.Page("pages/latents.py", title="Latents"),
        st.Page("pages/decompose.py", title="Decompose"),
        st.Page("pages/similarity.py", title="Similarity"),
        st.Page("pages/evaluate.py", title="Evaluate"),
    ],
    position="top",
).run()
