"""Where the tensors of a model lie in its files, as the safetensors library reads them."""

import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from itda_core.config import ModelSpec
from itda_core.errors import ModelError
from itda_core.model import weight_files
from itda_core.model.model_info import is_swept, model_parts
from itda_core.model.weight_files import stored_tensors
from tests.support.swept_models import bytes_on_disk
from tests.support.tiny_models import save_tiny_model, tiny_module, tiny_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """In several files."""
    folder = tmp_path_factory.mktemp("stored")
    tokenizer = tiny_tokenizer()
    module = tiny_module("llama", n_vocabulary=len(tokenizer))
    module.save_pretrained(folder, max_shard_size="40KB")
    tokenizer.save_pretrained(folder)
    assert len([*folder.glob("*.safetensors")]) > 2
    return folder


def test_every_tensor_of_every_file_is_read_as_safetensors_reads_it(folder):
    expected = {
        name: tensor
        for path in folder.glob("*.safetensors")
        for name, tensor in load_file(path).items()
    }
    stored = stored_tensors(str(folder), None)
    assert set(stored) == set(expected)
    for name, tensor in stored.items():
        assert torch.equal(tensor.read(), expected[name])


def test_a_file_that_was_written_anew_is_not_read_as_the_one_that_was_loaded(tmp_path):
    """Of the same tensors and size: whose values they are, only the loaded digest says."""
    path = tmp_path / "model.safetensors"
    save_file({"one": torch.zeros(3, dtype=torch.float32)}, path, {"format": "pt"})
    size, [stored] = path.stat().st_size, stored_tensors(str(tmp_path), None).values()
    assert torch.equal(stored.read(), torch.zeros(3, dtype=torch.float32))
    save_file({"one": torch.ones(3, dtype=torch.float32)}, path, {"format": "pt"})
    os.utime(path, ns=(0, stored.version[1] + 1))
    assert path.stat().st_size == size
    with pytest.raises(ModelError, match=r"changed since the model was loaded. Load it again"):
        stored.read()


def test_types_and_shapes_of_all_kinds_are_kept(tmp_path):
    tensors = {
        "scalar": torch.tensor(3, dtype=torch.int64),
        "empty": torch.zeros(0, 4, dtype=torch.float16),
        "half": torch.arange(5, dtype=torch.bfloat16),
        "bytes": torch.arange(7, dtype=torch.uint8),
        "bools": torch.tensor([True, False, True]),
        "wide": torch.arange(6, dtype=torch.float64).view(2, 3),
    }
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    for name, tensor in stored_tensors(str(tmp_path), None).items():
        assert torch.equal(tensor.read(), tensors[name])
        assert tensor.read().dtype == tensors[name].dtype


def test_headers_are_read_once_as_long_as_their_files_stay(tmp_path, monkeypatch):
    read, header = [], weight_files._header
    monkeypatch.setattr(weight_files, "_header", lambda path: read.append(path) or header(path))
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(3, dtype=torch.float32)}, path)
    for _ in range(3):
        assert set(stored_tensors(str(tmp_path), None)) == {"a"}
    assert read == [path]
    save_file({"b": torch.zeros(4, dtype=torch.float32)}, path)
    [(name, tensor)] = stored_tensors(str(tmp_path), None).items()
    assert (name, tensor.shape) == ("b", (4,))


def test_parts_are_counted_by_name_alone(folder):
    sizes = {name: size // 4 for name, size in bytes_on_disk(folder).items()}
    parts = model_parts(ModelSpec(str(folder)))
    assert parts.blocks == tuple(
        sum(count for name, count in sizes.items() if f"layers.{number}." in name)
        for number in range(4)
    )
    assert sum(parts.blocks) + parts.outside == sum(sizes.values())
    assert parts.largest_outside == sizes["lm_head.weight"]


def test_whether_a_model_will_be_swept_is_known_beforehand(folder):
    size = sum(bytes_on_disk(folder).values())
    spec = ModelSpec(str(folder))
    assert is_swept(spec, torch.float32, "cpu", size) is False
    assert is_swept(spec, torch.float32, "cpu", size - 1) is True
    assert is_swept(spec, torch.bfloat16, "cpu", size // 2) is False
    assert is_swept(ModelSpec("no/such-model"), torch.float32, "cpu", size) is None


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda content: content[:-10], "ends before its tensor"),
        (lambda content: content[:4], "header is cut short"),
        (lambda content: content[:8] + b"x" * (len(content) - 8), "header can't be read"),
        (lambda content: b"\xff" * 8 + content[8:], "header is cut short"),
        (lambda content: content.replace(b'"F32"', b'"F64"', 1), "header can't be read"),
    ],
)
def test_a_damaged_file_is_told(tmp_path, spoil, said):
    save_tiny_model(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ModelError, match=said):
        stored_tensors(str(tmp_path), None)


def test_a_folder_without_such_files_is_told(tmp_path):
    with pytest.raises(ModelError, match=r"neither model.safetensors nor"):
        stored_tensors(str(tmp_path), None)
