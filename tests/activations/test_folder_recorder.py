"""What another program hands on batch by batch can be read back as the folder that it is."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from itda_core.activations.folder import ActivationFolder
from itda_core.activations.folder_index import FolderIndex
from itda_core.activations.folder_recorder import FolderRecorder
from itda_core.config import ModelSpec
from itda_core.corpus.corpus import Prompt, prompt_id
from itda_core.errors import InputError
from itda_core.model.tokens import TokenizedText

INDEX = FolderIndex(
    model=ModelSpec("some/model", dtype="float32"),
    d_model=6,
    n_layers=5,
    layers=(1, 3),
    context_length=16,
    skip_first=True,
    parts=(),
)
TEXTS = ("a few words", "others", "and a last one")


def characters(text):
    """A token before the text, and one for each character."""
    ends = np.arange(len(text) + 1, dtype=np.int32)
    spans = np.stack([np.maximum(ends - 1, 0), ends], 1)
    return TokenizedText(text, ends, spans, ends == 0)


def names(number):
    return f"<{number}>"


@pytest.mark.parametrize("site", ["resid_post", "mlp_out"])
def test_rows_are_read_back_as_those_of_the_site_that_the_index_names(tmp_path, site):
    recorder = FolderRecorder(tmp_path / "made", replace(INDEX, sites=(site,)), names)
    given = {}
    for text in TEXTS:
        given[text] = {layer: torch.randn(len(text), 6, dtype=torch.float32) for layer in (1, 3)}
        recorder.add([Prompt(prompt_id(text), text)], [characters(text)], given[text])
    recorder.finish()
    opened = ActivationFolder(tmp_path / "made")
    assert opened.index.sites == (site,)
    for text in TEXTS:
        for layer in (1, 3):
            rows = opened.rows(layer, *opened.rows_of(prompt_id(text)), site)
            assert torch.equal(rows, given[text][layer])


def test_several_sites_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match="one site, got resid_post, mlp_out"):
        FolderRecorder(tmp_path / "made", replace(INDEX, sites=("resid_post", "mlp_out")), names)
    assert not (tmp_path / "made").exists()
