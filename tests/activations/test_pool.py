"""What a training could choose from: kept with the dictionary, or found in the run directory."""

import gc
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import safetensors
import safetensors.torch
import torch

from itda_core.activations import pool as room
from itda_core.activations.pool import CandidatePool
from itda_core.dictionary.dictionary import FILE_NAME, Dictionary
from itda_core.runs.run import list_runs
from tests.support.trained_runs import shared_runs, tiny_config, trained


@pytest.fixture(scope="module")
def threshold_runs(tmp_path_factory, tiny_model_folder, tiny_corpus_file):
    """Three that are not full, and one that is."""
    full = tmp_path_factory.mktemp("full")
    trained(tiny_config(tiny_model_folder, tiny_corpus_file, max_atoms=40, layers=(1,)), full)
    usual = shared_runs(tmp_path_factory, tiny_model_folder, tiny_corpus_file)
    return [*list_runs(usual), *list_runs(full)]


@pytest.fixture(scope="module")
def coverage_runs(tmp_path_factory, tiny_model_folder, tiny_corpus_file):
    """Of a sample of 500 of 1,000 tokens."""
    folder = tmp_path_factory.mktemp("coverage")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "MIN_SAMPLE", 500)
        changes = {"selection": "coverage", "max_atoms": 100, "layers": (1, 2)}
        trained(tiny_config(tiny_model_folder, tiny_corpus_file, **changes), folder)
    return list_runs(folder)


def table_of(dictionary):
    """Prompt, position and word of all that was offered."""
    pool = dictionary.pool
    prompts = np.repeat(np.array(dictionary.prompt_ids, object), pool.counts)
    return list(zip(prompts, pool.positions.tolist(), pool.words.tolist(), strict=True))


def as_before(run, folder):
    """The run as it was written before dictionaries told what they were offered."""
    folder = folder / run.run_id
    shutil.copytree(run.directory, folder)
    with safetensors.safe_open(folder / FILE_NAME, "pt") as opened:
        header = json.loads(opened.metadata()["itda"])
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    del header["seeds"]
    tensors = {name: one for name, one in tensors.items() if not name.startswith("offered")}
    safetensors.torch.save_file(tensors, folder / FILE_NAME, {"itda": json.dumps(header)})
    return folder


def is_full_of(run):
    return len(run.dictionary()) == run.config.max_atoms


def every_token(run):
    """Prompt and position of each token that was read, in order."""
    prompts = pd.read_parquet(run.directory / "prompts.parquet")
    first = int(run.config.skip_first)
    return [
        (prompt, position)
        for prompt, starts in zip(prompts["prompt_id"], prompts["starts"], strict=True)
        for position in range(first, len(starts))
    ]


def test_the_threshold_was_offered_all_tokens_until_it_was_full(threshold_runs):
    for run in threshold_runs:
        dictionary, tokens = run.dictionary(), every_token(run)
        sources = list(
            zip(dictionary.sources["prompt_id"], dictionary.sources["position"], strict=True)
        )
        pool = [row[:2] for row in table_of(dictionary)]
        last = max(tokens.index(source) for source in sources)
        assert pool == (tokens[: last + 1] if is_full_of(run) else tokens)
    assert [is_full_of(run) for run in threshold_runs] == [False, False, False, True]


def test_the_coverage_was_offered_its_sample(coverage_runs):
    for run in coverage_runs:
        dictionary, tokens = run.dictionary(), every_token(run)
        pool = [row[:2] for row in table_of(dictionary)]
        assert len(pool) == len(set(pool)) == 500
        assert set(pool) < set(tokens)
        assert [token for token in tokens if token in set(pool)] == pool
        sources = zip(dictionary.sources["prompt_id"], dictionary.sources["position"], strict=True)
        assert set(sources) <= set(pool)


def test_sources_have_the_words_of_what_was_offered(threshold_runs, coverage_runs):
    for run in (*threshold_runs, *coverage_runs):
        dictionary = run.dictionary()
        places = zip(
            dictionary.sources["prompt_id"],
            dictionary.sources["position"],
            dictionary.words.tolist(),
            strict=True,
        )
        assert set(places) <= set(table_of(dictionary))


def test_seeds_are_what_the_threshold_took_first(threshold_runs, coverage_runs):
    assert [run.dictionary().n_seed_atoms for run in threshold_runs] == [16, 16, 16, 16]
    assert [run.dictionary().n_seed_atoms for run in coverage_runs] == [0, 0]


def test_of_older_runs_both_follow_from_the_run_directory(
    threshold_runs, coverage_runs, tmp_path, monkeypatch
):
    for run in (*threshold_runs, *coverage_runs):
        if run in coverage_runs:
            monkeypatch.setattr(room, "MIN_SAMPLE", 500)
        now, before = run.dictionary(), Dictionary.load(as_before(run, tmp_path))
        assert before.n_seed_atoms == now.n_seed_atoms
        assert table_of(before) == table_of(now)


def test_of_an_older_file_alone_the_seeds_are_guessed_and_the_offer_is_unknown(
    threshold_runs, coverage_runs, tmp_path
):
    for run, n_seed_atoms in ((threshold_runs[0], 16), (coverage_runs[0], 0)):
        alone = tmp_path / "alone" / f"{run.run_id}.safetensors"
        alone.parent.mkdir(exist_ok=True)
        shutil.copy(as_before(run, tmp_path) / FILE_NAME, alone)
        dictionary = Dictionary.load(alone)
        assert (dictionary.pool, dictionary.n_seed_atoms) == (None, n_seed_atoms)


@pytest.mark.parametrize("name", ["config.json", "prompts.parquet"])
def test_an_older_run_with_a_damaged_file_is_read_all_the_same(threshold_runs, tmp_path, name):
    folder = as_before(threshold_runs[0], tmp_path)
    (folder / name).write_text("[")
    assert Dictionary.load(folder).pool is None


def test_what_layers_were_offered_alike_is_in_memory_once(coverage_runs):
    one, other = (run.dictionary().pool for run in coverage_runs)
    assert one is other
    made = [
        CandidatePool.of(np.array([2, 1]), np.array([0, 1, 0]), np.array([0, 0, 3])) for _ in "ab"
    ]
    assert made[0] is made[1]
    assert (
        CandidatePool.of(np.array([1, 2]), np.array([0, 1, 0]), np.array([0, 0, 3])) is not made[0]
    )
    known = len(room._KNOWN)
    del made
    gc.collect()
    assert len(room._KNOWN) < known


def test_counts_that_do_not_fit_are_damage(threshold_runs, tmp_path):
    with pytest.raises(ValueError, match="do not fit"):
        CandidatePool.of(np.array([2]), np.array([0]), np.array([0]))
    folder = tmp_path / "run"
    shutil.copytree(threshold_runs[0].directory, folder)
    with safetensors.safe_open(folder / FILE_NAME, "pt") as opened:
        metadata = opened.metadata()
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    tensors["offered.counts"] = torch.tensor([len(tensors["offered.words"])], dtype=torch.int32)
    safetensors.torch.save_file(tensors, folder / FILE_NAME, metadata)
    with pytest.raises(Exception, match="damaged"):
        Dictionary.load(folder)
