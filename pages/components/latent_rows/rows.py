"""A table whose rows name latents, drawn by a component of the project's own: hover shows the card
of a latent, a click anywhere in a row opens it."""

from collections.abc import Callable, Mapping, Sequence
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
    css=CARD_CSS + (_HERE / "rows.css").read_text("utf-8"),
    js=CARD_JS + (_HERE / "rows.js").read_text("utf-8"),
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
    is_name: bool = False
    """whether a number is one, as that of a latent, and is written without commas"""
    sign: bool = False
    """whether positive numbers have one"""
    unit: str = ""
    help: str = ""
    width: int = 0
    """of a text in pixels, at most; 0: as long as it is"""
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
    **choosing,
) -> tuple[str, str] | None:
    """`show_latent_rows` of one dictionary: rows have a column latent, which is their key, and open
    its page; places: where they open it otherwise. run: a row of Store.runs.table(); choosing:
    `chosen` and `choose`."""
    latents = rows["latent"]
    rows = rows.assign(key=latents.astype(str))
    if places is None:
        places = {str(latent): place_of(run, latent) for latent in latents}
    cards = cards_of(run, latents)
    return show_latent_rows(rows, columns, cards, places, key, height, actions, **choosing)


def show_rows_of_runs(
    runs: Mapping[str, Any], rows: pd.DataFrame, columns: Sequence[Column], key: str, **options
) -> tuple[str, str] | None:
    """`show_latent_rows` of several dictionaries: rows have columns run_id and latent, and open
    the page of that latent. runs: rows of Store.runs.table() by their ids; options: others of
    `show_latent_rows`."""
    keys = [key_of(row.run_id, row.latent) for row in rows.itertuples()]
    cards, places = {}, {}
    for run_id, latents in rows.groupby("run_id")["latent"]:
        of_run = {key_of(run_id, latent): latent for latent in latents}
        add_latents(runs[run_id], of_run, cards, places)
    return show_latent_rows(rows.assign(key=keys), columns, cards, places, key, **options)


def add_latents(
    run,
    latents: Mapping[str, int],
    cards: dict[str, Card],
    places: dict[str, Mapping[str, str]],
) -> None:
    """Add to `cards` and `places` those of some latents of a dictionary, by the keys that they have
    in a table of several. run: a row of Store.runs.table()."""
    made = cards_of(run, latents.values())
    cards |= {key: made[str(one)] for key, one in latents.items() if str(one) in made}
    places |= {key: place_of(run, one) for key, one in latents.items()}


def key_of(run_id: str, latent: int) -> str:
    """The key of a row where several dictionaries are in one table."""
    return f"{int(latent)}@{run_id}"


def show_latent_rows(
    rows: pd.DataFrame,
    columns: Sequence[Column],
    cards: Mapping[str, Card],
    places: Mapping[str, Mapping[str, str]],
    key: str,
    height: int = 420,
    actions: Sequence[Action] = (),
    chosen: str = "",
    choose: Callable[[str], None] | None = None,
) -> tuple[str, str] | None:
    """Draw it; a click on a row opens the page of its latent. rows: with the columns of `columns`,
    `key`, which names a row's card and place, where there are actions `named` and `pressed` (the
    name of the one in force, or ""), and, if some rows stand back, `pale`; places: what the page of
    each row's latent is asked for; height: in pixels, at most; chosen: the key of the row that is
    marked as open. Returns the action that was just pressed, or "open" for a click on a row without
    a place, and the key of the row.

    choose: a callback for the key of a row that is clicked, which then opens nothing by itself;
    only its links and those of its card do, where the row has a place.
    """
    names = list(
        dict.fromkeys(
            ["key", *(one.name for one in columns if one.kind != "actions")]
            + [one.key for one in columns]
            + ["named", "pressed"] * bool(actions)
            + ["pale"] * ("pale" in rows)
        )
    )
    result = _rows(
        data={
            "columns": [vars(column) for column in columns],
            "rows": [_plain(row, columns) for row in rows[names].to_dict("records")],
            "cards": dict(cards),
            "places": {name: dict(place) for name, place in places.items()},
            "actions": [vars(action) for action in actions],
            "height": height,
            "of": key,
            "chosen": chosen,
        },
        on_opened_change=lambda: tell(key, places, choose),
        on_acted_change=lambda: None,
        key=key,
    )
    if result.opened:
        what, opened = str(result.opened["what"]), str(result.opened["key"])
        if opened in places and not (choose and what == "row"):
            open_place(what, places[opened])
        elif choose and what == "steer":
            open_place(what, place_of_card(cards[opened]))
        elif not choose:
            return "open", opened
    return (result.acted["action"], str(result.acted["key"])) if result.acted else None


def tell(
    key: str, places: Mapping[str, Mapping[str, str]], choose: Callable[[str], None] | None
) -> None:
    """Before the page is run anew: what was clicked is chosen, unless its card opens it."""
    event = st.session_state[key]["opened"]
    if choose is None or not event or event["what"] == "steer":
        return
    if event["what"] == "row" or str(event["key"]) not in places:
        choose(str(event["key"]))


def place_of_card(card: Card) -> dict[str, str]:
    """`place_of` the latent of a card."""
    return {"run": card["run"], "latent": str(card["latent"])}


def open_place(what: str, place: Mapping[str, str]) -> None:
    """Go to a latent's page, or steer with it. what: "row" or "open", or "steer"."""
    if what == "steer":
        steer = {"run": place["run"], "view": "steer", "steer": place["latent"]}
        st.switch_page("pages/decompose.py", query_params=steer)
    else:
        st.switch_page("pages/latents.py", query_params=dict(place))


def _plain(row: Mapping[str, Any], columns: Sequence[Column]) -> dict[str, Any]:
    """Values that JSON has: nothing for what is missing. Numbers come with their texts, since
    JavaScript rounds otherwise than the sentences of a page (0.825 to 0.83)."""
    values = {name: _value(value) for name, value in row.items()}
    numbers = [column for column in columns if column.kind == "number"]
    return values | {"texts": {one.name: number_text(one, values[one.name]) for one in numbers}}


def number_text(column: Column, value: float | None) -> str:
    """As its column shows it; what rounds to nothing has no sign."""
    if value is None:
        return "–"
    text = f"{abs(value):{'' if column.is_name else ','}.{column.digits}f}"
    sign = "" if not text.strip("0.") else "−" if value < 0 else "+" * column.sign
    return f"{sign}{text}{column.unit}"


def _value(value: Any) -> Any:
    if pd.isna(value):
        return None
    return value.item() if isinstance(value, np.generic) else value
