"""What a dictionary costs the model in a benchmark is what its evaluation says."""

import pytest

from benchmarks.common import quality
from itda_core.corpus.corpus import load_corpus
from itda_core.evaluation.by_l0 import evaluate
from itda_core.runs.run import list_runs
from tests.support.trained_runs import shared_runs


def test_the_cost_of_a_dictionary_is_that_of_its_evaluation(
    tmp_path_factory, tiny_model_folder, tiny_corpus_file, tiny_model, monkeypatch
):
    run = list_runs(shared_runs(tmp_path_factory, tiny_model_folder, tiny_corpus_file))[1]
    monkeypatch.setattr(quality, "config", lambda _name: run.config)
    cost = quality.cost(run.dictionary())
    prompts = load_corpus(run.config.corpus).held_out()
    *_, evaluation = evaluate(run.dictionary(), tiny_model, prompts, run.config)
    row = evaluation.by_l0()[-1]
    assert row["l0"] == run.dictionary().l0
    assert cost == pytest.approx({name: row[name] for name in cost}, rel=1e-6)
