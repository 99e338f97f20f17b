"""Numbers of any length in a link: Python reads none of over 4,300 digits."""

import re

import pytest
from streamlit.testing.v1 import AppTest

from tests.support.app import REPOSITORY

LONG = "9" * 5_000
VIEWS = [
    ("latents", ""), ("latents", "map"), ("decompose", ""), ("decompose", "what-if"),
    ("decompose", "steer"), ("decompose", "two"), ("decompose", "prompts"),
    ("similarity", "layers"), ("similarity", "models"), ("similarity", "latents"),
    ("evaluate", ""),
]  # fmt: skip


def parameters(page):
    """Of its links, as the guide tells them."""
    guide = (REPOSITORY / "docs" / "guide.md").read_text("utf-8")
    rows = re.findall(r"^\| (`[^|]+`) \| ([^|]+) \|", guide, re.MULTILINE)
    told = {name for names, pages in rows if page.title() in pages for name in names.split("`")}
    return {name for name in told if re.fullmatch(r"\w+", name)} - {"text", "view", "run"}


@pytest.mark.parametrize("begin", ["", "-", "0*", "1:"])
@pytest.mark.parametrize(("page", "view"), VIEWS)
def test_no_number_of_a_link_is_too_long(own_data, page, view, begin):
    names = parameters(page)
    assert len(names) > 1
    app = AppTest.from_file(str(REPOSITORY / "app.py"), default_timeout=120)
    for name in names:
        app.query_params[name] = f"{begin}{LONG}"
    if view:
        app.query_params["view"] = view
    if page == "decompose":
        app.query_params["text"] = "The Senate will ratify the treaty."
        if view != "prompts":
            del app.query_params["prompt"], app.query_params["kept"]
    app.switch_page(f"pages/{page}.py")
    app.run()
    assert not app.exception
    assert not [error.value for error in app.error if "could not be shown" in error.value]
