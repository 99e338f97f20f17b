"""The commands that write, made once for all files of a worker."""

import pytest

from tests.support.writing_commands import WritingCommands


@pytest.fixture(scope="session")
def writing(tmp_path_factory, tiny_model_folder, tiny_corpus_file, runs_folder):
    folder = tmp_path_factory.mktemp("writing")
    return WritingCommands(folder, tiny_model_folder, tiny_corpus_file, runs_folder)
