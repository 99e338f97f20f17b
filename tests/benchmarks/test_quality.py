"""What a dictionary costs the model in a benchmark is what its evaluation says."""

import dataclasses

import numpy as np
import pytest

from benchmarks.common import captured, quality
from itda_core.config import HookPoint
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


def test_what_is_captured_of_one_place_is_not_taken_for_another(tmp_path, monkeypatch):
    monkeypatch.setattr(captured, "CACHE", tmp_path)
    np.save(tmp_path / "tiny-3-held.npy", np.ones((2, 4), np.float32))
    there = HookPoint("tiny", 3)
    assert captured.Captured(there).held_out.shape == (2, 4)
    with pytest.raises(FileNotFoundError, match="mlp_out"):
        _ = captured.Captured(dataclasses.replace(there, site="mlp_out")).held_out
