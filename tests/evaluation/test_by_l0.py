"""Every measure against a computation of one prompt at a time, without batching."""

import dataclasses
import itertools
import json

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.decomposition import PCA
from torch.nn.functional import cross_entropy

from itda_core.config import HookPoint
from itda_core.corpus.corpus import Prompt, prompt_id
from itda_core.dictionary.dictionary import Dictionary
from itda_core.errors import CorpusError, InputError
from itda_core.evaluation.by_l0 import evaluate, nested_l0s, quick_l0s
from itda_core.evaluation.pca import pca_errors, pca_fvu
from itda_core.model.loading import load_model
from tests.support.reference import slow_pursuit
from tests.support.tiny_models import save_tiny_model
from tests.support.trained_runs import strict_json


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


def slow_evaluation(dictionary, model, texts, context_length, l0s, median_norm=None):
    """What evaluate gives, by the definitions: one prompt after another, all in float64."""
    layer, offset = dictionary.hook_point.layer, dictionary.offset.double().numpy()
    x_parts, xhat_parts, terms = [], {l0: [] for l0 in l0s}, []
    names = ["model", "zero", *l0s]
    entropy, divergence, count = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0), 0
    for text in texts:
        ids = model.tokenizer(text)["input_ids"][:context_length]
        if len(ids) < 2:
            continue
        plain, hidden = forward(model, ids, layer)
        x = hidden[1:].double().numpy()
        x_parts.append(x)
        replacements = {"zero": np.zeros_like(x)}
        for l0 in l0s:
            found = slow_pursuit(x - offset, dictionary.atoms, l0)
            replacements[l0] = found[2] + offset
            xhat_parts[l0].append(replacements[l0])
        terms += [list(zip(*term, strict=True)) for term in zip(*found[:2], strict=True)]
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
    x = np.concatenate(x_parts)
    norms = np.linalg.norm(x, axis=1)
    usual = norms <= 10 * (median_norm or np.median(norms))
    rows = []
    for l0 in l0s:
        xhat = np.concatenate(xhat_parts[l0])
        sizes = np.linalg.norm(xhat, axis=1)
        used = [
            [latent for latent, c in row[:l0] if abs(c) > 1e-5 * abs(row[0][1])] for row in terms
        ]
        rows.append(
            {
                "l0": l0,
                "mean_l0": np.mean([len(row) for row in used]),
                "mean_latents": np.mean([len(set(row)) for row in used]),
                "fvu": slow_fvu(x, xhat),
                "fvu_without_massive": slow_fvu(x[usual], xhat[usual]),
                "median_unexplained": np.median(
                    np.square(x - xhat).sum(1) / np.square(x - x[usual].mean(0)).sum(1)
                ),
                "explained_variance": 1 - slow_fvu(x, xhat),
                "cosine": np.mean((x * xhat).sum(1) / norms / sizes),
                "norm_ratio": np.mean(sizes / norms),
                "ce_loss_score": (entropy["zero"] - entropy[l0])
                / (entropy["zero"] - entropy["model"]),
                "kl": divergence[l0] / count,
                "cross_entropy": entropy[l0] / count,
            }
        )
    return len(x), rows


def slow_fvu(x, xhat):
    return np.square(x - xhat).sum() / np.square(x - x.mean(0)).sum()


def assert_close(found, expected):
    assert [row["l0"] for row in found] == [row["l0"] for row in expected]
    for one, other in zip(found, expected, strict=True):
        assert list(one) == list(other)
        for name in one:
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
        monkeypatch.setattr("itda_core.evaluation.splicing._LOGIT_TOKENS", size)
        result = last(evaluate(run.dictionary(), tiny_model, prompts, config))
        assert_close(result.by_l0(), expected)


def test_an_offset_is_taken_off_before_and_added_after(run, prompts, tiny_model):
    shifted = dataclasses.replace(run.dictionary(), offset=torch.linspace(-2, 2, 16))
    result = last(evaluate(shifted, tiny_model, prompts, run.config))
    texts = [prompt.text for prompt in prompts]
    assert_close(result.by_l0(), slow_evaluation(shifted, tiny_model, texts, 32, (1, 2, 4))[1])


