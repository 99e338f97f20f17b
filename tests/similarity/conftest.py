"""Runs that are compared, made once in a session."""

import pytest

from tests.support.tiny_models import save_tiny_model
from tests.support.trained_runs import tiny_config, trained


@pytest.fixture(scope="session")
def compared_folder(tmp_path_factory, tiny_model_folder, tiny_corpus_file):
    """Two models with one tokenizer and an encoder with another, two layers each. Only to be
    read."""
    made = tmp_path_factory.mktemp("compared")
    models = [
        tiny_model_folder,
        save_tiny_model(made / "other", "gpt2", seed=3),
        save_tiny_model(made / "encoder", "bert", seed=4, d_model=12),
    ]
    for model in models:
        trained(tiny_config(model, tiny_corpus_file, layers=(1, 2), max_atoms=40), made / "runs")
    return made
