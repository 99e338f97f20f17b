"""Thirty types of model, built tiny: what each claims holds against transformers on other texts.

The whole sweep (`python -m tools.model_types.sweep --out DIR --write`) is run by hand.
"""

import pytest

from itda_core.model.abilities import ABOUT, Abilities
from itda_core.model.known_types import known_type
from itda_core.settings import SITES
from tools.model_types import check as checking
from tools.model_types.listing import ModelType, find_types
from tools.model_types.report import Found, document
from tools.model_types.sweep import sweep

EVERYTHING = "llama gpt2 opt gemma3 gemma4 qwen3_moe mamba bloom falcon gpt_neox phi3 mistral olmo2"
EVERYTHING += " cohere granite stablelm rwkv jamba gptj xglm"
ENCODERS = "bert.masked roberta.masked modernbert.masked xlm.masked deberta-v2.masked"
ENCODERS += " t5.seq2seq bart.seq2seq"
REFUSED = {
    "squeezebert.masked": "block 0 runs 0 times",
    "albert.masked": "block 0 runs 3 times",
    "fnet.masked": "of a text in a batch and alone differs",
}


def names(text):
    return [name if "." in name else f"{name}.causal" for name in text.split()]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    chosen = [*names(EVERYTHING), *names(ENCODERS), *REFUSED]
    assert len(chosen) == 30
    types = list(find_types(",".join(chosen)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ITDA_DATA", str(tmp_path_factory.mktemp("data")))
        swept = list(sweep(types, tmp_path_factory.mktemp("types")))
    return {one.type.name: one for one in swept}


def test_no_type_is_silently_wrong(found):
    assert [(name, one.wrong) for name, one in found.items() if one.wrong] == []
    assert [(name, one.not_built) for name, one in found.items() if one.not_built] == []


@pytest.mark.parametrize("name", names(EVERYTHING))
def test_these_types_do_everything(found, name):
    assert found[name].abilities.reasons() == dict.fromkeys(ABOUT, ""), found[name].in_words


@pytest.mark.parametrize(
    ("name", "lacking"),
    [
        *(
            (name, "")
            for name in names("llama gpt2 opt gemma3 qwen3_moe bloom olmo2 granite jamba")
        ),
        *((name, "resid_mid") for name in names("falcon gpt_neox cohere gptj")),
        *((name, "attn_out resid_mid mlp_out") for name in ("mamba.causal", "bert.masked")),
    ],
)
def test_these_types_have_all_places_in_a_block_but_some(found, name, lacking):
    sites = found[name].sites
    assert [site for site in SITES if sites.why_not(site)] == lacking.split()


@pytest.mark.parametrize("name", names(ENCODERS))
def test_these_types_are_captured_as_encoders(found, name):
    reasons = found[name].abilities.reasons()
    assert not reasons["capture"]
    assert "tokens after it" in reasons["next_tokens"]
    assert found[name].part == (":encoder" if name.endswith("seq2seq") else "")


@pytest.mark.parametrize("name", REFUSED)
def test_these_types_are_refused_in_one_sentence(found, name):
    assert REFUSED[name] in found[name].refused


@pytest.mark.parametrize("name", ["llama.causal", "xlm.masked", "fnet.masked", "t5.seq2seq"])
def test_what_ships_of_a_type_is_what_the_sweep_finds(found, name):
    one = found[name]
    known = known_type(f"{one.type.class_name}{one.part}")
    if one.refused:
        assert known.capture in one.refused
    else:
        assert known.reasons() == one.abilities.reasons()


def test_a_part_ships_beside_the_whole_that_can_not_be_used():
    assert "encoder and a decoder" in known_type("BartForConditionalGeneration").capture
    assert known_type("BartForConditionalGeneration:encoder").capture == ""
    assert known_type("NoSuchClass") is None


def test_a_wrong_claim_is_found(found, tmp_path):
    """A model that says it is sound, and gives one layer's activations for another's."""
    from itda_core.model.loading import load_model
    from tools.model_types.tiny import save_tiny

    one = found["llama.causal"].type
    save_tiny(one, tmp_path)
    model = load_model(str(tmp_path), device="cpu")
    checking.check(model, one, tmp_path)
    capture = model.capture
    model.capture = lambda *given, **options: dict(reversed_layers(capture(*given, **options)))
    with pytest.raises(checking.WrongNumbers, match="block 0"):
        checking.check(model, one, tmp_path)


def reversed_layers(captured):
    return zip(captured, reversed(captured.values()), strict=True)


def test_the_document_has_a_row_a_type_and_counts_them():
    tiny = ModelType("tiny", "causal", "TinyForCausalLM")
    lame = ModelType("lame", "causal", "LameForCausalLM")
    odd = ModelType("odd", "masked", "OddForMaskedLM")
    text = document(
        [
            Found(tiny, abilities=Abilities()),
            Found(lame, abilities=Abilities.none("splicing", "a | b")),
            Found(odd, refused="MODEL can't be used: it is odd."),
        ]
    )
    assert "| Predict the next token | 2 | 2 | 2 | 1 | 1 | 1 | 0 | 0 | 0 |" in text
    assert "| tiny | TinyForCausalLM | yes | yes | yes | yes | yes |  |" in text
    assert "| lame | LameForCausalLM | yes | yes | no | no | no | a / b |" in text
    assert "| odd | OddForMaskedLM | no | no | no | no | no | MODEL can't be used" in text
