"""Scores in the database: taken in when they come and change, sorted and filtered by."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from itda_core.errors import RunError
from itda_core.runs.latent_scores import (
    SCORE_COLUMNS,
    SCORES_FILE,
    read_scores,
    save_scores,
    scored_digest,
)
from itda_core.runs.run import list_runs
from itda_core.sealed import seal
from itda_core.store.latent_search import LatentSearch
from itda_core.store.store import Store, rebuild
from tests.support.store_contents import assert_same_contents, contents

ORDERS = ("auroc", "strong_first", "strong_on_token", "strong_on_word")


@pytest.fixture
def folder(runs_folder, tmp_path):
    return Path(shutil.copytree(runs_folder, tmp_path / "runs"))


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "explorer.duckdb")
    yield opened
    opened.close()


def scored(run, seed=0, judged="strong"):
    """Scores drawn at random, those of each fifth latent missing; as the table that they are."""
    draw, n = np.random.default_rng(seed), run.metrics["atoms"]
    has = np.arange(n) % 5 != 0
    table = {name: np.where(has, draw.random(n).round(2), np.nan) for name in SCORE_COLUMNS}
    codes = pd.read_parquet(run.directory / "codes.parquet")
    uses = codes.groupby("latent").size().reindex(range(n), fill_value=0).to_numpy()
    table |= {"latent": np.arange(n), "uses": uses, "strong": np.where(has, uses // 3, np.nan)}
    table |= {name: np.full(n, 20) for name in ("drawn", "same_drawn", "word_uses")}
    table["why"] = np.where(has, "", "too few uses").astype(object)
    about = {"run_id": run.run_id, "digest": scored_digest(run), "judged": judged,
             "embedder": "minilm-l6", "seed": 0, "tokens": 600, "seconds": 1.5}  # fmt: skip
    save_scores(run, about, table)
    return pd.DataFrame(table)


def test_scores_come_with_their_run_and_change_and_go_with_their_file(store, folder):
    first, second, _ = list_runs(folder)
    scored(first)
    store.import_new(folder)
    assert store.latents.judged(first.run_id) == "strong"
    assert store.latents.judged(second.run_id) == ""
    expected = read_scores(first).latents.to_pandas()

    def shown(run):
        columns = [name for name in SCORE_COLUMNS if name != "uses"]
        return store.latents.table(run.run_id, range(first.metrics["atoms"]))[columns]

    columns = shown(first).columns
    pd.testing.assert_frame_equal(shown(first).fillna(np.nan), expected[columns], check_dtype=False)
    assert shown(second)["threshold"].isna().all()
    scored(first, seed=1, judged="all")
    scored(second)
    store.import_new(folder)
    assert store.latents.judged(first.run_id) == "all"
    assert store.latents.judged(second.run_id) == "strong"
    again = read_scores(first).latents.to_pandas()
    pd.testing.assert_frame_equal(shown(first), again[columns], check_dtype=False)
    (first.directory / SCORES_FILE).unlink()
    store.import_new(folder)
    assert store.latents.judged(first.run_id) == ""
    assert shown(first)["auroc"].isna().all()
    store.index.forget_run(second.run_id)
    assert store.database.query("SELECT * FROM latent_scores").empty
    assert store.database.query("SELECT * FROM scored").empty


def test_scores_of_other_codes_are_refused_and_the_rest_is_there(store, folder):
    first, second, _ = list_runs(folder)
    scored(first)
    scored(second)
    path = first.directory / "codes.parquet"
    pd.read_parquet(path).iloc[::-1].to_parquet(path)
    seal(first.directory)
    with pytest.raises(RunError, match=rf"other codes .* score {first.run_id}"):
        store.import_new(folder)
    assert len(store.runs.table()) == 3
    assert store.latents.judged(first.run_id) == ""
    assert store.latents.judged(second.run_id) == "strong"


def test_a_rebuilt_database_has_the_same_scores(folder, tmp_path, store):
    scored(list_runs(folder)[0])
    store.import_new(folder)
    rebuild(tmp_path / "anew.duckdb", folder)
    anew = Store(tmp_path / "anew.duckdb")
    assert_same_contents(contents(anew), contents(store))
    assert not contents(anew)["scores"].empty
    anew.close()


@pytest.mark.parametrize("order", ORDERS)
def test_latents_are_ordered_by_their_scores_those_without_one_last(store, folder, order):
    run = list_runs(folder)[0]
    table = scored(run)
    store.import_new(folder)
    expected = table.sort_values(["latent"]).sort_values(
        order, ascending=False, na_position="last", kind="stable"
    )
    assert store.latents.numbers(run.run_id, order=order) == expected["latent"].tolist()
    searched = store.latents.numbers(run.run_id, "the", order)
    among = set(store.latents.numbers(run.run_id, "the"))
    assert searched == [latent for latent in expected["latent"] if latent in among]


def test_the_density_of_strong_uses_is_that_of_all_where_there_is_no_threshold(store, folder):
    run = list_runs(folder)[0]
    scores = scored(run)
    store.import_new(folder)
    table = store.latents.table(run.run_id, range(run.metrics["atoms"]))
    strong = scores["strong"].fillna(table["tokens"])
    expected = strong / run.metrics["explored_tokens"]
    np.testing.assert_allclose(table["strong_density"], expected)
    found = store.latents.numbers(run.run_id, order="strong_density")
    assert found == expected.sort_values(ascending=False, kind="stable").index.tolist()
    middle = float(expected.median())
    search = LatentSearch(min_density=middle, of_strong=True)
    assert store.latents.numbers(run.run_id, search) == table["latent"][expected >= middle].tolist()
    of_all = LatentSearch(min_density=middle)
    expected = table["latent"][table["density"] >= middle].tolist()
    assert store.latents.numbers(run.run_id, of_all) == expected


def test_latents_are_filtered_by_their_score(store, folder):
    run = list_runs(folder)[0]
    scores = scored(run)
    store.import_new(folder)
    search = LatentSearch(min_auroc=0.5, labelled=False)
    expected = scores["latent"][scores["auroc"] >= 0.5].tolist()
    assert store.latents.numbers(run.run_id, search) == expected
    assert 0 < len(expected) < len(scores)
    everything = LatentSearch(min_auroc=0.0)
    assert len(store.latents.numbers(run.run_id, everything)) == len(scores)
    with_labels = LatentSearch(min_auroc=0.5, labelled=True)
    assert store.latents.numbers(run.run_id, with_labels) == []
    unscored = list_runs(folder)[1].run_id
    assert store.latents.numbers(unscored, search) == []
