"""The coverage: which activations it takes, by hand-worked cases, a slow reference and property."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from itda_core.activations.plan import make_plan
from itda_core.config import TrainConfig
from itda_core.corpus.corpus import load_corpus
from itda_core.errors import InputError
from itda_core.evaluation.metrics import fvu
from itda_core.pursuit.orthogonal import orthogonal_matching_pursuit
from itda_core.runs.run import list_runs
from itda_core.selection import coverage
from itda_core.selection.builders import sample_rows
from itda_core.selection.coverage import centre_of, choose, choose_on_average, cover
from itda_core.training.trainer import resume, train
from tests.support.reference import unit_rows
from tests.support.trained_runs import assert_same_runs, tiny_config, trained


def groups(n_groups=12, members=40, d_model=24, spread=0.15, seed=0):
    """Unit rows around `n_groups` random directions, and the group of each row."""
    draw = np.random.default_rng(seed)
    centres = unit_rows(draw.normal(size=(n_groups, d_model)))
    group = draw.permutation(np.repeat(np.arange(n_groups), members))
    rows = unit_rows(centres[group] + spread * draw.normal(size=(len(group), d_model)))
    return torch.tensor(rows, dtype=torch.float32), group


def slow_losses(judges, atoms, l0):
    """For each atom, how much more Σ‖x − x̂‖² would be if it were taken out of each support and
    the rest refitted, by numpy's least squares."""
    codes = orthogonal_matching_pursuit(judges, atoms, l0)
    atoms, losses = atoms.double().numpy(), np.zeros(len(atoms))

    def error(x, support):
        chosen = atoms[support]
        solved = np.linalg.lstsq(chosen.T, x, rcond=None)[0]
        return np.square(x - solved @ chosen).sum()

    for x, support in zip(judges.double().numpy(), codes.latents.numpy(), strict=True):
        whole = error(x, support)
        for atom in support:
            losses[atom] += error(x, [other for other in support if other != atom]) - whole
    return losses


# The centre


def test_massive_activations_steer_neither_the_mean_nor_the_median():
    draw = np.random.default_rng(0)
    usual = torch.tensor(draw.normal(size=(500, 8)) + 2.0, dtype=torch.float32)
    massive = torch.full((5, 8), 1_000.0)
    centre = centre_of(torch.cat([massive[:2], usual, massive[2:]]))
    torch.testing.assert_close(centre.mean, usual.double().mean(0).float())
    assert centre.median_norm == pytest.approx(float(usual.norm(dim=1).median()), rel=0.01)


# The choice


def test_takes_every_distinct_row_where_there_are_no_more_than_atoms():
    rows = torch.eye(5)[[0, 1, 2, 1, 3]]
    assert cover(rows, 6, 2, seed=0).tolist() == [0, 1, 2, 4]


def test_tokens_of_every_group_are_taken():
    rows, group = groups()
    chosen = cover(rows, 24, 4, seed=0)
    assert len(chosen) == 24
    assert set(group[chosen]) == set(range(12))


def test_candidates_lie_nearer_to_their_groups_than_other_rows():
    rows, group = groups(spread=0.3)
    centres = np.stack([rows.numpy()[group == number].mean(0) for number in range(12)])
    centres = unit_rows(centres)
    chosen = coverage._central(rows, 12, np.random.default_rng(0))
    closeness = (rows.numpy() * centres[group]).sum(1)
    assert closeness[chosen].mean() > np.quantile(closeness, 0.8)


def test_the_loss_without_an_atom_is_that_of_refitting_without_it():
    rows, _ = groups(n_groups=20, members=6)
    candidates = torch.arange(0, 120, 3)
    found = coverage._losses_without(rows, candidates, 5, np.random.default_rng(0))
    others = torch.tensor([row for row in range(120) if row % 3])
    expected = slow_losses(rows[others], rows[candidates], 5)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    assert np.array_equal(np.argsort(-found)[:10], np.argsort(-expected)[:10])


