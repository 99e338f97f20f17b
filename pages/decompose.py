"""Decompose: a prompt's tokens as sums of latents, in the order of pursuit."""

import numpy as np
import pandas as pd
import streamlit as st

from itda_core.analysis.decomposition import Decomposition
from itda_core.errors import InputError
from itda_core.glossary import GLOSSARY
from pages.components.charts.camera import ask_for_format
from pages.components.decompose.decomposed import (
    decomposed,
    tables_of,
    warn_of_another_model,
)
from pages.components.decompose.edits import edited_row, edits_scope
from pages.components.decompose.edits_url import follow_edits
from pages.components.decompose.prompt import choose_text
from pages.components.decompose.prompts_table import show_prompts
from pages.components.decompose.steering import Steering, ask_for_steering, show_steered
from pages.components.decompose.strip import show_text
from pages.components.decompose.terms import show_summary, show_token, with_labels
from pages.components.decompose.tries import take_back_a_try
from pages.components.decompose.two import show_two
from pages.components.decompose.what_if import Asked, show_edits, show_what_if
from pages.components.downloads import offer_downloads
from pages.components.explorer import explorer
from pages.components.frame import nothing_yet, page
from pages.components.reproduce import decomposition_lines, show_lines
from pages.components.run_names import choose_run
from pages.components.text import literal
from pages.components.url import choose_view, follow_url, keep, write_url

_VIEWS = {"terms": "Terms", "what-if": "What if", "steer": "Steer", "two": "Two dictionaries",
          "prompts": "Prompts"}  # fmt: skip


def show() -> None:
    st.title("Decompose")
    store = explorer().store
    runs = store.known(store.runs.table)
    if runs.empty:
        nothing_yet()
        return
    with st.container(key="toolbar"):
        which, terms = st.columns([3, 1], gap="medium")
    with which:
        run = choose_run(runs)
    take_back_a_try(run)
    text = choose_text()
    if not text:
        st.info("Type or upload a text, or take one of the starters.")
        return
    warn_of_another_model(run.directory)
    _show_result(run, _choose_l0(terms, decomposed(run.directory, text)))


def _choose_l0(place, result: Decomposition) -> Decomposition:
    """Fewer terms: a pursuit's prefix is the smaller decomposition, so that nothing is computed
    anew."""
    max_l0 = result.codes.l0
    if max_l0 < 2:
        return result
    keep("l0")
    follow_url("l0", list(range(max_l0, 0, -1)))
    l0 = place.slider(
        "L0",
        1,
        max_l0,
        key="l0",
        help=f"{GLOSSARY['L0']} The first ones are what a pursuit with that L0 gives.",
    )
    write_url("l0", None if l0 == max_l0 else l0)
    return result.prefix(l0)


def _show_result(run, result: Decomposition) -> None:
    total = float(
        np.square(result.residuals[:, -1]).sum() / np.square(result.residuals[:, 0]).sum()
    )
    tokens, share, median, terms, used = st.columns(5)
    tokens.metric("tokens decomposed", f"{len(result.positions):,}")
    share.metric(
        "left unexplained",
        f"{total:.1%}",
        help="Σ‖x − x̂‖² / Σ‖x − o‖² over the decomposed tokens, where o is what is subtracted "
        "first (the mean activation, or nothing)",
    )
    median.metric(
        "on half of the tokens, at most",
        f"{np.median(result.shares_left):.1%}",
        help="The same of each token, and of these the median: half of the tokens have less. A "
        "token with a massive activation can be most of what there is to explain.",
    )
    counts = result.counts
    terms.metric(
        "terms per token",
        f"{counts.mean():.1f}",
        help=f"From {counts.min()} to {counts.max()}.",
    )
    is_term = result.codes.coefficients != 0
    used.metric("different latents", f"{result.codes.latents[is_term].unique().numel():,}")
    if result.is_cut:
        st.warning(
            f"The text is longer than the {len(result.spans()):,} tokens that are decomposed at "
            "once; the rest of it is left out. Decompose it in parts."
        )
    table, latents = tables_of(run.directory, result)
    view = choose_view(_VIEWS)
    text, beside = _places(view)
    with text:
        locked = show_text(run, result, table, latents)
    row = _row_of(result, locked)
    scope = edits_scope(run, result, edited_row(row))
    follow_edits(scope, int(run.atoms), is_shown=view == "what-if")
    with beside:
        asked = _show_beside(view, run, result, latents, row)
    if isinstance(asked, Asked):
        show_what_if(run, result, asked, latents, row)
    elif isinstance(asked, Steering):
        show_steered(run, result, asked)
    elif view == "two":
        show_two(run, result, locked)
    _show_files(run, result, table)


def _places(view: str) -> tuple:
    """Of the text, and of what is said of it: beside it, and in sight while the text scrolls."""
    if view not in ("terms", "what-if", "steer"):
        return st.container(), st.container()
    with st.container(key="sides"):
        return st.columns([1, 1], gap="medium")


def _show_beside(
    view: str, run, result: Decomposition, latents: pd.DataFrame, row: int | None
) -> Asked | Steering | None:
    """What stands beside the text, or begins below it; returns what “What if” or “Steer” asks, the
    answer to which stands below both. row: of the locked token in the result, None where none is
    decomposed."""
    if view == "what-if":
        return show_edits(run, result, latents, row)
    if view == "steer":
        return ask_for_steering(run, result, latents, row)
    if view == "prompts":
        show_prompts(run)
    elif view == "terms" and row is None:
        show_summary(run, latents)
    elif view == "terms":
        show_token(run, result, row)
    return None


def _row_of(result: Decomposition, locked: int | None) -> int | None:
    rows = np.flatnonzero(result.positions == locked) if locked is not None else []
    return int(rows[0]) if len(rows) else None


def _show_files(run, result: Decomposition, table: pd.DataFrame) -> None:
    files, reproduced = st.columns(2)
    with files.popover("Export all terms", width="stretch"):
        about = {"run": run.run_id, "model": run.model, "layer": int(run.layer)}
        about |= {"l0": result.codes.l0, "prompt": result.text}
        stem = f"decomposition-{run.run_id}"
        offer_downloads(lambda: with_labels(run, table), about, stem, "terms_file")
        ask_for_format()
    with reproduced.popover("Reproduce", width="stretch"):
        show_lines(decomposition_lines(run.directory, result.text, result.codes.l0))


with page("Decompose"):
    try:
        show()
    except InputError as error:
        st.warning(literal(str(error)))
