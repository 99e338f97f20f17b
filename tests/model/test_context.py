"""How many tokens a model takes, under whatever name its configuration says so."""

from types import SimpleNamespace

import pytest
import transformers
from torch import nn

from itda_core.model.context import DEFAULT_CONTEXT_LENGTH, context_length


def module_of(**limits):
    """A module whose configuration says these."""
    module = nn.Module()
    config = SimpleNamespace(**limits)
    module.config = SimpleNamespace(get_text_config=lambda: config)
    return module


@pytest.mark.parametrize(
    "name",
    ["max_position_embeddings", "n_positions", "max_seq_len", "max_target_positions", "n_ctx",
     "seq_length"],
)  # fmt: skip
def test_a_limit_is_found_under_any_of_its_names(name):
    assert context_length(module_of(**{name: 77})) == 77


@pytest.mark.parametrize("none", [-1, None, 0, 10**30, float("inf"), float("nan"), "2048", True])
def test_what_is_no_limit_is_none(none):
    assert context_length(module_of(max_position_embeddings=none)) == DEFAULT_CONTEXT_LENGTH
    assert context_length(module_of(max_position_embeddings=none, n_positions=9)) == 9


def test_the_smallest_of_several_limits_counts_and_the_tokenizer_only_where_there_is_none():
    tokenizer, unlimited = (SimpleNamespace(model_max_length=n) for n in (300, int(1e30)))
    assert context_length(module_of(n_positions=512, n_ctx=256), tokenizer) == 256
    assert context_length(module_of(n_positions=512), tokenizer) == 512
    assert context_length(module_of(), tokenizer) == 300
    assert context_length(module_of(), unlimited) == DEFAULT_CONTEXT_LENGTH


SIZES = {"vocab_size": 64, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (transformers.MptConfig(vocab_size=64, d_model=8, n_layers=1, n_heads=2,
                                max_seq_len=48), 48),
        (transformers.GPT2Config(vocab_size=64, n_embd=8, n_layer=1, n_head=2, n_positions=40), 40),
        (transformers.XLNetConfig(vocab_size=64, d_model=8, n_layer=1, n_head=2,
                                  d_inner=8), 1_024),
        (transformers.OPTConfig(**SIZES, ffn_dim=8, word_embed_proj_dim=8,
                                max_position_embeddings=33), 33),
        (transformers.RobertaConfig(**SIZES, intermediate_size=8, max_position_embeddings=34,
                                    pad_token_id=1), 32),
        (transformers.BertConfig(**SIZES, intermediate_size=8, max_position_embeddings=34), 34),
        (transformers.OpenAIGPTConfig(vocab_size=64, n_embd=8, n_layer=1, n_head=2,
                                      n_positions=40), 40),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_types_of_transformers_say_their_limit(config, expected):
    assert context_length(transformers.AutoModel.from_config(config)) == expected
