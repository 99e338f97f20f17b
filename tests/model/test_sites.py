"""Sites of a block: what is read and replaced there, against transformers' own modules, hooked by
hand and by name."""

import json
import threading

import pytest
import torch
from torch.nn.functional import layer_norm

from itda_core.config import ModelSpec
from itda_core.errors import InputError, ModelError
from itda_core.model import proved, site_proof
from itda_core.model.found_places import found_places
from itda_core.model.loading import load_model
from itda_core.model.model_info import remembered_sites
from itda_core.model.site_proof import prove_sites
from itda_core.model.sites import Place
from itda_core.settings import SITES
from tests.support.tiny_models import TEXTS, close, save_tiny_model

BY_HAND = {
    "llama": {"attn_out": "self_attn", "mlp_out": "mlp", "before_mlp": "post_attention_layernorm"},
    "gpt2": {"attn_out": "attn", "mlp_out": "mlp", "before_mlp": "ln_2"},
    "gemma2": {
        "attn_out": "post_attention_layernorm",
        "mlp_out": "post_feedforward_layernorm",
        "before_mlp": "pre_feedforward_layernorm",
    },
    "opt": {"attn_out": "self_attn", "mlp_out": "fc2", "before_mlp": "final_layer_norm"},
    "gpt_neox": {"attn_out": "attention", "mlp_out": "mlp"},
}
"""What a person reads in transformers' code of each family; the last has both side by side"""
IN_LINE = [family for family, names in BY_HAND.items() if "before_mlp" in names]
LAYER = 2


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    """A tiny model of each family."""
    folder = tmp_path_factory.mktemp("families")
    return {
        family: load_model(str(save_tiny_model(folder / family, family)), device="cpu")
        for family in BY_HAND
    }


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return load_model(str(save_tiny_model(tmp_path_factory.mktemp("bert"), "bert")), device="cpu")


@pytest.fixture
def model(tmp_path):
    """A model of one's own, to be spoilt."""
    return load_model(str(save_tiny_model(tmp_path / "tiny")), device="cpu")


def first(output):
    return output if torch.is_tensor(output) else output[0]


def by_hand(model, family, tokens):
    """The sites of block LAYER in transformers' own pass, by hooks that are written here; None for
    one that the family lacks."""
    block, names, found, handles = model.blocks[LAYER], BY_HAND[family], {}, []

    def keep(site, module, is_input=False):
        def hook(_module, inputs, output):
            found[site] = (inputs[0] if is_input else first(output)).clone()

        handles.append(module.register_forward_hook(hook))

    keep("attn_out", block.get_submodule(names["attn_out"]))
    keep("mlp_out", block.get_submodule(names["mlp_out"]))
    if "before_mlp" in names:
        keep("resid_mid", block.get_submodule(names["before_mlp"]), is_input=True)
    with torch.no_grad():
        states = model.module(
            input_ids=tokens.ids, attention_mask=tokens.mask.long(), output_hidden_states=True
        ).hidden_states
    for handle in handles:
        handle.remove()
    found["resid_pre"], found["resid_post"] = states[LAYER], states[LAYER + 1]
    rows = int(tokens.mask.sum())
    shaped = {site: x.reshape(*tokens.ids.shape, -1)[tokens.mask] for site, x in found.items()}
    assert all(len(x) == rows for x in shaped.values())
    return shaped


# What is read


@pytest.mark.parametrize("family", BY_HAND)
def test_each_site_is_what_the_familys_own_modules_give(families, family):
    model = families[family]
    tokens = model.tokenize(TEXTS)
    expected = by_hand(model, family, tokens)
    assert {site for site in SITES if not model.sites.why_not(site)} == expected.keys()
    for site, rows in expected.items():
        found = model.capture(tokens, [0, LAYER], skip_first=False, site=site)
        close(found[LAYER], rows)


@pytest.mark.parametrize("family", IN_LINE)
def test_what_is_added_adds_up_to_the_stream(families, family):
    model = families[family]
    tokens = model.tokenize(TEXTS)
    x = {site: model.capture(tokens, [LAYER], site=site)[LAYER] for site in SITES}
    close(x["resid_pre"] + x["attn_out"], x["resid_mid"])
    close(x["resid_mid"] + x["mlp_out"], x["resid_post"])


def test_side_by_side_there_is_nothing_between(families):
    model = families["gpt_neox"]
    tokens = model.tokenize(TEXTS)
    parts = ("resid_pre", "attn_out", "mlp_out", "resid_post")
    x = {site: model.capture(tokens, [LAYER], site=site)[LAYER] for site in parts}
    close(x["resid_pre"] + x["attn_out"] + x["mlp_out"], x["resid_post"])
    with pytest.raises(ModelError, match="no resid_mid to read: attention and MLP read the same"):
        model.capture(tokens, [LAYER], site="resid_mid")


