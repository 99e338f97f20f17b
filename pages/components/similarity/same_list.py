"""The latents of two dictionaries by how alike they are: charts, the list, and the chosen one."""

from dataclasses import dataclass

import pandas as pd
import streamlit as st

from itda_core.glossary import GLOSSARY
from itda_core.runs.labels import LONGEST_LABEL
from pages.components.charts.camera import picture_config
from pages.components.charts.same_latents import correlation_histogram, density_scatter
from pages.components.explorer import explorer
from pages.components.latent_rows.rows import Column, add_latents, key_of, show_latent_rows
from pages.components.similarity.same_choice import RunPair
from pages.components.text import literal, row_context, shown, token_label
from pages.components.url import choose, follow_url_text, number_below, write_url

_ROWS = 12
_HEIGHT = 460
_DENSITY = f"{GLOSSARY['density']} Here of the tokens that were compared."
_STRONG = f"Of the tokens that were compared. {GLOSSARY['strong use']}"
_RANK = (
    "Rank of B's latent among all of B's by the correlation with A's: 1 where no other latent of B "
    "is used as much like A's. The open latent has the rank of A's among all of A's too."
)
_ORDER = (
    "Most changed and most alike go by the correlation that is likely after chance: by the end of "
    "its 95 % interval, so that latents with few uses don't lead."
)
_ORDERS = {
    "most_changed": "Most changed",
    "most_alike": "Most alike",
    "only_a": "Only in A",
    "only_b": "Only in B",
    "denser": "Used more in B",
    "sparser": "Used less in B",
}
_MIN_USES = {
    20: "20 tokens or more in A or B",
    5: "5 tokens or more in A or B",
    100: "100 tokens or more in A or B",
    0: "any",
}
_MIN_STRONG_USES = {number: _MIN_USES[number] for number in (5, 20, 100, 0)}


@dataclass(frozen=True)
class SameListing:
    """Which latents of two dictionaries are listed, and in which order."""

    run_a: str
    run_b: str
    order: str
    label: str
    min_uses: int
    of_strong: bool
    """Whether the numbers are of strong uses, else of all"""

    @property
    def filters(self) -> tuple[str, str, str, int, bool]:
        """What the charts and exports take too, whatever the order."""
        return self.run_a, self.run_b, self.label, self.min_uses, self.of_strong

    def numbers(self) -> list[int]:
        """Latents of A, all of the list."""
        store = explorer().store
        return store.known(
            store.namesakes.numbers, self.run_a, self.run_b, self.order, *self.filters[2:]
        )


def ask_for_listing(pair: RunPair, of_strong: bool) -> SameListing:
    """Order and filters, which follow the link and write it."""
    by, called, uses = st.columns([1.2, 2, 1.2], vertical_alignment="bottom")
    order = choose(by.selectbox, "Order", _ORDERS, "by", help=_ORDER)
    follow_url_text("called")
    label = called.text_input(
        "Label or note",
        key="called",
        max_chars=LONGEST_LABEL,
        placeholder="All latents",
        help="Only latents whose label or note holds this, given here or to the same source in "
        "another dictionary. Charts, list and download follow.",
    )
    write_url("called", label or None)
    min_uses = choose(
        uses.selectbox,
        "Strongly used on" if of_strong else "Used on",
        _MIN_STRONG_USES if of_strong else _MIN_USES,
        "strong_uses" if of_strong else "uses",
        help="Of the tokens compared, by the side that uses it more. A correlation over a few "
        "uses says little.",
    )
    return SameListing(*pair.run_ids, order, label.strip(), min_uses, of_strong)


def chosen_same_latent(listing: SameListing, n_latents: int) -> int | None:
    """A's latent in the link or opened last; after another order or filter, or for another pair,
    the first of the list. None where there is neither."""
    state, pair = st.session_state, (listing.run_a, listing.run_b)
    is_new_pair = state.get("_same_of", pair) != pair
    is_new_list = state.get("_same_listing", listing) != listing
    state["_same_of"], state["_same_listing"] = pair, listing
    wanted = st.query_params.get("same", "")
    is_from_link = bool(wanted) and wanted != state.get("_written_same")
    number = number_below(wanted, n_latents)
    if is_from_link and number is not None:
        state["_same"] = number
    elif is_from_link:
        st.warning(f"The link asks for latent {literal(wanted)}, which A does not have.")
    elif is_new_pair or is_new_list:
        state.pop("_same", None)
    numbers = listing.numbers()
    latent = state.get("_same", numbers[0] if numbers else None)
    state["_same"] = latent
    if latent is None:
        state.pop("_same")
    write_url("same", latent)
    return latent


def show_charts(listing: SameListing, about: pd.Series, chosen: int | None) -> None:
    """The histogram of the correlations, and densities there against densities here."""
    store = explorer().store
    points = store.known(store.namesakes.points, *listing.filters)
    if points.empty:
        return
    bins = store.known(
        store.namesakes.histogram, listing.run_a, listing.run_b, 40, *listing.filters[2:]
    )
    left, right = st.columns(2, gap="medium")
    with left:
        st.markdown("**How alike they are used**")
        is_all = len(points) == about["namesakes"]
        median = about["median_value"] if is_all else points["correlation"].median()
        of = "" if is_all else " of these"
        st.plotly_chart(
            correlation_histogram(bins, median, listing.of_strong, of),
            config=picture_config("same-latents-correlations"),
            key="same_histogram",
        )
    with right:
        st.markdown("**How often they are used**")
        key = f"same_scatter_{hash(listing.filters)}_{st.session_state.get('_same_clicks', 0)}"
        st.plotly_chart(
            density_scatter(points, int(about["tokens"]), chosen, listing.of_strong),
            on_select=lambda: _take_point(key),
            selection_mode="points",
            config=picture_config("same-latents-densities"),
            key=key,
        )
    n_compared = int(points["correlation"].notna().sum())
    st.caption(
        f"{len(points):,} of {int(about['namesakes']):,} latents with the same source, as the "
        f"fields above choose them{'' if is_all else '; the sentences further up are of all'}. "
        f"{n_compared:,} have a correlation and are in both charts, the others in the right one "
        "alone. Click a point to open its latent in both."
    )


