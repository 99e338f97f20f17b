"""The text of the Decompose page: its tokens in their colours, one that is locked, and latents that
light up the tokens that use them."""

import numpy as np
import pandas as pd
import streamlit as st

from itda_core.analysis.decomposition import Decomposition
from pages.components.decompose.colours import (
    COLOURS,
    Shading,
    latent_legend_row,
    left_unexplained,
    legend_row,
    shading_of,
)
from pages.components.decompose.terms import lights_of, terms_text
from pages.components.latent_rows.card import cards_of
from pages.components.latent_rows.rows import open_place, place_of
from pages.components.text import literal, quoted
from pages.components.token_strip.strip import (
    Jumps,
    choose_token,
    jumps_to,
    show_rows,
    token_row,
)
from pages.components.url import choose, keep, number_below, write_url

_HELP = (
    "Left unexplained: the share of the token's squared norm that the terms leave. One latent: its "
    "coefficient; click one below the text. Surprise: −log2 p of the token given those before it, "
    "in bits. Norm: ‖x − o‖, where o is what is subtracted first (the mean activation, or nothing)."
    " The scale goes from the 5 % of tokens with the smallest values to the 5 % with the largest. "
    "Hatched tokens are not decomposed: the first position of a text carries no content."
)

_REST_CHARACTERS = 80
"""Shown of what is left out of a text that is too long"""
_WORST = 5
_WORST_HELP = (
    "The tokens of this text of which the terms leave the largest share of the squared norm, "
    "‖x − x̂‖² / ‖x − o‖², where o is what is subtracted first (the mean activation, or nothing). "
    "Hatched tokens are not decomposed and not counted."
)


def show_text(run, result: Decomposition, table: pd.DataFrame, latents: pd.DataFrame) -> int | None:
    """Draw it; returns the position of the locked token. Lock, colours and latent are in the link.
    run: a row of Store.runs.table(); table: result.table(); latents: of `latents_of`."""
    key = f"strip_{hash(result.text)}"
    _restore(key)
    _lock_from_link(result, key)
    _light_from_link(result, key, latents)
    colour = _choose_colour(key, latents)
    lit = _state(key)["lit"]
    if colour == "latent":
        shading = left_unexplained(result)
        of_lit = table.loc[table["latent"] == lit].groupby("position")["coefficient"].sum()
        legend = latent_legend_row(lit, of_lit.to_numpy())
    else:
        shading = shading_of(run, result, colour)
        legend = legend_row(shading)
    show_rows([legend], key="legend")
    lights = lights_of(run, table, latents, lit)
    row = _strip_row(result, shading)
    cards = cards_of(run, [light["latent"] for light in lights])
    locked, named = choose_token(
        row, lights, key, cards, _explained_worst(result), on_lit=lambda: _follow_light(key)
    )
    if named:
        open_place(named["what"], place_of(run, named["latent"]))
    st.session_state["_locks"] = {key: dict(st.session_state[key])}
    write_url("token", locked)
    write_url("lit", lit)
    st.caption(
        "Click a token, in the text or among those explained worst, for its terms, or go from one "
        "to the next with ← and →; Esc lets it go. "
        "The latents below the text light up the tokens that use them."
    )
    return locked


def _explained_worst(result: Decomposition) -> Jumps:
    """The tokens of which the largest share of the squared norm is left; those that are not
    decomposed have none."""
    shares = result.shares_left
    worst = [
        (int(result.positions[row]), quoted(result.token_text(result.positions[row])), shares[row])
        for row in result.explained_worst(_WORST)
    ]
    return jumps_to(
        "Explained worst",
        _WORST_HELP,
        [(position, f"{position}: {text}", f"{share:.0%}") for position, text, share in worst],
    )