def test_before_a_block_is_what_came_out_of_the_last_and_at_first_the_embedding(families):
    model = families["gpt2"]
    tokens = model.tokenize(TEXTS)
    before = model.capture(tokens, [0, 1, 2], site="resid_pre", skip_first=False)
    after = model.capture(tokens, [0, 1], skip_first=False)
    assert torch.equal(before[1], after[0])
    assert torch.equal(before[2], after[1])
    weights = model.module.transformer
    positions = torch.arange(tokens.ids.shape[1], dtype=torch.int64)
    embedded = weights.wte(tokens.ids) + weights.wpe(positions)
    close(before[0], embedded[tokens.mask])


def test_what_is_added_after_a_multiplier_is_read_with_it(tmp_path):
    """Granite adds 0.22 times what attention and MLP give."""
    from transformers import GraniteConfig, GraniteForCausalLM

    from tests.support.tiny_models import tiny_tokenizer

    config = GraniteConfig(
        vocab_size=512, hidden_size=16, num_hidden_layers=3, num_attention_heads=2,
        num_key_value_heads=1, intermediate_size=32, residual_multiplier=0.22,
        bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    GraniteForCausalLM(config).eval().save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    model = load_model(str(tmp_path), device="cpu")
    assert model.sites.place("mlp_out", 1).factor == 0.22
    tokens, given = model.tokenize(TEXTS[:1]), []
    handle = model.blocks[1].mlp.register_forward_hook(
        lambda _module, _inputs, output: given.append(output)
    )
    found = model.capture(tokens, [1], site="mlp_out", skip_first=False)[1]
    handle.remove()
    [expected] = given
    torch.testing.assert_close(found, 0.22 * expected[0], rtol=1e-6, atol=0)


def test_the_usual_site_asks_for_no_proof(model):
    model.find_sites = None  # would raise when called
    tokens = model.tokenize(TEXTS)
    model.capture(tokens, [1], site="resid_post")
    model.hidden(tokens, 1)
    model.logits_after(tokens, 1, model.hidden(tokens, 1))


def test_a_pass_ends_at_the_last_site_that_is_asked_for(model):
    runs = []
    model.sites  # noqa: B018 - found before passes are counted
    model.blocks[1].register_forward_pre_hook(lambda *_: runs.append("began"))
    model.blocks[1].mlp.register_forward_pre_hook(lambda *_: runs.append("MLP"))
    model.blocks[2].register_forward_pre_hook(lambda *_: runs.append("next"))
    model.capture(model.tokenize(["The senate met."]), [1], site="attn_out")
    assert runs == ["began"]


# What is put in


def with_hook(model, hook, kind):
    """Logits with a forward hook, or pre-hook, on one module."""
    module, hook_of = hook
    register = "register_forward_pre_hook" if kind == "input" else "register_forward_hook"
    handle = getattr(module, register)(hook_of)
    try:
        return model.logits(model.tokenize(TEXTS))
    finally:
        handle.remove()


@pytest.mark.parametrize("site", ["attn_out", "mlp_out"])
@pytest.mark.parametrize("family", BY_HAND)
def test_what_is_put_in_place_of_an_addition_is_added(families, family, site):
    model = families[family]
    tokens = model.tokenize(TEXTS)
    hidden = 1.5 * model.hidden(tokens, LAYER, site).roll(1, 1)

    def instead(_module, _inputs, output):
        if torch.is_tensor(output):
            return hidden.reshape(output.shape)
        return (hidden, *output[1:])

    module = model.blocks[LAYER].get_submodule(BY_HAND[family][site])
    expected = with_hook(model, (module, instead), "output")
    found = model.logits_after(tokens, LAYER, hidden, site)
    close(found[tokens.mask], expected[tokens.mask])


@pytest.mark.parametrize("family", BY_HAND)
def test_what_is_put_before_a_block_goes_into_it(families, family):
    model = families[family]
    tokens = model.tokenize(TEXTS)
    for layer in (0, LAYER):
        hidden = 1.5 * model.hidden(tokens, layer, "resid_pre").roll(1, 1)
        expected = with_hook(
            model,
            (
                model.blocks[layer],
                lambda _module, inputs, hidden=hidden: (hidden, *inputs[1:]),
            ),
            "input",
        )
        found = model.logits_after(tokens, layer, hidden, "resid_pre")
        close(found[tokens.mask], expected[tokens.mask])


def test_what_is_put_between_attention_and_mlp_goes_on_by_both_ways(families):
    """By hand: the stream after the block is what was put there, and the MLP of its norm."""
    model = families["gpt2"]
    tokens = model.tokenize(TEXTS)
    hidden = 1.5 * model.hidden(tokens, LAYER, "resid_mid").roll(1, 1)
    block = model.blocks[LAYER]
    with torch.no_grad():
        norm = block.ln_2
        read = layer_norm(hidden, hidden.shape[-1:], norm.weight, norm.bias, norm.eps)
        after = hidden + block.mlp(read)
    expected = model.logits_after(tokens, LAYER, after)
    close(
        model.logits_after(tokens, LAYER, hidden, "resid_mid")[tokens.mask], expected[tokens.mask]
    )


@pytest.mark.parametrize("site", SITES)
def test_positions_that_are_not_replaced_stay_bit_for_bit(families, site):
    model = families["llama"]
    tokens = model.tokenize(TEXTS)
    plain = model.logits(tokens)
    hidden = torch.full_like(model.hidden(tokens, LAYER, site), torch.nan)
    with model.splice(LAYER, hidden, torch.zeros_like(tokens.mask), site):
        assert torch.equal(model.logits(tokens), plain)


# What is refused


def test_an_encoder_that_norms_after_the_sum_has_its_stream_and_no_parts(encoder):
    tokens = encoder.tokenize(TEXTS)
    before = encoder.capture(tokens, [2], site="resid_pre")[2]
    assert torch.equal(before, encoder.capture(tokens, [1])[1])
    for site in ("attn_out", "resid_mid", "mlp_out"):
        with pytest.raises(ModelError, match=f"no {site} to read: what a block gives is not what"):
            encoder.capture(tokens, [1], site=site)


def test_a_site_that_there_is_not_is_refused_with_those_that_there_are(families):
    with pytest.raises(InputError, match="one of resid_pre, attn_out, resid_mid"):
        families["llama"].capture(families["llama"].tokenize(TEXTS), [1], site="resid_in")


def test_a_block_that_adds_something_else_too_is_refused(model):
    model.blocks[1].register_forward_hook(lambda _module, _inputs, output: output * 1.01)
    sites = prove_sites(model)
    assert sites.places.keys() == {"resid_pre"}
    assert "in block 1 what a block gives is not" in sites.why_not("mlp_out")


def test_a_stream_that_changes_between_blocks_is_told(model):
    def shifted(_module, inputs):
        return (inputs[0] + 0.5, *inputs[1:])

    model.blocks[2].register_forward_pre_hook(shifted, prepend=True)
    sites = prove_sites(model)
    assert "what goes into block 2 differs" in sites.why_not("resid_pre")
    assert not sites.why_not("mlp_out")


def test_attention_beside_an_mlp_is_the_one_that_reads_other_tokens(families, monkeypatch):
    """Whichever of the two a block runs first."""
    model, names = families["gpt_neox"], {"attn_out": "mlp_out", "mlp_out": "attn_out"}
    expected = model.sites

    def the_other_way_round(*seen):
        places, reasons = found_places(*seen)
        return {names.get(site, site): place for site, place in places.items()}, reasons

    monkeypatch.setattr(site_proof, "found_places", the_other_way_round)
    assert prove_sites(model) == expected


# What is remembered


def test_passes_of_other_threads_wait_for_the_proof_and_see_none_of_its_guesses(model, monkeypatch):
    """The hooks sit on modules that all threads share; what they heard of another's pass would be
    kept for good."""
    tokens, expected, threads, seen = model.tokenize(TEXTS), found_places, [], []

    def others():
        seen.append(model.capture(tokens, [LAYER]))
        seen.append(model.at("attn_out").capture(tokens, [LAYER]))

    def slow(*arguments):
        if not threads:
            threads.append(threading.Thread(target=others))
            threads[0].start()
            threads[0].join(0.2)
            assert not seen
        return expected(*arguments)

    monkeypatch.setattr(site_proof, "found_places", slow)
    sites = model.sites
    threads[0].join()
    assert [place.module for place in sites.places["attn_out"]] == ["self_attn"] * model.n_layers
    assert torch.equal(seen[1][LAYER], model.capture(tokens, [LAYER], site="attn_out")[LAYER])


def test_blocks_that_run_twice_in_a_pass_have_no_sites(model, monkeypatch):
    run = model.run_base

    def twice(self, *arguments, **options):
        run(*arguments, **options)
        return run(*arguments, **options)

    monkeypatch.setattr(type(model), "run_base", twice)
    reason = prove_sites(model).why_not("attn_out")
    assert (
        reason
        == f"its {model.n_layers} blocks ran {2 * model.n_layers} times in a pass, not once each"
    )


def test_sites_are_proved_once_and_remembered(model, tmp_path, monkeypatch):
    spec = ModelSpec(str(tmp_path / "tiny"), dtype="float32")
    assert remembered_sites(spec, "cpu") is None
    found = model.sites
    assert remembered_sites(spec, "cpu") == found
    monkeypatch.setattr(proved, "prove_sites", None)  # would raise when called
    again = load_model(str(tmp_path / "tiny"), device="cpu")
    assert again.sites == found
    assert again.sites.place("resid_mid", 1) == Place(
        "post_attention_layernorm", "input", added=Place("self_attn")
    )


def test_what_an_earlier_proof_of_sites_found_is_not_believed(model, tmp_path, data_folder):
    assert model.sites
    [file] = (data_folder / "cache" / "proofs").glob("*.json")
    content = json.loads(file.read_text())
    del content["digest"]
    content["sites"] |= {"version": 0, "places": {}}
    proved._write(file, content)
    again = load_model(str(tmp_path / "tiny"), device="cpu")
    assert again.sites == model.sites
