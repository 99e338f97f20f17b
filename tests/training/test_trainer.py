"""A training gives the paper's dictionaries, says how far it is, and measures what it made."""

import dataclasses
import itertools
import json

import numpy as np
import pandas as pd
import pytest
import torch

from itda_core.activations import plan as plan_module
from itda_core.activations.plan import make_plan
from itda_core.config import run_id
from itda_core.corpus.corpus import load_corpus
from itda_core.dictionary import growing
from itda_core.pursuit import blocks, gram
from itda_core.runs.run import ALL_FILES, list_runs
from itda_core.training import encoding
from tests.support.reference import NEAR_TIE, slow_selection, unit_rows
from tests.support.trained_runs import (
    assert_same_dictionaries,
    captured,
    strict_json,
    trained,
)


@pytest.fixture(scope="module")
def runs(undisturbed):
    return list_runs(undisturbed)


def by_hand(activations, dictionary, codes):
    """x and Σ coefficient × atom of each token, float64, from the rows of codes.parquet."""
    atoms = dictionary.atoms.numpy().astype(np.float64)
    xhat = np.zeros(activations.shape)
    for row, part in codes.groupby("row"):
        xhat[row] = part["coefficient"].to_numpy(np.float64) @ atoms[part["latent"]]
    return activations.astype(np.float64), xhat


def slow_fvu(x, xhat):
    return np.square(x - xhat).sum() / np.square(x - x.mean(0)).sum()


def assert_slow_dictionaries(model, config, folder):
    """Train with a threshold that no error comes near, and compare with `slow_selection`."""
    steps, sources = captured(model, config)
    threshold = next(
        threshold
        for threshold in np.arange(0.08, 0.3, 0.007).tolist()
        if all(
            slow_selection(steps[layer], config.max_atoms, config.l0, threshold)[2] > NEAR_TIE
            for layer in config.layers
        )
    )
    config = dataclasses.replace(config, threshold=threshold)
    finished = trained(config, folder)[-1].finished
    assert len(finished) == len(config.layers)
    for run in list_runs(folder):
        x = steps[run.layer]
        chosen, _, _ = slow_selection(x, config.max_atoms, config.l0, threshold)
        assert len(chosen) > 16, "nothing but seeds was compared"
        dictionary = run.dictionary()
        found = list(dictionary.sources.drop(columns="latent").itertuples(index=False, name=None))
        assert found == [sources[number] for number in chosen]
        assert dictionary.sources["latent"].tolist() == list(range(len(chosen)))
        atoms = unit_rows(np.concatenate(x)[chosen])
        np.testing.assert_allclose(dictionary.atoms.numpy(), atoms, atol=1e-6)
        assert not dictionary.offset.any()


# The dictionaries


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"context_length": 8, "batch_tokens": 5, "max_tokens": 300},  # seeds over several steps
        {"skip_first": False, "max_atoms": 30, "seed": 3},
        {"max_atoms": 600, "l0": 2, "max_tokens": 700},  # never full
        {"batch_tokens": 10_000, "max_tokens": 2_000},  # steps as large as a sixteenth
    ],
    ids=["usual", "small steps", "first positions too", "never full", "large steps"],
)
def test_the_dictionaries_equal_the_slow_ones_atom_for_atom(tiny_model, config, tmp_path, changes):
    assert_slow_dictionaries(tiny_model, dataclasses.replace(config, **changes), tmp_path)


def test_prompts_longer_than_a_window_give_the_slow_dictionaries_too(
    tiny_model, config, tmp_path, monkeypatch
):
    monkeypatch.setattr(plan_module, "_WINDOW_TOKENS", 10)
    config = dataclasses.replace(config, batch_tokens=7, max_atoms=60, layers=(0, 2))
    prompts = load_corpus(config.corpus).training(config.seed)
    plan = make_plan(tiny_model, prompts, config, config.max_tokens)
    assert sum(length > 10 for length in plan.lengths) > 20
    assert len(plan.windows) > 20
    assert_slow_dictionaries(tiny_model, config, tmp_path)


def test_one_pass_over_three_layers_equals_three_trainings_of_one(config, runs, tmp_path):
    for run in runs:
        alone = dataclasses.replace(config, layers=(run.layer,))
        trained(alone, tmp_path)
    for run, other in zip(runs, list_runs(tmp_path), strict=True):
        assert run.layer == other.layer
        assert_same_dictionaries(run.dictionary(), other.dictionary())
        codes = [pd.read_parquet(one.directory / "codes.parquet") for one in (run, other)]
        pd.testing.assert_frame_equal(*codes)