def _choose_colour(key: str, latents: pd.DataFrame) -> str:
    """One of COLOURS, and with it whether a latent is lit."""
    keep("by")
    options = {name: told for name, told in COLOURS.items() if name != "latent" or len(latents)}
    colour = choose(st.segmented_control, "Colour by", options, "by", required=True, help=_HELP)
    lit = _state(key)["lit"]
    if colour == "latent" and lit is None:
        _set(key, lit=int(latents["latent"].iloc[0]))
    elif colour != "latent" and lit is not None:
        _set(key, lit=None)
    return colour


def _follow_light(key: str) -> None:
    """A latent that is clicked colours the text; freed, it leaves it."""
    if _state(key)["lit"] is not None:
        st.session_state["by"] = "latent"
    elif st.session_state.get("by") == "latent":
        st.session_state["by"] = next(iter(COLOURS))


def _restore(key: str) -> None:
    """A lock belongs to its text, and outlasts a look at another page."""
    if key not in st.session_state:
        st.session_state[key] = st.session_state.get("_locks", {}).get(
            key, {"locked": None, "lit": None}
        )


def _lock_from_link(result: Decomposition, key: str) -> None:
    wanted, written = st.query_params.get("token", ""), st.session_state.get("_written_token")
    locked = _state(key)["locked"]
    if locked is not None and str(locked) != written:
        return  # locked just now: by quick keys the browser tells of an address that is behind
    if not wanted or wanted == written:
        return
    number = number_below(wanted, len(result.spans()))
    if number is None:
        st.warning(f"The link asks for token {literal(wanted)}, which this text does not have.")
    else:
        _set(key, locked=number)


def _light_from_link(result: Decomposition, key: str, latents: pd.DataFrame) -> None:
    """Also drops a latent that the text, with so many terms, does not use (any more)."""
    wanted, used = st.query_params.get("lit", ""), set(latents["latent"].tolist())
    if wanted and wanted != st.session_state.get("_written_lit"):
        number = number_below(wanted, len(result.sources))
        if number in used:
            _set(key, lit=number)
            st.session_state["by"] = "latent"
            st.session_state["_written_by"] = st.query_params.get("by")
        else:
            st.warning(f"The link asks for latent {literal(wanted)}, which this text does not use.")
    if _state(key)["lit"] not in (None, *used):
        _set(key, lit=None)


def _state(key: str) -> dict:
    return {"locked": None, "lit": None} | dict(st.session_state.get(key) or {})


def _set(key: str, **changes) -> None:
    st.session_state[key] = _state(key) | changes


def _strip_row(result: Decomposition, shading: Shading) -> dict:
    spans = result.spans()
    told = _told_of_tokens(result)
    hovers = []
    for position in range(len(spans)):
        value = shading.values[position]
        lines = [f"{quoted(result.token_text(position))}, token {position}"]
        lines += told.get(position, ["not decomposed"])
        if not np.isnan(value) and shading.title.startswith("Surprise"):
            lines.append(f"surprise {value:.1f} bits, probability {2.0**-value:.2%}")
        hovers.append("\n".join(lines))
    dimmed = [position for position in range(len(spans)) if position not in told]
    names = ["" if end > start else result.token_text(n) for n, (start, end) in enumerate(spans)]
    return token_row(
        _as_read(result), spans, shading.colours(), hovers, dimmed=dimmed, breaks=True, names=names
    )


def _as_read(result: Decomposition) -> str:
    """The text; of one that is longer than what is decomposed only how the rest begins."""
    end = max(end for _, end in result.spans()) + _REST_CHARACTERS
    return f"{result.text[:end]} …" if result.is_cut and end < len(result.text) else result.text


def _told_of_tokens(result: Decomposition) -> dict[int, list[str]]:
    """By position, lines on each token that is decomposed."""
    rows = zip(
        result.positions.tolist(),
        result.shares_left,
        result.counts.tolist(),
        result.residuals[:, 0],
        strict=True,
    )
    return {
        position: [f"{left:.1%} left unexplained by {terms_text(count)}", f"norm {norm:.1f}"]
        for position, left, count, norm in rows
    }
