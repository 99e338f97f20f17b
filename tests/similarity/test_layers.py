"""Layers compared by their activations: against the measures called by hand, kept, found again."""

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from itda_core.corpus.corpus import load_corpus
from itda_core.errors import InputError, ModelError, RunError
from itda_core.model.loading import load_model
from itda_core.runs.comparisons import comparisons_folder, read_comparisons, save_comparisons
from itda_core.runs.run import list_runs, read_run
from itda_core.similarity import layers as comparing
from itda_core.similarity.layers import compare_runs
from itda_core.similarity.measures import MEASURES, measure_matrix
from itda_core.store.store import Store, rebuild
from tests.support.edited_runs import edit_about
from tests.support.swept_like import SweptLike
from tests.support.trained_runs import tiny_config, trained


@pytest.fixture(scope="module")
def folder(compared_folder):
    return compared_folder


@pytest.fixture
def copied(folder, tmp_path):
    return shutil.copytree(folder / "runs", tmp_path / "copied" / "runs")


@pytest.fixture(scope="module")
def runs(folder):
    return list_runs(folder / "runs")


def of_model(runs, name):
    return [run for run in runs if run.config.model.name.endswith(name)]


def compared(runs, measures=("cka",), tokens=300):
    *_, last = compare_runs(runs, measures, tokens)
    return last.results


def values(results, measure):
    return {
        (one["run_a"], one["run_b"]): one["value"] for one in results if one["measure"] == measure
    }


def captured(run, tokens):
    """Activations of the first tokens of the held-out prompts, the first of each left out, prompt
    by prompt."""
    model, found = load_model(run.config.model), []
    for prompt in load_corpus(run.config.corpus).held_out():
        batch = model.tokenize([prompt.text], run.config.context_length)
        found.append(model.capture(batch, [run.layer])[run.layer])
    return torch.cat(found)[:tokens]


def test_a_value_is_the_measure_of_the_activations_of_the_same_tokens(runs):
    decoders = [run for run in runs if "encoder" not in run.config.model.name]
    results = compared(decoders, list(MEASURES), tokens=60)
    matrices = [captured(run, 60) for run in decoders]
    for name, measure in MEASURES.items():
        expected, found = measure_matrix(name, matrices), values(results, name)
        for i, a in enumerate(decoders):
            for j, b in enumerate(decoders):
                if (a.run_id, b.run_id) in found:
                    assert found[a.run_id, b.run_id] == pytest.approx(expected[i, j], abs=1e-4)
                else:
                    assert measure.is_symmetric
                    assert (b.run_id, a.run_id) in found
    assert {one["tokens"] for one in results} == {60}
    assert {one["unit"] for one in results} == {"token"}


def test_models_with_different_tokenizers_are_compared_where_words_end(runs):
    results = compared(runs)
    kinds = {}
    for one in results:
        is_word = ("encoder" in one["run_a"]) != ("encoder" in one["run_b"])
        kinds.setdefault(is_word, set()).add(one["unit"])
        assert one["reason"] == ""
        assert 0 <= one["value"] <= 1
    assert kinds == {True: {"word"}, False: {"token"}}


def test_which_other_models_are_compared_does_not_change_a_value(runs):
    alone, together = (
        values(compared(some, ["cka", "regression"]), "regression") for some in (runs[:2], runs)
    )
    assert alone
    assert {pair: together[pair] for pair in alone} == alone


def test_dictionaries_of_one_layer_are_one_thing_to_compare(runs, folder, tmp_path):
    config = dataclasses.replace(runs[0].config, layers=(1,), max_atoms=30)
    trained(config, tmp_path / "runs")
    [other] = list_runs(tmp_path / "runs")
    assert other.run_id != runs[0].run_id
    assert other.activations_id == runs[0].activations_id
    assert len(compared([runs[0], other])) == 1


def test_what_is_compared_is_named_by_model_layer_corpus_and_how_it_is_read(runs):
    assert len({run.activations_id for run in runs}) == len(runs)
    first = runs[0]

    def changed(about=(), **config):
        fields = {**first.about["config"], **config}
        return dataclasses.replace(first, about={**first.about, **dict(about), "config": fields})

    model = first.about["config"]["model"]
    others = [
        changed(model={**model, "name": "tiny-6x128-1"}),  # of built-in models one digest is all
        changed(model={**model, "revision": "step1000"}),
        changed({"dtype": "bfloat16"}),
        changed({"model_digest": "other"}),
        changed({"corpus_digest": "other"}),
        changed({"layer": 3}),
        changed(context_length=64),
    ]
    assert len({run.activations_id for run in [first, *others]}) == 1 + len(others)
    assert changed(max_atoms=7, l0=3, seed=5).activations_id == first.activations_id