def test_explains_held_out_activations_better_than_chance(smollm2_activations):
    centre = centre_of(smollm2_activations)
    usual = smollm2_activations[smollm2_activations.norm(dim=1) < 10 * centre.median_norm]
    x, held_out, mean = usual[:2_200], usual[2_200:], centre.mean
    rows = torch.nn.functional.normalize(x - mean, dim=1)

    def left(chosen):
        codes = orthogonal_matching_pursuit(held_out - mean, rows[chosen], 8)
        return fvu(held_out - mean, codes.reconstruct(rows[chosen]))

    by_chance = [
        left(torch.from_numpy(np.random.default_rng(seed).choice(2_200, 256, replace=False)))
        for seed in range(5)
    ]
    assert left(cover(rows, 256, 8, seed=0)) < min(by_chance)


def test_massive_activations_get_atoms_of_their_own_and_take_no_others():
    draw = np.random.default_rng(0)
    usual = torch.tensor(draw.normal(size=(600, 16)), dtype=torch.float32)
    direction = torch.nn.functional.normalize(torch.ones(16), dim=0)
    massive = 900 * direction + torch.tensor(draw.normal(size=(40, 16)), dtype=torch.float32)
    x = torch.cat([usual[:300], massive, usual[300:]])
    made = choose(x, 64, 4, seed=0)
    is_massive = (made.rows >= 300) & (made.rows < 340)
    assert 1 <= int(is_massive.sum()) <= 8
    assert len(made.rows) == 64
    torch.testing.assert_close(made.offset, usual.double().mean(0).float())
    expected = torch.nn.functional.normalize(x[made.rows] - made.offset, dim=1)
    torch.testing.assert_close(made.atoms, expected)
    codes = orthogonal_matching_pursuit(massive - made.offset, made.atoms, 1)
    left = massive - made.offset - codes.reconstruct(made.atoms)
    assert left.square().sum() < 0.001 * massive.square().sum()


def test_the_same_seed_takes_the_same_rows_and_another_one_others():
    rows, _ = groups(n_groups=30, spread=0.5)
    assert torch.equal(cover(rows, 40, 4, seed=3), cover(rows.clone(), 40, 4, seed=3))
    assert not torch.equal(cover(rows, 40, 4, seed=3), cover(rows, 40, 4, seed=4))


def test_the_sample_is_spread_over_all_rows():
    rows = sample_rows(100_000, 5_000, seed=1)
    assert len(rows) == len(set(rows.tolist())) == 5_000
    assert (np.diff(rows) > 0).all()
    counts, _ = np.histogram(rows, bins=10, range=(0, 100_000))
    assert counts.min() > 400
    assert sample_rows(7, 10, seed=0).tolist() == list(range(7))


# Trainings


@pytest.fixture
def config(tiny_model_folder, tiny_corpus_file):
    return tiny_config(tiny_model_folder, tiny_corpus_file, selection="coverage", max_atoms=60)


def test_a_training_writes_down_its_method_and_its_sources_are_its_atoms(
    config, tiny_model, tmp_path
):
    trained(config, tmp_path)
    for run in list_runs(tmp_path):
        dictionary = run.dictionary()
        assert len(dictionary) == 60
        assert (run.config.selection, run.config.offset, run.config.pursuit) == (
            "coverage",
            "mean",
            "orthogonal",
        )
        assert dictionary.pursuit == "orthogonal"
        table = pd.read_parquet(run.directory / "prompts.parquet")
        prompts = dict(zip(table["prompt_id"], table["text"], strict=True))
        for source in dictionary.sources.iloc[::7].itertuples():
            tokens = tiny_model.tokenize([prompts[source.prompt_id]], config.context_length)
            activations = tiny_model.capture(tokens, [run.layer])
            row = activations.positions.tolist().index(source.position)
            direction = activations[run.layer][row] - dictionary.offset
            cosine = torch.nn.functional.cosine_similarity(
                direction, dictionary.atoms[source.latent], dim=0
            )
            assert cosine > 0.9999


