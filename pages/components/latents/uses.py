"""The tokens that use a latent in their texts: the strongest, some of the whole range, and those
that are near misses of it."""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from itda_core.errors import InputError, RunError
from itda_core.runs.near_misses import near_misses
from itda_core.store.use_queries import CardUses
from pages.components.cached import loaded_run
from pages.components.explorer import explorer
from pages.components.latents.score import has_strong_uses, threshold_of
from pages.components.latents.search import wants_strong
from pages.components.latents.use_pages import (
    USES_SHOWN,
    first_use,
    show_use_pages,
    write_first_use,
)
from pages.components.run_names import words_of
from pages.components.scale import usual_largest
from pages.components.text import literal, quoted
from pages.components.token_strip.strip import fold_twins, show_rows, strength, token_row
from pages.components.url import follow_url_text, keep, write_url

_BANDS, _OF_EACH_BAND = 4, 5
_NEAR_MISSES_SHOWN = 5
_SIGNS = {0: "both signs", 1: "+", -1: "−"}
_STRONG = 2
_KINDS = {_STRONG: "strong", 0: "all", 1: "+", -1: "−"}
"""Which uses of a latent that has strong ones are listed"""
_ALL_FIRST = (0, _STRONG, 1, -1)
_CONTEXT_TOKENS = 8
"""Tokens on each side of a use in the short view: about 16 in all."""
_NOTHING_EXPLORED = "Its near misses are not known: no token was explored in this run."
_WHY_NO_NEAR_MISSES = (
    "Its near misses are not known: an earlier version made this run, or its file nearly.parquet "
    "is gone."
)


@dataclass(frozen=True)
class _Card:
    """Whose uses are shown."""

    run: Any
    """a row of Store.runs.table()"""
    latent: pd.Series
    """a row of Store.latents.table()"""
    key: str
    """sets the cards of a page apart"""
    largest: float
    """|coefficient| with the full colour"""


def histogram_key(key: str) -> str:
    """Of a card's chart, in which its uses mark a token. key: sets the cards of a page apart."""
    return f"{key}histogram"


def chosen_uses(latent: pd.Series, is_page: bool = True) -> tuple[int, float]:
    """Which uses of a latent are listed: their sign (0 for both) and their least coefficient. On
    the page of the latent they can be chosen; strong ones go without saying."""
    if not has_strong_uses(latent):
        return (st.session_state.get("sign", 0) if is_page else 0), -np.inf
    key, kinds = _kinds()
    usual = next(iter(kinds))
    kind = st.session_state.get(key, usual) if is_page else usual
    return (0, threshold_of(latent)) if kind == _STRONG else (kind, -np.inf)


def what_is_listed(run, latent: pd.Series) -> tuple:
    """What `first_use` and `show_use_pages` are told of the strongest uses on a latent's page. run:
    a row of Store.runs.table()."""
    sought = st.session_state.get("in_uses", "").strip()
    way = st.session_state.get("match", "word") if sought else ""
    return run.run_id, int(latent.latent), *chosen_uses(latent), sought, way


def _kinds() -> tuple[str, dict[int, str]]:
    """The kinds of uses of a latent that has strong ones, that which goes without saying first, and
    the key of their widget."""
    if wants_strong():
        return "kind_of_uses", _KINDS
    return "kind_of_all_uses", {kind: _KINDS[kind] for kind in sorted(_KINDS, key=_ALL_FIRST.index)}


def show_strongest_uses(run, latent: pd.Series, asked: CardUses, key: str) -> None:
    """Nothing but the strongest, for a card that is not the page. run: a row of Store.runs.table();
    latent: a row of Store.latents.table(); key: of the card."""
    st.markdown("##### Strongest uses")
    card = _Card(run, latent, key, usual_largest(asked.coefficients))
    _show_uses(card, asked.strongest, asked.beside, "uses", is_page=False)


