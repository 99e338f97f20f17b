"""What is shown of one latent: its source, its strongest uses, its histogram."""

import contextlib

import numpy as np
import pandas as pd
import streamlit as st

from itda_core.exchange.export import atom_file
from itda_core.glossary import GLOSSARY
from itda_core.settings import RESID_POST
from pages.components.cached import loaded_dictionary
from pages.components.charts.camera import ask_for_format, picture_format
from pages.components.downloads import offer_downloads
from pages.components.explorer import explorer
from pages.components.histogram.histogram import show_histogram
from pages.components.latents.score import show_score, threshold_of, thresholds_of
from pages.components.latents.search import wants_strong
from pages.components.latents.use_pages import USES_SHOWN, first_use
from pages.components.latents.uses import (
    chosen_uses,
    histogram_key,
    show_chosen_uses,
    show_near_misses,
    show_strongest_uses,
    special_names,
    what_is_listed,
)
from pages.components.reproduce import latent_lines, show_lines
from pages.components.run_names import words_of
from pages.components.text import literal, ordinal, quoted
from pages.components.token_strip.strip import show_rows, token_row
from pages.components.url import write_url

_SOURCE_TOKENS = 16
"""Tokens on each side of the source in the short view."""

_NOTHING_EXPLORED = (
    "No token was explored in this run, so that nothing is known of what uses this latent. Train "
    "it again with explored tokens to see its uses."
)


def show_card(
    run, latent: pd.Series, key: str = "", most_uses: int = USES_SHOWN, is_page: bool = False
) -> None:
    """The whole card. run: a row of Store.runs.table(); latent: a row of Store.latents.table();
    key: sets the cards of one page apart; most_uses: how many are listed at a time; is_page:
    whether it is the page of the latent, where more can be asked for: other uses, files, and how to
    have the same numbers."""
    sign, least = chosen_uses(latent, is_page)
    first = first_use(what_is_listed(run, latent)) if is_page else 0
    store = explorer().store
    asked = store.known(
        store.uses.of_card,
        run.run_id, int(latent.latent), latent.prompt_id, most_uses, sign, least, first,
    )  # fmt: skip
    show_source(latent, asked.source_spans, key=f"{key}source")
    show_numbers(run, latent)
    show_score(run, latent, is_page)
    uses, tokens = int(latent.tokens), int(run.explored_tokens)
    if not uses:
        st.info(words_of(run).dead if tokens else _NOTHING_EXPLORED)
        if is_page:
            show_near_misses(run, latent, key)
            _offer_files(run, latent)
        return
    marked = _marked(int(latent.latent)) if is_page else None
    show_histogram_of_uses(run, latent, asked.coefficients, histogram_key(key), marked)
    if is_page:
        show_chosen_uses(run, latent, asked, key)
        _offer_files(run, latent)
    else:
        show_strongest_uses(run, latent, asked, key)


def show_numbers(run, latent: pd.Series) -> None:
    """How often and how strongly it is used, and where it is."""
    uses, tokens = int(latent.tokens), int(run.explored_tokens)
    density, strongest, where = st.columns(3)
    counted = f"{uses:,} of {tokens:,} explored"
    if threshold_of(latent) is None or not wants_strong():
        density.metric("tokens that use it", f"{latent.density:.2%}", help=counted)
    else:
        density.metric(
            "tokens that use it strongly",
            f"{latent.strong_density:.2%}",
            help=f"{int(latent.strong):,} of {tokens:,} explored. With filler "
            f"{latent.density:.2%}, {counted}. {GLOSSARY['filler']}",
        )
    strongest.metric("strongest coefficient", f"{latent.strongest:,.2f}")
    site = "" if run.site == RESID_POST else f" {run.site}"
    where.metric(
        "layer, of 0 to " + str(run.n_layers - 1),
        literal(f"{run.layer}{site}"),
        help=literal(run.model),
    )


