"""The tokens behind one cell: shared and exclusive sources, their words, and their latents."""

import dataclasses
from collections.abc import Hashable
from dataclasses import dataclass

import pandas as pd
import streamlit as st

from itda_core.glossary import GLOSSARY
from itda_core.similarity.dictionaries import Comparison, word_counts
from pages.components.downloads import offer_downloads
from pages.components.explorer import explorer
from pages.components.frame import errors_as_sentences
from pages.components.latent_rows.rows import Column, add_latents, show_latent_rows
from pages.components.latents.card import show_card
from pages.components.latents.elsewhere import label_text, labels_of_side
from pages.components.run_names import run_label
from pages.components.similarity.choice import Choice, Item
from pages.components.similarity.matrix import about
from pages.components.similarity.overlaps import compare_sides
from pages.components.text import literal, snippet, token_label

_MOST_WORDS = 500
_ROWS = 25
_HEIGHT = 420
_MOST_USES = 6
"""Of each latent: two of them stand side by side below a list"""

_ORDERED = {
    "shared": "Rare words first: of frequent ones chance shares many. Click a row for its latents "
    "in both.",
    "only_a": "One source of each word in turn: first of the words that only this side has, then "
    "of those that it has more of, by log-odds. Click a row for its latent.",
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
    """A page of the list, and the latents of its open row."""
    if table.empty:
        st.caption("No source token.")
        return
    sides = {"shared": (row, column), "only_a": (row,), "only_b": (column,)}[name]
    listed = _Listed(sides, name, (row.side, column.side, choice.key, choice.seeds), len(table))
    beside = st.columns([1, 1], gap="medium") if name != "shared" else (st, st)
    with beside[0].container():
        st.caption(_ORDERED[name])
        _show_page(listed, table)
    source = table.iloc[listed.place]
    with beside[1].container():
        for number, place in enumerate(st.columns(len(sides), gap="medium")):
            with place:
                _show_latent(listed, number, source)


@dataclass(frozen=True)
class _Listed:
    """A list of sources, and which of them is open."""

    sides: tuple[Item, ...]
    """whose latents are named in it"""
    name: str
    of: Hashable
    """what is compared: in another list nothing is chosen yet"""
    total: int

    @property
    def place(self) -> int:
        """Of the open source in the whole list."""
        of, place = st.session_state.get(f"_source_{self.name}", (self.of, 0))
        return min(place, self.total - 1) if of == self.of else 0

    def choose(self, place: int) -> None:
        """For a callback."""
        st.session_state[f"_source_{self.name}"] = self.of, place

    def run_of(self, number: int, source: pd.Series):
        """The row of Store.runs.table() in which a side has a source; number: of the side."""
        layer = source["layer_b" if number else "layer"]
        directory = dict(self.sides[number].side)[layer]
        runs = explorer().store.known(explorer().store.runs.table)
        return next(runs[runs["directory"] == directory].itertuples(), None)


def _show_page(listed: _Listed, table: pd.DataFrame) -> None:
    first = listed.place // _ROWS * _ROWS
    pages = -(-listed.total // _ROWS)
    sources = "1 source" if listed.total == 1 else f"{listed.total:,} sources"
    st.caption(f"{sources} · page {first // _ROWS + 1:,} of {pages:,}")
    _show_sources(listed, table.iloc[first : first + _ROWS])
    before, after = st.columns(2)
    for button, label, target in (
        (before, "Previous page", first - _ROWS),
        (after, "Next page", first + _ROWS),
    ):
        button.button(
            label,
            on_click=listed.choose,
            args=[target],
            disabled=not 0 <= target < listed.total,
            width="stretch",
            key=f"{listed.name}_{label}",
        )


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
        counts.head(_MOST_WORDS).assign(word=counts["word"].map(token_label)),
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


def _show_sources(listed: _Listed, sources: pd.DataFrame) -> None:
    """Each with the cards of its latents; a click on a row opens them below or beside. sources:
    rows of the whole list, by their places in it."""
    rows = _with_labels(listed.sides[0], sources)
    texts = explorer().store.runs.prompt_texts(rows["prompt_id"].unique().tolist())
    contexts = [
        snippet(texts.get(source.prompt_id, ""), source.start, source.end, 60, before=30)
        for source in rows.itertuples()
    ]
    keys, cards, places = _named_latents(listed, sources)
    rows = rows.assign(context=contexts, token=rows["token"].map(token_label), **keys)
    layers = [side.side for side in listed.sides if len(side.side) > 1]
    columns = [
        Column("token", "source token", "latent", width=130),
        *[Column("text", "label", width=180)] * bool(rows["text"].any()),
        Column("context", "source in context", "quote"),
        *[Column("layer", "layer", "number")] * bool(layers),
        Column("latent", "latent", "latent"),
    ]
    if len(listed.sides) == 2:
        columns += [Column("layer_b", "layer of B", "number")] * bool(layers)
        columns += [Column("latent_b", "latent in B", "latent", key="key_b")]
    columns += [Column("prompt_id", "prompt"), Column("position", "position", "number")]
    place_of_key = {key: place for of in keys.values() for place, key in of.items()}
    show_latent_rows(
        rows, columns, cards, places, f"sources_{listed.name}", _HEIGHT,
        chosen=keys["key"].get(listed.place, ""),
        choose=lambda key: listed.choose(int(place_of_key[key])),
    )  # fmt: skip


def _named_latents(listed: _Listed, sources: pd.DataFrame) -> tuple[dict[str, pd.Series], ...]:
    """The keys of the rows for each side (key, and key_b with a second one), and by key the cards
    of latents and the places of their pages."""
    keys, cards, places = {}, {}, {}
    for number in range(len(listed.sides)):
        end = "_b" if number else ""
        of_side = pd.Series("", index=sources.index, dtype=object)
        for _, part in sources.groupby(f"layer{end}"):
            run = listed.run_of(number, part.iloc[0])
            if run is None:
                continue
            latents = part[f"latent{end}"]
            of_side[latents.index] = named = [f"{number}:{place}" for place in latents.index]
            add_latents(run, dict(zip(named, latents, strict=True)), cards, places)
        keys[f"key{end}"] = of_side
    return keys, cards, places


def _show_latent(listed: _Listed, number: int, source: pd.Series) -> None:
    """The card of the latent that a source is in one side. number: of the side."""
    item, run = listed.sides[number], listed.run_of(number, source)
    latent = int(source["latent_b" if number else "latent"])
    table = explorer().store.latents.table(run.run_id, [latent]) if run else pd.DataFrame()
    if table.empty:
        st.caption("This source is no longer in any dictionary of this side.")
        return
    with st.container(border=True):
        st.markdown(f"**{literal(item.name)}** · latent {latent}")
        st.caption(literal(run_label(run)))
        if label := label_text(run, table.iloc[0]):
            st.markdown(label)
        st.page_link(
            "pages/latents.py",
            label="Open it on the Latents page",
            query_params={"run": run.run_id, "latent": str(latent)},
        )
        show_card(run, table.iloc[0], f"{listed.name}_{number}_", _MOST_USES)


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