def test_a_massive_token_decides_nothing(runs, monkeypatch):
    two = of_model(runs, "other")
    before = values(compared(two), "cka")
    capture = comparing.load_model

    def blown_up(spec, **place):
        model = capture(spec, **place)
        plain = model.capture

        def capturing(tokens, layers, *options):
            found = plain(tokens, layers, *options)
            found[2][5] *= 1_000
            return found

        monkeypatch.setattr(model, "capture", capturing)
        return model

    monkeypatch.setattr(comparing, "load_model", blown_up)
    after = compared(two)
    assert values(after, "cka") == pytest.approx(before, abs=0.05)
    assert {one["tokens"] for one in after} == {one["tokens"] for one in compared(two)}


def trained_on(folder, model, texts, layers):
    folder.mkdir()
    corpus = folder / "texts.txt"
    corpus.write_text("\n\n".join(texts))
    trained(tiny_config(model, corpus, layers=layers, max_atoms=20), folder / "runs")
    return list_runs(folder / "runs")


def test_models_of_other_corpora_have_a_reason_and_no_value(runs, tmp_path):
    texts = [f"A river of {number} boats went to the town." for number in range(200)]
    [stranger] = trained_on(tmp_path / "one", runs[0].config.model.name, texts, (1,))
    results = compared([runs[0], stranger])
    [pair] = [one for one in results if one["run_a"] != one["run_b"]]
    assert pair["value"] is None
    assert "different corpora" in pair["reason"]
    assert all(one["value"] is not None for one in results if one is not pair)


def test_too_few_common_tokens_have_a_reason_and_no_value(runs, tmp_path):
    texts = [f"The {number}" for number in range(40)]  # of which four are held out
    short = trained_on(tmp_path / "one", runs[0].config.model.name, texts, (1, 2))
    results = compared(short)
    assert len(results) == 3
    for one in results:
        assert one["value"] is None
        assert "tokens in common, too few" in one["reason"]
        assert one["tokens"] < 20


def test_progress_says_what_is_done_and_how_far_it_is(runs):
    stages, fractions = [], []
    for progress in compare_runs(runs, ["cka"], 300):
        stages.append(progress.stage)
        fractions.append(progress.fraction)
        json.dumps(progress.to_dict())
    assert list(dict.fromkeys(stages)) == ["loading", "capturing", "comparing", "done"]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1


def test_what_keeps_one_model_out_is_raised_when_the_others_are_compared(copied):
    runs = list_runs(copied)
    model = runs[0].about["config"]["model"] | {"name": "no/such/folder"}
    edit_about(runs[0].directory, {"model": model})
    results = []
    with pytest.raises(ModelError):
        for progress in compare_runs([read_run(run.directory) for run in runs], ["cka"], 300):
            results = progress.results
    assert progress.stage == "done"
    named = {one["run_a"] for one in results} | {one["run_b"] for one in results}
    assert named == {run.run_id for run in runs} - {runs[0].run_id}


@pytest.mark.parametrize(
    ("count", "measures", "tokens", "message"),
    [
        (1, ["cka"], 300, "at least two runs"),
        (2, ["distance"], 300, "There is no measure 'distance': take some of source_resemblance"),
        (2, [], 300, "There is no measure"),
        (2, ["cka"], 5, "at least 20 tokens"),
    ],
)
def test_what_cannot_be_compared_is_refused(runs, count, measures, tokens, message):
    with pytest.raises(InputError, match=message):
        next(compare_runs(runs[:count], measures, tokens))


# Kept


def rows(*values, a="one", b="two", measure="cka"):
    return [
        {"measure": measure, "a": a, "b": b, "value": value, "reason": "" if value else "no",
         "tokens": 50, "unit": "token"}
        for value in values
    ]  # fmt: skip


def test_of_a_pair_that_was_compared_twice_the_newest_counts(tmp_path):
    save_comparisons(tmp_path, rows(0.5) + rows(0.25, b="three"))
    save_comparisons(tmp_path, rows(0.75))
    table, failed = read_comparisons(tmp_path)
    assert failed is None
    assert dict(zip(table["b"], table["value"], strict=True)) == {"two": 0.75, "three": 0.25}
    save_comparisons(tmp_path, rows(0.875))  # in the place of the second
    assert len(list(tmp_path.glob("*.parquet"))) == 2
    table, _ = read_comparisons(tmp_path)
    assert dict(zip(table["b"], table["value"], strict=True)) == {"two": 0.875, "three": 0.25}


