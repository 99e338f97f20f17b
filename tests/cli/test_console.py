"""Progress as the command line tells it."""

from itda_core.cli.console import describe
from itda_core.progress import Progress


def test_a_model_read_block_by_block_is_told_as_that():
    """No token is done while all go through the blocks: a speed of tokens would say nothing."""
    progress = Progress("training", total_tokens=4_096, fraction=0.25, tokens_per_second=44.0)
    assert describe(progress) == "Training: 25%, 0 of 4,096 tokens, 44 tokens/s"
    progress.block = 3
    assert describe(progress) == "Training: 25%, the model is read block by block, now block 3"
