"""A copy of the runs and labels at any moment, during a training too, is a backup."""

import json
import shutil

from itda_core.runs.checks import check_run
from itda_core.runs.interrupted import interrupted_trainings
from itda_core.runs.run import list_runs, survey
from itda_core.store.store import FILE_NAME, Store
from itda_core.training import trainer as training
from itda_core.training.trainer import resume, train
from tests.support.trained_runs import assert_same_runs, tiny_config, trained


def test_a_copy_made_during_a_training_restores_all_whole_runs_and_labels(
    tiny_model_folder, tiny_corpus_file, tmp_path, monkeypatch
):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    before = tiny_config(tiny_model_folder, tiny_corpus_file, layers=(3,))
    config = tiny_config(tiny_model_folder, tiny_corpus_file)
    data = tmp_path / "data"
    trained(before, data / "runs")
    [first] = list_runs(data / "runs")
    row = first.dictionary().sources.iloc[0]
    line = {"run_id": first.run_id, "latent": 0, "prompt_id": row["prompt_id"]}
    line |= {"position": int(row["position"]), "label": "war", "changed": "2026-01-01"}
    (data / "labels.jsonl").write_text(json.dumps(line) + "\n")
    copies = []
    for number, _ in enumerate(train(config, data / "runs")):
        if number % 4 == 1:
            copy = tmp_path / f"copy-{number}"
            shutil.copytree(data / "runs", copy / "runs")
            shutil.copy(data / "labels.jsonl", copy / "labels.jsonl")
            copies.append(copy)
    assert len(copies) > 3
    counts = [_restored(copy, data) for copy in copies]
    assert counts[0] == 1
    assert counts == sorted(counts)
    last = next(copy for copy in reversed(copies) if interrupted_trainings(copy / "runs"))
    [at] = interrupted_trainings(last / "runs")
    for _ in resume(at, last / "runs"):
        pass
    assert_same_runs(last / "runs", data / "runs")


def _restored(copy, data):
    """Open a copy as a data folder of its own; how many runs it has."""
    runs, errors = survey(copy / "runs")
    assert errors == []
    assert all(check_run(run, deep=True) == [] for run in runs)
    store = Store(copy / FILE_NAME)
    store.import_new(copy / "runs")
    assert len(store.runs.table()) == len(runs)
    assert store.database.query("SELECT label FROM labels")["label"].tolist() == ["war"]
    store.close()
    for run in runs:
        for path in run.directory.iterdir():
            assert path.read_bytes() == (data / "runs" / run.run_id / path.name).read_bytes()
    return len(runs)
