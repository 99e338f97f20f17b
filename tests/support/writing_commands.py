"""Commands that write, each on a data folder of its own, and what they come to undisturbed."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from itda_core.model import loading
from itda_core.runs.interrupted import interrupted_trainings
from itda_core.runs.results import EVALUATION_FILE
from itda_core.runs.run import list_runs, survey
from itda_core.store.store import Store
from tests.support import dying
from tests.support.command_line import train_options
from tests.support.foreign import write_saelens
from tests.support.store_contents import assert_same_contents, contents
from tests.support.trained_runs import assert_same_runs, tiny_config

KINDS = ("coverage", "threshold", "sweep", "move", "import-sae", "evaluate", "rebuild")


@dataclass
class Kind:
    """A command that writes."""

    command: list[object]
    same: Callable[[Path, Path], None]
    """asserts that two data folders hold the same"""
    begins_with: Path | None = None
    """the folder of the runs that are there before"""
    prepare: Callable[[Path], None] | None = None
    """what its process does first"""


def read_block_by_block(_folder: Path) -> None:
    """Of a child: its models are, however little memory they take."""
    loading._fits = lambda *_: False


class WritingCommands:
    """The commands of KINDS, on the tiny model and its texts."""

    def __init__(self, folder: Path, model: Path, corpus: Path, runs: Path):
        """folder: an empty one; runs: of the tiny model."""
        self._folder, self._model, self._corpus = folder, model, corpus
        self._wholes: dict[str, tuple[Path, int]] = {}
        run_id = list_runs(runs)[0].run_id
        sae, float32 = write_saelens(folder / "sae"), ["--dtype", "float32"]
        texts = ["--corpus", corpus, "--max-tokens", 400, *float32]
        measured = ["evaluate", run_id, "--max-tokens", 300, "--save"]
        move = ["move", run_id, "--layer", 3, "--no-scores", *float32]
        self.kinds = {
            "coverage": Kind(self._training("coverage"), _same_runs),
            "threshold": Kind(self._training("threshold"), _same_runs),
            "sweep": Kind(self._training("threshold"), _same_runs, prepare=read_block_by_block),
            "move": Kind(move, _same_runs, runs),
            "import-sae": Kind(["import-sae", sae, "--model", model, *texts], _same_runs),
            "evaluate": Kind(measured, _same_measures, runs),
            "rebuild": Kind(["rebuild"], _same_store, runs),
        }

    def _training(self, selection: str) -> list[object]:
        config = tiny_config(
            self._model, self._corpus, selection=selection, layers=(1,), max_tokens=400,
            max_atoms=60, explored_tokens=200,
        )  # fmt: skip
        return ["train", *train_options(config), "--no-scores", "--dtype", "float32"]

    def begin(self, name: str, folder: Path) -> None:
        """Fill a data folder as it is before the command: with what the model has proved, too,
        since that takes longer than the rest."""
        if runs := self.kinds[name].begins_with:
            shutil.copytree(runs, folder / "runs")
        cache = self._folder / "cache" / name
        if cache.exists():
            shutil.copytree(cache, folder / "cache")

    def run(self, name: str, folder: Path, trouble: dying.Trouble | None = None) -> dying.Life:
        """Run the command on a data folder."""
        kind = self.kinds[name]
        return dying.run(kind.command, folder, trouble, kind.prepare)

    def whole(self, name: str) -> tuple[Path, int]:
        """The data folder after the command, and how many moments it has."""
        if name not in self._wholes:
            folder = self._folder / name
            self.begin(name, folder)
            self.run(name, folder)
            if (folder / "cache").exists():
                shutil.move(folder / "cache", self._folder / "cache" / name)
            shutil.rmtree(folder)
            self.begin(name, folder)
            life = self.run(name, folder)
            assert life.code == 0, life.printed
            self._wholes[name] = folder, len(life.told)
        return self._wholes[name]

    def assert_done_again_comes_to_the_same(self, name: str, folder: Path, why: object) -> None:
        """Done again on what a disturbed command has left."""
        again = self.run(name, folder)
        assert again.code == 0, (why, again.printed)
        self.kinds[name].same(folder, self.whole(name)[0])
        assert interrupted_trainings(folder / "runs") == {}, why


def assert_runs_are_whole(folder: Path, before: set[str], why: object) -> None:
    """None is half there, and none of those that were there is gone."""
    found, errors = survey(folder / "runs")
    assert not errors, (why, errors)
    assert before <= {run.run_id for run in found}, why


def _same_runs(folder: Path, other: Path) -> None:
    assert_same_runs(folder / "runs", other / "runs")


def _same_measures(folder: Path, other: Path) -> None:
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


def _same_store(folder: Path, other: Path) -> None:
    """But for where the runs are."""
    found = []
    for data in (folder, other):
        store = Store(data / "explorer.duckdb")
        found.append(contents(store))
        store.close()
        found[-1]["runs"] = found[-1]["runs"].drop(columns="directory")
    assert_same_contents(*found)
