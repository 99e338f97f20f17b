"""A table whose rows name latents, drawn by a component of the project's own: hover shows the card
of a latent, a click anywhere in a row opens it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from pages.components.latent_rows.card import CARD_CSS, CARD_JS, Card, cards_of

_HERE = Path(__file__).parent
_rows = st.components.v2.component(
    "itda.latent_rows",
    html='<div class="rows"></div>',
    css=CARD_CSS + (_HERE / "rows.css").read_text(),
    js=CARD_JS + (_HERE / "rows.js").read_text(),
)


@dataclass(frozen=True)
class Column:
    """A column of the table."""

    name: str
    """of a column of the rows"""
    title: str
    kind: str = "text"
    """"number", "text", "quote" (of a text), "latent" (a link), or "actions" (buttons)"""
    digits: int = 0
    sign: bool = False
    """whether positive numbers have one"""
    unit: str = ""
    help: str = ""
    key: str = "key"
    """of a link: the column of the rows that says what it opens"""


@dataclass(frozen=True)
class Action:
    """A button of each row."""

    name: str
    title: str
    help: str
    """said before what the row is named"""


def place_of(run, latent: int, **more: str) -> dict[str, str]:
    """What the page of a latent is asked for. run: a row of Store.runs.table()."""
    return {"run": run.run_id, "latent": str(latent), **more}


def show_rows_of(
    run,
    rows: pd.DataFrame,
    columns: Sequence[Column],
    key: str,
    height: int = 420,
    actions: Sequence[Action] = (),
    places: Mapping[str, Mapping[str, str]] | None = None,
) -> tuple[str, str] | None:
    """`show_latent_rows` of one dictionary: rows have a column latent, which is their key, and open
    its page; places: where they open it otherwise. run: a row of Store.runs.table()."""
    latents = rows["latent"]
    rows = rows.assign(key=latents.astype(str))
    if places is None:
        places = {str(latent): place_of(run, latent) for latent in latents}
    return show_latent_rows(rows, columns, cards_of(run, latents), places, key, height, actions)


def show_latent_rows(
    rows: pd.DataFrame,
    columns: Sequence[Column],
    cards: Mapping[str, Card],
    places: Mapping[str, Mapping[str, str]],
    key: str,
    height: int = 420,
    actions: Sequence[Action] = (),
) -> tuple[str, str] | None:
    """Draw it; a click on a row opens the page of its latent. rows: with the columns of `columns`,
    `key`, which names a row's card and place, and where there are actions `named` and `pressed`
    (the name of the one in force, or ""); places: what the page of each row's latent is asked for;
    height: in pixels, at most. Returns the action that was just pressed, or "open" for a click on
    a row without a place, and the key of the row."""
    names = list(
        dict.fromkeys(
            ["key", *(one.name for one in columns if one.kind != "actions")]
            + [one.key for one in columns]
            + ["named", "pressed"] * bool(actions)
        )
    )
    result = _rows(
        data={
            "columns": [vars(column) for column in columns],
            "rows": [_plain(row) for row in rows[names].to_dict("records")],
            "cards": dict(cards),
            "places": {name: dict(place) for name, place in places.items()},
            "actions": [vars(action) for action in actions],
            "height": height,
            "of": key,
        },
        on_opened_change=lambda: None,
        on_acted_change=lambda: None,
        key=key,
    )
    if result.opened:
        opened = str(result.opened["key"])
        if opened not in places:
            return "open", opened
        open_place(result.opened["what"], places[opened])
    return (result.acted["action"], str(result.acted["key"])) if result.acted else None


def open_place(what: str, place: Mapping[str, str]) -> None:
    """Go to a latent's page, or steer with it. what: "open" or "steer"."""
    if what == "steer":
        steer = {"run": place["run"], "view": "steer", "steer": place["latent"]}
        st.switch_page("pages/decompose.py", query_params=steer)
    else:
        st.switch_page("pages/latents.py", query_params=dict(place))


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """Values that JSON has: nothing for what is missing."""
    return {name: _value(value) for name, value in row.items()}


def _value(value: Any) -> Any:
    if pd.isna(value):
        return None
    return value.item() if isinstance(value, np.generic) else value
