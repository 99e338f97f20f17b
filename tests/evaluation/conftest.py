"""A run of two layers and what was held out of it, which these tests measure."""

import pytest

from itda_core.corpus.corpus import load_corpus
from itda_core.runs.run import list_runs
from tests.support.trained_runs import shared_runs


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_model_folder, tiny_corpus_file):
    return list_runs(shared_runs(tmp_path_factory, tiny_model_folder, tiny_corpus_file))[1]


@pytest.fixture(scope="module")
def prompts(run):
    return load_corpus(run.config.corpus).held_out()
