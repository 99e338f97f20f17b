"""The ITDA explorer: the router and nothing else. Start it with `make app`."""

import streamlit as st
from starlette.middleware import Middleware

from pages.components.exposure import Guard
from pages.components.serving import serving

if __name__ == "__main__":  # Streamlit runs it so for every session
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
else:  # and the server takes it from here, `streamlit run` as well
    app = st.App(__file__, middleware=[Middleware(Guard)], lifespan=serving)
