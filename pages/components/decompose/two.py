"""One text by two dictionaries, side by side: the tokens that they explain by other latents."""

import numpy as np
import pandas as pd
import streamlit as st

from itda_core.analysis.decomposition import Decomposition
from itda_core.analysis.side_by_side import SideBySide, side_by_side
from itda_core.errors import ComparisonError
from itda_core.similarity.source_sets import same_tokenizer
from pages.components.cached import loaded_dictionary, loaded_run
from pages.components.decompose.decomposed import decomposed, warn_of_another_model
from pages.components.decompose.terms import label_columns, with_context
from pages.components.downloads import offer_downloads
from pages.components.explorer import explorer
from pages.components.latent_rows.card import cards_of
from pages.components.latent_rows.rows import Column, place_of, show_latent_rows
from pages.components.latents.list import select_rows
from pages.components.reproduce import show_lines, side_by_side_lines
from pages.components.run_names import choose_run, layer_of
from pages.components.similarity.same_choice import likely_partners
from pages.components.text import literal, shown, token_label

_MEASURE = (
    "In common: of what each side's terms explain, the share that is due to latents with a source "
    "that a latent of the other has too, which uses it on the same token with the same sign; the "
    "mean of both sides. A pursuit takes one of several near atoms, so that a low share can mean "
    "another choice as well as another content."
)

_EXPLAINS = (
    "Share of the token's squared norm, without what is subtracted first, that the term's step "
    "took off in the pursuit"
)


def show_two(run, result: Decomposition, locked: int | None) -> None:
    """Below the text: a second dictionary, the tokens where both differ most first, and the terms
    of one of them. run: a row of Store.runs.table(), A; locked: position of the locked token."""
    other = _ask_for_second(run)
    if other is None:
        return
    try:
        pairs = _namesakes(run.directory, other.directory)
    except ComparisonError as error:
        st.info(literal(str(error)))
        return
    warn_of_another_model(other.directory, "the second dictionary")
    second = decomposed(other.directory, result.text)
    second = second.prefix(min(result.codes.l0, second.codes.l0))
    dictionaries = [loaded_dictionary(one.directory) for one in (run, other)]
    has_one_tokenizer = same_tokenizer(*dictionaries)
    found = side_by_side(result, second, pairs, has_one_tokenizer)
    st.markdown(sums_in_words(found))
    st.caption(_MEASURE)
    if unmatched := unmatched_in_words(found):
        st.caption(unmatched)
    left, right = st.columns([5, 6], gap="large")
    with left:
        position = _choose_token(found.tokens, result.text, locked)
    with right:
        _show_terms(run, other, found, position)
    _offer_files(run, other, result, second, found)


def _ask_for_second(run):
    """A row of Store.runs.table(), at first the one that is likeliest to be compared; None where
    there is none, which is said."""
    if run.kind != "itda":
        st.info(
            "The latents of an autoencoder are no tokens, so that no other dictionary has them. "
            "Choose one that was trained here to see it beside another."
        )
        return None
    runs = explorer().store.runs.table()
    others = likely_partners(run, runs[runs["kind"] == "itda"])
    if others.empty:
        st.info("There is no second dictionary. Move this one to another model or layer.")
        st.page_link("pages/train.py", label="Move it on the Train page")
        return None
    return choose_run(others, "Second dictionary (B)", "second")


@st.cache_data(max_entries=64, show_spinner=False)
def _namesakes(directory_a: str, directory_b: str) -> np.ndarray:
    """[n_pairs, 2]; raises ComparisonError where there is none."""
    from itda_core.similarity.same_latents import common_numbers
    from itda_core.similarity.same_sources import namesakes

    runs = [loaded_run(directory) for directory in (directory_a, directory_b)]
    dictionaries = {
        "a": loaded_dictionary(directory_a),
        "b": loaded_dictionary(directory_b),
    }
    numbers = common_numbers(*runs, dictionaries)
    return namesakes(dictionaries["a"], dictionaries["b"], numbers)


def sums_in_words(found: SideBySide) -> str:
    """How much of the text both explain by the same latents, as Markdown."""
    known = found.tokens["in_common"].dropna()
    if known.empty:
        return "Neither has a term on any token of this text."
    n_none, count = int((known == 0).sum()), len(known)
    if n_none == count:
        which = "the one token" if count == 1 else f"any of the {count:,} tokens"
        return f"Nothing is in common on {which}."
    which = "the one token" if count == 1 else f"the median of {count:,} tokens"
    told = (
        f"On {which} **{known.median():.1%}** of what the terms explain is due to latents with the "
        "same source"
    )
    return f"{told}; on {n_none:,} of them nothing is." if n_none else f"{told}."


def unmatched_in_words(found: SideBySide) -> str:
    """Which tokens are left out, "" where none is."""
    counts = {"A": found.unmatched_a, "B": found.unmatched_b}
    told = [f"{count:,} of {side}" for side, count in counts.items() if count]
    if not told:
        return ""
    return (
        f"Tokens without a partner that ends at the same character are left out: {', '.join(told)}."
    )


