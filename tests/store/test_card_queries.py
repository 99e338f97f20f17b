"""Uses of several latents at once are those of each alone."""

import shutil

import numpy as np
import pandas as pd
import pytest

from itda_core.runs.latent_scores import SCORE_COLUMNS, save_scores, scored_digest
from itda_core.runs.run import list_runs, read_run
from itda_core.store.store import Store


@pytest.fixture(scope="module")
def stored(runs_folder):
    store = Store()
    run = list_runs(runs_folder)[0]
    store.import_run(run)
    yield store, run
    store.close()


def sizes_of(run, latent):
    """By (prompt, position), from the run's own file."""
    codes = pd.read_parquet(run.directory / "codes.parquet")
    codes = codes[codes["latent"] == latent]
    return codes.groupby(["prompt_id", "position"])["coefficient"].sum().astype(np.float32)


def test_the_uses_of_several_latents_are_those_of_each_alone(stored):
    store, run = stored
    numbers = range(run.metrics["atoms"])
    found = store.cards.uses(run.run_id, numbers, limit=4, n_bins=7)
    assert list(found) == list(numbers)
    for latent in numbers:
        sizes, bins = sizes_of(run, latent), found[latent].bins
        if sizes.nunique() > 1:
            edges = np.histogram_bin_edges(sizes.astype(np.float64), 7)
            assert (bins.low, bins.high) == (edges[0], edges[-1])
            assert bins.positive.tolist() == np.histogram(sizes[sizes > 0], edges)[0].tolist()
            assert bins.negative.tolist() == np.histogram(sizes[sizes < 0], edges)[0].tolist()
        assert bins.positive.sum() + bins.negative.sum() == len(sizes)
        assert bins.strong is None
        alone = store.uses.strongest(run.run_id, latent, limit=4)
        for use, other in zip(found[latent].strongest, alone.itertuples(), strict=True):
            place = other.position
            assert use == (other.text, other.starts[place], other.ends[place], other.coefficient)


def test_a_latent_with_one_coefficient_has_it_in_the_middle(stored):
    store, run = stored
    same = pd.read_parquet(run.directory / "codes.parquet").groupby("latent")["coefficient"]
    alone = same.size().index[same.size() == 1]
    for latent, one in store.cards.uses(run.run_id, alone.tolist(), n_bins=3).items():
        [size] = sizes_of(run, latent)
        assert (one.bins.low, one.bins.high) == (size - 0.5, size + 0.5)
        assert (one.bins.positive + one.bins.negative).tolist() == [0, 1, 0]


def test_a_latent_that_is_not_used_has_empty_bins(stored):
    store, run = stored
    found = store.cards.uses(run.run_id, [run.metrics["atoms"] + 5])
    [(_, unused)] = found.items()
    assert (unused.bins.low, unused.bins.high, unused.bins.positive.sum()) == (0, 1, 0)
    assert unused.strongest == []


def test_strong_uses_alone_are_shown_where_there_is_a_threshold(stored, tmp_path):
    original = stored[1]
    run = read_run(shutil.copytree(original.directory, tmp_path / original.run_id))
    n_latents = run.metrics["atoms"]
    sizes = [sizes_of(run, latent) for latent in range(n_latents)]
    thresholds = np.array(
        [np.sort(one)[-2] if len(one) > 2 and n % 3 else np.nan for n, one in enumerate(sizes)]
    )
    table = {name: np.full(n_latents, np.nan) for name in SCORE_COLUMNS}
    table |= {"latent": np.arange(n_latents), "threshold": thresholds}
    table |= {name: np.zeros(n_latents) for name in ("uses", "drawn", "same_drawn")}
    table["strong"] = table["filler"] = np.where(np.isnan(thresholds), np.nan, 1.0)
    table["why"] = np.where(np.isnan(thresholds), "too few uses", "").astype(object)
    about = {"run_id": run.run_id, "digest": scored_digest(run), "judged": "strong",
             "embedder": "", "seed": 0, "tokens": 9, "seconds": 1.0}  # fmt: skip
    save_scores(run, about, table)
    store = Store()
    store.import_run(run)
    found = store.cards.uses(run.run_id, range(n_latents), limit=3)
    for latent, threshold in enumerate(thresholds):
        ours, own = found[latent], sizes[latent]
        if np.isnan(threshold):
            expected = own.abs()
            assert ours.bins.strong is None
        else:
            expected = own[own >= np.float32(threshold)]
            assert ours.bins.strong.sum() == len(expected)
        shown = [abs(use.coefficient) for use in ours.strongest]
        assert shown == sorted(expected, reverse=True)[:3]
    store.close()


def test_their_number_does_not_change_the_number_of_queries(stored, monkeypatch):
    store, run = stored
    store.cards.uses(run.run_id, [0])  # what is asked once about a run is known then
    asked, query = [], store.database.query

    def counted(*values, **named):
        asked.append(values)
        return query(*values, **named)

    monkeypatch.setattr(store.database, "query", counted)
    for numbers in ([0], range(20), []):
        asked.clear()
        store.cards.uses(run.run_id, numbers)
        assert len(asked) == 2
