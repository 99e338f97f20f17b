"""Activations from nnsight and TransformerLens, against transformers' own hidden states."""

import pytest
import torch

from itda_core.activations.folder import ActivationFolder
from itda_core.activations.recorded import folder_config
from itda_core.model.loading import load_model
from itda_core.runs.run import list_runs
from itda_core.training.trainer import train
from tests.support import other_captures as other
from tests.support.tiny_models import save_tiny_model

needs_nnsight = pytest.mark.skipif(
    not other.is_installed("nnsight"), reason="nnsight is not installed"
)
needs_lens = pytest.mark.skipif(
    not other.is_installed("transformer_lens"), reason="transformer-lens is not installed"
)


@pytest.fixture(scope="module")
def asked(tmp_path_factory, tiny_texts):
    """A folder with what the two have captured, and what they were refused."""
    folder = tmp_path_factory.mktemp("others")
    save_tiny_model(folder / other.MODEL, "gpt2")
    (folder / other.CORPUS).write_text("\n\n".join(tiny_texts), encoding="utf-8")
    return folder, other.ask(folder)


@pytest.fixture(scope="module")
def model(asked):
    return load_model(str(asked[0] / other.MODEL), device="cpu")


def hidden_states(model, ids):
    with torch.inference_mode():
        return model.module(torch.tensor([ids]), output_hidden_states=True).hidden_states


def assert_hidden_states(folder, model, before):
    """Each row is the hidden state of its token. before: ids that stand before a text's own."""
    opened = ActivationFolder(folder)
    for prompt in opened.selected(held_out=False) + opened.selected(held_out=True):
        text = opened.tokenized(prompt.prompt_id, prompt.text)
        ids = [*before, *model.tokenizer(prompt.text)["input_ids"]][: len(text)]
        states = hidden_states(model, ids)
        first, last = opened.rows_of(prompt.prompt_id)
        spans = model.tokenizer(prompt.text, return_offsets_mapping=True)["offset_mapping"]
        expected = [prompt.text[start:end] for start, end in spans][1 - len(before) :]
        read = [prompt.text[start:end] for start, end in text.spans[1:]]
        assert read == expected[: len(read)]
        for layer in (1, 2):
            rows = opened.rows(layer, first, last, "resid_post")
            torch.testing.assert_close(rows, states[layer + 1][0, 1:], rtol=1e-4, atol=1e-4)
    return opened


@needs_nnsight
def test_nnsight_gives_what_the_model_gives(asked, model):
    opened = assert_hidden_states(asked[0] / "nnsight", model, [])
    assert opened.n_rows(held_out=False) == 200
    assert opened.index.model_digest == model.digest
    assert opened.index.tokenizer == model.tokenizer_digest
    assert opened.index.put_in == model.put_in


@needs_nnsight
def test_what_nnsight_is_not_asked_for_rightly_is_refused(asked):
    _, told = asked
    assert "has layers 0 to 3; there is no layer 9" in told["layer"]
    assert "has no list of blocks 'transformer.h.0.mlp'" in told["list"]
    assert "block 0" in told["blocks"]
    assert "is not its hidden state" in told["blocks"]


@needs_lens
def test_a_cache_gives_what_the_model_gives_after_the_token_for_the_beginning(asked, model):
    opened = assert_hidden_states(asked[0] / "lens", model, [0])
    assert len(opened.index.parts) == len(other.LENS_BATCHES)
    assert len(opened.selected(held_out=True)) == 1
    assert opened.index.model_digest is None


@needs_lens
def test_a_cache_of_other_texts_or_places_is_refused(asked):
    _, told = asked
    assert "it is not of them" in told["texts"]
    assert "The cache has no blocks.1.hook_resid_post" in told["hook"]


@needs_lens
def test_a_dictionary_is_trained_from_a_cache(asked, tmp_path):
    config = folder_config(asked[0] / "lens", max_tokens=60, max_atoms=12, l0=3, layers=(2,))
    list(train(config, tmp_path, "cpu"))
    [run] = list_runs(tmp_path)
    assert len(run.dictionary()) == 12
    assert run.metrics["held_out_tokens"] > 0
