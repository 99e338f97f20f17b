"""Capture and splice, for every family of models, against transformers itself."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from itda_core.errors import ModelError
from itda_core.model.loading import load_model
from itda_core.model.proof import prove
from itda_core.model.proved import Identity, proved
from tests.support.tiny_models import FAMILIES, TEXTS, close, save_tiny_model

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


@causal_families
def test_a_pass_that_begins_after_a_block_gives_what_the_whole_pass_gives(
    family_model, tokens, reference
):
    draw = torch.Generator().manual_seed(0)
    for layer, plain in enumerate(reference):
        hidden = plain + torch.randn(plain.shape, generator=draw)
        with family_model.splice(layer, hidden, tokens.mask):
            whole = family_model.logits(tokens)
        assert layer in family_model.abilities.begins_after
        close(family_model.logits_after(tokens, layer, hidden)[tokens.mask], whole[tokens.mask])
        close(family_model.hidden(tokens, layer)[tokens.mask], plain[tokens.mask])


# Splice


def test_blocks_that_are_needed_later_are_not_left_out(tmp_path, tokens):
    """A model whose last block adds what the first one saw, as some share keys and values."""
    model = load_model(str(save_tiny_model(tmp_path / "tiny")), device="cpu")
    assert model.abilities.begins_after == (0, 1, 2, 3)
    seen = []
    model.blocks[0].register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    model.blocks[3].register_forward_hook(lambda *given: given[2] + seen.pop())
    hidden = torch.randn((*tokens.ids.shape, 16), generator=torch.Generator().manual_seed(0))
    with model.splice(1, hidden, tokens.mask):
        whole = model.logits(tokens)
    model.abilities = prove(model)
    assert not {1, 2} & {*model.abilities.begins_after}
    close(model.logits_after(tokens, 1, hidden)[tokens.mask], whole[tokens.mask])
    assert not any("forward" in vars(block) for block in model.blocks)


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
            self.part = torch.nn.Linear(2, 2)

    with pytest.raises(ModelError, match="No list of blocks"):
        proved(Identity("odd", "", "float32", "cpu"), Odd(), None)


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
