"""A model proves itself: what is right is said to be, what is not is refused or done otherwise.

Faults are put into a real tiny model by hooks, and real types that were once read wrongly are built
by transformers itself.
"""

import copy
import json
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from itda_core.config import ModelSpec
from itda_core.errors import ModelError
from itda_core.model import proof, proved
from itda_core.model.abilities import ABOUT, Abilities
from itda_core.model.loading import load_model, try_model
from itda_core.model.model_info import model_shape, remembered_abilities, type_abilities
from itda_core.model.proof import prove
from itda_core.model.steps import Steps
from tests.support.tiny_models import TEXTS, close, save_tiny_model, tiny_tokenizer
from tools.model_types.listing import find_types
from tools.model_types.tiny import save_tiny


@pytest.fixture(autouse=True)
def proved_each_time(monkeypatch):
    """Here nothing is taken from another test."""
    monkeypatch.setattr(proved, "prove", prove)


def saved(name, folder):
    [one] = find_types(name)
    save_tiny(one, folder)
    return folder


def rewritten(folder, **changes):
    """With other entries in config.json; None takes one out."""
    config = json.loads((folder / "config.json").read_text())
    config |= changes
    kept = {key: value for key, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))
    return folder


@pytest.fixture
def model(tmp_path):
    """A model of one's own, to be spoilt."""
    return load_model(str(save_tiny_model(tmp_path / "tiny")), device="cpu")


def spoil(module, change):
    module.register_forward_hook(lambda _module, _inputs, output: change(output))


# What a sound model and a sound encoder prove


def test_a_causal_model_proves_everything(model):
    told = ("attention_mask", "position_ids")
    assert prove(model) == Abilities(step_inputs=told, begins_after=(0, 1, 2, 3))


def test_an_encoder_proves_its_capture_alone(tmp_path):
    encoder = load_model(str(save_tiny_model(tmp_path, "bert")), device="cpu")
    reasons = encoder.abilities.reasons()
    assert [name for name in ABOUT if not reasons[name]] == ["capture"]
    assert "depend on the tokens after it" in reasons["next_tokens"]
    assert not encoder.is_causal


def test_the_tables_rows_are_the_abilities():
    assert [*ABOUT] == [*Abilities.__dataclass_fields__][: len(ABOUT)]


# Faults


def test_rows_that_depend_on_the_other_texts_of_a_batch_are_refused(model):
    spoil(model.blocks[1].mlp, lambda output: output + output.mean(0, keepdim=True))
    assert "in a batch and alone" in prove(model).capture


def test_a_block_that_runs_twice_is_refused(model):
    model.blocks[2] = model.blocks[1]
    assert "block 1 runs 2 times" in prove(model).capture


def test_activations_that_are_not_finite_are_refused(model):
    spoil(model.blocks[3].mlp, lambda output: output * float("nan"))
    assert "not finite" in prove(model).capture


def test_a_block_of_another_width_is_refused(model):
    model.blocks[1].register_forward_hook(lambda _m, _i, output: output.repeat(1, 1, 2))
    model.blocks[2].register_forward_pre_hook(lambda _m, inputs: (inputs[0][..., :16], *inputs[1:]))
    assert "block 1 gives (2, 16, 32) where (2, 16, 16) is due" in prove(model).capture


def test_streams_side_by_side_are_one_wide_activation(tmp_path):
    """The hidden states of this family are twice as wide as its configuration says."""
    model = load_model(str(saved("qwen4_exp_text.causal", tmp_path)), device="cpu")
    tokens = model.tokenize(TEXTS)
    with torch.no_grad():
        states = model.module(
            input_ids=tokens.ids, attention_mask=tokens.mask.long(), output_hidden_states=True
        ).hidden_states
    assert model.d_model == states[1].shape[-1] == 64
    close(model.capture(tokens, [0], skip_first=False)[0], states[1][tokens.mask])
    again = load_model(str(tmp_path), device="cpu")  # as it is remembered
    assert again.d_model == 64