def _choose_token(tokens: pd.DataFrame, text: str, locked: int | None) -> int:
    """The list; returns the position of the locked token in A, else of the first. A chosen row
    locks its token in the text above."""
    places = tokens["position_a"].tolist()
    position = locked if locked in places else places[0]
    if locked is not None and locked not in places:
        st.caption("The locked token is not one of those that both decompose.")
    key = f"two_{hash((text, tuple(places)))}"
    select_rows(key, [places.index(position)])

    def choose() -> None:
        rows = st.session_state[key]["selection"]["rows"]
        if rows:
            st.session_state[f"strip_{hash(text)}"] = {"locked": places[rows[0]], "lit": None}

    percent = {"format": "%.1f %%", "width": 75}
    st.dataframe(
        tokens.assign(
            token=tokens["token"].map(token_label),
            common=100 * tokens["in_common"],
            percent_a=100 * tokens["left_a"],
            percent_b=100 * tokens["left_b"],
        ),
        column_order=["position_a", "token", "common", "latents_both", "percent_a", "percent_b"],
        column_config={
            "position_a": st.column_config.NumberColumn("no.", format="%d", width=45, pinned=True),
            "token": st.column_config.TextColumn("token", width=90, pinned=True),
            "common": st.column_config.NumberColumn("common", help=_MEASURE, **percent),
            "latents_both": st.column_config.NumberColumn(
                "shared", format="%d", width=60, help="Latents that both use with one sign"
            ),
            "percent_a": st.column_config.NumberColumn("left in A", **percent),
            "percent_b": st.column_config.NumberColumn("left in B", **percent),
        },
        placeholder="–",
        hide_index=True,
        height=420,
        on_select=choose,
        selection_mode="single-row",
        key=key,
    )
    return position


def _show_terms(run, other, found: SideBySide, position: int) -> None:
    token = found.tokens[found.tokens["position_a"] == position].iloc[0]
    count = {side: int(token[f"latents_{side}"]) for side in "ab"}
    used = {side: "1 latent" if n == 1 else f"{n:,} latents" for side, n in count.items()}
    terms = found.terms[found.terms["position_a"] == position].reset_index(drop=True)
    st.markdown(f"##### Token {position}: {literal(repr(token['token']))}")
    st.caption(
        literal(
            f"A: {shown(run.model)} {layer_of(run)}, {used['a']}, "
            f"{token['left_a']:.1%} left. B: {shown(other.model)} {layer_of(other)}, "
            f"{used['b']}, {token['left_b']:.1%} left. ≠ marks those that only "
            "one of them uses, or with the other sign."
        )
    )
    table = _with_sources(run, other, terms)
    size = {"kind": "number", "digits": 2, "sign": True}
    percent = {"kind": "number", "digits": 1, "unit": " %", "help": _EXPLAINS}
    columns = [
        Column("mark", ""),
        Column("source_token", "source token", "text"),
        Column("coefficient_a", "in A", **size),
        Column("coefficient_b", "in B", **size),
        Column("percent_a", "expl. A", **percent),
        Column("percent_b", "expl. B", **percent),
        *label_columns(table),
        Column("latent_a", "no. in A", "latent", key="key_a"),
        Column("latent_b", "no. in B", "latent", key="key_b"),
        Column("context", "source in context", "quote"),
    ]
    cards, places = {}, {}
    for side, one in (("a", run), ("b", other)):
        latents = table[f"latent_{side}"].dropna().astype(int)
        cards |= {f"{side}{latent}": card for latent, card in cards_of(one, latents).items()}
        places |= {f"{side}{latent}": place_of(one, latent) for latent in latents}
    show_latent_rows(_with_keys(table), columns, cards, places, key="two_terms", height=380)


def _with_keys(table: pd.DataFrame) -> pd.DataFrame:
    """With key_a, key_b and key, by which a row's cards are found; a row opens its latent in A, or
    in B where A has none."""
    numbers = {side: table[f"latent_{side}"].astype("Int64") for side in "ab"}
    keys = {side: side + of_side.astype("string") for side, of_side in numbers.items()}
    return table.assign(
        **{f"latent_{side}": of_side for side, of_side in numbers.items()},
        **{f"key_{side}": of_side for side, of_side in keys.items()},
        key=keys["a"].fillna(keys["b"]),
    )


def _with_sources(run, other, terms: pd.DataFrame) -> pd.DataFrame:
    """With source, context and label of each latent, from the side that has it."""
    parts = []
    for side, one, is_here in (
        ("a", run, terms["latent_a"].notna()),
        ("b", other, terms["latent_a"].isna()),
    ):
        rows = terms[is_here]
        latents = rows[f"latent_{side}"].astype(int)
        sources = loaded_dictionary(one.directory).sources.drop(columns="latent")
        of_rows = sources.iloc[latents].add_prefix("source_").set_axis(rows.index)
        parts.append(with_context(one, rows.assign(latent=latents).join(of_rows)))
    table = pd.concat(parts).sort_index()
    return table.assign(
        mark=np.where(table["is_common"], "", "≠"),
        percent_a=100 * table["explains_a"],
        percent_b=100 * table["explains_b"],
    )


def _offer_files(
    run, other, result: Decomposition, second: Decomposition, found: SideBySide
) -> None:
    with st.container(horizontal=True):
        with st.popover("Export both"):
            about = {"a": run.run_id, "b": other.run_id, "prompt": result.text}
            about |= {"l0_a": result.codes.l0, "l0_b": second.codes.l0}
            table = found.terms.merge(found.tokens, on="position_a")
            offer_downloads(table, about, "two-dictionaries", "two_file")
        with st.popover("Reproduce both"):
            l0 = result.codes.l0, second.codes.l0
            show_lines(side_by_side_lines((run.directory, other.directory), result.text, l0))
