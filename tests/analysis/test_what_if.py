"""Edits of terms against sums by hand, and what the model predicts after them."""

import numpy as np
import pandas as pd
import pytest
import torch

from itda_core.analysis.decomposition import decompose
from itda_core.analysis.what_if import Edit, edited_terms, unedited, what_if
from itda_core.errors import InputError, ModelError
from itda_core.model.loading import load_model
from itda_core.runs.run import list_runs
from tests.support.tiny_models import save_tiny_model
from tests.support.trained_runs import tiny_config, trained

TEXT = "The river rose in the spring and the farmers moved to the hills."


@pytest.fixture(scope="module")
def taken_apart(runs_folder, tiny_model):
    run = next(run for run in list_runs(runs_folder) if run.layer == 1)
    dictionary = run.dictionary()
    return dictionary, decompose(dictionary, tiny_model, TEXT, run.config)


def most_used(result):
    return int(torch.mode(result.codes.latents[result.codes.coefficients != 0]).values)


def test_the_change_is_the_sum_of_what_each_edit_does_to_each_term(taken_apart):
    dictionary, result = taken_apart
    latent = most_used(result)
    place = int(result.positions[3])
    edits = [Edit(latent, 0.5), Edit(5, 2.0, instead=7), Edit(latent, 3.0, positions=(place,))]
    expected = np.zeros((len(result.positions), dictionary.atoms.shape[1]))
    atoms = dictionary.atoms.double().numpy()
    for row, position in enumerate(result.positions):
        terms = zip(
            result.codes.latents[row].tolist(), result.codes.coefficients[row].tolist(), strict=True
        )
        for one, size in terms:
            if one == latent:
                expected[row] += (0.5 - 1) * size * atoms[latent]
            if one == latent and position == place:
                expected[row] += (3 - 1) * size * atoms[latent]
            if one == 5:
                expected[row] += size * (2 * atoms[7] - atoms[5])
    found = edited_terms(dictionary, result, edits)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("edits", [[], [Edit(0, 1.0)], [Edit(3, 1.0, instead=3)]])
def test_changing_nothing_changes_nothing(taken_apart, tiny_model, edits):
    dictionary, result = taken_apart
    found = what_if(tiny_model, dictionary, result, edits, position=4)
    assert found.changed.size == 0
    assert found.kl_edit.max() == found.kl_total.max() == 0
    assert (found.next_tokens["plain"] == found.next_tokens["edited"]).all()
    assert found.kl_reconstruction.max() > 0.01


def test_an_activation_in_its_own_place_gives_the_same_logits(taken_apart, tiny_model):
    _, result = taken_apart
    hidden = tiny_model.hidden(result.tokens, 1)
    plain = tiny_model.logits(result.tokens)
    found = tiny_model.logits_after(result.tokens, 1, hidden)
    torch.testing.assert_close(found, plain, atol=1e-4, rtol=1e-4)


def test_predictions_are_those_of_the_model_with_the_edited_activation_in_it(
    taken_apart, tiny_model
):
    dictionary, result = taken_apart
    latent, rows = most_used(result), torch.from_numpy(result.positions)
    edits = [Edit(latent)]
    found = what_if(tiny_model, dictionary, result, edits, position=9)
    hidden = tiny_model.hidden(result.tokens, 1).clone()
    hidden[0, rows] += edited_terms(dictionary, result, edits)
    with tiny_model.splice(1, hidden, result.tokens.mask):
        edited = tiny_model.logits(result.tokens)[0].softmax(1)
    plain = tiny_model.logits(result.tokens)[0].softmax(1)
    for row in found.next_tokens.itertuples():
        assert row.plain == pytest.approx(float(plain[9, row.token_id]), abs=1e-5)
        assert row.edited == pytest.approx(float(edited[9, row.token_id]), abs=1e-5)
    divergence = (plain * (plain.log() - edited.log())).sum(1)
    np.testing.assert_allclose(found.kl_total, divergence.numpy(), atol=1e-4)
    assert set(plain[9].topk(10).indices.tolist()) <= set(found.next_tokens["token_id"])
    assert set(edited[9].topk(10).indices.tolist()) <= set(found.next_tokens["token_id"])
    first = int(found.changed[0])
    assert found.kl_edit[:first].max() == pytest.approx(0, abs=1e-6)  # nothing looks ahead
    assert found.kl_edit[first:].max() > 0.001


