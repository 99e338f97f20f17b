"""A disk that is full, broken or closed at any moment costs nothing that was there: the command
says so in a sentence, and done again it comes to what it would have come to undisturbed."""

import errno
import os
import re
import shutil

import pytest

from itda_core.runs.run import list_runs
from itda_core.sealed import DIGESTS_FILE, entry_of
from tests.support import dying
from tests.support.dying import Trouble
from tests.support.writing_commands import KINDS, assert_runs_are_whole

N_TROUBLES = int(os.environ.get("ITDA_FAULT_KILLS", 2))
"""of each kind"""
ERRORS = (
    ("is full from then on", errno.ENOSPC, True),
    ("has no quota left for one file", errno.EDQUOT, False),
    ("has a bad block", errno.EIO, False),
    ("can only be read from then on", errno.EROFS, True),
    ("is broken from then on", errno.EIO, True),
    ("takes the rights away", errno.EACCES, True),
)
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")


@pytest.mark.parametrize("name", KINDS)
def test_a_disk_that_fails_costs_nothing(writing, name, tmp_path):
    _, n_moments = writing.whole(name)
    first = KINDS.index(name)
    for number, moment in enumerate(dying.chosen(n_moments, N_TROUBLES, seed=1), first):
        words, error, stays = ERRORS[number % len(ERRORS)]
        folder, why = tmp_path / f"failed-{moment}", f"moment {moment}: the disk {words}"
        writing.begin(name, folder)
        before = files_of_runs(folder)
        life = writing.run(name, folder, Trouble(moment, error, stays))
        assert_says_it_in_a_sentence(life, why)
        assert_runs_are_whole(folder, {path.split("/")[0] for path in before}, why)
        after = files_of_runs(folder)
        changed = {path for path in before if before[path] != after.get(path)}
        # The digest of what is about to be written is noted there beforehand.
        changed = {path for path in changed if not path.endswith(DIGESTS_FILE)}
        assert life.code == 0 or not changed, (why, changed)
        writing.assert_done_again_comes_to_the_same(name, folder, why)
        shutil.rmtree(folder)


def files_of_runs(folder):
    """The digest of each file of each run, by its place."""
    runs = folder / "runs"
    files = [path for run in list_runs(runs) for path in run.directory.iterdir()]
    return {str(path.relative_to(runs)): entry_of(path) for path in files}


def what_it_said(life):
    """The sentence in which a command says why it ended, and what stands below."""
    return life.printed[re.search("^Error: ", life.printed, re.MULTILINE).start() :]


def assert_says_it_in_a_sentence(life, why):
    assert life.code in (0, 1, 2), (why, life.code, life.printed)
    assert "Traceback" not in life.printed, (why, life.printed)
    assert "should not happen" not in life.printed, (why, life.printed)
    if life.code:
        said = what_it_said(life)
        assert re.search(r"[.!?]\s*$", said), (why, said)
        assert "delete" not in said.lower(), (why, said)
        assert "unharmed" in said or "left as it is" in said or "rights" in said, (why, said)
