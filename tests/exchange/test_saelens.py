"""SAELens folders, out and in: the names and shapes that sae-lens has, and its codes."""

import dataclasses
import json

import pandas as pd
import pytest
import safetensors.torch
import torch

from itda_core.config import HookPoint
from itda_core.dictionary.sae_encoder import ARCHITECTURES
from itda_core.errors import ExchangeError
from itda_core.exchange.saelens import read_saelens, saelens_files, saelens_note
from tests.support import saelens_oracle as oracle
from tests.support.foreign import (
    D_MODEL,
    N_LATENTS,
    activations,
    dense,
    sae_dictionary,
    token_dictionary,
    write_saelens,
)

needs_sae_lens = pytest.mark.skipif(not oracle.IS_INSTALLED, reason="sae-lens is not installed")
PURSUITS = {"published": 0.0, "with-offset": 2.0}
MADE = [
    *(
        f"{name}-{how}"
        for name in ("standard", "topk", "topk-rescaled", "jumprelu")
        for how in ("centred", "plain")
    ),
    "standard-scaled",
    "batchtopk",
    "batchtopk-rescaled",
    "batchtopk-for-use",
    "batchtopk-rescaled-for-use",
]


def write(folder, dictionary, **options):
    folder.mkdir(parents=True)
    for name, content in saelens_files(dictionary, **options).items():
        (folder / name).write_bytes(content)
    return folder


def with_pursuit(dictionary, pursuit):
    object.__setattr__(dictionary, "pursuit", pursuit)
    return dictionary


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """A folder that sae-lens has answered in; see saelens_oracle."""
    folder = tmp_path_factory.mktemp("sae-lens")
    safetensors.torch.save_file({"x": activations()}, folder / oracle.ACTIVATIONS)
    for name, offset in PURSUITS.items():
        write(folder / "exported" / name, token_dictionary(1, offset))
    for name in ARCHITECTURES:
        write(folder / "exported" / name, sae_dictionary(name, seed=4))
    oracle.ask(folder)
    return folder


# Out


def test_a_dictionary_has_the_names_and_shapes_that_sae_lens_reads():
    dictionary = token_dictionary(offset=1.0)
    files = saelens_files(dictionary, context_length=128, prepend_bos=True)
    assert set(files) == {"cfg.json", "sae_weights.safetensors", "sources.parquet"}
    config = json.loads(files["cfg.json"])
    metadata = config.pop("metadata")
    assert config == {
        "architecture": "matching_pursuit",
        "d_in": D_MODEL,
        "d_sae": 2 * N_LATENTS,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "residual_threshold": 0.0,
        "max_iterations": 6,
        "stop_on_duplicate_support": False,
    }
    assert metadata["model_name"] == "smollm2-135m"
    assert metadata["hook_name"] == "blocks.1.hook_resid_post"
    assert (metadata["context_size"], metadata["prepend_bos"]) == (128, True)
    assert metadata["sae_lens_version"].split(".")[0] == "6"  # else it is converted from before 6
    weights = safetensors.torch.load(files["sae_weights.safetensors"])
    assert set(weights) == {"W_dec", "b_dec"}
    assert torch.equal(weights["W_dec"][:N_LATENTS], dictionary.atoms)
    assert torch.equal(weights["W_dec"][N_LATENTS:], -dictionary.atoms)
    assert torch.equal(weights["b_dec"], dictionary.offset)


def test_the_sources_go_along(tmp_path):
    dictionary = token_dictionary()
    folder = write(tmp_path / "out", dictionary)
    kept = pd.read_parquet(folder / "sources.parquet")
    pd.testing.assert_frame_equal(kept.drop(columns="word"), dictionary.sources)
    assert kept["word"].tolist() == dictionary.words.tolist()


def test_a_folder_says_whether_sae_lens_finds_the_same_codes():
    assert "the codes are those" in saelens_note(with_pursuit(token_dictionary(), "matching"))
    for pursuit in ("refit", "orthogonal"):
        dictionary = with_pursuit(token_dictionary(), pursuit)
        metadata = json.loads(saelens_files(dictionary)["cfg.json"])["metadata"]
        assert metadata["itda_pursuit"] == pursuit
        assert "coefficients differ" in metadata["itda_note"]


