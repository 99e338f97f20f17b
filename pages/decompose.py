"""Decompose: a prompt's tokens as sums of latents, in the order of pursuit."""

import random

import numpy as np
import pandas as pd
import streamlit as st

from itda_core.decomposition import Decomposition, decompose
from itda_core.errors import InputError
from pages.components.charts import pursuit_waterfall
from pages.components.session import (
    choose_run,
    explorer,
    loaded_dictionary,
    loaded_model,
    loaded_run,
    nothing_yet,
    origin_word,
    page,
)
from pages.components.text import literal, snippet, token_label, visible
from pages.components.token_strip import choose_token, token_row
from pages.components.upload import upload_texts

STARTERS = {
    "Treaty": "The Senate will ratify the treaty with Spain, and commerce will flow again.",
    "Speech": "My fellow Americans, tonight the state of our Union is strong.",
    "Code": "def fibonacci(n):\n    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)",
    "Everyday": "The cat sat on the mat while the rain fell on the roof.",
}
_URL_CHARACTERS = 1_000
_FITTED = (
    "Terms in the order in which the pursuit took them. The coefficients are the final ones, "
    "refitted together after the last term; “left” is what is left when only so many terms are "
    "fitted."
)
_ABOUT_TERMS = {
    "orthogonal": _FITTED,
    "refit": _FITTED,
    "matching": "Terms in the order in which the pursuit took them. Each coefficient stays as it "
    "was taken, and an atom can be taken again.",
    "sae": "The latents that the autoencoder's encoder activates, strongest first. They are not "
    "fitted to this token, so a term can also add to what is left.",
}


def show() -> None:
    st.title("Decompose")
    runs = explorer().store.runs()
    if runs.empty:
        nothing_yet()
        return
    run = choose_run(runs)
    _take_text_from_url()
    text = _ask_for_text()
    if not text.strip():
        st.info("Type or upload a text, or take one of the starters.")
        return
    if len(text) <= _URL_CHARACTERS:
        st.query_params["text"] = text
    else:
        st.query_params.pop("text", None)
    digest = loaded_run(run.directory).about.get("model_digest")
    if digest != loaded_model(loaded_run(run.directory).config.model).digest:
        st.warning("The model has changed since this dictionary was trained: train it anew.")
    result = _decomposed(run.directory, text)
    _show_result(run, result)


def _take_text_from_url() -> None:
    """A link gives the text itself, or a prompt of the corpus by its id."""
    prompt_id, text = st.query_params.get("prompt"), st.query_params.get("text")
    if prompt_id:
        del st.query_params["prompt"]
        found = explorer().store.prompt_text(prompt_id)
        if found is None:
            st.warning(f"The prompt {literal(prompt_id)} of this link is not in the store.")
        else:
            st.session_state["text"] = found
    elif text and "text" not in st.session_state:
        st.session_state["text"] = text
    st.session_state.setdefault("text", STARTERS["Treaty"])


def _ask_for_text() -> str:
    typed, uploaded = st.tabs(["Type or paste", "Upload a file"])
    with typed:
        st.text_area(
            "Text", key="text", height=110, help="Press Ctrl+Enter to decompose what you typed."
        )
        columns = st.columns([1, 1, 1, 1, 1])
        for column, (name, starter) in zip(columns, STARTERS.items(), strict=False):
            column.button(
                name,
                on_click=_set_text,
                args=[starter],
                help=literal(starter),
                width="stretch",
            )
        columns[4].button(
            "Random prompt", on_click=_set_random_text, width="stretch", help="One of the corpus"
        )
    with uploaded:
        upload = upload_texts("File with one or more texts", key="upload")
        if upload:
            texts = upload.texts
            number = st.selectbox(
                f"Text ({len(texts):,} in the file)",
                range(len(texts)),
                format_func=lambda n: f"{n + 1}: {visible(texts[n][:100])}",
                key="upload_text",
            )
            st.button("Decompose this text", on_click=_set_text, args=[texts[number]])
    return st.session_state["text"]


def _set_text(text: str) -> None:
    st.session_state["text"] = text


def _set_random_text() -> None:
    prompt_ids = explorer().store.prompt_ids()
    _set_text(explorer().store.prompt_text(random.choice(prompt_ids)) or STARTERS["Treaty"])


@st.cache_data(max_entries=32, show_spinner="Running the model …")
def _decomposed(directory: str, text: str) -> Decomposition:
    config = loaded_run(directory).config
    return decompose(loaded_dictionary(directory), loaded_model(config.model), text, config)


def _show_result(run, result: Decomposition) -> None:
    total = float(
        np.square(result.residuals[:, -1]).sum() / np.square(result.residuals[:, 0]).sum()
    )
    tokens, share, terms, used = st.columns(4)
    tokens.metric("tokens decomposed", f"{len(result.positions):,}")
    share.metric(
        "left unexplained",
        f"{total:.1%}",
        help="Σ‖x − x̂‖² / Σ‖x − o‖² over the decomposed tokens, where o is what is subtracted "
        "first (the mean activation, or nothing)",
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
        "The stronger the colour, the more of the token is left unexplained. Hover for its value; "
        "click a token for its terms, click it again to let it go. Pale tokens are not decomposed: "
        "the first position of a text carries no content."
    )
    if result.is_cut:
        st.warning(
            f"The text is longer than the {len(result.spans()):,} tokens that are decomposed at "
            "once; the rest of it is pale. Decompose it in parts."
        )
    locked = choose_token(_strip_row(result), key="strip")
    row, table = _row_of(result, locked), result.table()
    if row is None:
        _show_summary(run, result, table)
    else:
        _show_token(run, result, row)
    _show_downloads(run, table)


