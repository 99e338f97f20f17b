"""How far work is, told of its parts."""

import pytest

from itda_core.progress import Progress


@pytest.mark.parametrize("parts", range(1, 60))
def test_at_the_end_of_the_last_part_nothing_is_left(parts):
    progress, before = Progress("measuring"), 0.0
    for _ in range(parts):
        progress.follow(1.0, before, 1 / parts, 3.0)
        before += 1 / parts
    assert 0.999 < progress.fraction <= 1.0
    assert f"{progress.seconds_left:.0f}" == "0"


def test_what_is_left_takes_as_long_as_what_was_done():
    progress = Progress("measuring")
    progress.follow(0.5, 0.25, 0.25, 10.0)  # half of the second of four parts took 10 s
    assert progress.fraction == pytest.approx(0.375)
    assert progress.seconds_left == pytest.approx(50.0)  # half a part and two whole ones