def show_histogram_of_uses(
    run, latent: pd.Series, coefficients: np.ndarray, key: str, marked: float | None = None
) -> None:
    """How strong the uses are, and whether many tokens use the latent. A token of the uses below is
    marked in it while the mouse is there. marked: the coefficient of a decomposed token."""
    number, uses, tokens = int(latent.latent), int(latent.tokens), int(run.explored_tokens)
    negative = int((coefficients < 0).sum())
    is_strong = threshold_of(latent) is not None and wants_strong()
    rank = explorer().store.latents.rank(run.run_id, number, is_strong)
    place = f"the {'' if rank == 1 else ordinal(rank) + ' '}most used of {int(run.atoms):,} latents"
    if is_strong:
        said = f"Strongly used on {int(latent.strong):,} of {tokens:,} tokens "
        said += f"({latent.strong_density:.2%}): {place}. With filler on {uses:,} "
        said += f"({latent.density:.2%}), negative on {negative:,} of them."
    else:
        said = f"Used on {uses:,} of {tokens:,} tokens ({latent.density:.2%}): {place}; negative "
        said += f"on {negative:,}."
    st.caption(said, help=_by_all(run) if is_strong else None)
    file_name = f"coefficients-{run.run_id}-{number}"
    show_histogram(coefficients, marked, file_name, picture_format(), key, threshold_of(latent))


def _by_all(run) -> str | None:
    """Of how many latents a rank by strong uses takes all. run: a row of Store.runs.table()."""
    count = int(np.isnan(thresholds_of(run, of_strong=True)).sum())
    if not count:
        return None
    are = "1 latent without a threshold is" if count == 1 else f"{count:,} without a threshold are"
    return f"In this order {are} counted with all uses."


def _marked(latent: int) -> float | None:
    """The coefficient that the link to this latent gives: that of a decomposed token."""
    marked, _, coefficient = st.query_params.get("mark", "").partition(":")
    with contextlib.suppress(ValueError):
        if marked == str(latent) and np.isfinite(float(coefficient)):
            return float(coefficient)
    write_url("mark", None)  # it belongs to another latent
    return None


def _offer_files(run, latent: pd.Series) -> None:
    number = int(latent.latent)
    files, reproduced = st.columns(2)
    with files.popover("Export this latent", width="stretch"):
        st.markdown("**Every explored token that uses it**")
        about = {"run": run.run_id, "model": run.model, "layer": int(run.layer), "latent": number}
        offer_downloads(
            lambda: explorer().store.uses.all(run.run_id, number),
            about | {"source_prompt": latent.prompt_id, "source_position": int(latent.position)},
            f"uses-{run.run_id}-{number}",
            "uses_file",
        )
        st.markdown("**Its atom**, a unit vector")
        st.download_button(
            "safetensors",
            lambda: atom_file(loaded_dictionary(run.directory), number, about),
            file_name=f"atom-{run.run_id}-{number}.safetensors",
            mime="application/octet-stream",
            on_click="ignore",
        )
        ask_for_format("the link below the histogram")
    with reproduced.popover("Reproduce", width="stretch"):
        show_lines(latent_lines(run.directory, number))


def show_source(latent: pd.Series, spans: list[tuple[int, int]], key: str) -> None:
    """The source or strongest token boxed in its context; the whole prompt on demand. spans: of
    the prompt's tokens, empty where it was not read."""
    position = int(latent.position)
    if position >= len(spans):  # it was not read for this dictionary
        spans, position = [(int(latent.start), int(latent.end))], 0
    # An encoder's prompt may have been read twice, and a mark close the first reading there.
    spans = [*spans[:position], (int(latent.start), int(latent.end)), *spans[position + 1 :]]
    text = latent.text[: max(end for _, end in spans)]  # the rest may be a whole book
    hovers = [""] * len(spans)
    hovers[position] = f"{quoted(latent.token)}, token {position} of prompt {latent.prompt_id}"
    names = special_names(spans)
    names[position] = latent.token
    row = token_row(
        text,
        spans,
        np.zeros(len(spans)),
        hovers,
        boxed=position,
        around=_SOURCE_TOKENS,
        title=latent.title,
        names=names,
    )
    show_rows([row], key=key)