def _strip_row(result: Decomposition) -> dict:
    spans = result.spans()
    left = np.zeros(len(spans))
    left[result.positions] = result.shares_left
    kept = set(result.positions.tolist())
    terms = dict(zip(result.positions.tolist(), result.counts.tolist(), strict=True))
    hovers = [
        f"{result.token_text(position)!r}, token {position}\n"
        + (
            f"{left[position]:.1%} left unexplained by {_terms_text(terms[position])}"
            if position in kept
            else "not decomposed"
        )
        for position in range(len(spans))
    ]
    dimmed = [position for position in range(len(spans)) if position not in kept]
    names = ["" if end > start else result.token_text(n) for n, (start, end) in enumerate(spans)]
    return token_row(
        result.text, spans, -np.sqrt(left), hovers, dimmed=dimmed, breaks=True, names=names
    )


def _terms_text(count: int) -> str:
    return "1 term" if count == 1 else f"{count} terms"


def _row_of(result: Decomposition, locked: int | None) -> int | None:
    rows = np.flatnonzero(result.positions == locked) if locked is not None else []
    return int(rows[0]) if len(rows) else None


def _show_token(run, result: Decomposition, row: int) -> None:
    position = int(result.positions[row])
    terms = _with_context(result.terms(row))
    terms["percent_left"] = 100 * terms["share_left"]
    norm, left = result.residuals[row, 0], result.shares_left[row]
    without = {"mean": " without the mean", "zero": ""}.get(run.offset, " without the offset")
    st.markdown(
        f"##### Token {position}: {literal(repr(result.token_text(position)))} · norm {norm:.1f}"
        f"{without}, {left:.1%} left after {_terms_text(len(terms))}"
    )
    st.caption(_ABOUT_TERMS["sae" if run.kind == "sae" else run.pursuit])
    table, chart = st.columns([3, 2], gap="large")
    with table:
        _show_terms(run, terms)
    with chart:
        st.plotly_chart(pursuit_waterfall(terms), key="waterfall")
        st.caption(
            "Each bar is what one more term explains, from the whole norm down to the final "
            "error; blue for positive coefficients, orange for negative ones."
        )


def _show_terms(run, terms: pd.DataFrame) -> None:
    word = origin_word(run)
    event = st.dataframe(
        terms,
        column_order=["step", "latent", "coefficient", "percent_left", "source_token", "context"],
        column_config={
            "step": st.column_config.NumberColumn("step", width=45),
            "latent": st.column_config.NumberColumn("latent", format="%d", width=60),
            "coefficient": st.column_config.NumberColumn("coefficient", format="%+.3f", width=90),
            "source_token": st.column_config.TextColumn(word, width=95),
            "context": f"{word} in context",
            "percent_left": st.column_config.NumberColumn("left", format="%.1f %%", width=60),
        },
        hide_index=True,
        height=420,
        on_select="rerun",
        selection_mode="single-row",
        key="terms",
    )
    rows = event["selection"]["rows"]
    if rows and rows[0] < len(terms):
        latent = int(terms.iloc[rows[0]]["latent"])
        st.page_link(
            "pages/latents.py",
            label=f"Open latent {latent}",
            query_params={"run": run.run_id, "latent": str(latent)},
        )
    else:
        st.caption("Choose a row to open its latent.")


def _with_context(terms: pd.DataFrame) -> pd.DataFrame:
    texts = explorer().store.prompt_texts(terms["source_prompt_id"].unique().tolist())
    contexts = [
        snippet(texts.get(term.source_prompt_id, ""), term.source_start, term.source_end, 28)
        for term in terms.itertuples()
    ]
    return terms.assign(
        context=contexts,
        source_token=terms["source_token"].map(token_label),
    )


def _show_summary(run, result: Decomposition, table: pd.DataFrame) -> None:
    """The latents of the whole text, while no token is locked."""
    if table.empty:
        return
    st.markdown("##### Latents of this text")
    squares = dict(zip(result.positions, np.square(result.residuals[:, 0]), strict=True))
    before = table.groupby("position")["share_left"].shift(fill_value=1.0)
    taken = (before - table["share_left"]) * table["position"].map(squares)
    summary = (
        table.assign(size=table["coefficient"].abs(), square=taken)
        .groupby("latent")
        .agg(
            tokens=("position", "nunique"),
            strongest=("size", "max"),
            square=("square", "sum"),
            source_token=("source_token", "first"),
            source_prompt_id=("source_prompt_id", "first"),
            source_start=("source_start", "first"),
            source_end=("source_end", "first"),
        )
        .sort_values("square", ascending=False)
        .head(50)
        .reset_index()
    )
    total = float(np.square(result.residuals[:, 0]).sum())
    summary["explains"] = 100 * summary["square"] / total
    st.dataframe(
        _with_context(summary),
        column_order=["latent", "source_token", "context", "tokens", "strongest", "explains"],
        column_config={
            "latent": st.column_config.NumberColumn("latent", format="%d"),
            "source_token": origin_word(run),
            "context": f"{origin_word(run)} in context",
            "tokens": "tokens that use it",
            "strongest": st.column_config.NumberColumn("strongest", format="%.2f"),
            "explains": st.column_config.NumberColumn(
                "explains",
                format="%.1f %%",
                help="Share of what there is to explain, Σ‖x − o‖² over the text, that its steps "
                "took off when the pursuit took them.",
            ),
        },
        hide_index=True,
        height=400,
    )


def _show_downloads(run, table: pd.DataFrame) -> None:
    table = table.assign(run=run.run_id)[["run", *table.columns]]
    st.download_button(
        "Download all terms as CSV",
        table.to_csv(index=False).encode(),
        file_name=f"decomposition-{run.run_id}.csv",
        mime="text/csv",
    )


with page("Decompose"):
    try:
        show()
    except InputError as error:
        st.warning(literal(str(error)))
