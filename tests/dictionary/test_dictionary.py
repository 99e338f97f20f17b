"""A dictionary: what it saves it gives back, and it grows together with its sources."""

import json
import os

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch

from itda_core.config import HookPoint
from itda_core.dictionary import growing
from itda_core.dictionary.dictionary import FILE_NAME, Dictionary
from itda_core.dictionary.growing import GrowingDictionary
from itda_core.errors import RunError
from itda_core.pursuit.gram import gram_matrix
from itda_core.pursuit.kernel_matching import GRAM_SCALE
from tests.support.reference import slow_pursuit, unit_rows

COLUMNS = ["latent", "prompt_id", "position", "start", "end", "token"]
TOKENS = [" treaty", "🎉", "\u0301", "שלום", "\n", "<script>", "", "`$|"]


def make_dictionary(offset=0.0, n_atoms=8, d_model=6, **fields):
    draw = np.random.default_rng(0)
    sources = pd.DataFrame(
        {
            "latent": range(n_atoms),
            "prompt_id": [f"{number:016x}" for number in range(n_atoms)],
            "position": range(1, n_atoms + 1),
            "start": range(0, 3 * n_atoms, 3),
            "end": range(3, 3 * n_atoms + 3, 3),
            "token": (TOKENS * n_atoms)[:n_atoms],
        }
    )
    return Dictionary(
        atoms=torch.tensor(unit_rows(draw.normal(size=(n_atoms, d_model))), dtype=torch.float32),
        offset=torch.full((d_model,), offset),
        l0=3,
        hook_point=HookPoint("tiny", 2),
        sources=sources,
        **fields,
    )


WHOLE = {
    "words": np.array([0, 3, 6, -1, 12, 15, 18, 20]),
    "prompt_ids": ("00000000000000ff", "ffffffffffffffff", "8000000000000000", "0123456789abcdef"),
    "tokenizer": "abc123",
}


def assert_equal(one, other):
    assert torch.equal(one.atoms, other.atoms)
    assert torch.equal(one.offset, other.offset)
    assert (one.l0, one.hook_point, one.tokenizer) == (other.l0, other.hook_point, other.tokenizer)
    assert one.prompt_ids == other.prompt_ids
    assert one.word_starts().tolist() == other.word_starts().tolist()
    assert one.sources.to_dict("records") == other.sources.to_dict("records")


# Saving and loading


@pytest.mark.parametrize("name", ["run", "run/dictionary.safetensors", "deep/er/run"])
def test_what_was_saved_comes_back_from_folder_or_file(tmp_path, name):
    dictionary = make_dictionary(offset=0.5, **WHOLE)
    (tmp_path / "run").mkdir()
    file = dictionary.save(tmp_path / name)
    assert file.name == FILE_NAME
    assert_equal(Dictionary.load(file), dictionary)
    assert_equal(Dictionary.load(str(file.parent)), dictionary)


def test_sources_have_exactly_the_promised_columns(tmp_path):
    file = make_dictionary(**WHOLE).save(tmp_path / "run")
    sources = Dictionary.load(file).sources
    assert list(sources.columns) == COLUMNS
    assert sources["latent"].tolist() == list(range(8))
    assert sources["token"].tolist() == TOKENS


def test_without_words_each_token_is_a_word_of_its_own(tmp_path):
    dictionary = make_dictionary()
    expected = dictionary.sources["start"].tolist()
    assert dictionary.word_starts().tolist() == expected
    assert Dictionary.load(dictionary.save(tmp_path)).word_starts().tolist() == expected


def test_other_programs_can_read_the_atoms(tmp_path):
    dictionary = make_dictionary(offset=0.5)
    tensors = safetensors.torch.load_file(dictionary.save(tmp_path / "x.safetensors"))
    assert torch.equal(tensors["atoms"], dictionary.atoms)
    assert torch.equal(tensors["offset"], dictionary.offset)


def test_saving_twice_replaces_the_file_and_leaves_no_other(tmp_path):
    make_dictionary().save(tmp_path)
    second = make_dictionary(offset=2.0)
    second.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]
    assert_equal(Dictionary.load(tmp_path), second)