def test_the_offset_is_the_mean_of_the_training_tokens(config, tiny_model, tmp_path):
    trained(config, tmp_path)
    plan = make_plan(tiny_model, load_corpus(config.corpus).training(0), config, config.max_tokens)
    tokens = plan.tokens(0, len(plan.prompts))
    x = tiny_model.capture(tokens, config.layers)
    for run in list_runs(tmp_path):
        torch.testing.assert_close(
            run.dictionary().offset, x[run.layer].mean(0), atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize(("stage", "number"), [("training", 5), ("choosing", 2), ("encoding", 2)])
def test_a_closed_training_resumes_to_the_same_runs(config, tmp_path, stage, number):
    trained(config, tmp_path / "whole")
    steps = train(config, tmp_path / "closed")
    for progress in steps:
        number -= progress.stage == stage
        if number == 0:
            break
    assert number == 0
    name = progress.training_id
    steps.close()
    assert [*resume(name, tmp_path / "closed")][-1].stage == "done"
    assert_same_runs(tmp_path / "closed", tmp_path / "whole")


def test_without_an_offset_nothing_is_subtracted(config, tmp_path):
    trained(dataclasses.replace(config, offset="zero", pursuit="matching"), tmp_path)
    for run in list_runs(tmp_path):
        assert not run.dictionary().offset.any()
        assert run.dictionary().pursuit == "matching"


def test_an_l0_on_average_is_kept_on_average(config, tiny_model, tmp_path):
    config = dataclasses.replace(config, budget="mean", l0=4, max_tokens=3_000)
    trained(config, tmp_path)
    for run in list_runs(tmp_path):
        dictionary = run.dictionary()
        assert dictionary.l0 == 8
        assert dictionary.min_projection > 0
        codes = pd.read_parquet(run.directory / "codes.parquet")
        lengths = codes.groupby(["prompt_id", "position"]).size()
        assert lengths.max() <= 8
        assert lengths.nunique() > 2
        assert lengths.mean() == pytest.approx(4, abs=0.7)  # on tokens that did not set the limit


def test_terms_shared_out_over_tokens_explain_more_than_as_many_for_each(smollm2_activations):
    usual = smollm2_activations[
        smollm2_activations.norm(dim=1) < 10 * centre_of(smollm2_activations).median_norm
    ]
    made, min_projection = choose_on_average(usual[:2_000], 256, 8, 16, seed=0)
    assert made.rows.max() < 1_800  # the rest is for the budget
    x = usual[2_000:] - made.offset
    shared = orthogonal_matching_pursuit(x, made.atoms, 16, min_projection=min_projection)
    mean = float((shared.coefficients != 0).sum(1).double().mean())
    assert mean == pytest.approx(8, abs=1.5)
    each = orthogonal_matching_pursuit(x, made.atoms, round(mean))
    left = [fvu(x, codes.reconstruct(made.atoms)) for codes in (shared, each)]
    assert left[0] < left[1]


def test_an_l0_on_average_takes_no_atoms_away_and_does_without_tokens():
    x = torch.tensor(np.random.default_rng(0).normal(size=(60, 8)), dtype=torch.float32)
    made, min_projection = choose_on_average(x, 60, 2, 4, seed=0)
    assert len(made.rows) == 60
    assert min_projection == 0.0
    made, min_projection = choose_on_average(x[:0], 4, 2, 4, seed=0)
    assert (len(made.rows), min_projection) == (0, 0.0)


# The configuration


def test_the_paper_s_method_is_one_word_and_whole():
    fields = {"model": {"name": "m"}, "corpus": {"name": "c"}, "layers": [1]}
    published = TrainConfig.from_dict({**fields, "selection": "threshold"})
    assert (published.offset, published.pursuit) == ("zero", "matching")
    ours = TrainConfig.from_dict(fields)
    assert (ours.selection, ours.offset, ours.pursuit) == ("coverage", "mean", "orthogonal")
    assert published.method == "threshold 0.2"
    assert ours.method == "coverage"


def test_what_does_not_go_together_is_refused_with_the_reason():
    fields = {"model": {"name": "m"}, "corpus": {"name": "c"}, "layers": [1]}
    with pytest.raises(InputError, match="its offset is zero"):
        TrainConfig.from_dict({**fields, "selection": "threshold", "offset": "mean"})
    with pytest.raises(InputError, match="needs the selection coverage"):
        TrainConfig.from_dict({**fields, "selection": "threshold", "budget": "mean"})
    with pytest.raises(InputError, match="pursuit must be one of"):
        TrainConfig.from_dict({**fields, "pursuit": "greedy"})
