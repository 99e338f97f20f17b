"""A command that is killed at any moment costs nothing that was whole, and done again it comes to
what it would have come to undisturbed."""

import os
import shutil

import pytest

from itda_core.runs.labels import LABELS_FILE, Change, Label, add_changes, read_changes
from itda_core.runs.run import list_runs
from tests.support import dying
from tests.support.dying import Trouble
from tests.support.writing_commands import KINDS, assert_runs_are_whole

N_KILLS = int(os.environ.get("ITDA_FAULT_KILLS", 3))
"""of each kind"""
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")


@pytest.mark.parametrize("name", KINDS)
def test_a_killed_command_done_again_comes_to_the_same(writing, name, tmp_path):
    _, n_moments = writing.whole(name)
    for moment in dying.chosen(n_moments, N_KILLS):
        folder = tmp_path / f"killed-{moment}"
        writing.begin(name, folder)
        before = {run.run_id for run in list_runs(folder / "runs")}
        killed = writing.run(name, folder, Trouble(moment))
        assert killed.code == dying.KILLED, (moment, killed.printed)
        assert_runs_are_whole(folder, before, moment)
        writing.assert_done_again_comes_to_the_same(name, folder, moment)
        shutil.rmtree(folder)


def test_no_label_that_was_acknowledged_is_lost(tmp_path):
    file = tmp_path / "data" / LABELS_FILE
    written = 0
    for number in range(N_KILLS):
        after = 3 + 5 * (number % 12)
        life = dying.live(_write_labels, tmp_path / "data", written, kill_after=after)
        assert life.code == dying.KILLED, life.printed
        written = life.told[-1] + 1
        changes, bad = read_changes(file.read_bytes())
        kept = [change.label.latent for change in changes]
        assert [latent for latent in kept if latent < written] == list(range(written))
        assert len(bad) <= number + 1  # a line that the kill cut
        written = max(kept) + 1


def _write_labels(folder, sender, first):
    for latent in range(first, first + 100_000):
        change = Change(Label("run", latent, "p", 5, "war"), ("label",))
        add_changes(folder / LABELS_FILE, [change])
        sender.send(latent)