@pytest.mark.parametrize("step", ["replace", "fsync"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    before = make_dictionary()
    before.save(tmp_path)

    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(os, step, fail)
        make_dictionary(offset=2.0).save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]
    assert_equal(Dictionary.load(tmp_path), before)


# Files that are none


def refused(path):
    with pytest.raises(RunError) as caught:
        Dictionary.load(path)
    return str(caught.value)


@pytest.mark.parametrize("name", ["nowhere", "nowhere.safetensors", "."])
def test_a_missing_dictionary_is_named(tmp_path, name):
    assert str(tmp_path / name) in refused(tmp_path / name)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_file_cut_short_is_refused(tmp_path, share):
    file = make_dictionary(**WHOLE).save(tmp_path / "a.safetensors")
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    assert str(file) in refused(file)


def test_a_file_of_something_else_is_refused(tmp_path):
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"the senate met to ratify the treaty" * 9)
    assert str(file) in refused(file)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_safetensors_of_another_program_are_refused(tmp_path, metadata):
    file = tmp_path / "a.safetensors"
    safetensors.torch.save_file({"atoms": torch.zeros(2, 2)}, file, metadata)
    assert "not a dictionary" in refused(file)


def test_a_dictionary_of_a_newer_version_is_refused_with_the_remedy(tmp_path):
    file = make_dictionary().save(tmp_path / "a.safetensors")
    with safetensors.safe_open(file, "pt") as opened:
        header = json.loads(opened.metadata()["itda"])
    tensors = safetensors.torch.load_file(file)
    newer = {"itda": json.dumps({**header, "version": header["version"] + 1})}
    safetensors.torch.save_file(tensors, file, newer)
    assert "update" in refused(file)


@pytest.mark.parametrize(
    "damage",
    [
        {"itda": "not json"},
        {"itda": "[]"},
        {"itda": "{}"},
        {"itda": '{"version": 1, "l0": 3}'},
        "no sources",
        "broken sources",
    ],
    ids=str,
)
def test_a_dictionary_whose_parts_are_damaged_is_refused(tmp_path, damage):
    file = make_dictionary().save(tmp_path / "a.safetensors")
    with safetensors.safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    tensors = safetensors.torch.load_file(file)
    if damage == "no sources":
        del tensors["sources"]
    elif damage == "broken sources":
        tensors["sources"] = torch.zeros(10, dtype=torch.uint8)
    else:
        metadata = damage
    safetensors.torch.save_file(tensors, file, metadata)
    assert str(file) in refused(file)


# Encoding and decoding


@pytest.mark.parametrize("offset", [0.0, 1.5])
def test_encode_is_the_pursuit_of_what_the_offset_leaves_and_decode_adds_it_again(offset):
    dictionary = make_dictionary(offset=offset)
    x = torch.tensor(np.random.default_rng(1).normal(size=(40, 6)), dtype=torch.float32)
    codes = dictionary.encode(x)
    latents, coefficients, reconstructions = slow_pursuit(x - offset, dictionary.atoms, 3)
    assert np.array_equal(codes.latents.numpy(), latents)
    np.testing.assert_allclose(codes.coefficients.numpy(), coefficients, atol=1e-5)
    np.testing.assert_allclose(
        dictionary.decode(codes).numpy(), reconstructions + offset, atol=1e-5
    )


def test_encode_takes_as_many_terms_as_asked_for():
    dictionary = make_dictionary()
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    assert dictionary.encode(x).l0 == dictionary.l0 == 3
    assert dictionary.encode(x, l0=7).l0 == 7
    assert (len(dictionary), dictionary.d_model) == (8, 6)


# Growing


def grown(sizes, max_atoms=30, d_model=5):
    draw = np.random.default_rng(2)
    growing = GrowingDictionary(d_model, max_atoms)
    activations = []
    for size in sizes:
        x = torch.tensor(draw.normal(size=(size, d_model)) * 9, dtype=torch.float32)
        numbers = range(len(growing), len(growing) + size)
        growing.append(x, [(f"{n:016x}", n, 2 * n, 2 * n + 1, f"t{n}", n - 1) for n in numbers])
        activations.append(x)
    return growing, torch.cat(activations)


