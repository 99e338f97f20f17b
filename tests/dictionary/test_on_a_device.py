"""A dictionary on a device that is none: it encodes as on the CPU, and its file is the same."""

import dataclasses

import pytest
import torch

from itda_core.dictionary.dictionary import Dictionary
from itda_core.dictionary.sae_encoder import ARCHITECTURES
from itda_core.errors import InputError
from itda_core.pursuit.orthogonal import PURSUITS
from tests.support.foreign import activations, sae_dictionary, token_dictionary
from tests.support.pretend_device import PretendDevice


@pytest.fixture
def seen():
    with PretendDevice() as seen:
        yield seen


def dictionaries():
    tokens = token_dictionary(offset=0.5)
    yield from (dataclasses.replace(tokens, pursuit=name) for name in PURSUITS)
    yield from (sae_dictionary(name) for name in ARCHITECTURES)


@pytest.mark.parametrize("dictionary", dictionaries(), ids=lambda one: one.coder.name)
def test_encoding_and_decoding_give_what_the_cpu_gives(dictionary, seen):
    x, there = activations(40), dictionary.to("pretend")
    codes, expected = there.encode(x.to("pretend"), 3), dictionary.encode(x, 3)
    assert {tensor.device.type for tensor in (codes.latents, codes.coefficients)} == {"pretend"}
    assert torch.equal(codes.latents.cpu(), expected.latents)
    torch.testing.assert_close(codes.coefficients.cpu(), expected.coefficients)
    xhat = there.decode(codes)
    assert xhat.device == there.device
    torch.testing.assert_close(xhat.cpu(), dictionary.decode(expected))


def test_a_dictionary_that_is_there_already_is_not_copied(seen):
    dictionary = sae_dictionary("topk")
    assert dictionary.to("cpu") is dictionary
    there = dictionary.to("pretend")
    assert there.to("pretend") is there
    assert there.to(there.device) is there


@pytest.mark.parametrize("dictionary", [token_dictionary(), sae_dictionary("jumprelu")])
def test_the_file_does_not_tell_the_device(dictionary, seen, tmp_path):
    there = dictionary.to("pretend")
    assert there.to_bytes() == dictionary.to_bytes()
    assert Dictionary.load(there.save(tmp_path)).device.type == "cpu"
    assert torch.equal(there.to("cpu").atoms, dictionary.atoms)


def test_tensors_on_two_devices_are_refused_by_name(seen):
    dictionary, x = token_dictionary(), activations(5)
    there = dictionary.to("pretend")
    with pytest.raises(InputError, match="activations are on the device cpu, the dictionary on pr"):
        there.encode(x)
    with pytest.raises(InputError, match=r'Move one to the other, such as dictionary\.to\("prete'):
        dictionary.encode(x.to("pretend"))
    with pytest.raises(InputError, match="activations are on the device pretend:0, the gram on cp"):
        there.encode(x.to("pretend"), gram=dictionary.gram())
    with pytest.raises(InputError, match="codes are on the device cpu, the dictionary on pretend"):
        there.decode(dictionary.encode(x))
