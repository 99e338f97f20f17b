"""The terms of one token in the order of pursuit, and the latents of a whole text."""

import numpy as np
import pandas as pd
import streamlit as st

from itda_core.analysis.decomposition import Decomposition
from itda_core.evaluation.strong_uses import is_strong
from pages.components.charts.camera import picture_config
from pages.components.charts.latent import pursuit_waterfall
from pages.components.explorer import explorer
from pages.components.latent_rows.rows import Column, place_of, show_rows_of
from pages.components.latents.elsewhere import origins
from pages.components.latents.score import thresholds_of
from pages.components.run_names import words_of
from pages.components.text import literal, quoted, row_context, shown, token_label
from pages.components.token_strip.strip import Light, light

FROM = st.column_config.TextColumn(
    "from", width=90, help="The dictionary in which the same source was given the label"
)
"""The column `label_from` of `with_context`"""
_LABEL_COLUMNS = ("label", "label_from")
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
}
_EXPLAINS = (
    "Share of what there is to explain, Σ‖x − o‖² over the text, that its steps took off when the "
    "pursuit took them."
)
_LABEL_PIXELS = 96
"""Most rows have none, and would be blank there"""
_MAX_LATENTS = 50
_MAX_LIGHTS = 24


def show_token(run, result: Decomposition, row: int) -> None:
    position = int(result.positions[row])
    terms = with_context(run, result.terms(row))
    terms["percent_left"] = 100 * terms["share_left"]
    norm, left = result.residuals[row, 0], result.shares_left[row]
    without = {"mean": " without the mean", "zero": ""}.get(run.offset, " without the offset")
    st.markdown(
        f"##### Token {position}: {literal(repr(result.token_text(position)))} · norm {norm:.1f}"
        f"{without}, {left:.1%} left after {terms_text(len(terms))}"
    )
    terms = with_filler(run, terms)
    st.caption((words_of(run).terms or _ABOUT_TERMS[run.pursuit]) + _about_filler(terms))
    _show_terms(run, terms)
    config = picture_config(f"pursuit-{run.run_id}-token-{position}")
    st.plotly_chart(pursuit_waterfall(terms), config=config, key="waterfall")
    st.caption(
        "Each bar is what one more term explains, from the whole norm down to the final error; "
        "blue and + for positive coefficients, orange and − for negative ones."
    )


def with_filler(run, terms: pd.DataFrame) -> pd.DataFrame:
    """With `pale`, whether a term is filler: its latent's coefficient on the token lies below the
    threshold of strong uses. As they are where nothing tells that. terms: all of a token."""
    thresholds = thresholds_of(run, of_strong=True)
    if thresholds is None:
        return terms
    sums = terms.groupby("latent")["coefficient"].transform("sum")
    return terms.assign(pale=~is_strong(sums, thresholds[terms["latent"]]))


def _about_filler(terms: pd.DataFrame) -> str:
    """terms: of `with_filler`."""
    if "pale" not in terms:
        return ""
    n_strong = int((~terms["pale"]).sum())
    return f" Strong uses: {n_strong:,} of {terms_text(len(terms))}; the others, pale, are filler."


def _show_terms(run, terms: pd.DataFrame) -> None:
    """The terms of a token as rows that open their latents, which mark the coefficient in their
    histograms. terms: of `with_context`, with percent_left."""
    sums = terms.groupby("latent")["coefficient"].sum()
    places = {
        str(latent): place_of(run, int(latent), mark=f"{latent}:{size:+.4f}")
        for latent, size in sums.items()
    }
    number = {"kind": "number", "digits": 1}
    columns = [
        Column("step", "step", "number"),
        Column("source_token", words_of(run).source, "latent"),
        *label_columns(terms),
        Column("coefficient", "coefficient", "number", digits=3, sign=True),
        Column("percent_left", "left", **number, unit=" %", help="Unexplained after the step"),
        Column("latent", "no.", "number", is_name=True),
        Column("context", f"{words_of(run).source} in context", "quote"),
    ]
    show_rows_of(run, terms, columns, "terms", places=places)


