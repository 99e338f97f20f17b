"""A map of a dictionary: every atom as a point in the plane, near ones near each other.

By UMAP where umap-learn is installed, else by the two directions of largest spread (SVD). A map is
kept as map.parquet in the run's directory; a run is whole without it.
"""

import functools
import importlib.util
import io
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from itda_core.devices import to_host
from itda_core.dictionary.dictionary import Dictionary
from itda_core.errors import InputError
from itda_core.evaluation.batch import each_run
from itda_core.files.disk_errors import disk_errors_as_sentences, why_unreadable
from itda_core.progress import Progress
from itda_core.runs.run import Run, check_same
from itda_core.sealed import faults, write_sealed
from itda_core.tables import as_frame, read_table, write_table

MAP_FILE = "map.parquet"
_NEIGHBOURS = 15
_BLOCK = 4096
_SEED = 0


def usual_method() -> str:
    """What a map is made by on this machine."""
    return "umap" if importlib.util.find_spec("umap") else "svd"


def map_runs(runs: Sequence[Run], method: str | None = None) -> Iterator[Progress]:
    """Map one run after another and keep each map with its run. method: one of MAP_METHODS; by
    default the best that is installed. A run that can't be mapped keeps no other from it. Raises
    InputError where umap-learn is asked for and missing."""
    method = method or usual_method()
    if method == "umap" and usual_method() != "umap":
        raise InputError(
            "umap-learn is not installed: install it (pip install umap-learn), or ask for "
            "--method svd."
        )
    yield from each_run(runs, functools.partial(_map_run, method))


def _map_run(method: str, run: Run, progress: Progress, before: float) -> Iterator[Progress]:
    """before: the fraction of all maps that is done."""
    progress.stage, progress.fraction = "mapping", before
    yield progress
    save_map(run, map_latents(run.dictionary(), method), method)
    progress.results.append({"run_id": run.run_id, "method": method, "atoms": run.metrics["atoms"]})


def save_map(run: Run, points: pd.DataFrame, method: str) -> None:
    """Keep what `map_latents` gave; the file appears whole or not at all."""
    table = pa.Table.from_pandas(points, preserve_index=False)
    content = io.BytesIO()
    write_table(table.replace_schema_metadata({"method": method}), content)
    check_same(run)
    with disk_errors_as_sentences(run.directory):
        write_sealed(run.directory / MAP_FILE, content.getvalue())


def read_map(run: Run) -> tuple[pd.DataFrame, str] | None:
    """The points that are kept of a run and what they were made by; None where there are none.
    Raises RunError where the file is damaged."""
    path = run.directory / MAP_FILE
    if not path.exists():
        return None
    try:
        table = read_table(path, columns=["latent", "x", "y"])
        method = (table.schema.metadata or {})[b"method"].decode()
        if len(table) != run.metrics["atoms"]:
            raise ValueError("it is of other atoms")
        for error in faults(run.directory, [MAP_FILE]).values():
            raise error
    except Exception as error:  # whatever the file holds
        remedy = f"Map it again: python -m itda_core map {run.run_id}"
        raise why_unreadable(path, error, remedy) from error
    return as_frame(table), method


def map_latents(dictionary: Dictionary, method: str) -> pd.DataFrame:
    """latent, x and y of every latent. The same dictionary gives the same map. Neighbours are found
    on the dictionary's device, the points laid out on the host."""
    atoms = dictionary.atoms.float()
    # Three neighbours are the least from which UMAP can lay out anything.
    by_umap = method == "umap" and len(atoms) > 4
    points = _by_umap(atoms) if by_umap else _by_svd(atoms)
    return pd.DataFrame({"latent": np.arange(len(atoms)), "x": points[:, 0], "y": points[:, 1]})


def _by_svd(atoms: torch.Tensor) -> np.ndarray:
    """The two principal components of the atoms, [n_latents, 2]; which way an axis points is
    arbitrary, so scikit-learn makes its largest loading positive."""
    from sklearn.decomposition import PCA  # takes a while, and pages only read maps

    points = np.zeros((len(atoms), 2), np.float32)
    if len(atoms) > 1:
        count = min(2, *atoms.shape)
        with np.errstate(invalid="ignore"):  # shares of the spread where there is none
            points[:, :count] = PCA(count, svd_solver="full").fit_transform(atoms.cpu().numpy())
    return points


def _by_umap(atoms: torch.Tensor) -> np.ndarray:
    """UMAP on the exact nearest neighbours by cosine, [n_latents, 2]."""
    import umap

    # All that it warns of is that points can't be added to the map later.
    warnings.filterwarnings("ignore", module="umap")
    count = min(_NEIGHBOURS, len(atoms) - 1)
    layout = umap.UMAP(
        n_neighbors=count,
        metric="cosine",
        random_state=_SEED,
        n_jobs=1,
        precomputed_knn=nearest_neighbours(atoms, count),
    )
    return layout.fit_transform(atoms.cpu().numpy())


def nearest_neighbours(atoms: torch.Tensor, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The nearest atoms of each by cosine distance, itself first: numbers and distances,
    [n_latents, count]."""
    numbers, distances = [], []
    for block in atoms.split(_BLOCK):
        cosines = block @ atoms.T
        rows = torch.arange(len(block), device=atoms.device)
        cosines[rows, rows + sum(map(len, numbers))] = 2.0  # itself first, whatever the rounding
        nearest = cosines.topk(count, dim=1)
        found = to_host(nearest.indices, (1 - nearest.values).clamp(min=0))
        for part, of_block in zip((numbers, distances), found, strict=True):
            part.append(of_block.numpy())
    return np.concatenate(numbers), np.concatenate(distances)
