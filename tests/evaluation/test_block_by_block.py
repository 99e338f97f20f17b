"""Measuring with a model that is read block by block: what a model in memory gives, and no block
read twice."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from itda_core.corpus.corpus import load_corpus
from itda_core.errors import InputError
from itda_core.evaluation import batch, detection
from itda_core.evaluation.batch import EvaluationTask
from itda_core.evaluation.by_l0 import evaluate, evaluate_together
from itda_core.evaluation.detection import embed
from itda_core.evaluation.sparse_probing import probe
from itda_core.evaluation.splicing import SplicedPrompts
from itda_core.runs.latent_uses import read_tokens
from itda_core.runs.run import list_runs
from tests.support.swept_like import SweptLike
from tests.support.trained_runs import trained


def last(steps):
    return [*steps][-1]


@pytest.fixture
def swept(tiny_model):
    return SweptLike(tiny_model)


def test_an_evaluation_is_that_of_a_model_in_memory_and_reads_each_block_once(
    run, prompts, tiny_model, swept, monkeypatch
):
    monkeypatch.setattr("itda_core.evaluation.splicing._LOGIT_TOKENS", 100)  # several batches
    expected = last(evaluate(run.dictionary(), tiny_model, prompts, run.config)).to_dict()
    found = last(evaluate(run.dictionary(), swept, prompts, run.config)).to_dict()
    assert found == expected
    assert swept.sweeps == [(0, 1), (2, 4)]


def test_an_evaluation_tells_how_far_it_is_between_blocks(run, prompts, swept):
    fractions = [step.fraction for step in evaluate(run.dictionary(), swept, prompts, run.config)]
    assert fractions == sorted(fractions)
    assert fractions[0] < fractions[-1] == 1
    # Blocks 0 and 1, then 2, 3 and the head, each before its batch.
    assert len(set(fractions)) >= 5


def test_an_encoder_is_evaluated_in_one_reading(run, prompts, swept, tiny_model):
    swept.abilities = dataclasses.replace(swept.abilities, splicing="it is an encoder")
    result = last(evaluate(run.dictionary(), swept, prompts, run.config))
    expected = last(evaluate(run.dictionary(), tiny_model, prompts, run.config))
    assert swept.sweeps == [(0, 1)]
    assert result.fraction == 1
    assert result.to_dict()["errors"] == expected.to_dict()["errors"]
    assert result.by_l0()[-1]["fvu"] == expected.by_l0()[-1]["fvu"]
    assert result.by_l0()[-1]["kl"] is None


def test_predictions_that_fill_memory_are_made_for_fewer_texts_by_another_reading(
    run, prompts, tiny_model, swept, monkeypatch
):
    expected = last(evaluate(run.dictionary(), tiny_model, prompts, run.config))
    logits_after, limit = tiny_model.logits_after, 300

    def limited(tokens, *rest):
        if tokens.ids.numel() > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return logits_after(tokens, *rest)

    monkeypatch.setattr(tiny_model, "logits_after", limited)
    found = last(evaluate(run.dictionary(), swept, prompts, run.config))
    assert swept.sweeps == [(0, 1), (2, 4), (2, 4)]
    assert found.tokens == expected.tokens
    assert found.fraction == 1
    for row, other in zip(found.by_l0(), expected.by_l0(), strict=True):
        assert row == pytest.approx(other, rel=1e-5)


def test_several_reconstructions_are_scored_in_one_reading(run, prompts, tiny_model, swept):
    expected = SplicedPrompts(tiny_model, 1, prompts, run.config)
    zeros, half = torch.zeros_like(expected.activations), expected.activations / 2
    spliced = SplicedPrompts(swept, 1, prompts, run.config)
    assert spliced.scores([zeros, half]) == [expected.score(zeros), expected.score(half)]
    assert swept.sweeps == [(0, 1), (2, 4)]
    assert spliced.zeroed.kl == expected.zeroed.kl
    assert spliced.losses(half).kl == expected.losses(half).kl
    assert swept.sweeps == [(0, 1), (2, 4), (2, 4)]


def test_probing_reads_up_to_the_layer_once(run, tiny_model, swept):
    """Speeches of ten prompts each, by two parties in turn."""
    parties = ("Republican", "Democratic")
    labelled = [
        dataclasses.replace(
            prompt, labels={"speech": f"speech {number // 10}", "party": parties[number // 10 % 2]}
        )
        for number, prompt in enumerate(load_corpus(run.config.corpus).prompts)
    ]
    expected = last(probe(run.dictionary(), tiny_model, labelled, run.config))
    steps = [(step.fraction, step) for step in probe(run.dictionary(), swept, labelled, run.config)]
    fractions = [fraction for fraction, _ in steps]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0, 1)
    assert steps[-1][1].to_dict() == expected.to_dict()
    assert swept.sweeps == [(0, 1)]


def test_titles_and_uses_are_embedded_in_one_reading(run, tiny_model, swept, monkeypatch):
    monkeypatch.setattr(detection, "_EMBED_TOGETHER", 10)
    tokens = read_tokens(pd.read_parquet(run.directory / "prompts.parquet"))
    needed = np.flatnonzero(tokens.words >= 0)[::7]
    found, expected = ([*embed(model, tokens, needed)] for model in (swept, tiny_model))
    assert len(found) == len(expected) > 1
    for (read, rows, vectors), (also_read, same_rows, others) in zip(found, expected, strict=True):
        assert read == also_read
        np.testing.assert_array_equal(rows, same_rows)
        np.testing.assert_array_equal(vectors, others)
    assert swept.sweeps == [(0, 3)]


@pytest.fixture(scope="module")
def several(run, tmp_path_factory):
    """Two dictionaries of layer 1 and one of layer 2 between them, and one of layer 1 that was
    trained on other prompts."""
    folder = tmp_path_factory.mktemp("several")
    base = dataclasses.replace(run.config, layers=(1, 2), max_atoms=30)
    for config in (base, dataclasses.replace(base, layers=(1,), max_atoms=40, l0=2)):
        trained(config, folder)
    trained(dataclasses.replace(base, layers=(1,), context_length=16), folder)
    found = list_runs(folder)
    order = [(30, 1, 32), (30, 2, 32), (40, 1, 32), (30, 1, 16)]
    of = {(one.config.max_atoms, one.layer, one.config.context_length): one for one in found}
    return tuple(of[key] for key in order)


def test_dictionaries_of_one_layer_share_the_readings_of_their_model(
    several, tiny_model, monkeypatch
):
    models = [tiny_model, SweptLike(tiny_model)]
    results = []
    for model in models:
        monkeypatch.setattr(batch, "load_model", lambda *_, model=model, **_options: model)
        steps = [
            (step.fraction, step.results) for step in batch.measure_runs(EvaluationTask(several))
        ]
        fractions = [fraction for fraction, _ in steps]
        assert fractions == sorted(fractions)
        results.append([{**one, "seconds": None} for one in steps[-1][1]])
    assert [one["run_id"] for one in results[1]] == [run.run_id for run in several]
    assert results[1] == results[0]
    # Both dictionaries of layer 1, layer 2, and what reads other tokens.
    assert models[1].sweeps == [(0, 1), (2, 4), (0, 2), (3, 4), (0, 1), (2, 4)]


def test_an_l0_that_one_dictionary_has_not_keeps_no_other_from_being_measured(
    several, tiny_model, monkeypatch
):
    model, told = SweptLike(tiny_model), []
    monkeypatch.setattr(batch, "load_model", lambda *_, **_options: model)
    task = EvaluationTask((several[0], several[2]), l0s=(4,))
    with pytest.raises(InputError, match="from 1 to the dictionary's 2"):
        for step in batch.measure_runs(task):
            told = [one["run_id"] for one in step.results]
    assert told == [several[0].run_id]


def test_dictionaries_of_several_layers_are_not_evaluated_together(several, prompts, swept):
    some = [run.dictionary() for run in several[:2]]
    with pytest.raises(InputError, match="must be of one layer and site"):
        last(evaluate_together(some, swept, prompts, several[0].config))
