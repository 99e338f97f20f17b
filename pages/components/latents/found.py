"""Why a latent is in the list of a search, in a few words."""

import numpy as np

from itda_core.store.latent_search import LatentSearch
from itda_core.store.word_search import CONTEXT, LABEL, SOURCE, USES_NEAR, USES_ON
from pages.components.explorer import explorer
from pages.components.text import shown

_WORTH_SAYING = 0.05
"""Share of its uses near what was searched for that is said beside those on it"""
_LONG = 20
"""Characters of what was searched for that are repeated"""

MATCH = (
    "%: the share of its uses that are on what you search for, by their squared coefficients, so "
    "that strong uses count for more; its card counts each use once. % near: too few are on it, "
    "and this share of its uses is on it or at most 20 characters from it. Uses: how many these "
    "are; a large share of few comes after a smaller one of many. Source: its source is it. "
    "Around: it is at most 40 characters from its source."
)
"""What the words of `in_short` mean"""


def why_found(run_id: str, search: LatentSearch) -> dict[int, str]:
    """What each latent that a search by meaning finds has to do with it; empty for others."""
    if not search.is_by_meaning:
        return {}
    store = explorer().store
    is_strong = search.of_strong and store.known(store.latents.judged, run_id) == "strong"
    thresholds = store.known(store.latents.thresholds, run_id) if is_strong else None
    dots = "…" if len(search.text) > _LONG else ""
    sought = "a match" if search.way == "regex" else f"“{search.text.strip()[:_LONG]}{dots}”"
    return {
        row.latent: shown(in_words(row, sought, _uses(row.latent, thresholds)))
        for row in store.latents.found(run_id, search).itertuples()
    }


def _uses(latent: int, thresholds: np.ndarray | None) -> str:
    """What the uses that were counted are called: all, where no threshold tells strong ones."""
    return "uses" if thresholds is None or np.isnan(thresholds[latent]) else "strong uses"


def in_words(row, sought: str, uses: str) -> str:
    """row: of `LatentQueries.found`; sought: as it is called; uses: what its uses are called."""
    if row.by == LABEL:
        return f"its label or note has {sought}"
    if row.by == SOURCE:
        return f"its source is {sought}"
    if row.by == CONTEXT:
        return f"{sought} is near its source"
    on, near = row.on >= _WORTH_SAYING, row.near >= _WORTH_SAYING
    if not near:
        return f"{row.on:.0%} by weight of its {uses} on {sought}"
    if not on:
        return f"{row.near:.0%} by weight of its {uses} near {sought}"
    return f"{row.on:.0%} by weight of its {uses} on {sought}, {row.near:.0%} near"


def in_short(run_id: str, search: LatentSearch) -> dict[int, str]:
    """The same in a word or two, for a list whose other columns say what the words are."""
    if not search.is_by_meaning:
        return {}
    found = explorer().store.latents.found(run_id, search)
    return {row.latent: match_of(row) for row in found.itertuples()}


def match_of(row) -> str:
    """row: of `LatentQueries.found`."""
    if row.by == USES_ON:
        return f"{row.on:.0%}, {_counted(row.uses_on)}"
    if row.by == USES_NEAR:
        return f"{row.on + row.near:.0%} near, {_counted(row.uses)}"
    return {LABEL: "label", SOURCE: "source", CONTEXT: "around"}[row.by]


def _counted(uses: int) -> str:
    return "1 use" if uses == 1 else f"{uses:,} uses"


def says_that_all_count(run, search: LatentSearch) -> str:
    """That filler counts where strong uses were asked for, since nothing tells them; "" where it is
    not so. run: a row of Store.runs.table()."""
    store = explorer().store
    is_open = search.of_strong and run.kind == "itda" and bool(run.explored_tokens)
    if not is_open or store.known(store.latents.judged, run.run_id):
        return ""
    return "This dictionary has no scores: all uses count, filler too."
