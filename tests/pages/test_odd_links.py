"""Links that hold anything open a page all the same: what can't be followed is said or left out.

At length by `make faults` (`ITDA_FAULT_INPUTS` links).
"""

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from streamlit.testing.v1 import AppTest

from tests.pages.test_long_numbers import VIEWS, parameters
from tests.support.app import REPOSITORY

N_LINKS = -(-int(os.environ.get("ITDA_FAULT_INPUTS", len(VIEWS))) // len(VIEWS))
"""of each view"""
ODD = [
    "", "0", "-1", "3", "1e400", "nan", "inf", "0x1F", "１２", "2,3", "2,2,2", ",", "1:2", ":",
    "1:nan", "'; DROP TABLE runs; --", "../../etc/passwd", "/dev/zero", "\0", "\u202e",
    "<script>alert(1)</script>", "[", "(", "*", "a{99999}", "$x^2$", "x" * 3_000, "true", "None",
    "all", "word",
]  # fmt: skip
FRAGMENTS = st.one_of(st.sampled_from(ODD), st.text(max_size=30))


@pytest.mark.parametrize(("page", "view"), VIEWS)
@settings(
    max_examples=N_LINKS,
    deadline=None,
    database=None,
    derandomize="ITDA_FAULT_INPUTS" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
@given(draw=st.data())
def test_any_link_opens_a_page(own_data, page, view, draw):
    names = sorted(parameters(page) | {"run"})
    link = draw.draw(st.dictionaries(st.sampled_from(names), FRAGMENTS, max_size=8))
    app = AppTest.from_file(str(REPOSITORY / "app.py"), default_timeout=120)
    for name, value in link.items():
        app.query_params[name] = value
    app.query_params["view"] = draw.draw(st.sampled_from([view, view, view, "other"]))
    if page == "decompose":
        app.query_params["text"] = "The Senate will ratify the treaty."
    app.switch_page(f"pages/{page}.py")
    app.run()
    assert not app.exception
    assert not [error.value for error in app.error if "could not be shown" in error.value]
