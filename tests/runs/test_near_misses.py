"""Near misses: what one more step takes, kept with the run."""

import dataclasses

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from itda_core.errors import RunError
from itda_core.pursuit.matching import matching_pursuit
from itda_core.pursuit.orthogonal import PURSUITS
from itda_core.runs.near_misses import near_misses, next_terms
from itda_core.runs.run import NEAR_MISS_FILE, list_runs
from tests.support.reference import slow_pursuit
from tests.support.trained_runs import captured, shared_runs, tiny_config, trained


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_model_folder, tiny_corpus_file):
    return list_runs(shared_runs(tmp_path_factory, tiny_model_folder, tiny_corpus_file))[1]


def left_by(codes, x, atoms):
    return x - codes.reconstruct(atoms)


def test_the_next_term_is_the_last_of_a_pursuit_of_one_more_step():
    generator = torch.Generator().manual_seed(3)
    atoms = torch.nn.functional.normalize(torch.randn(60, 20, generator=generator), dim=1)
    x = torch.randn(200, 20, generator=generator) * 30
    codes = matching_pursuit(x, atoms, 5)
    latents, coefficients, known = next_terms(left_by(codes, x, atoms), codes, atoms)
    expected, sizes = (np.asarray(part) for part in slow_pursuit(x.numpy(), atoms.numpy(), 6)[:2])
    again = (expected[:, :5] == expected[:, 5:]).any(1)
    assert 0 < again.sum() < 50
    assert known.tolist() == (~again).tolist()
    assert latents[known].tolist() == expected[~again, 5].tolist()
    np.testing.assert_allclose(coefficients[known], sizes[~again, 5], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pursuit", PURSUITS)
def test_what_is_explained_wholly_has_no_next_term(pursuit):
    atoms = torch.eye(4)
    x = torch.tensor([[3.0, 0, 0, 0], [3.0, -2, 1, 0], [0.0, 0, 0, 0]])
    codes = PURSUITS[pursuit](x, atoms, 2)
    latents, coefficients, known = next_terms(left_by(codes, x, atoms), codes, atoms)
    assert known.tolist() == [False, True, False]
    assert (latents[1].item(), coefficients[1].item()) == (2, 1.0)


@pytest.mark.parametrize("pursuit", PURSUITS)
def test_a_run_keeps_what_its_tokens_would_have_taken_next(
    pursuit, tiny_model_folder, tiny_corpus_file, tiny_model, tmp_path
):
    config = tiny_config(tiny_model_folder, tiny_corpus_file, layers=(1,), pursuit=pursuit)
    config = dataclasses.replace(config, selection="coverage", offset="zero")
    trained(config, tmp_path)
    [made] = list_runs(tmp_path)
    steps, sources = captured(tiny_model, config)
    dictionary, x = made.dictionary(), torch.from_numpy(np.concatenate(steps[1])[:600])
    codes = dictionary.encode(x)
    left = (x - dictionary.decode(codes)).double()
    products = left @ dictionary.atoms.double().T
    best = products.abs().argmax(1)
    kept = pd.read_parquet(made.directory / NEAR_MISS_FILE)
    rows = {source[:2]: row for row, source in enumerate(sources[:600])}
    numbers = [rows[key] for key in zip(kept["prompt_id"], kept["position"], strict=True)]
    assert len(set(numbers)) == len(numbers) > 500
    assert kept["latent"].tolist() == best[numbers].tolist()
    np.testing.assert_allclose(
        kept["coefficient"], products[numbers, best[numbers]], rtol=1e-3, atol=1e-4
    )


def test_those_of_a_latent_come_nearest_first(run):
    table = pd.read_parquet(run.directory / NEAR_MISS_FILE)
    latent = int(table["latent"].mode()[0])
    found = near_misses(run, latent)
    assert len(found) == (table["latent"] == latent).sum() > 1
    assert found["coefficient"].abs().is_monotonic_decreasing
    codes = pd.read_parquet(run.directory / "codes.parquet")
    used = codes[codes["latent"] == latent]
    both = found.merge(used.astype({"prompt_id": str}), on=["prompt_id", "position"])
    assert both.empty, "a token that uses the latent was no near miss"


def test_a_run_of_an_earlier_version_does_not_tell(run, tmp_path):
    assert near_misses(dataclasses.replace(run, directory=tmp_path), 0) is None


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.write_bytes(b"PAR1"),
        lambda path: pq.write_table(pa.table({"latent": [0], "prompt_id": ["a"]}), path),
        lambda path: pq.write_table(
            pa.table({"latent": [0], "prompt_id": ["a"], "position": ["b"], "coefficient": ["c"]}),
            path,
        ),
    ],
)
def test_a_damaged_file_is_told_of(run, tmp_path, harm):
    harm(tmp_path / NEAR_MISS_FILE)
    with pytest.raises(RunError, match=r"nearly\.parquet is damaged .* Delete it"):
        near_misses(dataclasses.replace(run, directory=tmp_path), 0)
