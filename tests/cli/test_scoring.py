"""What `train` and `move` leave beside their runs: scores, unless they are left out."""

import json

import pytest

from itda_core.analysis import latent_scores
from itda_core.errors import ModelError, RunError
from itda_core.model.loading import load_model
from itda_core.runs.latent_scores import SCORES_FILE, read_scores, when_scored
from itda_core.runs.run import list_runs
from tests.support.command_line import one_json, run_command, signal_handlers_kept
from tests.support.tiny_models import save_tiny_model
from tests.support.trained_runs import tiny_config


@pytest.fixture
def scoring(capsys, monkeypatch, tmp_path):
    """Runs a command as `cli` does, and leaves its scores to a tiny judge."""
    bert = load_model(str(save_tiny_model(tmp_path / "tiny-bert", "bert")))
    monkeypatch.setattr(latent_scores, "load_model", lambda *_args, **_options: bert)
    with signal_handlers_kept():
        yield lambda *arguments: run_command(capsys, *arguments)


@pytest.fixture
def training(tmp_path, tiny_model_folder, tiny_corpus_file):
    """The command that trains two layers into tmp_path/runs."""
    config = tiny_config(tiny_model_folder, tiny_corpus_file, layers=(1, 2), max_atoms=20)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    return ["train", "--config", tmp_path / "config.json", "--runs", tmp_path / "runs"]


def test_a_training_ends_with_the_scores_of_its_runs(scoring, training, tmp_path):
    progress = tmp_path / "progress.jsonl"
    told = one_json(scoring(*training, "--json", "--progress", progress))
    runs = list_runs(tmp_path / "runs")
    assert [one["run_id"] for one in told["runs"]] == [run.run_id for run in runs]
    for run in runs:
        assert read_scores(run).about["tokens"] == run.metrics["explored_tokens"]
    # whoever follows its progress sees the training alone
    lines = [json.loads(line) for line in progress.read_text().splitlines()]
    assert lines[-1]["finished"] == [run.run_id for run in runs]
    assert "scoring" not in {line["stage"] for line in lines}
    before = [when_scored(run) for run in runs]
    (runs[1].directory / SCORES_FILE).unlink()
    one_json(scoring(*training, "--json"))  # it is there already, but for one table of scores
    after = [when_scored(run) for run in runs]
    assert after[0] == before[0]
    assert after[1] > before[1]


def test_scores_are_left_out_where_it_is_said(scoring, training, tmp_path):
    one_json(scoring(*training, "--no-scores", "--json"))
    [first, _] = list_runs(tmp_path / "runs")
    assert [when_scored(run) for run in list_runs(tmp_path / "runs")] == [None, None]
    move = ["move", first.run_id, "--layer", "2", "--runs", tmp_path / "runs", "--json"]
    [moved] = one_json(scoring(*move))["runs"]
    assert (tmp_path / "runs" / moved["run_id"] / SCORES_FILE).exists()


@pytest.mark.parametrize("error", [RunError, RuntimeError])
def test_runs_that_are_not_scored_are_told_as_ever(scoring, training, tmp_path, monkeypatch, error):
    def fails(*_args, **_options):
        raise error("There is no room.")
        yield

    monkeypatch.setattr(latent_scores, "score_runs", fails)
    code, out, err = scoring(*training)
    runs = list_runs(tmp_path / "runs")
    assert code == 0
    assert all(run.run_id in out for run in runs)
    later = " ".join(str(run.directory) for run in runs)
    assert err.splitlines()[-1] == (
        f"Not scored: There is no room. Later: python -m itda_core score {later}"
    )


def test_without_the_judge_a_training_is_scored_but_for_nearness(
    scoring, training, tmp_path, monkeypatch
):
    def missing(*_args, **_options):
        raise ModelError("minilm-l6 is not installed: pip install it.")

    monkeypatch.setattr(latent_scores, "load_model", missing)
    code, _, err = scoring(*training)
    assert code == 0
    assert "minilm-l6 is not installed: pip install it." in err
    assert read_scores(list_runs(tmp_path / "runs")[0]).about["embedder"] == ""
