"""Bad inputs by the thousand, a million in `make faults`: what one file, line, setting or number is
read as is damaged, and read in a child."""

import os

import pytest

from tests.support import dying
from tests.support.many_inputs import KINDS, SLOW, fill, kinds, read_many

N_INPUTS = int(os.environ.get("ITDA_FAULT_MANY", 40 * len(KINDS)))
"""of all kinds together; of the slow ones some more"""
A_CHILD = 5_000
"""Inputs that one child reads, so that it has no time to grow"""
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")


@pytest.fixture(scope="module")
def filled(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    fill(folder, data)
    return folder


def test_the_kinds_are_those_that_are_made(filled):
    assert set(kinds(filled)) == set(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_inputs_are_read_or_refused_in_a_sentence(filled, name):
    count = -(-N_INPUTS // (len(KINDS) - len(SLOW)))
    if name in SLOW:
        count = -(-count // 10)
    for first in range(0, count, A_CHILD):
        life = dying.live(read_many, filled, name, first, min(A_CHILD, count - first))
        assert life.code == 0, (f"after {life.told[-1:]}", life.printed)