@needs_sae_lens
@pytest.mark.parametrize("name", PURSUITS)
def test_sae_lens_finds_the_codes_of_a_dictionary(asked, name):
    x, dictionary = activations(), token_dictionary(1, PURSUITS[name])
    acts, out = oracle.answer(asked / "exported" / name)
    codes = dictionary.encode(x)
    found = acts[:, :N_LATENTS] - acts[:, N_LATENTS:]
    torch.testing.assert_close(found, dense(codes, N_LATENTS), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(out, dictionary.decode(codes), rtol=1e-5, atol=1e-5)


@needs_sae_lens
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_sae_lens_finds_the_codes_of_an_autoencoder(asked, name):
    x, dictionary = activations(), sae_dictionary(name, seed=4)
    acts, out = oracle.answer(asked / "exported" / name)
    codes = dictionary.encode(x)
    found = acts * dictionary.encoder.norms
    torch.testing.assert_close(found, dense(codes, N_LATENTS), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(out, dictionary.decode(codes), rtol=1e-5, atol=1e-5)


# In


@needs_sae_lens
@pytest.mark.parametrize("name", MADE)
def test_an_autoencoder_encodes_as_sae_lens_does(asked, name):
    folder = asked / "made" / name
    acts, out = oracle.answer(folder)
    found = read_saelens(folder)
    codes = found.encoder.encode(activations())
    coefficients = dense(codes, N_LATENTS)
    assert torch.equal(coefficients > 0, acts > 0)
    xhat = codes.reconstruct(found.atoms) + found.offset
    torch.testing.assert_close(xhat, out, rtol=1e-5, atol=1e-5)
    w_dec = safetensors.torch.load_file(folder / "sae_weights.safetensors")["W_dec"]
    if name == "standard-scaled":
        w_dec = w_dec / 2.5
    if "rescaled" not in name or "use" in name:  # there acts are the sizes of terms already
        acts = acts * w_dec.norm(dim=1)
    torch.testing.assert_close(coefficients, acts, rtol=1e-5, atol=1e-5)
    assert (found.layer, found.model, found.context_length) == (1, "smollm2-135m", 64)


def test_an_autoencoder_goes_out_and_comes_back(tmp_path):
    for architecture in ARCHITECTURES:
        dictionary = sae_dictionary(architecture)
        found = read_saelens(write(tmp_path / architecture, dictionary))
        again = dataclasses.replace(
            dictionary, atoms=found.atoms, offset=found.offset, encoder=found.encoder
        )
        one, other = dictionary.encode(activations()), again.encode(activations())
        torch.testing.assert_close(dense(one, N_LATENTS), dense(other, N_LATENTS))
        torch.testing.assert_close(again.decode(other), dictionary.decode(one))


def test_settings_from_before_version_6_are_understood(tmp_path):
    old = {
        "architecture": None,
        "metadata": None,
        "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": 3},
        "normalize_activations": False,
        "hook_point": "blocks.2.hook_resid_pre",
        "model_name": "gpt2-small",
        "context_size": 128,
    }
    found = read_saelens(write_saelens(tmp_path, old))
    assert (found.encoder.architecture, found.encoder.k) == ("topk", 3)
    assert (found.layer, found.model, found.context_length) == (1, "gpt2-small", 128)


@pytest.mark.parametrize(
    ("hook", "layer"),
    [("blocks.3.hook_resid_post", 3), ("blocks.3.hook_resid_pre", 2), (None, None)],
)
def test_what_goes_into_a_block_came_out_of_the_one_before(tmp_path, hook, layer):
    folder = write_saelens(tmp_path, {"metadata": {"hook_name": hook}})
    assert (read_saelens(folder).layer, read_saelens(folder).site) == (layer, "resid_post")


@pytest.mark.parametrize(
    ("hook", "layer", "site"),
    [
        ("blocks.0.hook_resid_pre", 0, "resid_pre"),  # the embeddings
        ("blocks.3.hook_resid_mid", 3, "resid_mid"),
        ("blocks.3.hook_attn_out", 3, "attn_out"),
        ("blocks.3.hook_mlp_out", 3, "mlp_out"),
    ],
)
def test_autoencoders_of_other_places_in_a_block_name_them(tmp_path, hook, layer, site):
    found = read_saelens(write_saelens(tmp_path, {"metadata": {"hook_name": hook}}))
    assert (found.layer, found.site) == (layer, site)
    point = HookPoint("gpt2", layer, site)
    dictionary = dataclasses.replace(token_dictionary(), hook_point=point)
    config = json.loads(saelens_files(dictionary)["cfg.json"])
    assert config["metadata"]["hook_name"] == hook


@pytest.mark.parametrize(
    "hook",
    ["blocks.3.hook_mlp_in", "../../etc", "blocks.3.attn.hook_z"],
)
def test_autoencoders_of_other_vectors_are_refused(tmp_path, hook):
    found = read_saelens(write_saelens(tmp_path, {"metadata": {"hook_name": hook}}))
    with pytest.raises(ExchangeError, match="what can be captured here"):
        _ = found.layer


@pytest.mark.parametrize(
    ("config", "weights", "message"),
    [
        ({"normalize_activations": "layer_norm"}, {}, "normalises each activation by itself"),
        ({"normalize_activations": "constant_norm_rescale"}, {}, "by itself"),
        ({"normalize_activations": "expected_average_only_in"}, {}, "activation_scaler.json"),
        ({"reshape_activations": "hook_z"}, {}, "attention heads"),
        ({"architecture": "gated"}, {}, "'gated' can't be imported"),
        ({"architecture": ["topk"]}, {}, "can't be imported"),
        ({"architecture": "topk"}, {}, "no k"),
        ({"architecture": "topk", "k": -2}, {}, "no k"),
        ({"architecture": "topk", "k": float("nan")}, {}, "no k"),
        ({"architecture": "jumprelu"}, {}, "lacks the threshold"),
        ({"architecture": "batchtopk"}, {}, "lacks the threshold"),
        ({"architecture": "jumprelu"}, {"threshold": torch.zeros(3)}, "do not fit"),
        ({"activation_fn": "tanh-relu"}, {}, "can't be imported"),
        ({}, {"W_enc": None}, "lacks the tensor 'W_enc'"),
        ({}, {"b_dec": torch.zeros(3)}, "do not fit"),
        ({}, {"W_dec": torch.zeros(0)}, "do not fit"),
        ({}, {"b_enc": torch.full((N_LATENTS,), torch.nan)}, "not finite"),
        ({}, {"scaling_factor": torch.full((N_LATENTS,), 2.0)}, "finetuning"),
    ],
)
def test_what_can_not_be_imported_says_why(tmp_path, config, weights, message):
    with pytest.raises(ExchangeError, match=message):
        read_saelens(write_saelens(tmp_path, config, weights))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("cfg.json", None),
        ("cfg.json", b"{"),
        ("cfg.json", b"[1, 2]"),
        ("cfg.json", b"\xff\xfe"),
        ("cfg.json", b"[" * 100_000),
        ("sae_weights.safetensors", None),
        ("sae_weights.safetensors", b""),
        ("sae_weights.safetensors", b"\x80\x04\x95" + b"x" * 50),
    ],
)
def test_a_damaged_folder_is_a_sentence(tmp_path, file, content):
    folder = write_saelens(tmp_path)
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    with pytest.raises(ExchangeError):
        read_saelens(folder)


def test_weights_cut_short_are_a_sentence(tmp_path):
    path = write_saelens(tmp_path) / "sae_weights.safetensors"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ExchangeError, match="can't be read"):
        read_saelens(tmp_path)


@pytest.mark.parametrize("factor", [0, -1, "many", None, float("inf")])
def test_only_a_factor_that_scales_is_taken(tmp_path, factor):
    folder = write_saelens(tmp_path, {"normalize_activations": "expected_average_only_in"})
    (folder / "activation_scaler.json").write_text(json.dumps({"scaling_factor": factor}))
    if factor is None:  # so it is after the factor was folded in
        assert read_saelens(folder).encoder.architecture == "standard"
    else:
        with pytest.raises(ExchangeError, match="factor"):
            read_saelens(folder)
