"""One text looked at with a model that is read block by block: what a model in memory gives, and no
block read twice."""

import numpy as np
import pandas as pd
import pytest

from itda_core.analysis.decomposition import decompose, decompose_steps
from itda_core.analysis.steering import Writing, usual_norm, why_not_written_on, write_on
from itda_core.analysis.what_if import Edit, unedited, what_if, what_if_steps
from itda_core.errors import InputError, ModelError
from itda_core.runs.run import list_runs
from tests.support.swept_like import SweptLike

TEXT = "The river rose in the spring and the farmers moved to the hills."


@pytest.fixture(scope="module")
def run(runs_folder):
    return next(run for run in list_runs(runs_folder) if run.layer == 1)


@pytest.fixture
def swept(tiny_model):
    return SweptLike(tiny_model)


@pytest.fixture(scope="module")
def taken_apart(run, tiny_model):
    return decompose(run.dictionary(), tiny_model, TEXT, run.config)


def assert_alike(found, expected):
    for name in ("changed", "kl_reconstruction", "kl_edit", "kl_total"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    pd.testing.assert_frame_equal(found.next_tokens, expected.next_tokens)


def test_a_text_is_decomposed_in_one_reading_up_to_the_layer(run, swept, taken_apart):
    steps = [*decompose_steps(run.dictionary(), swept, TEXT, run.config)]
    fractions = [step.fraction for step in steps]
    assert fractions == sorted(fractions)
    assert fractions == [0, 0.5, 1]
    assert [step.value is None for step in steps] == [True] * (len(steps) - 1) + [False]
    assert steps[-1].value.to_records() == taken_apart.to_records()
    assert swept.sweeps == [(0, 1)]


def test_a_text_of_one_token_is_refused_as_in_memory(run, swept):
    with pytest.raises(InputError, match="fewer than two tokens"):
        decompose(run.dictionary(), swept, "a", run.config)


@pytest.mark.parametrize("onto", ["activation", "reconstruction"])
def test_an_edit_reads_each_block_once(run, tiny_model, swept, taken_apart, onto):
    latent = int(taken_apart.codes.latents[2, 0])
    of = run.dictionary(), taken_apart, [Edit(latent, 0.0)], 5, onto
    expected = what_if(tiny_model, *of)
    steps = [*what_if_steps(swept, *of)]
    assert_alike(steps[-1].value, expected)
    assert expected.changed.size
    assert swept.sweeps == [(0, 1), (2, 4)]
    fractions = [step.fraction for step in steps]
    assert fractions == sorted(fractions)
    assert len(set(fractions)) >= 5
    assert fractions[-1] == 1


def test_another_edit_of_the_same_text_reads_the_blocks_above_the_layer_alone(
    run, tiny_model, swept, taken_apart
):
    before = unedited(swept, run.dictionary(), taken_apart)
    assert swept.sweeps == [(0, 1), (2, 4)]
    latent = int(taken_apart.codes.latents[2, 0])
    for edits, sweeps in (([Edit(latent, 2.0)], 1), ([], 0)):
        swept.sweeps.clear()
        of = run.dictionary(), taken_apart, edits, 5, "activation"
        assert_alike(what_if(swept, *of, before), what_if(tiny_model, *of))
        assert swept.sweeps == [(2, 4)] * sweeps


def test_steering_says_why_it_cannot(run, tiny_model, swept):
    assert not why_not_written_on(tiny_model)
    assert "block by block" in why_not_written_on(swept)
    with pytest.raises(ModelError, match=r"would read all of it again\. Steer a smaller model"):
        next(write_on(swept, TEXT, Writing(3)))
    assert not swept.sweeps


def test_the_usual_norm_of_a_text_is_that_of_a_model_in_memory(run, tiny_model, swept):
    class Unknowing:
        median_norm, hook_point = None, run.dictionary().hook_point

    assert usual_norm(swept, Unknowing, TEXT) == usual_norm(tiny_model, Unknowing, TEXT)
