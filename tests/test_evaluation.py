"""FVU, CE loss score and KL against a computation of one prompt at a time, without batching."""

import dataclasses
import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from reference import slow_pursuit
from tiny import save_tiny_model
from torch.nn.functional import cross_entropy
from trained import shared_runs

from itda_core.config import HookPoint
from itda_core.corpus import Prompt, load_corpus, prompt_id
from itda_core.dictionary import Dictionary
from itda_core.errors import CorpusError, InputError
from itda_core.evaluation import evaluate, nested_l0s
from itda_core.loading import load_model
from itda_core.runs import list_runs


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_model_folder, tiny_corpus_file):
    return list_runs(shared_runs(tmp_path_factory, tiny_model_folder, tiny_corpus_file))[1]


@pytest.fixture(scope="module")
def prompts(run):
    return load_corpus(run.config.corpus).held_out()


def last(steps):
    return [*steps][-1]


def forward(model, ids, layer, replacement=None):
    """Logits [n_tokens, n_vocabulary] and the block's output [n_tokens, d_model] of one text; the
    output is replaced from the second position on."""
    outputs = []

    def hook(_module, _inputs, output):
        outputs.append(output[0].clone())
        if replacement is not None:
            output = output.clone()
            output[0, 1:] = replacement
        return output

    handle = model.module.model.layers[layer].register_forward_hook(hook)
    with torch.no_grad():
        logits = model.module(input_ids=torch.tensor([ids])).logits[0]
    handle.remove()
    return logits.double(), outputs[0]


def slow_evaluation(dictionary, model, texts, context_length, l0s):
    """What evaluate gives, by the definitions: one prompt after another, all in float64."""
    layer, offset = dictionary.hook_point.layer, dictionary.offset.double().numpy()
    everything, errors = [], dict.fromkeys(l0s, 0.0)
    names = ["model", "zero", *l0s]
    entropy, divergence, count = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0), 0
    for text in texts:
        ids = model.tokenizer(text)["input_ids"][:context_length]
        if len(ids) < 2:
            continue
        plain, hidden = forward(model, ids, layer)
        x = hidden[1:].double().numpy()
        everything.append(x)
        replacements = {"zero": np.zeros_like(x)}
        for l0 in l0s:
            replacements[l0] = slow_pursuit(x - offset, dictionary.atoms, l0)[2] + offset
            errors[l0] += np.square(x - replacements[l0]).sum()
        if len(ids) < 3:
            continue  # the second token is the last: nothing follows it
        targets = torch.tensor(ids[2:])
        entropy["model"] += float(cross_entropy(plain[1:-1], targets, reduction="sum"))
        count += len(targets)
        p = plain[1:-1].softmax(1)
        for name, replacement in replacements.items():
            logits, _ = forward(model, ids, layer, torch.tensor(replacement).float())
            entropy[name] += float(cross_entropy(logits[1:-1], targets, reduction="sum"))
            log_q = logits[1:-1].log_softmax(1)
            divergence[name] += float((p * (p.log() - log_q)).sum())
    x = np.concatenate(everything)
    variance = np.square(x - x.mean(0)).sum()
    lost = entropy["zero"] - entropy["model"]
    return len(x), [
        {
            "l0": l0,
            "fvu": errors[l0] / variance,
            "ce_loss_score": (entropy["zero"] - entropy[l0]) / lost,
            "kl": divergence[l0] / count,
        }
        for l0 in l0s
    ]


def assert_close(found, expected):
    assert [row["l0"] for row in found] == [row["l0"] for row in expected]
    for one, other in zip(found, expected, strict=True):
        for name in ("fvu", "ce_loss_score", "kl"):
            assert one[name] == pytest.approx(other[name], rel=2e-3, abs=1e-4), name


# Against the slow computation


def test_the_measures_equal_those_of_one_prompt_at_a_time(run, prompts, tiny_model):
    result = last(evaluate(run.dictionary(), tiny_model, prompts, run.config))
    texts = [prompt.text for prompt in prompts]
    tokens, expected = slow_evaluation(run.dictionary(), tiny_model, texts, 32, (1, 2, 4))
    assert result.tokens == result.total_tokens == tokens
    assert_close(result.by_l0(), expected)
    assert result.by_l0()[-1]["fvu"] == pytest.approx(run.metrics["fvu"], rel=1e-4)


def test_the_measures_do_not_depend_on_how_prompts_fall_into_batches(
    run, tiny_model, tiny_texts, monkeypatch
):
    """Long prompts and short ones, some of two tokens: none after the second is predicted."""
    texts = [*tiny_texts[:4], "on", "7 a", "a", tiny_texts[9] * 5, "x y"]
    prompts = [Prompt(prompt_id(text), text) for text in texts]
    config = dataclasses.replace(run.config, context_length=200)
    _, expected = slow_evaluation(run.dictionary(), tiny_model, texts, 200, (1, 2, 4))
    for size in (1, 10_000):
        monkeypatch.setattr("itda_core.evaluation._LOGIT_TOKENS", size)
        result = last(evaluate(run.dictionary(), tiny_model, prompts, config))
        assert_close(result.by_l0(), expected)