def test_dictionaries_too_large_for_a_gram_matrix_come_out_the_same(
    config, runs, tmp_path, monkeypatch
):
    for module in (growing, blocks, gram):  # a quarter of it holds the products of 20 atoms
        monkeypatch.setattr(module, "free_memory", lambda _device: 4 * 2 * 20**2)
    trained(config, tmp_path)
    for run, other in zip(runs, list_runs(tmp_path), strict=True):
        assert_same_dictionaries(run.dictionary(), other.dictionary())
        assert run.metrics["fvu"] == pytest.approx(other.metrics["fvu"], rel=1e-4)


def test_another_seed_reads_other_prompts_first(config, runs, tmp_path):
    trained(dataclasses.replace(config, seed=1, layers=(0,)), tmp_path)
    [other] = list_runs(tmp_path)
    assert other.dictionary().prompt_ids != runs[0].dictionary().prompt_ids
    assert set(other.dictionary().sources["prompt_id"]) <= set(other.dictionary().prompt_ids)


# What is written


def test_a_run_holds_all_its_files_and_what_it_was_made_of(config, runs, tiny_model):
    assert [run.layer for run in runs] == [0, 1, 2]
    assert len({run.about["training_id"] for run in runs}) == 1
    for run in runs:
        assert {path.name for path in run.directory.iterdir()} == set(ALL_FILES)
        assert run.run_id == run.directory.name == run_id(run.about["training_id"], run.layer)
        assert run.config == config
        assert run.about["d_model"] == 16
        assert run.about["n_layers"] == 4
        assert run.about["dtype"] == "float32"
        assert run.dictionary().tokenizer == tiny_model.tokenizer_digest
        for file in ("config.json", "metrics.json"):
            strict_json((run.directory / file).read_text())


def test_held_out_prompts_are_nowhere_in_a_run(config, runs):
    corpus = load_corpus(config.corpus)
    held_out = {prompt.prompt_id for prompt in corpus.held_out()}
    assert len(held_out) == 12
    for run in runs:
        dictionary = run.dictionary()
        written = pd.read_parquet(run.directory / "prompts.parquet")["prompt_id"]
        codes = pd.read_parquet(run.directory / "codes.parquet")["prompt_id"]
        assert tuple(written) == dictionary.prompt_ids
        for names in (written, codes, dictionary.sources["prompt_id"], dictionary.prompt_ids):
            assert len(names)
            assert not held_out & set(names)


def test_prompts_are_written_with_the_span_of_every_token_read(config, runs, tiny_model):
    plan = make_plan(tiny_model, load_corpus(config.corpus).training(0), config, config.max_tokens)
    table = pd.read_parquet(runs[0].directory / "prompts.parquet")
    for row, length in zip(table.itertuples(), plan.lengths, strict=True):
        spans = tiny_model.tokenizer(row.text, return_offsets_mapping=True)["offset_mapping"]
        assert list(zip(row.starts, row.ends, strict=True)) == spans[:length]
    counts = np.array(plan.lengths) - 1
    assert table["explored"].tolist() == ((np.cumsum(counts) - counts) < 600).tolist()


def test_codes_and_dictionary_give_the_explored_fvu(config, runs, tiny_model):
    steps, sources = captured(tiny_model, config)
    rows = {source[:2]: row for row, source in enumerate(sources[:600])}
    for run in runs:
        codes = pd.read_parquet(run.directory / "codes.parquet")
        codes["row"] = [
            rows[key] for key in zip(codes["prompt_id"], codes["position"], strict=True)
        ]
        assert not codes.duplicated(["row", "step"]).any()
        assert codes["step"].between(0, 3).all()
        explored = np.concatenate(steps[run.layer])[:600]
        x, xhat = by_hand(explored, run.dictionary(), codes)
        assert run.metrics["explored_fvu"] == pytest.approx(slow_fvu(x, xhat), rel=1e-4)
        assert 0 < run.metrics["explored_fvu"] < 1
        assert run.metrics["explored_tokens"] == codes["row"].nunique() == 600
        unused = 1 - codes["latent"].nunique() / run.metrics["atoms"]
        assert run.metrics["unused_share"] == pytest.approx(unused)


