"""A command that is killed at any moment costs nothing that was whole, and done again it comes to
what it would have come to undisturbed."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from itda_core.runs.labels import LABELS_FILE, Change, Label, add_changes, read_changes
from itda_core.runs.results import EVALUATION_FILE
from itda_core.runs.run import list_runs, survey
from itda_core.runs.workspace import interrupted_trainings
from itda_core.store.store import Store
from tests.support import dying
from tests.support.command_line import train_options
from tests.support.foreign import write_saelens
from tests.support.store_contents import assert_same_contents, contents
from tests.support.trained_runs import assert_same_runs, tiny_config

N_KILLS = int(os.environ.get("ITDA_FAULT_KILLS", 4))
"""of each kind"""
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")


@dataclass
class Kind:
    """A command that writes, on a data folder that `begun` has filled."""

    command: list[object]
    same: Callable[[Path, Path], None]
    """asserts that two data folders hold the same"""
    begun: Callable[[Path], None] = field(default=lambda folder: None)


@pytest.fixture
def kinds(tiny_model_folder, tiny_corpus_file, runs_folder, tmp_path):
    def training(selection):
        config = tiny_config(
            tiny_model_folder, tiny_corpus_file, selection=selection, layers=(1,), max_tokens=400,
            max_atoms=60, explored_tokens=200,
        )  # fmt: skip
        return ["train", *train_options(config), "--no-scores"]

    run_id = list_runs(runs_folder)[0].run_id
    sae = write_saelens(tmp_path / "sae")
    texts = ["--corpus", tiny_corpus_file, "--max-tokens", 400]
    return {
        "coverage": Kind(training("coverage"), _same_runs),
        "threshold": Kind(training("threshold"), _same_runs),
        "move": Kind(
            ["move", run_id, "--layer", 3, "--no-scores"], _same_runs, _with_runs(runs_folder)
        ),
        "import-sae": Kind(["import-sae", sae, "--model", tiny_model_folder, *texts], _same_runs),
        "evaluate": Kind(
            ["evaluate", run_id, "--max-tokens", 300, "--save"],
            _same_measures,
            _with_runs(runs_folder),
        ),
        "rebuild": Kind(["rebuild"], _same_store, _with_runs(runs_folder)),
    }


@pytest.mark.parametrize(
    "name", ["coverage", "threshold", "move", "import-sae", "evaluate", "rebuild"]
)
def test_a_killed_command_done_again_comes_to_the_same(kinds, name, tmp_path):
    kind, whole = kinds[name], tmp_path / "whole"
    kind.begun(whole)
    dying.run(kind.command, whole)  # proves the model, which takes longer than the rest
    shutil.move(whole / "cache", tmp_path / "cache") if (whole / "cache").exists() else None
    shutil.rmtree(whole, ignore_errors=True)
    _begin(kind, whole, tmp_path)
    life = dying.run(kind.command, whole)
    assert life.code == 0, life.printed
    for number, moment in enumerate(dying.chosen(len(life.told), N_KILLS)):
        folder = tmp_path / f"killed-{number}"
        _begin(kind, folder, tmp_path)
        before = {run.run_id for run in list_runs(folder / "runs")}
        killed = dying.run(kind.command, folder, moment)
        assert killed.code == dying.KILLED, (moment, killed.printed)
        found, errors = survey(folder / "runs")
        assert not errors, (moment, errors)
        assert before <= {run.run_id for run in found}, moment
        again = dying.run(kind.command, folder)
        assert again.code == 0, (moment, again.printed)
        kind.same(folder, whole)
        assert interrupted_trainings(folder / "runs") == {}, moment
        shutil.rmtree(folder)


def test_no_label_that_was_acknowledged_is_lost(tmp_path):
    file = tmp_path / "data" / LABELS_FILE
    written = 0
    for number in range(N_KILLS):
        life = dying.live(_write_labels, tmp_path / "data", written, kill_after=3 + 5 * number)
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


def _begin(kind, folder, tmp_path):
    kind.begun(folder)
    if (tmp_path / "cache").exists():
        shutil.copytree(tmp_path / "cache", folder / "cache")


def _with_runs(runs):
    return lambda folder: shutil.copytree(runs, folder / "runs") and None


def _same_runs(folder, other):
    assert_same_runs(folder / "runs", other / "runs")


def _same_measures(folder, other):
    """But for when and how fast they were found."""
    _same_runs(folder, other)
    for run in list_runs(other / "runs"):
        files = [data / "runs" / run.run_id / EVALUATION_FILE for data in (folder, other)]
        assert files[0].exists() == files[1].exists()
        if files[0].exists():
            one, two = (json.loads(file.read_text()) for file in files)
            for name in ("seconds", "created"):
                one.pop(name), two.pop(name)
            assert one == two


def _same_store(folder, other):
    """But for where the runs are."""
    found = []
    for data in (folder, other):
        store = Store(data / "explorer.duckdb")
        found.append(contents(store))
        store.close()
        found[-1]["runs"] = found[-1]["runs"].drop(columns="directory")
    assert_same_contents(*found)