def with_context(run, terms: pd.DataFrame) -> pd.DataFrame:
    """With each latent's source as it is printed, its text around it, its label, "" without, and
    where that is from, "" from here."""
    texts = explorer().store.runs.prompt_texts(terms["source_prompt_id"].unique().tolist())
    labels = _labels(run)
    contexts = [
        row_context(texts.get(term.source_prompt_id, ""), term.source_start, term.source_end)
        for term in terms.itertuples()
    ]
    return terms.assign(
        context=contexts,
        source_token=terms["source_token"].map(token_label),
        label=terms["latent"].map(labels["label"]).fillna("").map(shown),
        label_from=terms["latent"].map(labels["origin"]).fillna(""),
    )


def _labels(run) -> pd.DataFrame:
    """By latent, of those that have one: label and origin, where it is from in words."""
    store = explorer().store
    labels = store.known(store.labels.shown, run.run_id).set_index("latent")
    return labels.assign(origin=origins(run, labels["label_from"]))


def with_labels(run, terms: pd.DataFrame) -> pd.DataFrame:
    """With the label of each latent, "" without, and label_from, the run that it was given in, ""
    where it is this one; for a file."""
    labels = explorer().store.labels.shown(run.run_id).set_index("latent")
    columns = {name: terms["latent"].map(labels[name]).fillna("") for name in _LABEL_COLUMNS}
    return terms.assign(**columns)


def label_column(terms: pd.DataFrame) -> list[str]:
    """The columns of labels and of where they are from, where there are any. terms: of
    `with_context`."""
    return [name for name in _LABEL_COLUMNS if terms[name].any()]


def label_columns(terms: pd.DataFrame) -> list[Column]:
    """The same for a table of rows."""
    titles = {
        "label": Column("label", "label", width=_LABEL_PIXELS),
        "label_from": Column("label_from", "from"),
    }
    return [titles[name] for name in label_column(terms)]


def latents_of(result: Decomposition, table: pd.DataFrame) -> pd.DataFrame:
    """The latents of a text, what explains most first. table: result.table().

    latent, tokens (that use it), strongest (|coefficient|), explains (percent of Σ‖x − o‖² that its
    steps took off when the pursuit took them), and the source's columns.
    """
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
        .reset_index()
    )
    total = float(np.square(result.residuals[:, 0]).sum())
    summary["explains"] = 100 * summary["square"] / total
    return summary


def lights_of(
    run, table: pd.DataFrame, latents: pd.DataFrame, lit: int | None = None
) -> list[Light]:
    """The latents that explain most of a text, to light up the tokens that use them. table:
    Decomposition.table(); latents: of `latents_of`; lit: one of them that is there in any case."""
    is_shown = (np.arange(len(latents)) < _MAX_LIGHTS) | (latents["latent"] == lit)
    labels = _labels(run).to_dict("index")
    sums = table.groupby(["latent", "position"])["coefficient"].sum()
    return [
        light(
            row.latent,
            shown(labels.get(row.latent, {}).get("label", "")) or token_label(row.source_token),
            f"latent {row.latent}, {_origin(labels.get(row.latent))}"
            f"source {quoted(row.source_token)}, explains {row.explains:.1f} %",
            sums[row.latent].index.tolist(),
            sums[row.latent].tolist(),
        )
        for row in latents[is_shown].itertuples()
    ]


def _origin(label: dict | None) -> str:
    """What a hover says of where a label is from, where that is elsewhere. label: of `_labels`."""
    return f"labelled in {label['origin']}, " if label and label["origin"] else ""


def show_summary(run, latents: pd.DataFrame) -> None:
    """The latents of the whole text, while no token is locked. latents: of `latents_of`."""
    if latents.empty:
        return
    st.markdown("##### Latents of this text")
    summary = latents.head(_MAX_LATENTS)
    rows = with_context(run, summary)
    columns = [
        Column("source_token", words_of(run).source, "latent"),
        *label_columns(rows),
        Column("tokens", "tokens", "number", help="Tokens of the text that use it"),
        Column("strongest", "strongest", "number", digits=2, help="Largest |coefficient|"),
        Column("explains", "explains", "number", digits=1, unit=" %", help=_EXPLAINS),
        Column("latent", "no.", "number", is_name=True),
        Column("context", f"{words_of(run).source} in context", "quote"),
    ]
    show_rows_of(run, rows, columns, "latents_of_text")


def terms_text(count: int) -> str:
    return "1 term" if count == 1 else f"{count} terms"
