"""Measuring with a model that is read block by block: what a model in memory gives, and no block
read twice."""

import dataclasses

import pytest
import torch

from itda_core.evaluation.by_l0 import evaluate
from itda_core.evaluation.splicing import SplicedPrompts
from tests.support.swept_like import SweptLike


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
