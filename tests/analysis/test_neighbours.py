"""Nearest atoms, direct next tokens, latents used together, against slow loops."""

import numpy as np
import pandas as pd
import pytest
import torch

from itda_core.analysis.neighbours import nearest_atoms, nearest_to_any, next_tokens
from itda_core.config import ModelSpec
from itda_core.errors import ModelError
from itda_core.model.loading import load_model
from itda_core.runs.run import list_runs
from itda_core.store.store import Store
from tests.support.tiny_models import FAMILIES, save_tiny_model

TEXT = "The river rose in the spring and the farmers moved"


@pytest.fixture(scope="module")
def run(runs_folder):
    return next(run for run in list_runs(runs_folder) if run.layer == 1)


@pytest.fixture(scope="module")
def store(runs_folder):
    opened = Store()
    opened.import_new(runs_folder)
    yield opened
    opened.close()


def test_the_nearest_atoms_are_those_of_the_largest_cosine_of_either_sign(run):
    dictionary = run.dictionary()
    atoms = dictionary.atoms.double().numpy()
    cosines = {other: float(atoms[7] @ atoms[other]) for other in range(len(atoms)) if other != 7}
    expected = sorted(cosines, key=lambda other: -abs(cosines[other]))[:10]
    found = nearest_atoms(dictionary, 7, 10)
    assert found["latent"].tolist() == expected
    np.testing.assert_allclose(found["cosine"], [cosines[one] for one in expected], atol=1e-5)
    sources = dictionary.sources.set_index("latent")["token"]
    assert found["token"].tolist() == [sources[one] for one in expected]
    assert len(nearest_atoms(dictionary, 7, 10_000)) == len(atoms) - 1


def test_the_nearest_to_any_of_some_latents_point_their_way(run):
    dictionary = run.dictionary()
    atoms = dictionary.atoms.numpy()
    latents, left_out = [3, 8], [5, 11]
    found = nearest_to_any(dictionary, latents, left_out, 6)
    best = {
        other: max((float(atoms[other] @ atoms[latent]), latent) for latent in latents)
        for other in range(len(atoms))
        if other not in latents + left_out
    }
    expected = sorted(best, key=lambda other: -best[other][0])[:6]
    assert found["latent"].tolist() == expected
    assert found["cosine"].to_numpy() == pytest.approx([best[one][0] for one in expected], abs=1e-5)
    assert found["nearest"].tolist() == [best[one][1] for one in expected]
    assert nearest_to_any(dictionary, [], [], 6).empty


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "bert"])
def test_the_final_norm_and_the_unembedding_are_the_models_own(family, tmp_path):
    model = load_model(ModelSpec(str(save_tiny_model(tmp_path, family)), dtype="float32"))
    tokens = model.tokenize([TEXT])
    last = model.hidden(tokens, model.n_layers - 1)[0]
    found, logits = model.unembed(last), model.logits(tokens)[0]
    if family == "gemma2":  # caps its logits, which keeps their order
        assert torch.equal(found.argsort(dim=1)[:, -5:], logits.argsort(dim=1)[:, -5:])
    else:
        torch.testing.assert_close(found, logits, atol=1e-4, rtol=1e-4)


def test_next_tokens_are_both_ends_of_the_atoms_scores(run, tiny_model):
    dictionary = run.dictionary()
    scores = tiny_model.unembed(dictionary.atoms[4][None])[0].double()
    scores = (scores - scores.mean()).numpy()
    found = next_tokens(tiny_model, dictionary, 4, 10)
    order = np.argsort(-scores)
    assert found.promoted["token_id"].tolist() == order[:10].tolist()
    assert found.suppressed["token_id"].tolist() == order[::-1][:10].tolist()
    np.testing.assert_allclose(found.promoted["score"], scores[order[:10]], atol=1e-4)
    names = [tiny_model.tokenizer.decode([one]) for one in order[:10].tolist()]
    assert found.promoted["token"].tolist() == names


def test_an_encoder_has_no_next_tokens(tmp_path):
    model = load_model(ModelSpec(str(save_tiny_model(tmp_path, "bert"))))
    with pytest.raises(ModelError, match="predicts no next token"):
        model.unembed(torch.zeros(1, model.d_model))


def test_latents_used_together_have_their_counts_and_their_lift_over_chance(run, store):
    codes = pd.read_parquet(run.directory / "codes.parquet")
    used = {
        latent: set(zip(uses["prompt_id"], uses["position"], strict=True))
        for latent, uses in codes.groupby("latent")
    }
    latent = max(used, key=lambda one: len(used[one]))
    explored = run.metrics["explored_tokens"]
    expected = {}
    for other, tokens in used.items():
        both = len(tokens & used[latent])
        if other != latent and both >= 2:
            lift = both * explored / (len(tokens) * len(used[latent]))
            expected[other] = (both, len(tokens), lift)
    found = store.uses.together(run.run_id, latent, min_shared=2, limit=1_000)
    assert len(expected) > 10
    assert set(found["latent"]) == set(expected)
    for row in found.itertuples():
        assert (row.both, row.tokens) == expected[row.latent][:2]
        assert row.lift == pytest.approx(expected[row.latent][2])
    assert found["lift"].is_monotonic_decreasing
    assert len(store.uses.together(run.run_id, latent, min_shared=2, limit=3)) == 3


def test_a_token_is_traced_through_the_layers_by_its_strongest_latent(runs_folder, store):
    runs = list_runs(runs_folder)
    codes = {run.run_id: pd.read_parquet(run.directory / "codes.parquet") for run in runs}
    first = next(iter(codes.values())).iloc[40]
    prompt, position = first["prompt_id"], int(first["position"])
    found = store.uses.at_token([run.run_id for run in runs], prompt, position)
    for run in runs:
        table = codes[run.run_id]
        here = table[(table["prompt_id"] == prompt) & (table["position"] == position)]
        sizes = here.groupby("latent")["coefficient"].sum()
        strongest = int(sizes.abs().idxmax())
        [row] = found[found["run_id"] == run.run_id].itertuples()
        assert row.layer == run.layer
        assert row.latent == strongest
        assert row.coefficient == pytest.approx(float(sizes[strongest]), rel=1e-5)
        source = run.dictionary().sources.loc[strongest]
        is_source = (source["prompt_id"], source["position"]) == (prompt, position)
        assert row.is_source == is_source
    assert store.uses.at_token([], prompt, position).empty
