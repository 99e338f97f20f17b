"""The benchmark of the token strip finds what it measures: it draws the strip without Streamlit."""

import pytest

from benchmarks.speed import strip
from tools.browser_setup import find_browser

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_browser() is None, reason="no browser"),
]


def test_the_strip_is_drawn_and_lit_as_often_as_asked(page, problems):
    found = strip.measure(page)
    assert {name: len(seconds) for name, seconds in found.items()} == dict.fromkeys(
        ("draw", "token", "light"), strip.ROUNDS
    )
    assert page.locator(".token").count() == strip.TOKENS
    assert problems == []
