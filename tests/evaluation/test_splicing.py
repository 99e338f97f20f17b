"""What reconstructions cost the model: measured once and compared many times."""

import math

import pytest
import torch

from itda_core.corpus.corpus import load_corpus
from itda_core.errors import InputError
from itda_core.evaluation.by_l0 import evaluate
from itda_core.evaluation.losses import Losses
from itda_core.evaluation.splicing import SplicedBatch, SplicedPrompts


@pytest.fixture(scope="module")
def spliced(run, tiny_model):
    prompts = load_corpus(run.config.corpus).held_out()
    return SplicedPrompts(tiny_model, 1, prompts, run.config)


def test_a_dictionarys_score_is_that_of_an_evaluation(spliced, run, tiny_model):
    prompts = load_corpus(run.config.corpus).held_out()
    *_, result = evaluate(run.dictionary(), tiny_model, prompts, run.config)
    codes = run.dictionary().encode(spliced.activations)
    for row in result.by_l0():
        score = spliced.score(run.dictionary().decode(codes.prefix(row["l0"])))
        assert score == pytest.approx({name: row[name] for name in score}, rel=1e-6)


def test_the_activations_are_those_of_a_capture_in_their_order(spliced, run, tiny_model):
    texts = [prompt.text for prompt in load_corpus(run.config.corpus).held_out()]
    captured = tiny_model.capture(tiny_model.tokenize(texts, 32), [1])
    torch.testing.assert_close(spliced.activations, captured[1])
    positions = torch.cat([batch.positions for batch in spliced.batches])
    assert positions.tolist() == captured.positions.tolist()


def test_the_model_as_it_is_loses_nothing_and_zeros_lose_all(spliced):
    same = spliced.score(spliced.activations)
    assert same == pytest.approx({"ce_loss_score": 1, "kl": 0}, abs=1e-6)
    nothing = spliced.score(torch.zeros_like(spliced.activations))
    assert nothing["ce_loss_score"] == pytest.approx(0, abs=1e-9)
    assert nothing["kl"] == pytest.approx(spliced.zeroed.kl)
    assert spliced.plain.kl == 0


def test_the_first_position_is_replaced_where_it_is_not_left_out(tiny_model):
    tokens = tiny_model.tokenize(["the treaty with Spain", "a report"])
    for skip_first in (True, False):
        batch = SplicedBatch(tiny_model, 1, tokens, skip_first)
        assert len(batch) == int(tokens.mask.sum()) - 2 * skip_first
        plain, _ = batch.losses(0.0)
        # The last token of each text has nothing to predict.
        assert plain.predictions == len(batch) - 2
        assert batch.ids.tolist() == tokens.ids[batch.where].tolist()


def test_without_a_prediction_there_is_no_kl():
    assert math.isnan(Losses().kl)
    assert math.isnan(Losses().score(Losses(), Losses()))


def full_above(monkeypatch, model, name, n_tokens):
    """Let a method of the model, whose first argument are the tokens, find memory full for more
    than so many, padding included; gives the sizes that were tried."""
    tried, method = [], getattr(model, name)

    def limited(tokens, *rest):
        tried.append(tokens.ids.numel())
        if tried[-1] > n_tokens:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return method(tokens, *rest)

    monkeypatch.setattr(model, name, limited, raising=True)
    return tried


@pytest.mark.parametrize("name", ["logits_after", "hidden"])
def test_predictions_that_fill_memory_are_made_for_fewer_texts(run, tiny_model, monkeypatch, name):
    prompts = load_corpus(run.config.corpus).held_out()
    *_, expected = evaluate(run.dictionary(), tiny_model, prompts, run.config)
    tried = full_above(monkeypatch, tiny_model, name, 100)
    *_, found = evaluate(run.dictionary(), tiny_model, prompts, run.config)
    assert max(tried) > 100, "nothing was too large"
    assert found.tokens == expected.tokens
    for row, other in zip(found.by_l0(), expected.by_l0(), strict=True):
        assert row == pytest.approx(other, rel=1e-5)


@pytest.mark.parametrize("name", ["logits_after", "hidden"])
def test_a_text_whose_predictions_have_no_room_is_said_with_the_remedy(
    run, tiny_model, monkeypatch, name
):
    prompts = load_corpus(run.config.corpus).held_out()
    full_above(monkeypatch, tiny_model, name, 3)
    with pytest.raises(InputError, match=r"no room on the device cpu .* Free memory there, or"):
        list(evaluate(run.dictionary(), tiny_model, prompts, run.config))
