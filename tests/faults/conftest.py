"""The commands that write, and one of every file that is read, made once for all files of a
worker."""

import shutil

import pytest

from itda_core.analysis.latent_map import map_latents, save_map
from itda_core.evaluation.batch import EvaluationTask, measure_runs
from itda_core.runs.comparisons import save_comparisons
from itda_core.runs.given_names import keep_name, names_file
from itda_core.runs.labels import LABELS_FILE, Change, Label, add_changes
from itda_core.runs.results import save_probing
from itda_core.runs.run import list_runs
from itda_core.sealed import DIGESTS_FILE
from tests.support.writing_commands import WritingCommands


@pytest.fixture(scope="session")
def writing(tmp_path_factory, tiny_model_folder, tiny_corpus_file, runs_folder):
    folder = tmp_path_factory.mktemp("writing")
    return WritingCommands(folder, tiny_model_folder, tiny_corpus_file, runs_folder)


@pytest.fixture(scope="session")
def data(tmp_path_factory, runs_folder):
    """A data folder with one of every kind of file that is read."""
    folder = tmp_path_factory.mktemp("fuzzed") / "data"
    for whole in list_runs(runs_folder)[:2]:  # one that is damaged, and one beside it
        shutil.copytree(whole.directory, folder / "runs" / whole.run_id)
    run = list_runs(folder / "runs")[0]
    save_map(run, map_latents(run.dictionary(), "svd"), "svd")
    list(measure_runs(EvaluationTask((run,), max_tokens=80, save=True)))
    save_probing(run, {"measured_on": {}, "tokens": 9, "seconds": 0.5, "results": []})
    row = {"measure": "cka", "a": "one", "b": "two", "value": 0.5, "reason": "", "tokens": 9}
    save_comparisons(folder / "comparisons", [row | {"unit": "token"}])
    source = run.run_id, 3, "00000000000000aa", 5
    add_changes(folder / LABELS_FILE, [Change(Label(*source, "war", lists=("a", "b")))])
    keep_name(names_file(folder / "runs"), run.run_id, "the first")
    for digests in folder.rglob(DIGESTS_FILE):
        digests.unlink()  # as in runs of before, so that the readers see what is damaged
    return folder
