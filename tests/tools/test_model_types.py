"""Tiny random models of the types that transformers knows."""

import pytest
import torch
from transformers import AutoConfig, AutoTokenizer
from transformers.models.auto import modeling_auto

from tools.model_types.build import build, main
from tools.model_types.configuration import tiny_config
from tools.model_types.forward import TEXTS, UnusableModel, try_forward
from tools.model_types.listing import KINDS, ModelType, every_type, find_types
from tools.model_types.tiny import save_tiny
from tools.model_types.tokenizer import BOS, EOS, PAD, TOKENIZER_SIZE, make_tokenizer

SOME = ["llama.causal", "gpt2.causal", "bert.masked", "t5.seq2seq", "llava.image-text"]


@pytest.fixture(scope="module", params=SOME)
def saved(request, tmp_path_factory):
    """A type and the folder of its model."""
    (one,) = find_types(request.param)
    folder = tmp_path_factory.mktemp("model")
    save_tiny(one, folder)
    return one, folder


def test_every_type_that_transformers_maps_to_text_is_listed_once():
    types = every_type()
    assert len(set(types)) == len(types)
    for kind, mapping in (
        ("causal", modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
        ("masked", modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES),
        ("image-text", modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES),
        ("seq2seq", modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES),
    ):
        assert [one.model_type for one in types if one.kind == kind] == list(mapping)
    assert {one.kind for one in types} == set(KINDS)


def test_plain_encoders_read_text_and_nothing_else():
    names = {one.model_type for one in every_type() if one.kind == "encoder"}
    assert {"dpr", "clip_text_model", "splinter"} <= names
    assert not names & {"bert", "clip", "vit", "layoutlmv3"}


def test_a_name_without_a_kind_means_all_its_kinds():
    assert [one.kind for one in find_types("bart")] == ["causal", "masked", "seq2seq"]
    with pytest.raises(ValueError, match="no type 'lama'"):
        list(find_types("lama"))


def test_a_saved_model_gives_finite_values_that_differ_by_token(saved):
    one, folder = saved
    values = try_forward(one, folder)
    lengths = [len(ids) for ids in make_tokenizer(one.kind)(list(TEXTS)).input_ids]
    assert values.shape[:2] == (2, max(lengths)) and lengths[0] < lengths[1]


def test_a_saved_model_is_small_and_of_its_type(saved):
    one, folder = saved
    config = AutoConfig.from_pretrained(folder)
    text = config.get_text_config()
    assert config.model_type == one.model_type and config.architectures == [one.class_name]
    assert text.hidden_size == 32 and 2 <= text.num_hidden_layers <= 4
    assert TOKENIZER_SIZE <= text.vocab_size <= 512
    assert sum(path.stat().st_size for path in folder.iterdir()) < 2_000_000


def test_a_saved_tokenizer_is_the_configurations(saved):
    one, folder = saved
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.is_fast and len(tokenizer) == TOKENIZER_SIZE
    text = "Héllo wörld, 你好 🙂"
    ids = tokenizer(text).input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert (ids[0] == BOS, ids[-1] == EOS) == (
        one.kind != "seq2seq",
        one.kind in ("masked", "seq2seq"),
    )
    text_config = AutoConfig.from_pretrained(folder).get_text_config()
    assert tokenizer.pad_token_id == PAD == text_config.pad_token_id
    assert tokenizer.eos_token_id == EOS == text_config.eos_token_id


def test_the_same_type_is_saved_with_the_same_weights(saved, tmp_path):
    one, folder = saved
    save_tiny(one, tmp_path)
    for path in folder.glob("*.safetensors"):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_no_weight_is_constant(saved):
    one, folder = saved
    model = one.auto_class.from_pretrained(folder)
    constant = [
        name
        for name, weight in model.named_parameters()
        if weight.numel() > 1 and weight.std() == 0
    ]
    assert not constant


def test_a_model_with_weights_that_are_not_numbers_is_refused(tmp_path):
    (one,) = find_types("gpt2.causal")
    save_tiny(one, tmp_path)
    model = one.auto_class.from_pretrained(tmp_path)
    torch.nn.init.constant_(model.transformer.h[1].mlp.c_fc.bias, float("nan"))
    model.save_pretrained(tmp_path)
    with pytest.raises(UnusableModel, match="100% of the values are not finite"):
        try_forward(one, tmp_path)


def test_layers_of_every_kind_stand_in_a_few():
    (gemma,) = find_types("gemma3_text")
    assert tiny_config(gemma).layer_types == [
        "sliding_attention",
        "full_attention",
        "sliding_attention",
    ]
    assert tiny_config(gemma).sliding_window < 16


def test_tokens_of_images_have_embeddings_and_are_none_of_the_tokenizers():
    (llava,) = find_types("llava")
    config = tiny_config(llava)
    assert TOKENIZER_SIZE <= config.image_token_id < config.text_config.vocab_size


def test_a_model_that_asks_for_more_than_text_is_built_and_says_so(tmp_path):
    ((_, reason),) = build(list(find_types("blip")), tmp_path)
    assert reason.startswith("built, but: TypeError: ") and "pixel_values" in reason
    assert (tmp_path / "blip.image-text" / "model.safetensors").exists()


def test_what_is_not_built_is_said_and_the_rest_goes_on(tmp_path, capsys, monkeypatch):
    broken = ModelType("no-such-type", "causal", "NoSuchModel")
    (gpt2,) = find_types("gpt2.causal")
    monkeypatch.setattr("tools.model_types.build.every_type", lambda: [broken, gpt2])
    main(["--out", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:4] == ["no-such-type.causal", "not", "built:", "KeyError:"]
    assert lines[1].split() == ["gpt2.causal", "ok"]
    assert lines[2] == "causal: 1 of 2"
    assert (tmp_path / "gpt2.causal" / "model.safetensors").exists()
