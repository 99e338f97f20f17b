"""A field for a number, whose text is checked here and not in the browser.

Streamlit's own number field keeps the value from before when what is typed is out of range, takes
12 for "12abc" and the default for nothing, and rounds above 2^53: what the page works with is then
not what stands in the field.
"""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from itda_core.errors import SettingError
from itda_core.settings import Setting
from pages.components.text import sentence
from pages.components.url import write_url


def number_field(place: Any, setting: Setting, key: str, default: float, **options: Any) -> str:
    """Draw the field of a setting; its text, for `read_numbers`. place: where it stands; options:
    of `st.text_input`."""
    if not isinstance(st.session_state.get(key), str):
        st.session_state[key] = _text(st.session_state.get(key, default))
    return place.text_input(
        setting.label, key=key, help=options.pop("help", setting.page_help) or None, **options
    )


def linked_number_field(
    place: Any,
    setting: Setting,
    key: str,
    default: float,
    writes_default: bool = True,
    **options: Any,
) -> str:
    """The same, following the link: what that asks for stands in the field and is checked there.
    writes_default: whether the link says so, too, where nothing was changed."""
    wanted = st.query_params.get(key)
    is_new = key not in st.session_state
    if wanted is not None and (is_new or wanted != st.session_state.get(f"_written_{key}")):
        st.session_state[key] = wanted
    text = number_field(place, setting, key, default, **options)
    is_default = text.strip() == _text(default)
    write_url(key, None if is_default and not writes_default else text)
    return text


def read_numbers(texts: Mapping[Setting, str]) -> dict[str, Any] | None:
    """The numbers by the keys of their settings. Where some are wrong, a sentence each is shown
    and it is None."""
    numbers, is_wrong = {}, False
    for setting, text in texts.items():
        try:
            numbers[setting.key] = setting.read(text)
        except SettingError as error:
            st.warning(sentence(error))
            is_wrong = True
    return None if is_wrong else numbers


def _text(number: float) -> str:
    """A number as the field shows it at first."""
    return f"{number:g}" if isinstance(number, float) else str(number)
