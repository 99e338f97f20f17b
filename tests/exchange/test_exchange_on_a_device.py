"""What is exchanged is read where the model is, and written alike from any device.

The device is the tests' own (see support/pretend_device.py); no GPU has shown this yet.
"""

import pytest
import torch

from itda_core.dictionary import sae_encoder as sae
from itda_core.dictionary.sae_encoder import ARCHITECTURES
from itda_core.exchange import import_saelens
from itda_core.exchange.export import atom_file
from itda_core.exchange.import_saelens import Strongest
from itda_core.exchange.saelens import saelens_files
from tests.support.foreign import (
    N_LATENTS,
    activations,
    random_encoder,
    sae_dictionary,
    token_dictionary,
)
from tests.support.pretend_device import PretendDevice


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_latents_are_named_by_the_same_tokens_as_on_the_cpu(architecture, monkeypatch):
    for module in (sae, import_saelens):
        monkeypatch.setattr(module, "DENSE_VALUES", 16 * N_LATENTS)
    encoder, x = random_encoder(architecture), activations(64)
    x[3, 2] = torch.nan
    expected = Strongest(encoder)
    expected.look(0, x)
    with PretendDevice() as seen:
        found = Strongest(encoder.to("pretend"))
        for first in (0, 32):
            found.look(first, x[first : first + 32].to("pretend"))
        assert sum(seen.waits.values()) <= 4  # one a block, for the rows that are finite
        assert found.rows.tolist() == expected.rows.tolist()
        assert found.is_active.cpu().tolist() == expected.is_active.tolist()
        assert found.facts() == expected.facts()
        assert found.max_terms == expected.max_terms


@pytest.mark.parametrize("dictionary", [token_dictionary(), sae_dictionary("jumprelu")])
def test_exported_files_do_not_tell_the_device(dictionary):
    with PretendDevice():
        there = dictionary.to("pretend")
        assert saelens_files(there) == saelens_files(dictionary)
        assert atom_file(there, 3, {}) == atom_file(dictionary, 3, {})
