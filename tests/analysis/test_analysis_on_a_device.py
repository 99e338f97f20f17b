"""Texts taken apart, changed and written on where the model is: the CPU's numbers, on the host
where they are drawn.

The device is the tests' own (see support/pretend_device.py); no GPU has shown this yet.
"""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from itda_core.analysis import latent_map
from itda_core.analysis.decomposition import decompose
from itda_core.analysis.latent_map import map_latents, nearest_neighbours
from itda_core.analysis.neighbours import cosines_to, nearest_atoms, next_tokens
from itda_core.analysis.steering import Writing, steering_vector, usual_norm, write_on
from itda_core.analysis.what_if import Edit, unedited, what_if
from itda_core.dictionary.dictionary import Dictionary
from itda_core.errors import InputError
from itda_core.model.model import Model
from itda_core.runs.run import list_runs
from tests.support.pretend_device import PretendDevice
from tests.support.trained_runs import shared_runs

TEXT = "The senate met to ratify the treaty with Spain, and the house agreed to the report."
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_model_folder, tiny_corpus_file):
    return list_runs(shared_runs(tmp_path_factory, tiny_model_folder, tiny_corpus_file))[1]


@pytest.fixture(scope="module", params=["matching", "orthogonal"])
def dictionary(request, run):
    return dataclasses.replace(run.dictionary(), pursuit=request.param)


@pytest.fixture(scope="module")
def taken_apart(dictionary, run, tiny_model):
    return decompose(dictionary, tiny_model, TEXT, run.config)


@pytest.mark.parametrize("moved", [False, True], ids=["from the host", "there already"])
def test_a_text_is_taken_apart_as_on_the_cpu_and_the_result_is_on_the_host(
    dictionary, taken_apart, run, pretend_model, moved
):
    with PretendDevice() as seen:
        dictionary = dictionary.to("pretend") if moved else dictionary
        seen.waits.clear()
        found = decompose(dictionary, pretend_model, TEXT, run.config)
        assert sum(seen.waits.values()) <= 8
    assert type(found.codes.latents) is torch.Tensor  # what the pages keep is no device's
    assert torch.equal(found.codes.latents, taken_apart.codes.latents)
    np.testing.assert_allclose(found.residuals, taken_apart.residuals, **CLOSE)
    pd.testing.assert_frame_equal(found.table(), taken_apart.table(), rtol=1e-4, atol=1e-5)
    pd.testing.assert_frame_equal(
        found.prefix(2).table(), taken_apart.prefix(2).table(), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("onto", ["activation", "reconstruction"])
def test_edits_change_the_predictions_as_on_the_cpu(
    dictionary, taken_apart, tiny_model, pretend_model, onto
):
    first = taken_apart.codes.latents[:, 0].tolist()
    edits = [Edit(first[3]), Edit(first[5], 2.0, instead=7, positions=(4, 5, 6))]
    expected = what_if(tiny_model, dictionary, taken_apart, edits, 6, onto)
    with PretendDevice() as seen:
        there = dictionary.to("pretend")
        found = what_if(pretend_model, there, taken_apart, edits, 6, onto)
    # What changed, three divergences, three predictions of one token.
    assert sum(seen.waits.values()) <= 7
    assert found.changed.tolist() == expected.changed.tolist()
    for name in ("kl_reconstruction", "kl_edit", "kl_total"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), **CLOSE)
    pd.testing.assert_frame_equal(found.next_tokens, expected.next_tokens, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_steered_text_goes_on_as_on_the_cpu(
    dictionary, tiny_model, pretend_model, run, temperature
):
    writing = Writing(12, temperature, seed=1)

    def written(model, dictionary):
        norm = usual_norm(model, dictionary, TEXT)
        vector = steering_vector(dictionary, 3, 2.0, norm)
        return [*write_on(model, TEXT, writing, (run.layer, vector))]

    expected = written(tiny_model, dictionary)
    with PretendDevice() as seen:
        there = dictionary.to("pretend")
        seen.waits.clear()
        found = written(pretend_model, there)
        # One a token, for its logits, and one for the usual norm.
        assert sum(seen.waits.values()) <= len(found) + 2
        from_host = written(pretend_model, dictionary)
    for one in (found, from_host):
        assert [token.token_id for token in one] == [token.token_id for token in expected]
        chances = [token.log_probability for token in expected]
        assert [token.log_probability for token in one] == pytest.approx(chances, abs=1e-4)


def test_neighbours_and_next_tokens_are_those_of_the_cpu(dictionary, tiny_model, pretend_model):
    expected = nearest_atoms(dictionary, 3, 10)
    raised = next_tokens(tiny_model, dictionary, 3, 10)
    with PretendDevice():
        there = dictionary.to("pretend")
        cosines = cosines_to(there, 3)
        assert cosines.device.type == "cpu"
        pd.testing.assert_frame_equal(nearest_atoms(there, 3, 10), expected, rtol=1e-5)
        for source in (there, dictionary):
            found = next_tokens(pretend_model, source, 3, 10)
            for one, other in (
                (found.promoted, raised.promoted),
                (found.suppressed, raised.suppressed),
            ):
                pd.testing.assert_frame_equal(one, other, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(cosines, cosines_to(dictionary, 3))


def test_a_map_is_that_of_the_cpu(dictionary, monkeypatch):
    monkeypatch.setattr(latent_map, "_BLOCK", 50)
    with PretendDevice() as seen:
        there = dictionary.to("pretend")
        seen.waits.clear()
        numbers, distances = nearest_neighbours(there.atoms, 6)
        blocks = -(-len(dictionary) // 50)
        assert sum(seen.waits.values()) == blocks
        points = map_latents(there, "svd")
    expected, far = nearest_neighbours(dictionary.atoms, 6)
    np.testing.assert_array_equal(numbers, expected)
    np.testing.assert_allclose(distances, far, atol=1e-6)
    pd.testing.assert_frame_equal(points, map_latents(dictionary, "svd"))


def test_a_full_memory_is_said_with_what_to_do(dictionary, taken_apart, run, tiny_model):
    def full(*_arguments, **_options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    said = r"Memory is full on the device cpu .* shorter text"
    before = unedited(tiny_model, dictionary, taken_apart)
    edits = [Edit(int(taken_apart.codes.latents[3, 0]))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Model, "logits_after", full)
        with pytest.raises(InputError, match=said):
            unedited(tiny_model, dictionary, taken_apart)
        for known in (None, before):
            with pytest.raises(InputError, match=said):
                what_if(tiny_model, dictionary, taken_apart, edits, 6, before=known)
        patch.setattr(Dictionary, "encode", full)
        with pytest.raises(InputError, match=said):
            decompose(dictionary, tiny_model, TEXT, run.config)
