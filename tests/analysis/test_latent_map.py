"""Maps of dictionaries: the layout against scikit-learn and exact neighbours, and its file."""

import shutil
import sys

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from itda_core.analysis import latent_map as mapping
from itda_core.analysis.latent_map import (
    MAP_FILE,
    map_latents,
    map_runs,
    nearest_neighbours,
    read_map,
    save_map,
    usual_method,
)
from itda_core.config import MAP_METHODS
from itda_core.errors import InputError, RunError
from itda_core.runs.run import list_runs

needs_umap = pytest.mark.skipif(usual_method() != "umap", reason="umap-learn is not installed")


class Atoms:
    """What a map needs of a dictionary."""

    def __init__(self, atoms):
        self.atoms = torch.nn.functional.normalize(torch.as_tensor(atoms).float(), dim=1)


@pytest.fixture
def runs(runs_folder, tmp_path):
    return list_runs(shutil.copytree(runs_folder, tmp_path / "data" / "runs"))


def clusters(n_clusters=3, of_each=40, d=24, seed=0):
    rng = np.random.default_rng(seed)
    centres = 4 * rng.normal(size=(n_clusters, d))
    names = np.repeat(np.arange(n_clusters), of_each)
    return Atoms(centres[names] + rng.normal(size=(len(names), d))), names


@pytest.mark.parametrize("seed", range(4))
def test_svd_gives_the_principal_components_with_their_largest_loadings_positive(seed):
    dictionary, _ = clusters(seed=seed)
    points = map_latents(dictionary, "svd")[["x", "y"]].to_numpy()
    centred = dictionary.atoms.double().numpy()
    centred -= centred.mean(0)
    variances, directions = np.linalg.eigh(centred.T @ centred)
    for axis in (0, 1):
        direction = directions[:, np.argsort(-variances)[axis]]
        direction = direction * np.sign(direction[np.abs(direction).argmax()])
        np.testing.assert_allclose(points[:, axis], centred @ direction, atol=1e-4)


@pytest.mark.filterwarnings("error")
def test_atoms_that_are_all_the_same_lie_in_one_point():
    points = map_latents(Atoms(np.ones((4, 6))), "svd")[["x", "y"]].to_numpy()
    np.testing.assert_allclose(points, 0, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("method", MAP_METHODS)
def test_the_smallest_dictionaries_have_a_map(count, method):
    found = map_latents(Atoms(np.eye(3)[:count]), method)
    assert found["latent"].tolist() == list(range(count))
    assert np.isfinite(found[["x", "y"]].to_numpy()).all()


def test_neighbours_are_the_nearest_by_cosine_with_itself_first(monkeypatch):
    dictionary, _ = clusters()
    atoms = torch.cat([dictionary.atoms, dictionary.atoms[:3]])  # three are there twice
    monkeypatch.setattr(mapping, "_BLOCK", 17)
    numbers, distances = nearest_neighbours(atoms, 6)
    assert numbers[:, 0].tolist() == list(range(len(atoms)))
    known = NearestNeighbors(n_neighbors=6, metric="cosine").fit(atoms.numpy())
    expected, _ = known.kneighbors(atoms.numpy())
    np.testing.assert_allclose(distances[:, 1:], expected[:, 1:], atol=1e-5)


@needs_umap
def test_umap_keeps_what_is_near_together_and_gives_the_same_map_again():
    dictionary, names = clusters()
    found = map_latents(dictionary, "umap")[["x", "y"]].to_numpy()
    _, near = NearestNeighbors(n_neighbors=6).fit(found).kneighbors(found)
    assert (names[near[:, 1:]] == names[:, None]).mean() > 0.95
    again = map_latents(dictionary, "umap")[["x", "y"]].to_numpy()
    np.testing.assert_array_equal(found, again)


def test_a_map_is_kept_with_its_run(runs):
    run = runs[0]
    assert read_map(run) is None
    stages = [progress.stage for progress in map_runs([run], "svd")]
    assert stages == ["mapping", "done"]
    points, method = read_map(run)
    assert method == "svd"
    expected = map_latents(run.dictionary(), "svd")
    np.testing.assert_allclose(points.to_numpy(), expected.to_numpy())


@pytest.mark.parametrize("damage", ["cut", "other atoms", "no method"])
def test_a_damaged_map_says_how_to_make_it_anew(runs, damage):
    run = runs[0]
    points = map_latents(run.dictionary(), "svd")
    path = run.directory / MAP_FILE
    save_map(run, points.head(3) if damage == "other atoms" else points, "svd")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:100])
    if damage == "no method":
        points.to_parquet(path)
    with pytest.raises(RunError, match=rf"map.parquet is damaged .* map {run.run_id}"):
        read_map(run)


def test_without_umap_a_map_is_an_svd_and_umap_is_refused_with_the_remedy(runs, monkeypatch):
    run = runs[0]
    monkeypatch.setattr(mapping.importlib.util, "find_spec", lambda _name: None)
    monkeypatch.setitem(sys.modules, "umap", None)
    assert usual_method() == "svd"
    list(map_runs([run]))
    assert read_map(run)[1] == "svd"
    with pytest.raises(InputError, match="pip install umap-learn"):
        list(map_runs([run], "umap"))
