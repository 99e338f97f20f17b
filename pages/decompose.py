"""Decompose: a prompt's tokens as sums of latents, in the order of pursuit."""

import numpy as np
import pandas as pd
import streamlit as st

from itda_core.analysis.decomposition import Decomposition
from itda_core.errors import InputError
from itda_core.glossary import GLOSSARY
from pages.components.charts.camera import ask_for_format
from pages.components.decompose.decomposed import decomposed, warn_of_another_model
from pages.components.decompose.edits_url import follow_edits
from pages.components.decompose.prompt import choose_text
from pages.components.decompose.prompts_table import show_prompts
from pages.components.decompose.steering import show_steering
from pages.components.decompose.terms import (
    latents_of,
    lights_of,
    show_summary,
    show_token,
    terms_text,
    with_labels,
)
from pages.components.decompose.two import show_two
from pages.components.decompose.what_if import edits_scope, show_what_if
from pages.components.downloads import offer_downloads
from pages.components.explorer import explorer
from pages.components.frame import nothing_yet, page
from pages.components.reproduce import decomposition_lines, show_lines
from pages.components.run_names import choose_run
from pages.components.text import literal, quoted
from pages.components.token_strip.strip import Light, choose_token, show_rows, token_row
from pages.components.url import choose_view, follow_url, keep, number_below, write_url

_LEGEND = (0.0, 0.02, 0.1, 0.3, 1.0)  # shares left, of which the colours are shown
_VIEWS = {"terms": "Terms", "what-if": "What if", "steer": "Steer", "two": "Two dictionaries",
          "prompts": "Prompts"}  # fmt: skip


def show() -> None:
    st.title("Decompose")
    store = explorer().store
    runs = store.known(store.runs.table)
    if runs.empty:
        nothing_yet()
        return
    run = choose_run(runs)
    text = choose_text()
    if not text:
        st.info("Type or upload a text, or take one of the starters.")
        return
    warn_of_another_model(run.directory)
    _show_result(run, _choose_l0(decomposed(run.directory, text)))


def _choose_l0(result: Decomposition) -> Decomposition:
    """Fewer terms: a pursuit's prefix is the smaller decomposition, so that nothing is computed
    anew."""
    max_l0 = result.codes.l0
    if max_l0 < 2:
        return result
    keep("l0")
    follow_url("l0", list(range(max_l0, 0, -1)))
    l0 = st.slider(
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
        "of the median token",
        f"{np.median(result.shares_left):.1%}",
        help="The same of each token, and of these the median. A token with a massive activation "
        "can be most of what there is to explain.",
    )
    counts = result.counts
    terms.metric(
        "terms per token",
        f"{counts.mean():.1f}",
        help=f"From {counts.min()} to {counts.max()}.",
    )
    is_term = result.codes.coefficients != 0
    used.metric("different latents", f"{result.codes.latents[is_term].unique().numel():,}")
    st.caption(
        "The colour of a token is the share of its squared norm that is left unexplained. Hover "
        "for its value; click a token for its terms, click it again or press Esc to let it go. "
        "Pale tokens are not decomposed: the first position of a text carries no content. The "
        "latents below the text light up the tokens that use them."
    )
    if result.is_cut:
        st.warning(
            f"The text is longer than the {len(result.spans()):,} tokens that are decomposed at "
            "once; the rest of it is pale. Decompose it in parts."
        )
    table = result.table()
    latents = latents_of(result, table)
    _show_legend()
    locked = _choose_token(result, lights_of(run, table, latents))
    row = _row_of(result, locked)
    view = choose_view(_VIEWS)
    follow_edits(edits_scope(run, result, row), int(run.atoms), is_shown=view == "what-if")
    if view == "what-if":
        show_what_if(run, result, latents, row)
    elif view == "steer":
        show_steering(run, result, latents, row)
    elif view == "two":
        show_two(run, result, locked)
    elif view == "prompts":
        show_prompts(run)
    elif row is None:
        show_summary(run, result.text, latents)
    else:
        show_token(run, result, row)
    _show_files(run, result, table)


def _choose_token(result: Decomposition, lights: list[Light]) -> int | None:
    """The locked token, which follows the link. A lock belongs to its text, and outlasts a look at
    another page."""
    key = f"strip_{hash(result.text)}"
    wanted = st.query_params.get("token", "")
    if wanted and wanted != st.session_state.get("_written_token"):
        number = number_below(wanted, len(result.spans()))
        if number is not None:
            st.session_state[key] = {"locked": number, "lit": None}
        else:
            st.warning(f"The link asks for token {literal(wanted)}, which this text does not have.")
    elif key not in st.session_state and key in st.session_state.get("_locks", {}):
        st.session_state[key] = st.session_state["_locks"][key]
    locked = choose_token(_strip_row(result), lights, key)
    st.session_state["_locks"] = {key: dict(st.session_state[key])}
    write_url("token", locked)
    return locked


def _strip_row(result: Decomposition) -> dict:
    spans = result.spans()
    left = np.zeros(len(spans))
    left[result.positions] = result.shares_left
    decomposed = set(result.positions.tolist())
    terms = dict(zip(result.positions.tolist(), result.counts.tolist(), strict=True))
    hovers = [
        f"{quoted(result.token_text(position))}, token {position}\n"
        + (
            f"{left[position]:.1%} left unexplained by {terms_text(terms[position])}"
            if position in decomposed
            else "not decomposed"
        )
        for position in range(len(spans))
    ]
    dimmed = [position for position in range(len(spans)) if position not in decomposed]
    names = ["" if end > start else result.token_text(n) for n, (start, end) in enumerate(spans)]
    return token_row(
        result.text, spans, _colours(left), hovers, dimmed=dimmed, breaks=True, names=names
    )


def _colours(shares_left: np.ndarray) -> np.ndarray:
    """The square root, by which small shares can be told apart."""
    return -np.sqrt(shares_left)


def _show_legend() -> None:
    labels = [f" {share:.0%} " for share in _LEGEND]
    ends = np.cumsum([len(label) for label in labels]).tolist()
    spans = list(zip([0, *ends], ends, strict=False))
    row = token_row("".join(labels), spans, _colours(np.array(_LEGEND)), chip="left unexplained")
    show_rows([row], key="legend")


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