def _take_point(key: str) -> None:
    points = st.session_state[key]["selection"]["points"]
    custom = [point["customdata"] for point in points if point.get("customdata") is not None]
    if custom:
        first = custom[0]
        st.session_state["_same"] = int(first[0] if isinstance(first, list) else first)
        # The chart is built anew, so that the same point can be clicked again.
        st.session_state["_same_clicks"] = st.session_state.get("_same_clicks", 0) + 1


def show_same_list(pair: RunPair, listing: SameListing, chosen: int | None) -> None:
    """The page of the list that holds the chosen latent, else the first."""
    numbers = listing.numbers()
    if not numbers:
        _say_that_none_fits(listing)
        return
    place = numbers.index(chosen) if chosen in numbers else None
    first = (place or 0) // _ROWS * _ROWS
    seen = numbers[first : first + _ROWS]
    latents = "1 latent" if len(numbers) == 1 else f"{len(numbers):,} latents"
    if listing.order in ("most_changed", "most_alike"):
        latents += " with a correlation"
    st.caption(
        f"{latents} · page {first // _ROWS + 1:,} of {-(-len(numbers) // _ROWS):,}"
        + ("" if place is not None or chosen is None else " · the open one is not in this list")
    )
    _draw(pair, _page(listing, seen), chosen, listing.of_strong)
    before, after = st.columns(2)
    for button, label, target in (
        (before, "Previous page", first - _ROWS),
        (after, "Next page", first + _ROWS),
    ):
        is_there = 0 <= target < len(numbers)
        button.button(
            label,
            on_click=_go_to,
            args=[numbers[target] if is_there else None],
            disabled=not is_there,
            width="stretch",
            key=f"same_{label}",
        )


def _go_to(latent: int | None) -> None:
    st.session_state["_same"] = latent


def _page(listing: SameListing, numbers: list[int]) -> pd.DataFrame:
    store = explorer().store
    table = store.namesakes.pairs(listing.run_a, listing.run_b, numbers, listing.of_strong)
    table = table.set_index("latent_a", drop=False).loc[numbers].reset_index(drop=True)
    return table.assign(
        source=[row_context(row.text, row.start, row.end) for row in table.itertuples()],
        token=table["token"].map(token_label),
        label=table["label"].map(shown),
        percent_a=100 * table["density_a"],
        percent_b=100 * table["density_b"],
    ).drop(columns=["text", "lists"])


def _columns(table: pd.DataFrame, of_strong: bool) -> list[Column]:
    """Of strong uses there are few, which are counted; of all a share is told."""
    differ = (table["latent_a"] != table["latent_b"]).any()
    if of_strong:
        used = [
            Column("uses_a", "strong in A", "number", help=_STRONG),
            Column("uses_b", "in B", "number"),
            Column("uses_both", "in both", "number"),
        ]
    else:
        percent = {"kind": "number", "digits": 2, "unit": " %", "help": _DENSITY}
        used = [
            Column("percent_a", "used in A", **percent),
            Column("percent_b", "used in B", **percent),
        ]
    return [
        Column("token", "token", width=130),  # no link: the row opens the latent in both
        *[Column("label", "label", width=200)] * bool(table["label"].any()),
        Column("correlation", "corr.", "number", digits=2, sign=True),
        Column("rank_a", "rank", "number", help=_RANK),
        *used,
        Column("latent_a", "no. in A" if differ else "in A", "latent"),
        Column("latent_b", "no. in B" if differ else "in B", "latent", key="key_b"),
        Column("source", "source in context", "quote"),
    ]


def _draw(pair: RunPair, table: pd.DataFrame, chosen: int | None, of_strong: bool) -> None:
    """A click opens the latent in both; each side's latent has its own card."""
    cards, places, keys = {}, {}, {}
    for side, run in zip("ab", (pair.a, pair.b), strict=True):
        latents = table[f"latent_{side}"]
        keys[side] = [key_of(run.run_id, latent) for latent in latents]
        add_latents(run, dict(zip(keys[side], latents, strict=True)), cards, places)
    open_key = "" if chosen is None else key_of(pair.a.run_id, chosen)
    rows = table.assign(key=keys["a"], key_b=keys["b"])
    of_rows = dict(zip([*keys["a"], *keys["b"]], [*table["latent_a"]] * 2, strict=True))
    show_latent_rows(
        rows, _columns(table, of_strong), cards, places, "same_list", _HEIGHT, chosen=open_key,
        choose=lambda key: _go_to(int(of_rows[key])),
    )  # fmt: skip


def _say_that_none_fits(listing: SameListing) -> None:
    told = "No latent matches."
    if listing.order in ("only_a", "only_b"):
        side = listing.order[-1].upper()
        how = " strongly" if listing.of_strong else ""
        told = f"No latent that is used{how} on so many tokens is used{how} in {side} alone."
    st.info(f"{told} Choose another order, or fewer uses, or empty the field for labels.")
    st.button("Show all latents", on_click=_show_all)


def _show_all() -> None:
    st.session_state.update({"by": "most_changed", "called": "", "uses": 0, "strong_uses": 0})