def show_chosen_uses(run, latent: pd.Series, asked: CardUses, key: str) -> None:
    """The strongest uses, or some of each quarter and the near misses; strong ones, all, or of one
    sign. asked: for those of `chosen_uses`, which are kept while the page is open."""
    title, which, sign_place = st.columns([1.7, 2.1, 2.2], vertical_alignment="center")
    which_uses = which.segmented_control(
        "Which uses",
        ["Strongest", "Whole range"],
        default="Strongest",
        required=True,
        label_visibility="collapsed",
        key="which_uses",
    )
    of, kinds = _kinds() if has_strong_uses(latent) else ("sign", _SIGNS)
    sign_place.segmented_control(
        "Of which sign" if of == "sign" else "Which kind of uses",
        list(kinds),
        format_func=kinds.get,
        default=next(iter(kinds)),
        required=True,
        label_visibility="collapsed",
        key=of,
    )
    sign, least = chosen_uses(latent)
    card = _Card(run, latent, key, usual_largest(asked.coefficients))
    sought = _ask_for_text()
    if sought:
        title.markdown("##### Uses near a text")
        _show_saying(card, sought, sign, least)
        return
    if which_uses == "Strongest":
        title.markdown("##### Strongest uses")
        uses = asked.strongest
        _show_uses(card, uses, asked.beside, "uses")
        of, called = what_is_listed(run, latent), _called(sign, least)
        show_use_pages(of, called, asked.first, len(uses), asked.total)
    else:
        title.markdown("##### Uses by quartile")
        write_first_use(0)
        uses = explorer().store.uses.banded(
            run.run_id, int(latent.latent), _BANDS, _OF_EACH_BAND, sign, least
        )
        _show_bands(card, uses)
    if uses.empty:
        st.caption("No explored token uses it with this sign.")
    if which_uses != "Strongest":
        _show_near_misses(card, sign)


def _ask_for_text() -> str:
    """What its uses are searched for; the link has it."""
    keep("in_uses")
    follow_url_text("in_uses")
    text = st.text_input(
        "Search its uses",
        key="in_uses",
        placeholder="Search its uses",
        label_visibility="collapsed",
        help="Uses with this in the 40 characters around them; whole words or a regular "
        "expression, as the switches beside the search of latents say.",
    )
    write_url("in_uses", text or None)
    return text.strip()


def _show_saying(card: _Card, text: str, sign: int, least: float) -> None:
    run, latent = card.run, card.latent
    way, of = st.session_state.get("match", "word"), what_is_listed(run, latent)
    asked = {"sign": sign, "least": least, "limit": USES_SHOWN}
    ask = functools.partial(explorer().store.uses.saying, run.run_id, int(latent.latent), text, way)
    try:
        first = first_use(of)
        uses = ask(first=first, **asked)
        if uses.empty and first:  # a link to a place behind the last
            first, uses = 0, ask(**asked)
    except InputError as error:
        st.warning(literal(str(error)))
        return
    if uses.empty:
        st.caption(
            f"None of these uses has {literal(f'“{text}”')} in the 40 characters around it. Choose "
            "another kind of uses, or search for less."
        )
        return
    n_uses = int(uses["uses"][0])
    counted = "1 use has" if n_uses == 1 else f"{n_uses:,} uses have"
    st.caption(f"{counted} {literal(f'“{text}”')} in the 40 characters around it.")
    _show_uses(card, uses, _beside(card, uses), "uses_saying")
    show_use_pages(of, "such uses", first, len(uses), n_uses)


def _called(sign: int, least: float) -> str:
    """What the uses that are listed are called."""
    if np.isfinite(least):
        return "strong uses"
    return {0: "uses", 1: "positive uses", -1: "negative uses"}[sign]


def show_near_misses(run, latent: pd.Series, key: str) -> None:
    """Of a latent that no token uses: a few that would with one more step."""
    _show_near_misses(_Card(run, latent, key, float(latent.strongest)), 0)


