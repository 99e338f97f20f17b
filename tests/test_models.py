"""Capture and splice, for every family of models, against transformers itself."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from tiny import FAMILIES, save_tiny_model

from itda_core import models
from itda_core.errors import InputError, ModelError
from itda_core.loading import load_model

TEXTS = [
    "The senate met to ratify the treaty with Spain, and the house agreed to the report.",
    "a",
    "The river rose in the spring 🎉 and the farmers of the valley moved.",
    "What is the price of peace?",
]
BLOCKS = {
    "gpt2": "transformer.h",
    "gpt_neox": "gpt_neox.layers",
    "opt": "model.decoder.layers",
    "bert": "encoder.layer",
}

causal_families = pytest.mark.parametrize(
    "family_model", [family for family in FAMILIES if family != "bert"], indirect=True
)


@pytest.fixture(scope="module", params=FAMILIES)
def family_model(request, tmp_path_factory):
    folder = save_tiny_model(tmp_path_factory.mktemp("family"), request.param, n_layers=4)
    return load_model(str(folder), device="cpu")


@pytest.fixture(scope="module")
def tokens(family_model):
    return family_model.tokenize(TEXTS)


@pytest.fixture(scope="module")
def reference(family_model, tokens):
    """Outputs of every block by transformers itself, [n_layers] of [n_texts, longest, 16].

    The last hidden state has gone through the final norm; what enters that norm is taken from
    the last block by a hook.
    """
    last = {}
    blocks = family_model.module.get_submodule(
        BLOCKS.get(family_model.text_config.model_type, "model.layers")
    )

    def keep(_module, _inputs, output):
        last["hidden"] = output if torch.is_tensor(output) else output[0]

    handle = blocks[-1].register_forward_hook(keep)
    with torch.no_grad():
        output = family_model.module(
            input_ids=tokens.ids, attention_mask=tokens.mask.long(), output_hidden_states=True
        )
    handle.remove()
    return [*output.hidden_states[1:-1], last["hidden"]]


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


# Every family


def test_the_block_list_is_found(family_model):
    path = BLOCKS.get(family_model.text_config.model_type, "model.layers")
    assert family_model.blocks is family_model.module.get_submodule(path)
    assert (family_model.n_layers, family_model.d_model) == (4, 16)


def test_capture_gives_the_hidden_states_of_transformers(family_model, tokens, reference):
    captured = family_model.capture(tokens, [0, 1, 2, 3])
    assert list(captured) == [0, 1, 2, 3]
    kept = tokens.mask.clone()
    kept[:, 0] = False
    for layer, hidden in enumerate(reference):
        assert captured[layer].dtype == torch.float32
        close(captured[layer], hidden[kept])


def test_every_text_of_a_batch_arrives_as_if_it_were_alone(family_model, tokens):
    together = family_model.capture(tokens, [1, 3], skip_first=False)
    for row, text in enumerate(TEXTS):
        alone = family_model.capture(family_model.tokenize([text]), [1, 3], skip_first=False)
        for layer in (1, 3):
            close(together[layer][together.prompts == row], alone[layer])


@causal_families
def test_replacing_activations_by_themselves_changes_no_logit(family_model, tokens, reference):
    plain = family_model.logits(tokens)
    for layer in (0, 2, 3):
        with family_model.splice(layer, reference[layer], tokens.mask):
            close(family_model.logits(tokens)[tokens.mask], plain[tokens.mask])


@causal_families
def test_replacing_one_activation_changes_that_token_and_later_ones_only(family_model, tokens):
    where = torch.zeros_like(tokens.mask)
    where[0, 5] = True
    plain = family_model.logits(tokens)
    with family_model.splice(1, torch.full((*where.shape, 16), 3.0), where):
        spliced = family_model.logits(tokens)
    close(spliced[1:][tokens.mask[1:]], plain[1:][tokens.mask[1:]])
    close(spliced[0, :5], plain[0, :5])
    assert not torch.allclose(spliced[0, 5], plain[0, 5])
    close(family_model.logits(tokens), plain)  # nothing stays behind


# What capture promises, on the tiny Llama


def test_padding_is_left_out_and_rows_name_prompt_and_position(tiny_model):
    tokens = tiny_model.tokenize(TEXTS)
    activations = tiny_model.capture(tokens, [1], skip_first=False)
    expected = [
        (row, position) for row in range(4) for position in range(int(tokens.mask[row].sum()))
    ]
    assert list(zip(activations.prompts, activations.positions, strict=True)) == expected
    assert len(activations[1]) == len(expected) < tokens.mask.numel()


def test_the_first_position_is_left_out_unless_asked_for(tiny_model):
    tokens = tiny_model.tokenize(TEXTS)
    with_first = tiny_model.capture(tokens, [1], skip_first=False)
    without = tiny_model.capture(tokens, [1])
    assert 0 not in without.positions
    later = with_first.positions > 0
    assert (without.positions == with_first.positions[later]).all()
    assert (without.prompts == with_first.prompts[later]).all()
    assert torch.equal(without[1], with_first[1][later])
    assert (with_first.positions == 0).sum() == 4


def test_capture_stops_after_the_last_layer_asked_for(tiny_model):
    calls = []
    handles = [
        block.register_forward_pre_hook(lambda *_, layer=layer: calls.append(layer))
        for layer, block in enumerate(tiny_model.blocks)
    ]
    tiny_model.capture(tiny_model.tokenize(["the treaty"]), [0, 1])
    for handle in handles:
        handle.remove()
    assert calls == [0, 1]


def test_many_texts_keep_their_order_over_several_forward_passes(tiny_model, tiny_texts):
    texts = tiny_texts * 3
    tokens = tiny_model.tokenize(texts)
    calls = []
    handle = tiny_model.blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    activations = tiny_model.capture(tokens, [0, 2])
    handle.remove()
    assert len(calls) > 1
    assert tokens.mask.sum() > models.FORWARD_TOKENS
    row = 0
    for number, text in enumerate(texts[:120]):
        alone = tiny_model.capture(tiny_model.tokenize([text]), [0, 2])
        rows = slice(row, row + len(alone[0]))
        assert (activations.prompts[rows] == number).all()
        assert (activations.positions[rows] == alone.positions).all()
        close(activations[0][rows], alone[0])
        close(activations[2][rows], alone[2])
        row += len(alone[0])
    assert torch.allclose(activations[2][:row], activations[2][row : 2 * row], atol=1e-5)
    assert len(activations[0]) == 3 * row


@pytest.mark.parametrize("forward_tokens", [1, 40, 97])
def test_the_size_of_a_forward_pass_changes_nothing(tiny_model, monkeypatch, forward_tokens):
    tokens = tiny_model.tokenize(TEXTS)
    whole = tiny_model.capture(tokens, [1])
    monkeypatch.setattr(models, "FORWARD_TOKENS", forward_tokens)
    parts = tiny_model.capture(tokens, [1])
    close(parts[1], whole[1])
    assert (parts.prompts == whole.prompts).all()
    assert (parts.positions == whole.positions).all()


def test_a_shortened_text_gives_its_first_tokens(tiny_model):
    tokens = tiny_model.tokenize(TEXTS)
    whole, cut = tiny_model.capture(tokens, [2]), tiny_model.capture(tokens.shortened(0, 4), [2])
    kept = (whole.prompts > 0) | (whole.positions < 4)
    close(cut[2], whole[2][kept])
    assert (cut.positions == whole.positions[kept]).all()


@pytest.mark.parametrize("texts", [[], [""], ["", ""], ["a"], ["", "the treaty"]])
def test_texts_without_a_second_token_give_no_rows(tiny_model, texts):
    activations = tiny_model.capture(tiny_model.tokenize(texts), [0, 3])
    expected = 0 if "the treaty" not in texts else len(tiny_model.tokenize(texts[1:]).ids[0]) - 1
    assert activations[0].shape == activations[3].shape == (expected, 16)
    assert len(activations.prompts) == len(activations.positions) == expected
    assert torch.isfinite(activations[3]).all()


def test_a_layer_asked_for_twice_and_out_of_order_is_captured_once(tiny_model):
    tokens = tiny_model.tokenize(TEXTS)
    activations = tiny_model.capture(tokens, [2, 0, 2])
    assert set(activations) == {0, 2}
    close(activations[0], tiny_model.capture(tokens, [0])[0])


@pytest.mark.parametrize("layer", [4, -1, 1_000_000])
def test_a_layer_that_does_not_exist_is_refused_with_those_that_do(tiny_model, layer):
    tokens = tiny_model.tokenize(TEXTS)
    with pytest.raises(InputError, match=rf"layers 0 to 3.* {layer}\."):
        tiny_model.capture(tokens, [0, layer])
    with (
        pytest.raises(InputError, match="layers 0 to 3"),
        tiny_model.splice(layer, torch.zeros(1), torch.zeros(1)),
    ):
        pass


# Splice


def test_splice_equals_finishing_the_forward_pass_by_hand(tiny_model):
    """At the last layer what is left is the final norm and the unembedding."""
    tokens = tiny_model.tokenize(TEXTS)
    hidden = torch.randn((*tokens.ids.shape, 16), generator=torch.Generator().manual_seed(0))
    where = tokens.mask & (torch.arange(tokens.ids.shape[1]) % 2 == 1)
    with tiny_model.splice(3, hidden, where):
        spliced = tiny_model.logits(tokens)
    scale = hidden.square().mean(-1, keepdim=True).add(1e-6).rsqrt()
    by_hand = hidden * scale @ tiny_model.module.lm_head.weight.T
    close(spliced[where], by_hand[where])
    untouched = tokens.mask & ~where
    close(spliced[untouched], tiny_model.logits(tokens)[untouched])


def test_splice_is_undone_when_the_code_within_it_fails(tiny_model):
    tokens = tiny_model.tokenize(TEXTS)
    plain = tiny_model.logits(tokens)
    hidden = torch.zeros((*tokens.ids.shape, 16))
    with pytest.raises(ZeroDivisionError), tiny_model.splice(1, hidden, tokens.mask):
        _ = 1 / 0
    assert torch.equal(tiny_model.logits(tokens), plain)


def test_capture_leaves_no_hook_behind(tiny_model):
    # transformers leaves hooks of its own on a model that has given its hidden states
    before = [list(block._forward_hooks) for block in tiny_model.blocks]
    tiny_model.capture(tiny_model.tokenize(TEXTS), [0, 1])
    assert [list(block._forward_hooks) for block in tiny_model.blocks] == before


def test_captures_from_several_threads_at_once_do_not_mix(tiny_model):
    jobs = [(tiny_model.tokenize([text]), [layer]) for text in TEXTS for layer in (0, 1, 2)] * 4
    alone = [tiny_model.capture(tokens, layers) for tokens, layers in jobs]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda job: tiny_model.capture(*job), jobs))
    for one, other in zip(alone, together, strict=True):
        for layer, rows in one.items():
            assert torch.equal(rows, other[layer])


# Records


def test_dtype_and_device_are_recorded_and_activations_are_float32(tiny_model_folder):
    for dtype in ("float32", "bfloat16"):
        model = load_model(str(tiny_model_folder), dtype=dtype, device="cpu")
        assert model.dtype == dtype
        assert model.device.type == "cpu"
        assert model.capture(model.tokenize(TEXTS), [1])[1].dtype == torch.float32


def test_bfloat16_gives_nearly_the_values_of_float32(tiny_model, tiny_model_folder):
    half = load_model(str(tiny_model_folder), dtype="bfloat16", device="cpu")
    tokens = tiny_model.tokenize(TEXTS)
    one, other = tiny_model.capture(tokens, [2])[2], half.capture(tokens, [2])[2]
    assert (one - other).norm() < 0.05 * one.norm()


def test_tokenizers_are_told_apart_by_their_vocabulary(tiny_model, smollm2, tiny_model_folder):
    assert tiny_model.tokenizer_digest == load_model(str(tiny_model_folder)).tokenizer_digest
    assert tiny_model.tokenizer_digest != smollm2.tokenizer_digest


def test_an_encoder_has_no_logits(tmp_path):
    encoder = load_model(str(save_tiny_model(tmp_path, "bert")))
    with pytest.raises(ModelError, match="encoder"):
        encoder.logits(encoder.tokenize(["a"]))


def test_a_model_without_a_block_list_is_refused():
    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.config = type("Config", (), {"num_hidden_layers": 3})()
            self.config.get_text_config = lambda: self.config
            self.parts = torch.nn.ModuleList([torch.nn.Linear(2, 2)])

    with pytest.raises(ModelError, match="No list of blocks"):
        models.find_blocks(Odd())


def test_smollm2_captures_what_transformers_computes(smollm2):
    tokens = smollm2.tokenize(TEXTS)
    captured = smollm2.capture(tokens, [7, 15], skip_first=False)
    with torch.no_grad():
        states = smollm2.module(
            input_ids=tokens.ids, attention_mask=tokens.mask.long(), output_hidden_states=True
        ).hidden_states
    assert np.array_equal(captured.prompts, tokens.mask.nonzero()[:, 0])
    for layer in (7, 15):
        expected = states[layer + 1][tokens.mask]
        assert (captured[layer] - expected).norm() < 1e-5 * expected.norm()
