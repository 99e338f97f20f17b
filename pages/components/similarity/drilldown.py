"""The tokens behind one cell: shared and exclusive sources, their words, and their latents."""

import dataclasses

import pandas as pd
import streamlit as st

from itda_core.glossary import GLOSSARY
from itda_core.similarity.dictionaries import Comparison, word_counts
from pages.components.downloads import offer_downloads
from pages.components.explorer import explorer
from pages.components.frame import errors_as_sentences
from pages.components.latents.card import show_card
from pages.components.latents.elsewhere import label_text, labels_of_side
from pages.components.run_names import run_label
from pages.components.similarity.choice import Choice, Item
from pages.components.similarity.matrix import about
from pages.components.similarity.overlaps import compare_sides, find_latent, source_key
from pages.components.text import literal, snippet, token_label

_MAX_ROWS = 500
_MOST_USES = 6
"""Of each latent: two of them stand side by side below a list"""

_ORDERED = {
    "shared": "Rare words first: of frequent ones chance shares many. Choose a row for its latents "
    "in both.",
    "only_a": "One source of each word in turn: first of the words that only this side has, then "
    "of those that it has more of, by log-odds. Choose a row for its latent.",
}
_ORDERED["only_b"] = _ORDERED["only_a"]


@st.fragment
def show_drilldown(choice: Choice, row: Item, column: Item) -> None:
    """Lists of the sources of one cell; a row of a list opens its latents."""
    with errors_as_sentences():
        row, column = _with_common_layers(row, column)
        comparison = compare_sides(row.side, column.side, choice.key, choice.seeds)
        _show_tabs(choice, row, column, comparison)
        with st.popover("Download the three lists"):
            st.markdown("**All sources**, with the list that each is in")
            _offer_lists(choice, row, column, comparison)


def _show_tabs(choice: Choice, row: Item, column: Item, comparison: Comparison) -> None:
    """Only the open tab is worked out: each has a card or two."""
    lists = {
        f"Shared ({len(comparison.shared):,})": ("shared", comparison.shared),
        f"Only {row.name} ({len(comparison.only_a):,})": ("only_a", comparison.only_a),
        f"Only {column.name} ({len(comparison.only_b):,})": ("only_b", comparison.only_b),
    }
    labels = [*(literal(label) for label in lists), "Words that differ"]
    *tabs, words = st.tabs(labels, on_change="rerun", key=f"tab_{row.value}_{column.value}")
    for tab, (name, table) in zip(tabs, lists.values(), strict=True):
        if tab.open:
            with tab:
                _show_list(choice, row, column, name, table)
    if words.open:
        with words:
            _show_words(row, column, comparison)


def _with_common_layers(row: Item, column: Item) -> tuple[Item, Item]:
    """Both with just the layers that are compared."""
    common = {layer for layer, _ in row.side} & {layer for layer, _ in column.side}
    both = (
        dataclasses.replace(item, side=tuple(one for one in item.side if one[0] in common))
        for item in (row, column)
    )
    return tuple(both)


def _show_list(choice: Choice, row: Item, column: Item, name: str, table: pd.DataFrame) -> None:
    if table.empty:
        st.caption("No source token.")
        return
    shown = table.head(_MAX_ROWS)
    listed, cards = st.columns([1, 1], gap="medium") if name != "shared" else (st, st)
    with listed.container():
        st.caption(_ORDERED[name])
        of_side = column if name == "only_b" else row
        picked = _source_table(_with_labels(of_side, shown), name)
        if len(table) > _MAX_ROWS:
            st.caption(f"The first {_MAX_ROWS:,} of {len(table):,}; the download has all of them.")
    source = shown.iloc[min(picked, len(shown) - 1)]
    with cards.container():
        sides = {"shared": (row, column), "only_a": (row,), "only_b": (column,)}[name]
        prompt_id, position = source["prompt_id"], int(source["position"])
        second = source_key(sides[0].side, prompt_id, position, choice.key)
        for number, place in enumerate(st.columns(len(sides), gap="medium")):
            with place:
                _show_latent(sides[number], source, second, choice.key, f"{name}_{number}")