def test_no_more_tokens_are_read_than_asked_for(run, prompts, tiny_model):
    steps = [
        (step.fraction, step.tokens)
        for step in evaluate(run.dictionary(), tiny_model, prompts, run.config, 50)
    ]
    assert steps[-1] == (1.0, 50)
    assert steps == sorted(steps)
    assert 0 < steps[0][0] < 1


def test_massive_activations_can_be_left_out(run, prompts, tiny_model):
    """With a tenth of this median norm in training, half of the 301 tokens are massive."""
    texts = [prompt.text for prompt in prompts]
    x = tiny_model.capture(tiny_model.tokenize(texts, 32), [1])[1]
    norms = x.norm(dim=1)
    middle = float(norms.sort()[0][150:152].mean())
    told = ToldMedian(run.dictionary(), middle / 10)
    result = last(evaluate(told, tiny_model, prompts, run.config))
    assert result.massive_tokens == 150
    rows = slow_evaluation(run.dictionary(), tiny_model, texts, 32, (1, 2, 4), told.median_norm)[1]
    assert_close(result.by_l0(), rows)
    assert rows[0]["fvu"] != pytest.approx(rows[0]["fvu_without_massive"], rel=0.01)


class ToldMedian:
    """A dictionary that knows the median norm of the activations it was trained on."""

    def __init__(self, dictionary, median_norm):
        self._dictionary, self.median_norm = dictionary, median_norm

    def __getattr__(self, name):
        return getattr(self._dictionary, name)


def test_the_errors_of_single_tokens_add_up_to_the_fvu(run, prompts, tiny_model):
    frequencies = np.arange(1_000) % 130
    result = last(
        evaluate(run.dictionary(), tiny_model, prompts, run.config, frequencies=frequencies)
    )
    errors = result.errors
    tokens = tiny_model.tokenize([prompt.text for prompt in prompts], 32)
    captured = tiny_model.capture(tokens, [1])
    places = captured.prompts, captured.positions
    x = captured[1].double()
    xhat = run.dictionary().decode(run.dictionary().encode(captured[1])).double()
    assert errors.positions.tolist() == captured.positions.tolist()
    assert errors.frequencies.tolist() == frequencies[tokens.ids[places].numpy()].tolist()
    np.testing.assert_allclose(errors.norms, x.norm(dim=1), rtol=1e-6)
    np.testing.assert_allclose(errors.squared_errors, (x - xhat).square().sum(1), rtol=1e-4)
    share = errors.squared_errors.sum() / errors.squared_distances.sum()
    assert share == pytest.approx(result.by_l0()[-1]["fvu_without_massive"], rel=1e-6)


def test_the_uses_of_latents_are_counted_on_the_evaluated_tokens(run, prompts, tiny_model):
    result = last(evaluate(run.dictionary(), tiny_model, prompts, run.config)).to_dict()
    tokens = tiny_model.tokenize([prompt.text for prompt in prompts], 32)
    codes = run.dictionary().encode(tiny_model.capture(tokens, [1])[1])
    used = codes.latents[codes.coefficients != 0].unique()
    assert result["unused_share"] == pytest.approx(1 - len(used) / len(run.dictionary()))
    assert sum(row["latents"] for row in result["density"]) == len(used)


def test_chosen_l0s_give_the_same_numbers_as_among_others(run, prompts, tiny_model):
    everything = last(evaluate(run.dictionary(), tiny_model, prompts, run.config)).by_l0()
    some = last(evaluate(run.dictionary(), tiny_model, prompts, run.config, l0s=[4, 2])).by_l0()
    assert some == everything[1:]
    for wrong in ([0], [5], []):
        with pytest.raises(InputError, match="from 1 to the dictionary's 4"):
            last(evaluate(run.dictionary(), tiny_model, prompts, run.config, l0s=wrong))


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