@pytest.mark.parametrize("together", [97, 599])
def test_encoding_in_blocks_changes_nothing(config, runs, tmp_path, monkeypatch, together):
    monkeypatch.setattr(encoding, "_ENCODE_TOGETHER", together)
    trained(dataclasses.replace(config, layers=(0,)), tmp_path)
    [run] = list_runs(tmp_path)
    codes = [pd.read_parquet(one.directory / "codes.parquet") for one in (runs[0], run)]
    pd.testing.assert_frame_equal(*codes)
    for name in ("explored_tokens", "explored_fvu", "unused_share"):
        assert run.metrics[name] == pytest.approx(runs[0].metrics[name], rel=1e-6)


def test_the_fvu_is_that_of_the_held_out_prompts(config, runs, tiny_model):
    texts = [prompt.text for prompt in load_corpus(config.corpus).held_out()]
    for run in runs:
        x = []
        for text in texts:  # one by one, by transformers itself
            ids = torch.tensor([tiny_model.tokenizer(text)["input_ids"][:32]])
            with torch.no_grad():
                states = tiny_model.module(input_ids=ids, output_hidden_states=True).hidden_states
            x.append(states[run.layer + 1][0, 1:])
        x = torch.cat(x)
        dictionary = run.dictionary()
        xhat = dictionary.decode(dictionary.encode(x))
        expected = slow_fvu(x.double().numpy(), xhat.double().numpy())
        assert run.metrics["fvu"] == pytest.approx(expected, rel=1e-3)
        assert run.metrics["held_out_tokens"] == len(x)


# Progress


def test_progress_runs_to_the_end_and_names_the_runs(config, tmp_path):
    steps = trained(dataclasses.replace(config, max_atoms=700), tmp_path)
    stages = [stage for stage, _ in itertools.groupby(step.stage for step in steps)]
    assert stages == [
        "loading",
        "reading",
        "compiling",
        "training",
        *3 * ["choosing", "encoding"],
        "done",
    ]
    fractions = [step.fraction for step in steps]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    training = [step for step in steps if step.stage == "training"]
    tokens = [step.tokens for step in training]
    assert tokens == sorted(set(tokens))
    assert tokens[-1] == training[-1].total_tokens == 1_000
    assert len(training) > 5
    for layer in (0, 1, 2):
        counts = [step.atoms[layer] for step in training]
        assert counts == sorted(counts)
        assert 16 <= counts[0] <= counts[-1] <= 700
        assert 0 < training[-1].mean_error[layer] < 4
    assert training[-1].tokens_per_second > 0
    assert training[0].seconds_left > 0
    assert steps[-1].seconds_left == 0
    assert steps[-1].finished == [run.run_id for run in list_runs(tmp_path)]


def test_the_log_of_a_run_tells_its_progress(runs):
    for run in runs:
        lines = (run.directory / "progress.jsonl").read_text().splitlines()
        entries = [json.loads(line) for line in lines]
        assert [entry["tokens"] for entry in entries][-1] == run.metrics["tokens"]
        assert all(entry["time"] and entry["training_id"] for entry in entries)


def test_a_training_stops_early_when_all_dictionaries_are_full(config, tmp_path):
    full = dataclasses.replace(config, max_atoms=20, explored_tokens=0)
    steps = trained(full, tmp_path)
    assert steps[-1].atoms == {0: 20, 1: 20, 2: 20}
    assert 20 <= steps[-1].tokens < 1_000
    for run in list_runs(tmp_path):
        assert run.metrics["tokens"] == steps[-1].tokens
        assert run.metrics["explored_tokens"] == 0
        assert run.metrics["explored_fvu"] is None
        assert run.metrics["fvu"] > 0


def test_full_dictionaries_are_read_on_for_until_the_explored_part_is_whole(config, tmp_path):
    full = dataclasses.replace(config, max_atoms=20, explored_tokens=500)
    last = trained(full, tmp_path)[-1]
    assert 500 <= last.tokens < 1_000
    assert {run.metrics["explored_tokens"] for run in list_runs(tmp_path)} == {500}


def test_training_twice_changes_nothing_and_reports_the_same_runs(config, tmp_path):
    first = trained(config, tmp_path)[-1]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    steps = trained(config, tmp_path)
    assert steps[-1].stage == "done"
    assert steps[-1].fraction == 1.0
    assert steps[-1].finished == first.finished
    assert "training" not in {step.stage for step in steps}
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_training_leaves_only_its_runs_behind(config, tmp_path):
    finished = trained(config, tmp_path)[-1].finished
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(finished)