def _show_words(row: Item, column: Item, comparison: Comparison) -> None:
    """The words of what only one side has, by how much more often one side has them."""
    counts = word_counts(comparison.only_a, comparison.only_b)
    if counts.empty:
        st.caption("Neither has a source that the other lacks.")
        return
    st.caption(
        "Words of the sources that only one side has. The log-odds are above 0 where "
        f"{literal(row.name)} has more of a word and below 0 where {literal(column.name)} has; "
        "z says how sure that is: below 2 either way it may be chance."
    )
    st.dataframe(
        counts.head(_MAX_ROWS).assign(word=counts["word"].map(token_label)),
        column_config={
            "word": "word",
            "only_a": st.column_config.NumberColumn(f"only {row.name}", format="%d"),
            "only_b": st.column_config.NumberColumn(f"only {column.name}", format="%d"),
            "log_odds": st.column_config.NumberColumn(
                "log-odds", format="%+.2f", help=GLOSSARY["log-odds"]
            ),
            "z": st.column_config.NumberColumn("z", format="%+.2f"),
        },
        placeholder="–",
        hide_index=True,
        height=380,
        key="words",
    )


def _with_labels(item: Item, sources: pd.DataFrame) -> pd.DataFrame:
    """Sources with the label that one side has of them: label, label_from and text, "" without."""
    labels = labels_of_side([directory for _, directory in item.side])
    columns = ["label", "label_from", "text"]
    found = sources.merge(labels, on=["prompt_id", "position"], how="left")
    return found.fillna(dict.fromkeys(columns, "")).set_index(sources.index)


def _source_table(shown: pd.DataFrame, name: str) -> int:
    """The list; returns the number of the chosen row, at first 0. shown: of `_with_labels`."""
    texts = explorer().store.runs.prompt_texts(shown["prompt_id"].unique().tolist())
    contexts = [
        snippet(texts.get(source.prompt_id, ""), source.start, source.end, 60)
        for source in shown.itertuples()
    ]
    event = st.dataframe(
        shown.assign(context=contexts, token=shown["token"].map(token_label)),
        column_order=[
            "token",
            *["text"] * bool(shown["text"].any()),
            "context",
            "latent",
            "latent_b",
            "prompt_id",
            "position",
        ],
        column_config={
            "token": st.column_config.TextColumn("source token", width=110),
            "text": st.column_config.TextColumn("label", width=140),
            "context": st.column_config.TextColumn("source in context", width=620),
            "latent": st.column_config.NumberColumn("latent", format="%d", width=70),
            "latent_b": st.column_config.NumberColumn("latent in B", format="%d", width=80),
            "prompt_id": st.column_config.TextColumn("prompt", width=90),
            "position": st.column_config.NumberColumn("position", format="%d", width=70),
        },
        placeholder="–",
        hide_index=True,
        height=320,
        on_select="rerun",
        selection_mode="single-row",
        key=f"sources_{name}",
    )
    picked = event["selection"]["rows"]
    return picked[0] if picked else 0


def _show_latent(item: Item, source: pd.Series, second: int, key: str, name: str) -> None:
    """The card of the latent that a source is in one side."""
    place = find_latent(item.side, source["prompt_id"], second, key)
    if place is None:
        st.caption("This source is no longer in any dictionary of this side.")
        return
    directory, number = place
    store = explorer().store
    run = next(run for run in store.runs.table().itertuples() if run.directory == directory)
    table = store.latents.table(run.run_id, [number])
    if table.empty:
        return
    latent = table.iloc[0]
    with st.container(border=True):
        st.markdown(f"**{literal(item.name)}** · latent {number}")
        st.caption(literal(run_label(run)))
        if label := label_text(run, latent):
            st.markdown(label)
        st.page_link(
            "pages/latents.py",
            label="Open it on the Latents page",
            query_params={"run": run.run_id, "latent": str(number)},
        )
        show_card(run, latent, f"{name}_", _MOST_USES)


def _offer_lists(choice: Choice, row: Item, column: Item, comparison: Comparison) -> None:
    table = pd.concat(
        [
            _with_labels(side, one).drop(columns="text").assign(list=name)
            for name, one, side in (
                ("shared", comparison.shared, row),
                ("only_a", comparison.only_a, row),
                ("only_b", comparison.only_b, column),
            )
        ],
        ignore_index=True,
    )
    settings = {
        **about(choice),
        "a": row.name,
        "b": column.name,
        "a_runs": " ".join(row.run_ids),
        "b_runs": " ".join(column.run_ids),
        "jaccard": comparison.jaccard,
    }
    offer_downloads(table, settings, "similarity-sources", "lists")
