"""A memory that is full at any moment is a sentence and costs nothing that was there."""

import errno
import os
import signal

import pyarrow as pa
import pytest

from itda_core.tables import read_frame, write_table
from tests.faults.test_disks import files_of_runs, what_it_said
from tests.faults.test_real_disks import NAMES, confined
from tests.support import dying
from tests.support.confined import Little, little_memory
from tests.support.dying import Trouble
from tests.support.writing_commands import assert_runs_are_whole

N_SIZES = int(os.environ.get("ITDA_FAULT_KILLS", 1))
"""of each kind"""
TABLE_SIZES = [2**19 + number * 2**18 for number in range(40)]
pytestmark = pytest.mark.skipif(
    not os.path.exists("/proc/self/statm"),  # noqa: PTH110
    reason="the limit is set by what Linux tells",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_process_without_memory_says_so(writing, name, tmp_path):
    writing.whole(name)
    for number in range(N_SIZES):
        folder, room = tmp_path / f"little-{number}", 2 ** (19 + number * 9 // N_SIZES)
        writing.begin(name, folder)
        before = files_of_runs(folder)
        life = confined(writing, name, folder, Little("memory", room))
        _assert_nothing_lost(writing, name, folder, life, before, f"{room:,} bytes")


@pytest.mark.parametrize("name", NAMES)
def test_an_allocation_that_fails_says_so(writing, name, tmp_path):
    _, n_moments = writing.whole(name)
    for moment in dying.chosen(n_moments, N_SIZES, seed=2):
        folder = tmp_path / f"moment-{moment}"
        writing.begin(name, folder)
        before = files_of_runs(folder)
        life = writing.run(name, folder, Trouble(moment, errno.ENOMEM))
        _assert_nothing_lost(writing, name, folder, life, before, f"moment {moment}")


def _read_with_little_memory(folder, _sender, room):
    signal.alarm(60)
    little_memory(room)
    try:
        read_frame(folder / "table.parquet")
    except (OSError, MemoryError):
        return 1


def test_a_table_is_read_or_refused_in_a_process_without_memory(tmp_path):
    """Arrow's reader of datasets waits for ever, or ends the process."""
    table = pa.table({"latent": range(200), "text": [str(number) for number in range(200)]})
    write_table(table, tmp_path / "table.parquet")
    for room in TABLE_SIZES:
        life = dying.live(_read_with_little_memory, tmp_path, room)
        assert life.code in (0, 1), (room, life.code, life.printed)


def _assert_nothing_lost(writing, name, folder, life, before, why):
    assert life.code in (0, 1, 2), (why, life.code, life.printed)
    assert "Traceback" not in life.printed, (why, life.printed)
    assert "should not happen" not in life.printed, (why, life.printed)
    assert "delete" not in life.printed.lower(), (why, life.printed)
    if life.code:
        assert "memory" in what_it_said(life), (why, life.printed)
    assert_runs_are_whole(folder, {path.split("/")[0] for path in before}, why)
    writing.assert_done_again_comes_to_the_same(name, folder, why)
