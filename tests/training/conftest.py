"""The training that these tests repeat, disturb and look into."""

import pytest

from tests.support.trained_runs import shared_runs, tiny_config


@pytest.fixture
def config(tiny_model_folder, tiny_corpus_file):
    return tiny_config(tiny_model_folder, tiny_corpus_file)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, tiny_model_folder, tiny_corpus_file):
    """The folder of runs that the training of `config` gives when nothing comes between."""
    return shared_runs(tmp_path_factory, tiny_model_folder, tiny_corpus_file)