def _show_near_misses(card: _Card, sign: int) -> None:
    """A few tokens that don't use the latent, but would with one more step."""
    run, latent = card.run, card.latent
    if not words_of(run).takes_steps:
        return
    try:
        near_tokens = near_misses(loaded_run(run.directory), int(latent.latent))
    except RunError as error:
        st.warning(literal(str(error)))
        return
    if near_tokens is None:
        st.caption(_WHY_NO_NEAR_MISSES if run.explored_tokens else _NOTHING_EXPLORED)
        return
    near_tokens = near_tokens[np.sign(near_tokens["coefficient"]) == sign] if sign else near_tokens
    if near_tokens.empty:
        st.caption("Near misses on no explored token.")
        return
    st.caption(
        f"Near misses · {len(near_tokens):,} tokens on which it would have been the next step, "
        "with this coefficient"
    )
    nearest = explorer().store.uses.in_context(run.run_id, near_tokens.head(_NEAR_MISSES_SHOWN))
    _show_uses(card, nearest, _beside(card, nearest), "nearly")


def _beside(card: _Card, uses: pd.DataFrame) -> pd.DataFrame:
    """Every use of the latent in the prompts of some."""
    prompts = uses["prompt_id"].unique().tolist()
    return explorer().store.uses.in_prompts(card.run.run_id, int(card.latent.latent), prompts)


def _show_bands(card: _Card, uses: pd.DataFrame) -> None:
    beside = _beside(card, uses)
    for band, rows in uses.groupby("band"):
        first = rows.iloc[0]
        share = 1 / uses["band"].nunique()
        st.caption(
            f"|coefficient| {first.low:.2f}–{first.high:.2f} · {share:.0%} of its uses "
            f"({int(first.uses):,} tokens)"
        )
        _show_uses(card, rows, beside, f"uses_{band}")


def _show_uses(
    card: _Card, uses: pd.DataFrame, beside: pd.DataFrame, part: str, is_page: bool = True
) -> None:
    """beside: every use in their prompts; part: sets the card's lists of uses apart."""
    if uses.empty:
        return
    by_prompt = _by_prompt(beside)
    rows = [
        use_row(use, by_prompt.get(use.prompt_id), card.largest, is_page)
        for use in uses.itertuples()
    ]
    opened = show_rows(fold_twins(rows), f"{card.key}{part}", histogram=histogram_key(card.key))
    if opened is not None:
        use = uses.iloc[opened]
        where = {"prompt": use.prompt_id, "token": str(use.position)}
        st.switch_page("pages/decompose.py", query_params={"run": card.run.run_id, **where})


def _by_prompt(beside: pd.DataFrame) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Positions and coefficients of the uses in each prompt. beside: in the order of the prompts;
    pandas would take longer to group them than the database does to find them."""
    prompts = beside["prompt_id"].to_numpy(object)
    first = np.flatnonzero(np.append(True, prompts[1:] != prompts[:-1])[: len(prompts)])
    columns = [np.split(beside[name].to_numpy(), first[1:]) for name in ("position", "coefficient")]
    return dict(zip(prompts[first], zip(*columns, strict=True), strict=True)) if len(first) else {}


def use_row(
    use, in_prompt: tuple[np.ndarray, np.ndarray] | None, largest: float, opens: bool
) -> dict:
    """A use in its text. use: a row of Store.uses.strongest(); in_prompt: positions and
    coefficients of all uses in its prompt; largest: |coefficient|; opens: whether it has a button
    that opens its text."""
    spans = list(zip(use.starts.tolist(), use.ends.tolist(), strict=True))
    text = use.text[: max(use.ends) + 1]  # the part that was read; the rest may be a whole book
    coefficients = np.zeros(len(spans))
    if in_prompt is not None:
        positions, sizes = in_prompt
        coefficients[positions] = sizes
    hovers = [
        f"{quoted(text[start:end])}\ncoefficient {value:+.4f}" if value else ""
        for (start, end), value in zip(spans, coefficients.tolist(), strict=True)
    ]
    return token_row(
        text,
        spans,
        strength(coefficients, largest),
        hovers,
        boxed=int(use.position),
        around=_CONTEXT_TOKENS,
        chip=f"{use.coefficient:+,.2f}",
        title=use.title,
        names=special_names(spans),
        signed=True,
        opens=opens,
        marks=coefficients,
    )


def special_names(spans: list[tuple[int, int]]) -> list[str]:
    """What stands for the tokens without characters."""
    return ["" if end > start else "[special]" for start, end in spans]
