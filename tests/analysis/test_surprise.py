"""Surprise is what the model itself says of each token after those before it."""

import numpy as np
import pytest
import torch

from itda_core.analysis.surprise import surprise, surprise_steps
from itda_core.errors import ModelError
from itda_core.model.model import Model
from tests.support.swept_like import SweptLike

TEXT = "The river rose in the spring and the farmers moved to the hills."


def by_prefixes(model, text):
    """Each token from a pass of transformers' own over the tokens before it, in float64."""
    ids = model.tokenizer(text)["input_ids"][: model.context_length]
    out = [np.nan]
    for end in range(1, len(ids)):
        with torch.no_grad():
            logits = model.module(input_ids=torch.tensor([ids[:end]])).logits[0, -1].double()
        out.append(float(torch.logsumexp(logits, 0) - logits[ids[end]]) / np.log(2))
    return np.array(out)


@pytest.mark.parametrize("text", [TEXT, "Two words", "treaty 🎉 " * 60])
def test_each_token_is_judged_by_those_before_it(tiny_model, text):
    found = surprise(tiny_model, tiny_model.tokenize([text]))
    np.testing.assert_allclose(found, by_prefixes(tiny_model, text), atol=1e-3)
    assert np.isnan(found[0]) and not np.isnan(found[1:]).any()


def test_the_mean_is_transformers_own_loss(tiny_model):
    ids = torch.tensor([tiny_model.tokenizer(TEXT)["input_ids"]])
    with torch.no_grad():
        loss = float(tiny_model.module(input_ids=ids, labels=ids).loss)
    found = surprise(tiny_model, tiny_model.tokenize([TEXT]))
    assert np.nanmean(found) * np.log(2) == pytest.approx(loss, abs=1e-4)


def test_a_model_that_is_read_block_by_block_is_read_once(tiny_model):
    swept, tokens = SweptLike(tiny_model), tiny_model.tokenize([TEXT])
    steps = [*surprise_steps(swept, tokens)]
    np.testing.assert_allclose(steps[-1].value, surprise(tiny_model, tokens), atol=1e-4)
    fractions = [step.fraction for step in steps]
    assert fractions == sorted(fractions) and fractions[-1] == 1
    assert swept.sweeps == [(0, 0), (1, tiny_model.n_layers)]


def test_an_encoder_is_refused_with_the_reason(tiny_model, monkeypatch):
    reason = "it reads in both directions"
    abilities = type(tiny_model.abilities).none("next_tokens", reason)
    monkeypatch.setattr(tiny_model, "abilities", abilities)
    assert isinstance(tiny_model, Model)
    with pytest.raises(ModelError, match=reason):
        surprise(tiny_model, tiny_model.tokenize([TEXT]))