def test_a_model_that_sees_later_tokens_is_an_encoder(model):
    model.module.config.is_causal = False
    for block in model.blocks:
        block.self_attn.is_causal = False
    assert "depend on the tokens after it" in prove(model).next_tokens


def test_a_block_that_is_passed_by_takes_nothing_in(model):
    """A block reads what the first one gave: what is put in between changes nothing."""
    kept = []
    model.blocks[0].register_forward_hook(lambda _m, _i, output: kept.append(output))
    model.blocks[2].register_forward_pre_hook(lambda _m, inputs: (kept[-1], *inputs[1:]))
    assert "output changes nothing" in prove(model).splicing


def test_where_cached_steps_differ_whole_passes_are_made(model, monkeypatch):
    """A model that forgets its cache: each step would see the new token alone."""
    forward = model.module.forward

    def forgetful(*inputs, past_key_values=None, cache=None, **options):
        return forward(*inputs, **options)

    tokens = model.tokenize(TEXTS[:1])
    whole = model.logits(tokens)[0].cpu()
    monkeypatch.setattr(model.module, "forward", forgetful)
    model.abilities = prove(model)
    assert model.abilities.cached_steps
    assert not model.abilities.unembedding
    steps = Steps(model)
    for place in range(4, 8):
        first = 0 if place == 4 else place - 1
        close(steps.next_logits(tokens.ids[:, first:place]), whole[place - 1])


