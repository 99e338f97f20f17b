"""A dictionary of a place within the blocks of a model that is read block by block, from the
training to the pages' own calls: what the model in memory gives."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from itda_core.analysis.decomposition import decompose
from itda_core.analysis.what_if import Edit, what_if_steps
from itda_core.corpus.corpus import load_corpus
from itda_core.evaluation.by_l0 import evaluate
from itda_core.model.loading import load_model
from itda_core.runs.run import list_runs
from itda_core.training import trainer
from itda_core.training.folder_capture import capture_folder
from itda_core.training.trainer import resume, train
from tests.support.swept_models import too_little
from tests.support.trained_runs import advance, assert_same_runs

TEXT = "The river rose in the spring and the farmers moved to the hills."


@pytest.fixture(scope="module")
def memory(tiny_model_folder):
    return too_little(tiny_model_folder)


@pytest.fixture(scope="module")
def swept(tiny_model_folder, memory):
    return load_model(str(tiny_model_folder), device="cpu", memory=memory)


def short(config, **changes):
    usual = {"layers": (2,), "max_tokens": 500, "explored_tokens": 200, "max_atoms": 60}
    return dataclasses.replace(config, **{**usual, **changes})


def test_a_training_gives_the_same_dictionaries_at_a_site(config, tmp_path, memory):
    for site in ("resid_pre", "resid_mid"):
        of_site = short(config, site=site, layers=(0, 2))
        list(train(of_site, tmp_path / site / "swept", "cpu", memory))
        list(train(of_site, tmp_path / site / "resident", "cpu"))
        assert_same_runs(tmp_path / site / "swept", tmp_path / site / "resident")


def test_a_training_that_is_stopped_goes_on_to_the_same_dictionaries(
    config, tmp_path, memory, monkeypatch
):
    monkeypatch.setattr(trainer, "CHECKPOINT_SECONDS", 0.0)
    config = short(config, site="mlp_out", layers=(0, 2))
    steps = train(config, tmp_path / "swept", "cpu", memory)
    at = next(step.training_id for step in steps if step.block == 2)
    steps.close()
    advance(resume(at, tmp_path / "swept", "cpu", memory), "done", 1)
    list(train(config, tmp_path / "resident", "cpu"))
    assert_same_runs(tmp_path / "swept", tmp_path / "resident")


def test_a_captured_folder_trains_to_the_same_dictionaries(config, tmp_path, memory):
    config = short(config, site="attn_out", layers=(1, 2))
    list(capture_folder(config, tmp_path / "folder", "cpu", memory=memory))
    from_folder = dataclasses.replace(config, activations=str(tmp_path / "folder"))
    list(train(from_folder, tmp_path / "from_folder", "cpu"))
    list(train(config, tmp_path / "resident", "cpu"))
    found, expected = (
        {run.layer: run.dictionary() for run in list_runs(tmp_path / name)}
        for name in ("from_folder", "resident")
    )
    assert [*found] == [*expected]
    for layer, dictionary in found.items():
        assert (dictionary.atoms == expected[layer].atoms).all()
        pd.testing.assert_frame_equal(dictionary.sources, expected[layer].sources)


@pytest.fixture(scope="module", params=["resid_pre", "attn_out"])
def run(request, tmp_path_factory, tiny_model_folder, tiny_corpus_file):
    from tests.support.trained_runs import tiny_config

    runs = tmp_path_factory.mktemp("sites")
    config = short(tiny_config(tiny_model_folder, tiny_corpus_file), site=request.param)
    list(train(config, runs, "cpu"))
    [found] = list_runs(runs)
    return found


def test_an_evaluation_puts_in_at_the_site(run, tiny_model, swept):
    prompts = load_corpus(run.config.corpus).held_out()
    found, expected = (
        [*evaluate(run.dictionary(), model, prompts, run.config)][-1]
        for model in (swept, tiny_model)
    )
    assert found.to_dict() == expected.to_dict()


def test_an_evaluation_tells_how_far_it_is(run, swept):
    prompts = load_corpus(run.config.corpus).held_out()
    fractions = [step.fraction for step in evaluate(run.dictionary(), swept, prompts, run.config)]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1


def test_a_text_is_taken_apart_and_edited_at_the_site(run, tiny_model, swept):
    apart, expected = (
        decompose(run.dictionary(), model, TEXT, run.config) for model in (swept, tiny_model)
    )
    assert apart.to_records() == expected.to_records()
    edits = [Edit(int(apart.codes.latents[2, 0]), 0.0)]
    found, wanted = (
        [*what_if_steps(model, run.dictionary(), apart, edits, 5, "activation")][-1].value
        for model in (swept, tiny_model)
    )
    for name in ("changed", "kl_reconstruction", "kl_edit", "kl_total"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    pd.testing.assert_frame_equal(found.next_tokens, wanted.next_tokens)
