"""Blocks that an evaluation runs, by hand: a model of 4, three passes with something put in."""

import pytest

from itda_core.evaluation.cost import blocks_run


@pytest.mark.parametrize(
    ("site", "layer", "is_swept", "blocks"),
    [
        ("resid_post", 1, False, 3 * 2),  # blocks 2 and 3
        ("resid_post", 3, True, 0),
        ("resid_pre", 1, True, 3 * 3),  # what block 0 gave, so 1, 2 and 3
        ("resid_pre", 0, False, 3 * 4),
        ("mlp_out", 1, False, 3 * 4),  # all, every time
        ("mlp_out", 1, True, 1 + 3 * 3),  # block 0 once
        ("attn_out", 0, True, 3 * 4),
    ],
)
def test_blocks_are_counted_from_where_something_is_put_in(site, layer, is_swept, blocks):
    assert blocks_run(site, layer, 4, 3, is_swept) == blocks