def test_rows_that_no_block_gives_are_no_numbers(model):
    """Blocks that are never called: never memory that nobody wrote."""
    model.blocks = copy.deepcopy(model.blocks)
    with pytest.raises(ModelError, match="block 1 gave nothing in a pass"):
        model.capture(model.tokenize(TEXTS), [1])


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_bidirectional_model_is_an_encoder_in_every_precision(tmp_path, dtype):
    """Weights as transformers draws them: later tokens move earlier ones by little."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
    )
    transformers.BertLMHeadModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = load_model(str(tmp_path), dtype=dtype, device="cpu")
    assert "depend on the tokens after it" in model.abilities.next_tokens


def test_a_head_that_sees_the_next_token_predicts_nothing(model):
    spoil(model.module.lm_head, lambda output: output + 5 * output.roll(-1, 1))
    assert "next tokens depend on the tokens after it" in prove(model).next_tokens


def test_logits_that_are_wrong_where_texts_are_padded_are_not_used(model):
    """As some families do that leave the mask out below their head."""
    forward = model.module.forward

    def blind(*inputs, attention_mask=None, **options):
        output = forward(*inputs, attention_mask=attention_mask, **options)
        if attention_mask is not None and not attention_mask.all():
            output.logits = output.logits.flip(0)
        return output

    model.module.forward = blind
    assert "logits in a batch" in prove(model).splicing


def test_one_token_that_is_wrong_is_refused_in_half_precision_too(tmp_path):
    model = load_model(str(save_tiny_model(tmp_path)), dtype="bfloat16", device="cpu")
    assert not model.abilities.capture

    def look_ahead(output):
        ahead = output.clone()
        ahead[:, 5] += output[:, 6:].sum(1)
        return ahead

    spoil(model.blocks[3].mlp, look_ahead)
    abilities = prove(model)
    assert abilities.capture or abilities.next_tokens


def test_what_is_the_machines_fault_is_told_and_not_remembered(tmp_path, monkeypatch):
    folder = str(save_tiny_model(tmp_path))

    def full(*_given, **_options):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9")

    with monkeypatch.context() as patch:
        patch.setattr(proof.Model, "capture", full)
        with pytest.raises(ModelError, match="does not fit into memory"):
            load_model(folder, device="cpu")
    assert load_model(folder, device="cpu").is_causal


# Types that were read wrongly


def test_a_model_whose_blocks_run_past_their_hooks_is_refused(tmp_path):
    folder = saved("squeezebert.masked", tmp_path)
    with pytest.raises(ModelError, match="can't be used: block 0 runs 0 times in a pass, not once"):
        load_model(str(folder), device="cpu")


def test_the_blocks_of_xlm_are_those_that_give_its_hidden_states(tmp_path):
    """It has four lists as long as its layers; the feed-forward parts are not its blocks."""
    folder = saved("xlm.masked", tmp_path)
    model = load_model(str(folder), device="cpu")
    tokens = model.tokenize(TEXTS)
    with torch.no_grad():
        states = transformers.AutoModel.from_pretrained(folder)(
            input_ids=tokens.ids, attention_mask=tokens.mask.long(), output_hidden_states=True
        ).hidden_states
    captured = model.capture(tokens, range(model.n_layers), skip_first=False)
    for layer, rows in captured.items():
        close(rows, states[layer + 1][tokens.mask])


@pytest.mark.parametrize("name", ["bart.seq2seq", "t5.seq2seq"])
def test_of_an_encoder_and_a_decoder_the_encoder_is_used_by_name(tmp_path, name):
    folder = saved(name, tmp_path)
    with pytest.raises(ModelError, match=r"an encoder and a decoder.*:encoder$"):
        load_model(str(folder), device="cpu")
    model = load_model(f"{folder}:encoder", device="cpu")
    tokens = model.tokenize(TEXTS)
    encoder = transformers.AutoModel.from_pretrained(folder).eval().get_encoder()
    with torch.no_grad():
        states = encoder(
            input_ids=tokens.ids, attention_mask=tokens.mask.long(), output_hidden_states=True
        ).hidden_states
    captured = model.capture(tokens, [0, 1], skip_first=False)
    for layer, rows in captured.items():
        close(rows, states[layer + 1][tokens.mask])


def test_a_model_without_an_encoder_of_its_own_says_so(tmp_path):
    with pytest.raises(ModelError, match="no encoder that can be used without"):
        load_model(f"{save_tiny_model(tmp_path)}:encoder", device="cpu")


def test_a_bidirectional_model_that_names_no_architecture_is_an_encoder(tmp_path):
    folder = rewritten(saved("bert.masked", tmp_path), architectures=None)
    assert not load_model(str(folder), device="cpu").is_causal


@pytest.mark.parametrize("name", ["opt.causal", "cohere.causal", "granite.causal", "gemma2.causal"])
def test_next_tokens_of_a_vector_go_through_all_that_follows_the_blocks(tmp_path, name):
    """Projections, scales and caps included: the last block's output gives the model's logits."""
    changes = {"word_embed_proj_dim": 16} if name.startswith("opt") else {}
    [one] = find_types(name)
    config = transformers.AutoConfig.from_pretrained(saved(name, tmp_path / "first"))
    for key, value in changes.items():
        setattr(config, key, value)
    torch.manual_seed(0)
    one.auto_class.from_config(config).save_pretrained(tmp_path / "model")
    for file in (tmp_path / "first").glob("tokenizer*"):
        shutil.copy(file, tmp_path / "model")
    model = load_model(str(tmp_path / "model"), device="cpu")
    tokens = model.tokenize(TEXTS)
    last = model.hidden(tokens, model.n_layers - 1)[tokens.mask]
    with torch.no_grad():
        expected = model.module(input_ids=tokens.ids, attention_mask=tokens.mask.long()).logits[
            tokens.mask
        ]
    close(model.unembed(last), expected)


# Files that lack something


def without_weight(folder, name):
    weights = load_file(folder / "model.safetensors")
    del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_weight_that_is_missing_is_not_drawn_at_random(tmp_path):
    folder = without_weight(save_tiny_model(tmp_path), "model.layers.2.mlp.up_proj.weight")
    with pytest.raises(ModelError, match=r"not whole: model\.layers\.2\.mlp.* missing"):
        load_model(str(folder), device="cpu")


def test_blocks_that_the_configuration_does_not_speak_of_are_not_left_out(tmp_path):
    folder = rewritten(save_tiny_model(tmp_path, n_layers=4), num_hidden_layers=3)
    with pytest.raises(ModelError, match=r"more blocks than its config\.json speaks of \(3\)"):
        load_model(str(folder), device="cpu")


def test_a_model_saved_without_its_head_is_an_encoder(tmp_path):
    folder = without_weight(save_tiny_model(tmp_path), "lm_head.weight")
    model = load_model(str(folder), device="cpu")
    assert "saved without the head" in model.why_not("next_tokens")
    with pytest.raises(ModelError, match="predicts no next token"):
        model.logits(model.tokenize(["a"]))


# Remembered


def test_a_model_proves_itself_once(tmp_path, monkeypatch):
    folder = str(save_tiny_model(tmp_path))
    first = load_model(folder, device="cpu")
    monkeypatch.setattr(proved, "prove", lambda _model: pytest.fail("proved again"))
    again = load_model(folder, device="cpu")
    assert again.abilities == first.abilities
    monkeypatch.setattr(proved, "prove", lambda _model: Abilities.none("capture", "tried anew"))
    save_tiny_model(tmp_path, seed=1)
    with pytest.raises(ModelError, match="tried anew"):
        load_model(folder, device="cpu")


@pytest.mark.parametrize(
    "damage",
    ["", "null", '{"blocks": 3}', '{"abilities": {"begins_after": 1}}', "[" * 100_000],
    ids=["empty", "null", "other", "number", "deep"],
)
def test_what_was_remembered_and_is_damaged_is_proved_anew(tmp_path, data_folder, damage):
    folder = str(save_tiny_model(tmp_path))
    first = load_model(folder, device="cpu")
    [file] = (data_folder / "cache" / "proofs").iterdir()
    whole = file.read_text()
    file.write_text(damage)
    assert load_model(folder, device="cpu").abilities == first.abilities
    assert file.read_text() == whole


@pytest.mark.parametrize("name", ["d_model", "blocks", "ce"])
def test_what_was_remembered_is_believed_as_it_was_written_alone(tmp_path, data_folder, name):
    """A bit that has flipped leaves JSON that can be understood, and says something else."""
    folder = str(save_tiny_model(tmp_path))
    first = load_model(folder, device="cpu")
    [file] = (data_folder / "cache" / "proofs").iterdir()
    whole = file.read_text()
    said = json.loads(whole)
    assert said["abilities"]["begins_after"]
    changes = {
        "d_model": {"d_model": said["d_model"] ^ 1},
        "blocks": {"part": said["part"] + "x"},
        "ce": {"abilities": said["abilities"] | {"capture": "can't be captured"}},
    }
    file.write_text(json.dumps(said | changes[name]))
    again = load_model(folder, device="cpu")
    assert (again.abilities, again.d_model) == (first.abilities, first.d_model)
    assert file.read_text() == whole


@pytest.mark.parametrize(
    "config",
    [
        {"num_attention_heads": 0},
        {"architectures": [["x"]]},
        {"architectures": "Llama"},
        {"hidden_size": "wide"},
        {"model_type": 7},
        {"rope_scaling": {"type": "odd"}},
    ],
)
def test_an_odd_configuration_is_looked_at_without_a_word(tmp_path, config):
    """The pages look at it while its name is typed; what is wrong with it is told when it loads."""
    spec = ModelSpec(str(rewritten(save_tiny_model(tmp_path), **config)))
    for look in (remembered_abilities, type_abilities, model_shape):
        look(spec)


def test_a_model_of_two_parts_is_known_to_be_refused_before_it_is_loaded(tmp_path):
    folder = str(saved("t5.seq2seq", tmp_path))
    assert f"choose {folder}:encoder" in remembered_abilities(ModelSpec(folder)).capture
    assert remembered_abilities(ModelSpec(f"{folder}:encoder")) is None
    assert not type_abilities(ModelSpec(f"{folder}:encoder")).capture


def test_a_refusal_is_remembered_too(tmp_path, monkeypatch):
    folder = saved("squeezebert.masked", tmp_path)
    with pytest.raises(ModelError):
        load_model(str(folder), device="cpu")
    monkeypatch.setattr(proved, "prove", lambda _model: pytest.fail("proved again"))
    with pytest.raises(ModelError, match="block 0 runs 0 times"):
        load_model(str(folder), device="cpu")
    assert try_model(ModelSpec(str(folder), dtype="float32")).abilities.capture