def test_the_cross_entropies_of_the_model_and_of_zeros_are_means_over_predictions(
    run, prompts, tiny_model
):
    sums, count = {None: 0.0, 0.0: 0.0}, 0
    layer = run.dictionary().hook_point.layer
    for prompt in prompts:
        ids = tiny_model.tokenizer(prompt.text)["input_ids"][:32]
        if len(ids) < 3:
            continue
        count += len(ids) - 2
        for put_in in sums:
            logits, _ = forward(tiny_model, ids, layer, put_in)
            targets = torch.tensor(ids[2:])
            sums[put_in] += float(cross_entropy(logits[1:-1], targets, reduction="sum"))
    told = last(evaluate(run.dictionary(), tiny_model, prompts, run.config)).to_dict()
    assert told["model_cross_entropy"] == pytest.approx(sums[None] / count, rel=1e-5)
    assert told["zeros_cross_entropy"] == pytest.approx(sums[0.0] / count, rel=1e-5)
    for row in told["by_l0"]:
        lost = row["cross_entropy"] - told["model_cross_entropy"]
        whole = told["zeros_cross_entropy"] - told["model_cross_entropy"]
        assert row["ce_loss_score"] == pytest.approx(1 - lost / whole, rel=1e-5)


def test_components_leave_what_scikit_learns_leave(run, prompts, tiny_model):
    result = last(evaluate(run.dictionary(), tiny_model, prompts, run.config))
    layer, x = run.dictionary().hook_point.layer, []
    for prompt in prompts:
        ids = tiny_model.tokenizer(prompt.text)["input_ids"][:32]
        if len(ids) > 1:
            x.append(forward(tiny_model, ids, layer)[1][1:].double().numpy())
    explained = PCA().fit(np.concatenate(x)).explained_variance_ratio_.cumsum()
    assert result.pca.fvu[0] == 1.0
    assert result.pca.fvu[1:] == pytest.approx(1 - explained[:4], rel=1e-5)
    assert len(result.pca.fvu) == 1 + max(result.at)


def test_components_without_massive_activations_are_fitted_to_the_others():
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    is_massive = torch.zeros(50, dtype=torch.bool)
    is_massive[[3, 40]] = True
    x[is_massive] *= 1_000
    batches, marks = x.split(30), is_massive.split(30)
    found = pca_errors(lambda: iter(batches), marks, 6)
    for values, kept in ((found.fvu, x), (found.fvu_without_massive, x[~is_massive])):
        explained = PCA().fit(kept.numpy()).explained_variance_ratio_.cumsum()
        assert values[1:] == pytest.approx(1 - explained, abs=1e-9)
    assert pca_fvu([torch.ones(5, 3)], 2) == pca_fvu([], 2) == []
    assert pca_fvu([torch.eye(2, dtype=torch.float64)], 4) == pytest.approx([1, 0, 0, 0, 0])


def test_no_components_are_found_of_wide_models(run, prompts, tiny_model, monkeypatch):
    monkeypatch.setattr("itda_core.evaluation.by_l0.MAX_WIDTH", 15)
    assert last(evaluate(run.dictionary(), tiny_model, prompts, run.config)).to_dict()["pca"] == {}


@pytest.mark.parametrize(("l0", "expected"), [(1, (1,)), (3, (1, 3)), (32, (8, 32))])
def test_a_quick_run_measures_a_quarter_of_the_l0_and_all_of_it(l0, expected):
    assert quick_l0s(l0) == expected


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
    told = strict_json(json.dumps(result.to_dict()))
    assert [found["fvu"] for found in told["errors"]["norm"]] == [None]


def test_prompts_that_are_too_short_and_layers_that_do_not_exist_are_refused(
    run, prompts, tiny_model
):
    short = [Prompt(prompt_id("a"), "a")]
    with pytest.raises(CorpusError, match="at least two tokens"):
        last(evaluate(run.dictionary(), tiny_model, short, run.config))
    wrong = dataclasses.replace(run.dictionary(), hook_point=HookPoint(tiny_model.name, 4))
    with pytest.raises(InputError, match="layers 0 to 3"):
        last(evaluate(wrong, tiny_model, prompts, run.config))
