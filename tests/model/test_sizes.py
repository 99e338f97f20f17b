"""How large the parts of a model are, read from its files without loading it."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from itda_core.config import ModelSpec
from itda_core.model.loading import load_model
from itda_core.model.model_info import is_swept, model_parts, model_shape, swept_memory
from itda_core.model.sizes import ModelParts, likely_parts, stored_parts, swept_bytes
from itda_core.model.weight_files import stored_tensors
from tests.support.swept_models import both_kinds
from tests.support.tiny_models import FAMILIES, save_tiny_model
from tools.model_types.listing import find_types
from tools.model_types.tiny import save_tiny


def _parts(folder) -> ModelParts | None:
    return stored_parts(stored_tensors(str(folder), None))


@pytest.mark.parametrize("family", FAMILIES)
def test_parts_are_those_of_the_module(tmp_path, family):
    """Numbers of its blocks and of the rest, a weight that two parts share once."""
    save_tiny_model(tmp_path, family)
    module = load_model(str(tmp_path), device="cpu")
    blocks = [sum(p.numel() for p in block.parameters()) for block in module.blocks]
    everything = sum(p.numel() for p in module.module.parameters())
    found = _parts(tmp_path)
    assert found.blocks == tuple(blocks)
    if family != "bert":  # whose file also has what is not loaded
        assert found.total == everything
    assert found.largest_outside == module.module.get_input_embeddings().weight.numel()


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert", "mixtral.causal", "roberta.masked"])
def test_what_is_held_of_a_swept_model_is_known_from_its_headers(tmp_path, name):
    """As it is counted where the model stands there, block by block."""
    if name in FAMILIES:
        save_tiny_model(tmp_path, name)
    else:
        [one] = find_types(name)
        save_tiny(one, tmp_path)
    _, swept = both_kinds(tmp_path)
    stored = stored_tensors(str(tmp_path), None)
    assert swept_bytes(stored, torch.float32) == swept.parts.peak_bytes
    spec = ModelSpec(str(tmp_path), dtype="float32")
    assert swept_memory(spec, torch.float32) == swept.parts.peak_bytes


def test_what_is_held_is_two_blocks_a_table_and_the_rest(tmp_path):
    """By hand: blocks of 10, 30 and 20 numbers, tables of 40, a norm of 3; in bfloat16 what is read
    ahead counts as on disk, in 4 bytes."""
    sizes = {f"model.layers.{number}.w": n for number, n in enumerate((10, 30, 20))}
    tensors = {name: torch.ones(n) for name, n in sizes.items()} | {"model.norm": torch.ones(3)}
    tables = {name: torch.ones(8, 5) for name in ("model.embed", "head")}
    save_file(tensors | tables, tmp_path / "model.safetensors")
    stored = stored_tensors(str(tmp_path), None)
    assert swept_bytes(stored, torch.float32) == 4 * (30 + 20 + 40 + 3)
    assert swept_bytes(stored, torch.bfloat16) == 2 * 30 + 4 * 20 + 4 * 40 + 2 * 3
    assert swept_bytes({}, torch.float32) is None


def test_parts_of_a_model_in_several_files_are_the_same(tmp_path):
    save_tiny_model(tmp_path)
    expected = _parts(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    names, places = sorted(weights), {}
    for number in range(3):
        some = names[number::3]
        save_file({name: weights[name] for name in some}, tmp_path / f"part-{number}.safetensors")
        places |= dict.fromkeys(some, f"part-{number}.safetensors")
    (tmp_path / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": places}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert _parts(tmp_path) == expected


@pytest.mark.parametrize("sense", ["vision", "visual", "audio", "image"])
def test_blocks_that_read_no_text_are_none_of_the_models(tmp_path, sense):
    """Whichever list is larger: the text model has two blocks of 6 numbers here."""
    tensors = {f"text.layers.{number}.weight": torch.ones(6) for number in range(2)}
    tensors |= {f"{sense}_tower.layers.{number}.weight": torch.ones(50) for number in range(3)}
    save_file(tensors, tmp_path / "model.safetensors")
    found = _parts(tmp_path)
    assert (found.blocks, found.outside, found.largest_outside) == ((6, 6), 150, 50)


@pytest.mark.parametrize("content", [b"", b"x", b"\xff" * 40, b"\x02" + b"\0" * 7 + b"[]"])
def test_files_that_say_nothing_leave_a_guess(tmp_path, content):
    save_tiny_model(tmp_path)
    spec = ModelSpec(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(content)
    assert model_parts(spec) == likely_parts(model_shape(spec))
    assert model_parts(ModelSpec("nobody/nothing")) is None


def test_a_guess_is_not_below_what_a_model_has(tmp_path):
    save_tiny_model(tmp_path)
    spec = ModelSpec(str(tmp_path))
    assert likely_parts(model_shape(spec)).total >= _parts(tmp_path).total


def test_a_model_that_takes_more_than_may_be_used_is_known_without_loading_it(
    tmp_path, monkeypatch
):
    save_tiny_model(tmp_path, d_model=128, n_layers=12)
    spec = ModelSpec(str(tmp_path), dtype="float32")
    weights = load_file(tmp_path / "model.safetensors")
    limit = 4 * sum(weight.numel() for weight in weights.values())
    assert limit > 2 * 2**20
    assert not is_swept(spec, torch.float32, "cpu", limit)
    assert is_swept(spec, torch.float32, "cpu", limit - 40_000)
    assert not is_swept(spec, torch.bfloat16, "cpu", limit - 40_000)
    monkeypatch.setenv("ITDA_MEMORY", f"{limit // 2}B")
    assert is_swept(spec, torch.float32, "cpu")
