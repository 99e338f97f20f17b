"""Evaluation where model and dictionary are: the CPU's numbers, and a host that seldom waits.

The device is the tests' own (see support/pretend_device.py); no GPU has shown this yet.
"""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from itda_core.corpus.corpus import load_corpus
from itda_core.errors import InputError
from itda_core.evaluation import by_l0
from itda_core.evaluation.by_l0 import evaluate
from itda_core.evaluation.detection import embed
from itda_core.evaluation.metrics import ReconstructionSums, SparsitySums
from itda_core.evaluation.sparse_probing import mean_activations, mean_latents, probe
from itda_core.evaluation.splicing import SplicedPrompts
from itda_core.runs.latent_uses import read_tokens
from tests.support.foreign import N_LATENTS, activations, sae_dictionary, token_dictionary
from tests.support.pretend_device import PretendDevice

LOGIT_TOKENS = "itda_core.evaluation.splicing._LOGIT_TOKENS"


@pytest.fixture(params=["matching", "orthogonal", "sae"])
def dictionary(request, run):
    if request.param == "sae":
        return dataclasses.replace(sae_dictionary("jumprelu"), l0=6)
    return dataclasses.replace(run.dictionary(), pursuit=request.param)


def last(steps):
    return [*steps][-1]


def assert_alike(one, other):
    """Results as JSON types, equal but for rounding."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        assert_alike([*one.values()], [*other.values()])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for item, expected in zip(one, other, strict=True):
            assert_alike(item, expected)
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-6)
    else:
        assert one == other


def test_an_evaluation_gives_what_the_cpu_gives(
    dictionary, prompts, run, tiny_model, pretend_model
):
    counts = np.arange(1_000) % 130
    options = (run.config, 300, None, counts)
    expected = last(evaluate(dictionary, tiny_model, prompts, *options))
    with PretendDevice():
        found = last(evaluate(dictionary, pretend_model, prompts, *options))
    assert found.at[1].everything.total.device.type == "pretend"
    assert_alike(found.to_dict(), expected.to_dict())


def waits_of(run, model, prompts, monkeypatch, tokens_together):
    monkeypatch.setattr(LOGIT_TOKENS, tokens_together)
    with PretendDevice() as seen:
        dictionary = run.dictionary().to("pretend")
        steps = evaluate(dictionary, model, prompts, run.config, 300)
        batches = sum(1 for _ in steps) // 2
    return sum(seen.waits.values()), batches


def test_the_host_waits_a_few_times_a_batch_whatever_is_measured(
    run, prompts, pretend_model, monkeypatch
):
    few, few_batches = waits_of(run, pretend_model, prompts, monkeypatch, 256)
    many, many_batches = waits_of(run, pretend_model, prompts, monkeypatch, 1)
    assert many_batches - few_batches > 5
    assert (many - few) / (many_batches - few_batches) <= 2
    assert few - 2 * few_batches <= 10


def test_activations_that_would_fill_the_device_wait_on_the_host(
    run, prompts, tiny_model, pretend_model, monkeypatch
):
    expected = last(evaluate(run.dictionary(), tiny_model, prompts, run.config, 200))
    monkeypatch.setattr(by_l0, "free_memory", lambda _device: 1_000)
    with PretendDevice():
        found = last(evaluate(run.dictionary(), pretend_model, prompts, run.config, 200))
    assert_alike(found.to_dict(), expected.to_dict())


def test_what_reconstructions_cost_is_asked_where_the_model_is(
    run, prompts, tiny_model, pretend_model
):
    options = (prompts, run.config, 200)
    expected = SplicedPrompts(tiny_model, 1, *options)
    rebuilt = run.dictionary().decode(run.dictionary().encode(expected.activations))
    with PretendDevice():
        spliced = SplicedPrompts(pretend_model, 1, *options)
        there = run.dictionary().to(pretend_model.device)
        score = spliced.score(there.decode(there.encode(spliced.activations)))
        with pytest.raises(InputError, match=r"reconstructions on cpu. .* reconstructions\.to\("):
            spliced.score(rebuilt)
    assert_alike(score, expected.score(rebuilt))


def test_sums_and_counts_are_the_cpus_and_nothing_waits_for_them():
    dictionary, x = token_dictionary(), activations(50)
    codes = dictionary.encode(x)
    xhat = dictionary.decode(codes)
    sums, sparsity = ReconstructionSums(), SparsitySums.of(N_LATENTS)
    sums.add(x, xhat)
    sparsity.add(codes)
    with PretendDevice() as seen:
        there, sparsity_there = ReconstructionSums(), SparsitySums.of(N_LATENTS, "pretend")
        for part in (slice(0, 20), slice(20, 50)):
            there.add(x[part].to("pretend"), xhat[part].to("pretend"))
            some = dataclasses.replace(
                codes, latents=codes.latents[part], coefficients=codes.coefficients[part]
            )
            sparsity_there.add(some.to("pretend"))
        assert not seen.waits
        for name in ("fvu", "cosine", "norm_ratio"):
            assert getattr(there, name) == pytest.approx(getattr(sums, name), rel=1e-12)
        for name in ("mean_l0", "mean_latents", "unused_share"):
            assert getattr(sparsity_there, name) == getattr(sparsity, name)
        assert sparsity_there.densities.tolist() == sparsity.densities.tolist()


# Sparse probing


@pytest.fixture(scope="module")
def labelled(run):
    """Speeches of ten prompts each, by two parties in turn."""
    parties = ("Republican", "Democratic")
    return [
        dataclasses.replace(
            prompt, labels={"speech": f"speech {number // 10}", "party": parties[number // 10 % 2]}
        )
        for number, prompt in enumerate(load_corpus(run.config.corpus).prompts)
    ]


def test_probing_gives_what_the_cpu_gives(run, labelled, tiny_model, pretend_model):
    expected = last(probe(run.dictionary(), tiny_model, labelled, run.config))
    with PretendDevice() as seen:
        dictionary = run.dictionary().to("pretend")
        steps = [*probe(dictionary, pretend_model, labelled, run.config)]
    assert_alike(steps[-1].to_dict(), expected.to_dict())
    assert sum(seen.waits.values()) <= 5 * (len(steps) - 1)


def test_means_of_prompts_are_the_cpus():
    dictionary, x = token_dictionary(), activations(30)
    codes, owners = dictionary.encode(x), np.arange(30) // 8
    with PretendDevice():
        latents = mean_latents(codes.to("pretend"), owners, 5, N_LATENTS)
        means = mean_activations(x.to("pretend"), owners, 5)
    np.testing.assert_array_equal(latents, mean_latents(codes, owners, 5, N_LATENTS))
    np.testing.assert_array_equal(means, mean_activations(x, owners, 5))


# Detection


def test_embeddings_of_titles_and_uses_are_the_cpus(run, tiny_model, pretend_model):
    tokens = read_tokens(pd.read_parquet(run.directory / "prompts.parquet"))
    needed = np.flatnonzero(tokens.words >= 0)[::7]
    expected = [*embed(tiny_model, tokens, needed)]
    with PretendDevice() as seen:
        found = [*embed(pretend_model, tokens, needed)]
    for (read, rows, vectors), (also_read, same_rows, others) in zip(found, expected, strict=True):
        assert read == also_read
        assert rows.tolist() == same_rows.tolist()
        torch.testing.assert_close(torch.from_numpy(vectors), torch.from_numpy(others))
    assert sum(seen.waits.values()) == len(found)
