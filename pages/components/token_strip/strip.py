"""The token strip: rows of coloured tokens, drawn by one component of the project's own.

Text reaches the component as data and is drawn as text, never as HTML.
"""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from pages.components.latent_rows.card import CARD_CSS, CARD_JS, Card
from pages.components.text import pieces, shown, visible

_HERE = Path(__file__).parent
CSS = CARD_CSS + (_HERE / "strip.css").read_text("utf-8")
JS = CARD_JS + (_HERE / "strip.js").read_text("utf-8")
_strip = st.components.v2.component(
    "itda.token_strip",
    html='<div class="strip"></div>',
    css=CSS,
    js=JS,
)

Row = dict[str, Any]
Light = dict[str, Any]
Jumps = dict[str, Any]


def show_rows(rows: Sequence[Row], key: str, histogram: str = "") -> int | None:
    """Draw rows that only show; returns the number of the one whose button was just pressed.
    histogram: key of a chart in which a token's mark is a line while the mouse is on the token."""
    result = _strip(
        data={"rows": list(rows), "clickable": False, "histogram": histogram},
        on_opened_change=lambda: None,
        key=key,
    )
    return result.opened


def choose_token(
    row: Row,
    lights: Sequence[Light],
    key: str,
    cards: Mapping[str, Card],
    jumps: Jumps,
    on_lit: Callable[[], None] = lambda: None,
) -> tuple[int | None, dict[str, Any] | None]:
    """Draw one row whose tokens lock on a click, or one after another by the arrow keys, and below
    it the latents that light up the tokens that use them, on hover or, locked by a click, until
    they are freed. cards: of the latents, by number, shown on hover; jumps: buttons above the row
    that lock a token each; on_lit: called when a latent is locked or freed. Returns the number of
    the locked token, if one is, and which link of a card was just pressed, if one was: `what` and
    `latent`."""
    state = st.session_state.get(key) or {}
    result = _strip(
        data={
            "rows": [row],
            "clickable": True,
            "locked": state.get("locked"),
            "lights": list(lights),
            "lit": state.get("lit"),
            "cards": dict(cards),
            "jumps": jumps,
        },
        default={"locked": None, "lit": None},
        on_locked_change=lambda: None,
        on_lit_change=on_lit,
        on_named_change=lambda: None,
        key=key,
    )
    return result.locked, result.named


def light(
    latent: int, name: str, hover: str, positions: Sequence[int], coefficients: Sequence[float]
) -> Light:
    """A latent that lights up the tokens that use it. name, hover: what it is called, and what it
    says of itself, made to be shown."""
    values = strength(np.asarray(coefficients, float), float(np.abs(coefficients).max()))
    tokens = zip(positions, values.tolist(), coefficients, strict=True)
    return {
        "latent": int(latent),
        "name": name,
        "hover": hover,
        "tokens": [[int(n), round(value, 3), f"{size:+.3f}"] for n, value, size in tokens],
    }


def jumps_to(title: str, help: str, tokens: Sequence[tuple[int, str, str]]) -> Jumps:
    """Buttons that lock a token each. help: on hover of the title; tokens: position, text and what
    stands beside it, made to be shown."""
    return {"title": title, "help": help, "tokens": [list(one) for one in tokens]}


def fold_twins(rows: Sequence[Row]) -> list[Row]:
    """The rows, those marked that show the same tokens as an earlier one in their short view: they
    are hidden until they are asked for. Case and white space tell no two apart."""
    seen, out = set(), []
    for row in rows:
        shown = row["tokens"][row.get("from", 0) : row.get("to", None)]
        words = tuple("".join(token["text"] for token in shown).casefold().split())
        out.append({**row, "twin": True} if words in seen else row)
        seen.add(words)
    return out


def token_row(
    text: str,
    spans: Sequence[tuple[int, int]],
    values: Sequence[float],
    hovers: Sequence[str] = (),
    *,
    boxed: int | None = None,
    dimmed: Sequence[int] = (),
    around: int | None = None,
    breaks: bool = False,
    chip: str = "",
    title: str = "",
    names: Sequence[str] = (),
    signed: bool = False,
    opens: bool = False,
    marks: Sequence[float] = (),
) -> Row:
    """One row of the strip.

    values: colour of each token in [-1, 1]; boxed: the token to frame; dimmed: tokens left out;
    around: show only so many tokens on each side of the boxed one at first; breaks: keep line
    breaks as such; names: what to print for tokens without characters; signed: whether a value's
    sign means something, and is to be seen without its colour too; opens: whether it has a button
    that opens its text; marks: where each token is on the x axis of a histogram, 0 for nowhere.
    """
    printed = pieces(text, list(spans))
    names = names if len(names) else [""] * len(printed)
    # Most texts can be shown as they are, which is sooner seen of the whole than token by token.
    show = str if visible(text) == text else functools.partial(_shown, breaks=breaks)
    tokens = [
        {"text": show(own) if own else _shown(name, breaks)}
        for (_, own), name in zip(printed, names, strict=True)
    ]
    # What is empty need not travel: a card sends thousands of tokens to the browser.
    for key, of_tokens in {
        "before": [show(before) if before else "" for before, _ in printed],
        "value": np.round(np.asarray(values, np.float64), 3).tolist(),
        "hover": hovers,
        "mark": np.round(np.asarray(marks, np.float64), 4).tolist(),
    }.items():
        for index, one in enumerate(of_tokens):
            if one:
                tokens[index][key] = one
    for index in dimmed:
        tokens[index]["dim"] = True
    if boxed is not None:
        tokens[boxed]["boxed"] = True
    row: Row = {
        "tokens": tokens,
        "chip": chip,
        "title": shown(title),
        "signed": signed,
        "opens": opens,
    }
    row["after"] = _shown(text[sum(map(len, itertools.chain.from_iterable(printed))) :], breaks)
    if around is not None and boxed is not None:
        row["from"] = max(0, boxed - around)
        row["to"] = min(len(tokens), boxed + around + 1)
    return row


def strength(coefficients: np.ndarray, largest: float) -> np.ndarray:
    """Colours in [-1, 1] on a log scale: a hundredth of the largest is hardly to be seen."""
    share = np.abs(coefficients) / max(largest, 1e-30)
    scaled = np.clip(1 + np.log10(np.maximum(share, 1e-9)) / 2, 0, 1)
    return np.sign(coefficients) * scaled


def _shown(text: str, breaks: bool) -> str:
    return "↵\n".join(map(visible, text.split("\n"))) if breaks else visible(text)