def test_onto_the_reconstruction_the_edit_is_told_apart_from_its_error(taken_apart, tiny_model):
    dictionary, result = taken_apart
    nothing = what_if(tiny_model, dictionary, result, [], 9, onto="reconstruction")
    assert nothing.kl_edit.max() == 0
    np.testing.assert_array_equal(nothing.kl_total, nothing.kl_reconstruction)
    all_latents = result.codes.latents.unique().tolist()
    emptied = what_if(
        tiny_model, dictionary, result, [Edit(one) for one in all_latents], 9, "reconstruction"
    )
    hidden = tiny_model.hidden(result.tokens, 1).clone()
    hidden[0, torch.from_numpy(result.positions)] = dictionary.offset
    expected = tiny_model.logits_after(result.tokens, 1, hidden)[0, 9].softmax(0)
    for row in emptied.next_tokens.itertuples():
        assert row.edited == pytest.approx(float(expected[row.token_id]), abs=1e-4)


def test_the_next_tokens_that_an_edit_of_the_reconstruction_changes_most_are_against_it(
    taken_apart, tiny_model
):
    dictionary, result = taken_apart
    rows = torch.from_numpy(result.positions)
    hidden = tiny_model.hidden(result.tokens, 1).clone()
    hidden[0, rows] = dictionary.decode(result.codes)

    edits = [Edit(most_used(result), 0.5)]
    changed = hidden.clone()
    changed[0, rows] += edited_terms(dictionary, result, edits)
    plain = tiny_model.logits(result.tokens)[0].softmax(1)
    rebuilt, edited = (
        tiny_model.logits_after(result.tokens, 1, stream)[0].softmax(1)
        for stream in (hidden, changed)
    )
    told = (plain, rebuilt, edited, (edited - rebuilt).abs())
    for position in range(9, len(plain)):
        found = what_if(tiny_model, dictionary, result, edits, position, onto="reconstruction")
        expected = {token for one in told for token in one[position].topk(10).indices.tolist()}
        assert set(found.next_tokens["token_id"]) == expected


@pytest.mark.parametrize("onto", ["activation", "reconstruction"])
def test_an_edit_after_others_is_the_edit_by_itself(taken_apart, tiny_model, onto):
    dictionary, result = taken_apart
    before = unedited(tiny_model, dictionary, result)
    for latent in result.codes.latents.unique().tolist()[:4]:
        edits = [Edit(latent, -1.0)]
        alone = what_if(tiny_model, dictionary, result, edits, 5, onto)
        after = what_if(tiny_model, dictionary, result, edits, 5, onto, before)
        np.testing.assert_array_equal(after.changed, alone.changed)
        for name in ("kl_edit", "kl_total", "kl_reconstruction"):
            one, other = getattr(after, name), getattr(alone, name)
            np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-9)
        pd.testing.assert_frame_equal(after.next_tokens, alone.next_tokens, rtol=1e-5)
    assert not before.hidden.equal(before.rebuilt)


def test_a_latent_or_a_token_that_there_is_not_is_refused(taken_apart, tiny_model):
    dictionary, result = taken_apart
    with pytest.raises(InputError, match="There is no latent 9999: they go from 0 to"):
        what_if(tiny_model, dictionary, result, [Edit(0, instead=9_999)], 4)
    with pytest.raises(InputError, match="there is no token 400"):
        what_if(tiny_model, dictionary, result, [Edit(0)], 400)


def test_an_encoder_predicts_no_next_token(tmp_path, tiny_corpus_file):
    model = save_tiny_model(tmp_path / "encoder", "bert", seed=4)
    trained(tiny_config(model, tiny_corpus_file, layers=(1,), max_atoms=40), tmp_path / "runs")
    [run] = list_runs(tmp_path / "runs")
    loaded = load_model(run.config.model)
    result = decompose(run.dictionary(), loaded, TEXT, run.config)
    with pytest.raises(ModelError, match="predicts no next token"):
        what_if(loaded, run.dictionary(), result, [Edit(0)], 4)