def test_a_growing_dictionary_keeps_unit_atoms_with_their_sources_in_order():
    growing, x = grown([3, 0, 1, 9, 17])
    assert len(growing) == len(growing.sources) == 30
    assert growing.is_full
    np.testing.assert_allclose(growing.atoms.numpy(), unit_rows(x), atol=1e-6)
    assert [source[1] for source in growing.sources] == list(range(30))


def test_the_gram_matrix_is_that_of_the_atoms_after_every_append():
    for steps in range(1, 5):
        growing, _ = grown([3, 1, 9, 10][:steps])
        expected = growing.atoms.double() @ growing.atoms.double().T
        n_atoms = len(growing)
        found = growing._gram[:n_atoms, :n_atoms].double() / GRAM_SCALE
        np.testing.assert_allclose(found, expected, atol=0.51 / GRAM_SCALE)


def test_a_gram_matrix_that_grew_is_the_one_of_all_atoms():
    growing, _ = grown([1, 2, 90, 1, 130, 76], max_atoms=300, d_model=33)
    whole = gram_matrix(growing.atoms)
    assert growing._gram.dtype == whole.dtype == torch.int16
    assert growing._gram.shape == whole.shape == (300, 300)
    assert (growing._gram.int() - whole.int()).abs().max() <= 1


def test_room_is_doubled_rather_than_made_for_each_batch():
    growing = GrowingDictionary(5, 1_000)
    draw, places = torch.Generator().manual_seed(0), set()
    for number in range(500):
        growing.append(torch.randn(2, 5, generator=draw), [(f"{number}", 1, 0, 1, "t", 0)] * 2)
        places.add(growing.atoms.data_ptr())
        assert len(growing._atoms) == len(growing._gram) <= 1_000
    assert len(growing) == 1_000
    assert len(places) <= 10


def test_a_growing_dictionary_encodes_with_the_atoms_it_has():
    growing, _ = grown([4, 7])
    x = torch.randn(20, 5, generator=torch.Generator().manual_seed(1))
    codes = growing.encode(x, 4)
    latents, coefficients, _ = slow_pursuit(x, growing.atoms, 4)
    assert np.array_equal(codes.latents.numpy(), latents)
    np.testing.assert_allclose(codes.coefficients.numpy(), coefficients, atol=1e-5)


def test_a_restored_dictionary_goes_on_as_if_never_interrupted():
    whole, x = grown([4, 7, 6])
    part, _ = grown([4, 7])
    restored = GrowingDictionary(5, 30)
    restored.restore(part.atoms.clone(), list(part.sources))
    assert torch.equal(restored.atoms, part.atoms)
    restored.append(x[11:], whole.sources[11:])
    assert torch.equal(restored.atoms, whole.atoms)
    assert restored.sources == whole.sources
    y = torch.randn(40, 5, generator=torch.Generator().manual_seed(2))
    assert torch.equal(restored.encode(y, 6).latents, whole.encode(y, 6).latents)
    assert torch.equal(restored.encode(y, 6).coefficients, whole.encode(y, 6).coefficients)


def test_without_memory_for_a_gram_matrix_a_growing_dictionary_does_without(monkeypatch):
    roomy, x = grown([4, 7, 6])
    monkeypatch.setattr(growing, "free_memory", lambda _device: 0)
    tight, _ = grown([4, 7, 6])
    assert tight._gram is None
    assert torch.equal(tight.encode(x, 4).latents, roomy.encode(x, 4).latents)


def test_a_gram_matrix_that_no_longer_fits_is_given_up(monkeypatch):
    roomy, x = grown([4, 7, 9])
    monkeypatch.setattr(growing, "free_memory", lambda _device: 4 * 2 * 11**2)
    assert len(grown([4, 7])[0]._gram) == 11
    tight, _ = grown([4, 7, 9])
    assert tight._gram is None
    assert torch.equal(tight.atoms, roomy.atoms)
    assert torch.equal(tight.encode(x, 4).latents, roomy.encode(x, 4).latents)


def test_the_source_table_numbers_the_latents():
    growing, _ = grown([2, 1])
    table = growing.source_table()
    assert list(table.columns) == [*COLUMNS, "word"]
    assert table.iloc[2].tolist() == [2, f"{2:016x}", 2, 4, 5, "t2", 1]
    assert list(GrowingDictionary(5, 3).source_table().columns) == [*COLUMNS, "word"]