def test_a_damaged_file_is_told_of_and_keeps_no_other_out(tmp_path):
    save_comparisons(tmp_path, rows(0.5))
    (tmp_path / "a.parquet").write_text("no table")
    pd.DataFrame({"measure": ["cka"]}).to_parquet(tmp_path / "b.parquet")
    table, failed = read_comparisons(tmp_path)
    assert isinstance(failed, RunError)
    assert "a.parquet is damaged" in str(failed)
    assert table["value"].tolist() == [0.5]


def test_the_database_has_what_was_kept_by_the_runs_that_are_there(copied, tmp_path):
    runs = list_runs(copied)
    results = compared(runs, ["cka", "regression"])
    save_comparisons(comparisons_folder(copied), results)
    store = Store(tmp_path / "explorer.duckdb")
    store.import_new(copied)
    names = [run.run_id for run in runs]
    for measure in ("cka", "regression"):
        table = store.comparisons.table(measure, names)
        found = {(one.run_a, one.run_b): one.value for one in table.itertuples()}
        assert found == values(results, measure)
        assert set(table["unit"]) == {"token", "word"}
    assert store.comparisons.table("svcca", names).empty
    some = store.comparisons.table("cka", names[:2])
    assert set(some["run_a"]) | set(some["run_b"]) == set(names[:2])
    store.close()
    before = Store(tmp_path / "explorer.duckdb")
    content = before.runs.contents()["comparisons"]
    before.close()
    rebuild(tmp_path / "explorer.duckdb", copied)
    again = Store(tmp_path / "explorer.duckdb")
    pd.testing.assert_frame_equal(again.runs.contents()["comparisons"], content)
    again.close()


def test_comparisons_that_come_later_are_noticed_and_outlive_a_run(copied):
    store, runs = Store(), list_runs(copied)
    store.import_new(copied)
    names = [run.run_id for run in runs]
    assert store.comparisons.table("cka", names).empty
    save_comparisons(comparisons_folder(copied), compared(runs[:2]))
    store.import_new(copied)
    assert len(store.comparisons.table("cka", names)) == 3
    shutil.move(runs[0].directory, copied.parent / "away")
    store.import_new(copied)
    assert len(store.comparisons.table("cka", names)) == 1
    shutil.move(copied.parent / "away", runs[0].directory)
    store.import_new(copied)
    assert len(store.comparisons.table("cka", names)) == 3
    store.close()


def test_a_pair_without_a_value_has_its_reason_in_the_database(copied):
    first, second = list_runs(copied)[:2]
    found = rows(None, a=first.activations_id, b=second.activations_id)
    save_comparisons(comparisons_folder(copied), found)
    store = Store()
    store.import_new(copied)
    [row] = store.comparisons.table("cka", [first.run_id, second.run_id]).itertuples()
    assert np.isnan(row.value)
    assert row.reason == "no"
    store.close()


def test_the_command_compares_and_keeps(cli, copied):
    names = [run.run_id for run in list_runs(copied)[:2]]
    progress = copied.parent / "progress.jsonl"
    code, out, _ = cli(
        "measure", *names, "--runs", copied, "--measures", "cka,regression", "--max-tokens", "100",
        "--save", "--json", "--progress", progress,
    )  # fmt: skip
    assert code == 0
    printed = json.loads(out)
    assert printed["runs"] == names
    assert len(printed["pairs"]) == 3 + 4
    table, _ = read_comparisons(comparisons_folder(copied))
    assert sorted(table["value"]) == sorted(one["value"] for one in printed["pairs"])
    assert json.loads(progress.read_text().splitlines()[-1])["stage"] == "done"
    code, out, _ = cli(
        "measure", *names, "--runs", copied, "--measures", "cka", "--max-tokens", "100"
    )
    assert code == 0
    assert out.split()[:4] == ["measure", "run_a", "run_b", "value"]
    code, _, error = cli("measure", names[0], "--runs", copied)
    assert code == 2
    assert "at least two runs" in error


def test_a_model_that_is_read_block_by_block_is_read_once_for_all_its_layers(runs, monkeypatch):
    some = of_model(runs, "tiny-llama")
    expected, loaded = compared(some, ["cka", "regression"], 100), []

    def load(spec, **options):
        loaded.append(SweptLike(load_model(spec, **options)))
        return loaded[-1]

    monkeypatch.setattr(comparing, "load_model", load)
    steps = [(step.fraction, step.tokens) for step in compare_runs(some, ["cka"], 100)]
    assert [fraction for fraction, _ in steps] == sorted(fraction for fraction, _ in steps)
    assert max(tokens for _, tokens in steps) == 100
    assert len({fraction for fraction, _ in steps}) > 4
    assert compared(some, ["cka", "regression"], 100) == expected
    assert [model.sweeps for model in loaded] == [[(0, 2)]] * 2
