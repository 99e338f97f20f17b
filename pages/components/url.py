"""What a page shows, kept in the URL: a link is the state."""

from collections.abc import Callable, Mapping

import streamlit as st

from pages.components.text import literal

_MOST_DIGITS = 18


def follow_url(name: str, options: list, key: str = "") -> None:
    """Take a widget's value from the URL when the URL is not of our own writing. key: under which
    the session has it, by default the name in the URL; another where the page must not change what
    other pages have under that name."""
    key = key or name
    wanted = st.query_params.get(name)
    is_new = key not in st.session_state  # Streamlit drops it when another page is opened
    if wanted is not None and (is_new or wanted != st.session_state.get(f"_written_{key}")):
        matching = [option for option in options if str(option) == wanted]
        if matching:
            st.session_state[key] = matching[0]
        else:
            st.warning(f"The link asks for {literal(wanted)}, which is not here.")
    if options and st.session_state.get(key) not in options:
        st.session_state[key] = options[0]


def follow_url_list(name: str, options: list[str], default: list[str]) -> None:
    """`follow_url` for a widget with several values, in the URL with commas between them."""
    wanted = st.query_params.get(name)
    is_new = name not in st.session_state
    if wanted is not None and (is_new or wanted != st.session_state.get(f"_written_{name}")):
        parts = [value for value in wanted.split(",") if value]
        st.session_state[name] = [value for value in parts if value in options]
        for value in parts:
            if value not in options:
                st.warning(f"The link asks for {literal(value)}, which is not here.")
    elif is_new:
        st.session_state[name] = default
    st.session_state[name] = [value for value in st.session_state[name] if value in options]


def follow_url_text(name: str) -> None:
    """`follow_url` for a field that takes any text."""
    wanted = st.query_params.get(name)
    is_new = name not in st.session_state
    if wanted is not None and (is_new or wanted != st.session_state.get(f"_written_{name}")):
        st.session_state[name] = wanted
    st.session_state.setdefault(name, "")


def write_url(name: str, value, key: str = "") -> None:
    """Put a value into the URL, so that the link is the state. key: as in `follow_url`."""
    if value is None:
        st.query_params.pop(name, None)
    else:
        st.query_params[name] = str(value)
    st.session_state[f"_written_{key or name}"] = None if value is None else str(value)


def is_from_link(*names: str) -> bool:
    """Whether the link says something else of these than was written last, before widgets follow
    it: one that was opened, or a step back or forth."""
    return any(
        st.query_params.get(name) != st.session_state.get(f"_written_{name}") for name in names
    )


def keep(*names: str) -> None:
    """Let choices outlast a look at another page, at which Streamlit would forget them."""
    st.session_state["_kept"] = {*st.session_state.get("_kept", ()), *names}


def restore_kept() -> None:
    """At the top of every page; to set a choice is what keeps it."""
    for name in st.session_state.get("_kept", ()):
        if name in st.session_state:
            st.session_state[name] = st.session_state[name]


def choose(widget: Callable, label: str, names: Mapping, name: str, **options):
    """One of several values that follows the link, where the first of them is not written. widget:
    such as st.selectbox; names: what each value is called."""
    follow_url(name, list(names))
    chosen = widget(label, list(names), format_func=names.get, key=name, **options)
    write_url(name, None if chosen == next(iter(names)) else chosen)
    return chosen


def linked_switch(place, label: str, name: str, **options) -> bool:
    """A switch that follows the link, off at first. place: where it stands, such as st."""
    follow_url(name, [False, True])
    chosen = place.toggle(label, key=name, **options)
    write_url(name, chosen or None)
    return chosen


def choose_view(names: Mapping[str, str]) -> str:
    """What a page is looked at as, in the link as `view`."""
    look = {"required": True, "label_visibility": "collapsed"}
    return choose(st.segmented_control, "Look at", names, "view", **look)


def follow_url_number(name: str, low: float, high: float, default: float) -> None:
    """`follow_url` for a slider from `low` to `high`, whose numbers have the default's type."""
    wanted = st.query_params.get(name)
    is_new = name not in st.session_state
    if wanted is not None and (is_new or wanted != st.session_state.get(f"_written_{name}")):
        number = _number(wanted)
        taken = default if number != number else type(default)(min(high, max(low, number)))
        if taken != number:
            kind = "whole number" if isinstance(default, int) else "number"
            asked = f"The link asks for {literal(name)} {literal(wanted)}"
            st.warning(f"{asked}, which is no {kind} from {low:g} to {high:g}: {taken:g} is taken.")
        st.session_state[name] = taken
    st.session_state.setdefault(name, default)


def number_below(text: str, limit: float) -> int | None:
    """A number from 0 to `limit` (not included) as a link has it; None where it is none. Python
    refuses to read one of thousands of digits."""
    number = int(text) if text.isdecimal() and len(text) <= _MOST_DIGITS else limit
    return int(number) if number < limit else None


def _number(text: str) -> float:
    """NaN where it is none."""
    try:
        return float(text)
    except ValueError:
        return float("nan")
