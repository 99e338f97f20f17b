"""The children that tests/faults attacks start from nothing but what they were told."""

import os

import pytest
from streamlit.testing.v1 import AppTest

from tests.support import dying

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")


def test_a_child_does_not_run_the_page_that_was_tried_before(tmp_path):
    page = AppTest.from_function(_page, args=("its argument",))
    assert not page.run().exception
    life = dying.live(_tell, tmp_path / "data")
    assert (life.code, life.told, life.printed) == (0, [7], "")


def _page(_argument):
    """Streamlit leaves it as the main program, and it cannot run as one without its argument."""


def _tell(_folder, sender):
    sender.send(7)
