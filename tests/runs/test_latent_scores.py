"""The file of a run's scores: whole, of the codes that are there, and refused in a sentence."""

import json
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from itda_core.errors import RunError
from itda_core.runs.latent_scores import (
    NONE,
    SCORE_COLUMNS,
    SCORES_FILE,
    read_scores,
    save_scores,
    scored_digest,
    thresholds_of,
)
from itda_core.runs.run import list_runs
from tests.support.trained_runs import shared_runs


@pytest.fixture
def run(tmp_path_factory, tiny_model_folder, tiny_corpus_file, tmp_path):
    made = shared_runs(tmp_path_factory, tiny_model_folder, tiny_corpus_file)
    return list_runs(shutil.copytree(made, tmp_path / "runs"))[1]


def saved(run, judged="strong"):
    """Scores that count up from the latent's number, NaN for each third."""
    n = run.metrics["atoms"]
    values = np.where(np.arange(n) % 3 == 0, np.nan, np.arange(n) + 0.5)
    counts = np.arange(n)
    table = {
        name: np.array(["", "few"] * n)[:n]
        if kind == pa.string()
        else counts
        if kind in (pa.int32(), pa.int64())
        else values
        for name, kind in SCORE_COLUMNS.items()
    }
    about = {"run_id": run.run_id, "digest": scored_digest(run), "judged": judged,
             "embedder": "minilm-l6", "seed": 0, "tokens": 600, "seconds": 1.5}  # fmt: skip
    return save_scores(run, about, table), table


def test_what_is_saved_is_read_with_null_for_no_number(run):
    path, table = saved(run)
    found = read_scores(run)
    assert path.name == SCORES_FILE
    assert found.about["tokens"] == 600
    assert found.about["created"] > "2026"
    assert found.latents.column("auroc").null_count == np.isnan(table["auroc"]).sum()
    np.testing.assert_array_equal(found.latents.column("threshold").to_pandas(), table["threshold"])
    assert [path.name for path in run.directory.glob(".*") if path.name != ".digests.lock"] == []


def test_thresholds_are_those_of_scores_that_tell_strong_uses(run):
    assert thresholds_of(run) is None
    _, table = saved(run)
    np.testing.assert_array_equal(thresholds_of(run), table["threshold"].astype(np.float32))
    saved(run, judged="all")
    assert thresholds_of(run) is None


def test_scores_of_an_earlier_version_tell_where_no_use_is_strong(run):
    """They had no threshold for a latent whose largest use is negative, as if it were unknown."""
    _, table = saved(run)
    lacks = {name: np.full(len(table[name]), np.nan) for name in ("threshold", "filler", "strong")}
    reasons = np.array(["too few uses", NONE] * len(table["why"]))[: len(table["why"])]
    about = dict(read_scores(run).about)
    save_scores(run, about, {**table, **lacks, "why": reasons})
    expected = np.where(reasons == NONE, np.inf, np.nan)
    np.testing.assert_array_equal(thresholds_of(run), expected)
    strong = read_scores(run).latents["strong"].to_pandas()
    np.testing.assert_array_equal(strong, np.where(reasons == NONE, 0, np.nan))


@pytest.mark.parametrize("name", ["codes.parquet", "prompts.parquet", "sources.parquet"])
def test_scores_of_other_files_are_refused_with_the_remedy(run, name):
    saved(run)
    path = run.directory / name
    pd.read_parquet(path).iloc[::-1].to_parquet(path)
    with pytest.raises(
        RunError, match=rf"of other codes than the run has now. .* score {run.run_id}"
    ):
        read_scores(run)


@pytest.mark.parametrize("damage", ["cut", "no header", "other latents", "a column", "digest"])
def test_a_damaged_file_says_how_to_make_it_anew(run, damage):
    path, _ = saved(run)
    table = pq.read_table(path)
    header = json.loads(table.schema.metadata[b"itda"])
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:200])
    elif damage == "no header":
        pq.write_table(table.replace_schema_metadata(), path)
    elif damage == "other latents":
        pq.write_table(table.slice(1), path)
    elif damage == "a column":
        pq.write_table(table.drop(["filler"]), path)
    else:
        header["digest"] = 5
        pq.write_table(table.replace_schema_metadata({"itda": json.dumps(header)}), path)
    with pytest.raises(RunError, match=rf"scores.parquet is damaged .* score {run.run_id}"):
        read_scores(run)


@pytest.mark.parametrize("name", ["why", "uses", "strong", "filler", "word_uses", "auroc_low"])
def test_a_row_that_lacks_what_pages_say_of_it_is_refused(run, name):
    path, _ = saved(run)
    table = pq.read_table(path)
    place = table.column_names.index(name)
    kind = SCORE_COLUMNS[name]
    lacking = table.set_column(place, name, pa.nulls(len(table), kind))
    pq.write_table(lacking, path)
    with pytest.raises(RunError, match=f"has no {name}"):
        read_scores(run)


def test_a_file_of_a_newer_version_asks_for_an_update(run):
    path, _ = saved(run)
    table = pq.read_table(path)
    header = {**json.loads(table.schema.metadata[b"itda"]), "version": 99}
    pq.write_table(table.replace_schema_metadata({"itda": json.dumps(header)}), path)
    with pytest.raises(RunError, match="newer version: update"):
        read_scores(run)
