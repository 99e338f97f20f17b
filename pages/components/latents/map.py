"""The map on the Latents page: drawn where there is one, else the button that asks for it."""

import pandas as pd
import streamlit as st

from itda_core.analysis.latent_map import MAP_FILE, read_map, usual_method
from itda_core.errors import RunError
from itda_core.jobs.submissions import submit_map
from pages.components.cached import loaded_run
from pages.components.charts.camera import picture_config
from pages.components.charts.latent_map import COLOURS, latent_map, named_regions, narrow_pages
from pages.components.downloads import offer_downloads
from pages.components.explorer import explorer
from pages.components.frame import is_dark
from pages.components.job_offer import JobOffer, answer, job_button
from pages.components.latents.listing import Listing
from pages.components.text import literal
from pages.components.url import choose

_AROUND = 30
"""Characters on each side of a source when the mouse is on its point"""
_MADE_BY = {
    "umap": "by UMAP: neighbours on the map are near each other by cosine, long distances say "
    "little, and both axes fill the page",
    "svd": "by the two directions in which the atoms differ most (SVD), since umap-learn is not "
    "installed: most of what tells atoms apart is not on it",
}
_BUTTONS = [["toImage", "lasso2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]]


def show_map(run, listing: Listing, chosen: int) -> None:
    """run: a row of Store.runs.table(); chosen: the latent that is looked at."""
    stored_map = None
    try:
        stored_map = _read(run.directory, _written(run.directory))
    except RunError as error:  # it can be made anew below
        st.warning(literal(str(error)))
    if stored_map is None:
        _offer(run)
        return
    points, method = stored_map
    names = COLOURS
    if listing.asked.text:  # then what was found is what is looked for
        names = {"hits": COLOURS["hits"], **COLOURS}
    place, export = st.columns([3, 1], vertical_alignment="bottom")
    with place:
        colour = choose(st.selectbox, "Colours", names, "colour")
    store, is_strong = explorer().store, listing.asked.of_strong
    overview = store.known(store.latents.overview, run.run_id, _AROUND, is_strong)
    table = points.merge(overview, on="latent")
    regions = _regions(run.directory, _written(run.directory), table)
    listed = set(listing.numbers()) if colour == "hits" else set()
    key = f"map_{run.run_id}"
    with st.container(key="latent_map"):
        st.html(f"<style>{narrow_pages(regions, table, '.st-key-latent_map')}</style>")
        st.plotly_chart(
            latent_map(table, colour, listed, chosen, is_dark(), regions),
            key=key,
            on_select=lambda: _take_selection(key),
            selection_mode=("points", "lasso"),
            config=picture_config(f"map-{run.run_id}", modeBarButtons=_BUTTONS),
        )
    st.caption(
        f"All {len(table):,} latents {_MADE_BY[method]}. Words stand where sources read so more "
        "often than elsewhere on the map and cover no others. Click a point to open its latent; "
        "with the lasso of the buttons above the map draw around some to list them alone."
    )
    with export.popover("Export the map", width="stretch"):
        about = {"run": run.run_id, "method": method}
        offer_downloads(table, about, f"map-{run.run_id}", "map_file")


def _take_selection(key: str) -> None:
    """One point opens its latent; more become the list."""
    points = st.session_state[key]["selection"]["points"]
    # The ring around the chosen latent is a point too, of a trace without numbers.
    custom = [point["customdata"] for point in points if point.get("customdata") is not None]
    latents = sorted({int(data[0] if isinstance(data, list) else data) for data in custom})
    if len(latents) == 1:
        st.session_state["latent"] = latents[0]
    elif latents:
        st.session_state["among"] = tuple(latents)
        st.session_state["latent"] = latents[0]


def _written(directory: str) -> int | None:
    path = loaded_run(directory).directory / MAP_FILE
    return path.stat().st_mtime_ns if path.exists() else None


@st.cache_data(max_entries=16, show_spinner=False)
def _read(directory: str, written: int | None) -> tuple[pd.DataFrame, str] | None:  # noqa: ARG001
    return read_map(loaded_run(directory))


@st.cache_data(max_entries=16, show_spinner=False)
def _regions(directory: str, written: int | None, _table: pd.DataFrame) -> pd.DataFrame:  # noqa: ARG001
    """The same for every look at a map. _table: as of `latent_map`."""
    return named_regions(_table)


def _offer(run) -> None:
    offer = JobOffer("map", run.run_id)
    if offer.active():
        st.caption("It is being made: its card is at the top of this page.")
        return
    offer.show_last_failure()
    better = (
        "It is laid out by UMAP, once, in the background."
        if usual_method() == "umap"
        else "umap-learn is not installed, so it is laid out by an SVD, which shows less: "
        "pip install umap-learn for a better one."
    )
    st.info(f"There is no map of this dictionary yet. {better}")
    if job_button("Make the map", type="primary"):
        answer(submit_map(explorer().queue, loaded_run(run.directory)))
