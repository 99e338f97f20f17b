"""Which of the uses of a latent are listed: twenty at a time, the strongest first, as the link
says."""

from collections.abc import Hashable

import streamlit as st

from pages.components.url import number_below, write_url

USES_SHOWN = 20
_FROM, _MOST = "uses_from", 10**9


def first_use(of: Hashable) -> int:
    """The place of the first use that is listed, from 0, a multiple of USES_SHOWN: the one in the
    link, or turned to last; 0 where something else is listed by now. of: what is listed."""
    was_of, first = st.session_state.get(f"_{_FROM}", (of, 0))
    wanted = st.query_params.get(_FROM)
    if wanted is not None and wanted != st.session_state.get(f"_written_{_FROM}"):
        was_of, first = of, (number_below(wanted, _MOST) or 1) - 1
    first = first // USES_SHOWN * USES_SHOWN if was_of == of else 0
    st.session_state[f"_{_FROM}"] = of, first
    return first


def write_first_use(first: int) -> None:
    """Into the link, where places count from 1."""
    write_url(_FROM, first + 1 if first else None)


def show_use_pages(of: Hashable, uses: str, first: int, shown: int, total: int) -> None:
    """How many there are, which of them are listed, and buttons for the others. of: as in
    `first_use`; uses: what they are called; shown: how many are listed, from place `first` on."""
    write_first_use(first)
    if total <= shown:
        return
    told, before, after = st.columns([3, 1.4, 1.4], vertical_alignment="center")
    told.caption(f"{first + 1:,} to {first + shown:,} of {total:,} {uses}, strongest first")

    def turn(target: int) -> None:
        st.session_state[f"_{_FROM}"] = of, target

    before.button(
        "Stronger ones",
        on_click=turn,
        args=[max(0, first - USES_SHOWN)],
        disabled=not first,
        width="stretch",
        key="stronger_uses",
    )
    after.button(
        f"{min(USES_SHOWN, max(0, total - first - shown)) or USES_SHOWN} more",
        on_click=turn,
        args=[first + USES_SHOWN],
        disabled=first + shown >= total,
        width="stretch",
        key="more_uses",
    )