def test_an_offset_is_taken_off_before_and_added_after(run, prompts, tiny_model):
    shifted = dataclasses.replace(run.dictionary(), offset=torch.linspace(-2, 2, 16))
    result = last(evaluate(shifted, tiny_model, prompts, run.config))
    texts = [prompt.text for prompt in prompts]
    assert_close(result.by_l0(), slow_evaluation(shifted, tiny_model, texts, 32, (1, 2, 4))[1])


def test_no_more_tokens_are_read_than_asked_for(run, prompts, tiny_model):
    steps = [
        step.tokens for step in evaluate(run.dictionary(), tiny_model, prompts, run.config, 50)
    ]
    assert steps[-1] == 50
    assert steps == sorted(steps)


# By property


def dictionary_of(atoms, layer, l0, model):
    sources = pd.DataFrame(
        {"latent": range(len(atoms)), "prompt_id": "0" * 16, "position": 1, "start": 0, "end": 1,
         "token": "t"}
    )  # fmt: skip
    return Dictionary(atoms, torch.zeros(atoms.shape[1]), l0, HookPoint(model.name, layer), sources)


def test_a_dictionary_of_the_very_activations_loses_nothing(run, prompts, tiny_model):
    tokens = tiny_model.tokenize([prompt.text for prompt in prompts], 32)
    for layer in (0, 2, 3):
        x = tiny_model.capture(tokens, [layer])[layer]
        atoms = torch.nn.functional.normalize(x, dim=1)
        perfect = dictionary_of(atoms, layer, 1, tiny_model)
        [row] = last(evaluate(perfect, tiny_model, prompts, run.config)).by_l0()
        assert row["fvu"] == pytest.approx(0, abs=1e-6)
        assert row["ce_loss_score"] == pytest.approx(1, abs=1e-3)
        assert row["kl"] == pytest.approx(0, abs=1e-4)


def test_a_dictionary_at_right_angles_to_everything_is_as_bad_as_zero(run, prompts, tiny_model):
    """Reconstructions of nothing are zero vectors: that is what the score calls all lost."""
    tokens = tiny_model.tokenize([prompt.text for prompt in prompts], 32)
    x = tiny_model.capture(tokens, [1])[1]
    blind = dictionary_of(torch.eye(16)[:1], 1, 1, tiny_model)
    blind = dataclasses.replace(blind, atoms=torch.zeros(1, 16))
    result = last(evaluate(blind, tiny_model, prompts, run.config))
    [row] = result.by_l0()
    assert row["ce_loss_score"] == pytest.approx(0, abs=1e-6)
    assert row["kl"] > 0
    expected = x.square().sum() / (x - x.mean(0)).square().sum()
    assert row["fvu"] == pytest.approx(float(expected), rel=1e-4)


def test_more_terms_never_explain_less(run, prompts, tiny_model):
    more = dataclasses.replace(run.dictionary(), l0=23)
    rows = last(evaluate(more, tiny_model, prompts, run.config)).by_l0()
    assert [row["l0"] for row in rows] == [1, 2, 4, 8, 16, 23]
    values = [row["fvu"] for row in rows]
    assert all(later <= earlier + 1e-9 for earlier, later in itertools.pairwise(values))
    assert values[-1] < values[0] / 10


@pytest.mark.parametrize(
    ("l0", "expected"),
    [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (4, (1, 2, 4)), (5, (1, 2, 4, 5)),
     (32, (1, 2, 4, 8, 16, 32)), (33, (1, 2, 4, 8, 16, 32, 33))],
)  # fmt: skip
def test_the_sizes_compared_double_up_to_the_dictionarys_own(l0, expected):
    assert nested_l0s(l0) == expected


# Where there is nothing to measure


def test_an_encoder_has_an_fvu_but_no_next_token(tmp_path, prompts, run):
    bert = load_model(str(save_tiny_model(tmp_path / "tiny-bert", "bert")))
    tokens = bert.tokenize([prompt.text for prompt in prompts], 32)
    x = bert.capture(tokens, [1])[1]
    half = dictionary_of(torch.nn.functional.normalize(x[::2], dim=1), 1, 2, bert)
    rows = last(evaluate(half, bert, prompts, run.config)).by_l0()
    assert [row["l0"] for row in rows] == [1, 2]
    for row in rows:
        assert 0 < row["fvu"] < 1
        assert row["ce_loss_score"] is None
        assert row["kl"] is None


def test_one_token_alone_has_no_variance_and_no_next_token(run, tiny_model):
    text = "a7"
    assert len(tiny_model.tokenizer(text)["input_ids"]) == 2
    prompt = Prompt(prompt_id(text), text)
    result = last(evaluate(run.dictionary(), tiny_model, [prompt], run.config))
    assert result.tokens == 1
    for row in result.by_l0():
        assert (row["fvu"], row["ce_loss_score"], row["kl"]) == (None, None, None)


def test_prompts_that_are_too_short_and_layers_that_do_not_exist_are_refused(
    run, prompts, tiny_model
):
    short = [Prompt(prompt_id("a"), "a")]
    with pytest.raises(CorpusError, match="at least two tokens"):
        last(evaluate(run.dictionary(), tiny_model, short, run.config))
    wrong = dataclasses.replace(run.dictionary(), hook_point=HookPoint(tiny_model.name, 4))
    with pytest.raises(InputError, match="layers 0 to 3"):
        last(evaluate(wrong, tiny_model, prompts, run.config))
