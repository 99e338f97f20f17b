"""Data folders for the pages, each closed after its test."""

import json
import shutil

import pytest

from itda_core.config import CorpusSpec, ModelSpec, TrainConfig
from itda_core.evaluation.batch import EvaluationTask, measure_runs
from itda_core.runs.run import list_runs
from itda_core.training.trainer import train
from tests.support.app import SPECIAL, close_explorer


@pytest.fixture(scope="session")
def trained_folder(tmp_path_factory, tiny_model_folder, tiny_texts):
    """A data folder with two trained layers of the tiny model, special texts among the prompts."""
    folder = tmp_path_factory.mktemp("explorer")
    corpus = folder / "texts.jsonl"
    corpus.write_text("\n".join(json.dumps(text) for text in tiny_texts + SPECIAL))
    config = TrainConfig(
        ModelSpec(str(tiny_model_folder), dtype="float32"),
        CorpusSpec(str(corpus)),
        layers=(1, 2),
        max_tokens=1_500,
        batch_tokens=256,
        max_atoms=64,
        l0=8,
    )
    for _ in train(config, folder / "runs"):
        pass
    return folder


@pytest.fixture
def data(trained_folder, monkeypatch):
    monkeypatch.setenv("ITDA_DATA", str(trained_folder))
    yield trained_folder
    close_explorer()


@pytest.fixture
def empty(data_folder):
    yield data_folder
    close_explorer()


@pytest.fixture(scope="session")
def evaluated_folder(trained_folder, tmp_path_factory):
    """A data folder with two layers of the tiny model, both evaluated. Only to be copied."""
    folder = tmp_path_factory.mktemp("evaluated")
    shutil.copytree(trained_folder / "runs", folder / "runs")
    runs = tuple(list_runs(folder / "runs"))
    for _ in measure_runs(EvaluationTask(runs, max_tokens=200, save=True)):
        pass
    return folder


@pytest.fixture
def own_data(trained_folder, data_folder):
    """A copy of the trained folder, which a test may change."""
    shutil.copytree(trained_folder, data_folder, dirs_exist_ok=True)
    yield data_folder
    close_explorer()


@pytest.fixture
def evaluated_data(evaluated_folder, data_folder):
    """A copy of the evaluated folder."""
    shutil.copytree(evaluated_folder, data_folder)
    yield data_folder
    close_explorer()
