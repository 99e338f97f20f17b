"""The third view of the Similarity page: the same latents in two models."""

import pandas as pd
import streamlit as st

from pages.components.charts.camera import ask_for_format
from pages.components.downloads import offer_downloads
from pages.components.explorer import explorer
from pages.components.job_panel import watch_active_jobs
from pages.components.reproduce import latent_comparison_lines, show_lines
from pages.components.run_names import layer_of
from pages.components.similarity.same_cards import show_pair
from pages.components.similarity.same_choice import (
    RunPair,
    as_made,
    ask_for_pair,
    ask_for_strong,
    offer_comparison_of_latents,
    what_is_known,
)
from pages.components.similarity.same_list import (
    SameListing,
    ask_for_listing,
    chosen_same_latent,
    show_charts,
    show_same_list,
)
from pages.components.similarity.same_sentences import LIMITS, counts_in_words, sums_in_words
from pages.components.text import context, literal


def show_same_latents(runs: pd.DataFrame) -> None:
    """runs: Store.runs.table()."""
    pair = ask_for_pair(runs)
    watch_active_jobs()
    if pair is None:
        return
    about = what_is_known(pair)
    if about is None:
        offer_comparison_of_latents(pair)
        return
    of_strong = ask_for_strong(pair, about)
    if of_strong:
        about = what_is_known(pair, of_strong)
    st.markdown(sums_in_words(about, of_strong))
    st.caption(literal(counts_in_words(about, of_strong)))
    with st.expander("What these numbers mean, and what they can't say"):
        st.markdown(literal(LIMITS))
    listing = ask_for_listing(pair, of_strong)
    chosen = chosen_same_latent(listing, int(about["atoms_a"]))
    show_charts(listing, about, chosen)
    show_same_list(pair, listing, chosen)
    _offer_files(pair, listing, about)
    if chosen is not None:
        _show_chosen(pair, chosen, of_strong)


def _show_chosen(pair: RunPair, latent: int, of_strong: bool) -> None:
    found = explorer().store.namesakes.pairs(*pair.run_ids, [latent], of_strong)
    if found.empty:
        st.info(
            f"Latent {latent} of A has no namesake in B: its source is no atom there. Choose one "
            "of the list."
        )
        return
    show_pair(pair, found.iloc[0], of_strong)


def _offer_files(pair: RunPair, listing: SameListing, about: pd.Series) -> None:
    with st.container(horizontal=True):
        with st.popover("Download the list"):
            st.markdown("**All latents of the list**, with sources, labels and numbers")
            settings = {
                "a": f"{pair.a.model} {layer_of(pair.a)}",
                "b": f"{pair.b.model} {layer_of(pair.b)}",
                **about.to_dict(),
                **vars(listing),
            }
            offer_downloads(lambda: _all_of(listing), settings, "same-latents", "same_file")
            ask_for_format()
        with st.popover("Reproduce"):
            _show_how_it_was_made(pair, about, listing.of_strong)


def _show_how_it_was_made(pair: RunPair, about: pd.Series, of_strong: bool) -> None:
    made = as_made(pair, about)
    if made is None:
        st.caption("The comparison is kept no longer, so that its settings are not known.")
        return
    first, second = pair.runs if made.about["run_a"] == pair.a.run_id else pair.runs[::-1]
    if made.settings is None:
        st.caption(
            "This comparison was kept by a version that did not note how many tokens were asked "
            "for, nor how a file was read. The lines ask for as many as were compared, which can "
            "read fewer prompts. Compare again for lines that are sure to print the same."
        )
    directories = str(first.directory), str(second.directory)
    options = {"seed": made.about["seed"], "of_strong": of_strong}
    show_lines(latent_comparison_lines(*directories, **made.likely_settings, **options))


def _all_of(listing: SameListing) -> pd.DataFrame:
    table = explorer().store.namesakes.table(
        listing.run_a, listing.run_b, listing.order, *listing.filters[2:4],
        of_strong=listing.of_strong,
    )  # fmt: skip
    sources = [context(row.text, row.start, row.end) for row in table.itertuples()]
    return table.assign(source=sources, run_a=listing.run_a, run_b=listing.run_b).drop(
        columns="text"
    )
