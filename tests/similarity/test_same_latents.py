"""The latents of two runs compared: against dense matrices of what each encodes; kept, found."""

import dataclasses
import functools
import json
import shutil
import weakref
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from itda_core.config import CorpusSpec
from itda_core.corpus.corpus import load_corpus
from itda_core.dictionary.dictionary import Dictionary
from itda_core.errors import ComparisonError, InputError, RunError
from itda_core.jobs.compare_again import submit_comparison_again
from itda_core.model.loading import load_model
from itda_core.runs import latent_comparisons as kept
from itda_core.runs.labels import Change, Label, add_changes, labels_file
from itda_core.runs.latent_comparisons import (
    latent_comparisons_folder,
    read_latent_comparison,
    read_latent_comparisons,
    save_latent_comparison,
)
from itda_core.runs.run import list_runs, read_run
from itda_core.similarity import same_latents as comparing
from itda_core.similarity.same_latents import (
    MIN_USES,
    compare_latents,
    most_changed,
    unseen_prompts,
)
from itda_core.similarity.same_sources import namesakes
from itda_core.store.store import Store, rebuild
from tests.support.by_interval import by_interval
from tests.support.edited_runs import edit_about
from tests.support.named_sources import NamedSources
from tests.support.pretend_device import PretendDevice
from tests.support.swept_like import SweptLike
from tests.support.trained_runs import trained

N_WORDS = 2_000
EXPLAIN_THEMSELVES = ("latent_a", "latent_b", "source", "correlation", "tokens", "unit", "prompts")
"""Columns of the command's tables"""


@pytest.fixture(scope="module")
def folder(compared_folder):
    return compared_folder


@pytest.fixture(scope="module")
def runs(folder):
    """By the name of the model and the layer."""
    named = {
        (run.config.model.name.rpartition("/")[2], run.layer): run
        for run in list_runs(folder / "runs")
    }
    return SimpleNamespace(
        first=named["tiny-llama", 1],
        second=named["tiny-llama", 2],
        other=named["other", 1],
        encoder=named["encoder", 1],
    )


@pytest.fixture(scope="module")
def result(runs):
    return compared(runs.first, runs.other)


@pytest.fixture
def copied(folder, tmp_path):
    return shutil.copytree(folder / "runs", tmp_path / "copied" / "runs")


def compared(a, b, tokens=N_WORDS, **options):
    *_, last = compare_latents(a, b, tokens, **options)
    [result] = last.results
    return result


@functools.cache
def coefficients_of(directory):
    """What `coefficients` gives of a run."""
    return coefficients(read_run(directory))


def coefficients(run):
    """Of the held-out prompts: [n_tokens, n_latents] of each prompt's tokens after its first,
    prompt by prompt, and where each token ends: (prompt, character)."""
    model, dictionary = load_model(run.config.model), run.dictionary()
    rows, ends = [], []
    for number, prompt in enumerate(held_out(run)):
        tokens = model.tokenize([prompt.text], run.config.context_length)
        captured = model.capture(tokens, [run.layer])
        codes = dictionary.encode(captured[run.layer])
        x = np.zeros((len(codes), len(dictionary)))
        for row, (latents, values) in enumerate(
            zip(codes.latents, codes.coefficients, strict=True)
        ):
            for latent, value in zip(latents.tolist(), values.tolist(), strict=True):
                x[row, latent] += value
        rows.append(x)
        ends += [(number, int(tokens.spans[0, at, 1])) for at in captured.positions]
    return np.concatenate(rows), ends


def held_out(run):
    return load_corpus(run.config.corpus).held_out()


def assert_is_dense(result, a, b):
    """Every row is what dense correlation matrices give. a, b: [n_tokens, n_latents]."""
    with np.errstate(invalid="ignore", divide="ignore"):
        dense = np.corrcoef(a.T, b.T)[: a.shape[1], a.shape[1] :]
    used = []
    for row in result["latents"]:
        i, j = row["latent_a"], row["latent_b"]
        assert row["uses_a"] == np.count_nonzero(a[:, i])
        assert row["uses_b"] == np.count_nonzero(b[:, j])
        assert row["uses_both"] == np.count_nonzero(a[:, i] * b[:, j])
        if np.isnan(dense[i, j]):
            assert row["correlation"] is row["rank_a"] is row["rank_b"] is None
            continue
        used.append(dense[i, j])
        assert row["correlation"] == pytest.approx(dense[i, j], abs=1e-4)
        for rank, others in ((row["rank_a"], dense[i]), (row["rank_b"], dense[:, j])):
            assert (others > dense[i, j] + 1e-4).sum() < rank
            assert rank <= (others > dense[i, j] - 1e-4).sum()
    assert result["compared"] == len(used) > 3
    assert result["median_value"] == pytest.approx(np.median(used), abs=1e-4)


def test_every_number_is_that_of_dense_matrices(runs, result):
    prompts = held_out(runs.first)
    a, b = (coefficients_of(run.directory)[0] for run in (runs.first, runs.other))
    assert result["tokens"] == len(a) == len(b)
    assert (result["unit"], result["prompts"]) == ("token", len(prompts))
    assert_is_dense(result, a, b)
    digests = [run.dictionary().digest for run in (runs.first, runs.other)]
    assert [result["digest_a"], result["digest_b"]] == digests  # as a move names the one it is from
    rows = result["latents"]
    places = [
        run.dictionary().sources.set_index("latent")[["prompt_id", "position"]]
        for run in (runs.first, runs.other)
    ]
    for row in rows:
        assert tuple(places[0].loc[row["latent_a"]]) == tuple(places[1].loc[row["latent_b"]])
    merged = places[0].merge(places[1], on=["prompt_id", "position"])
    assert result["namesakes"] == len(rows) == len(merged)
    counts = [row["uses_a"] > 0 for row in rows], [row["uses_b"] > 0 for row in rows]
    kinds = list(zip(*counts, strict=True))
    assert result["only_a"] == kinds.count((True, False))
    assert result["only_b"] == kinds.count((False, True))
    assert result["unused"] == kinds.count((False, False))
    sums = [sum(row[f"uses_{side}"] for row in rows) for side in ("a", "b", "both")]
    assert result["alone_a"] == pytest.approx((sums[0] - sums[2]) / sums[0])
    assert result["alone_b"] == pytest.approx((sums[1] - sums[2]) / sums[1])


def test_other_tokenizers_meet_where_words_end(runs):
    result, prompts = compared(runs.first, runs.encoder), held_out(runs.first)
    (a, ends_a), (b, ends_b) = (
        coefficients_of(run.directory) for run in (runs.first, runs.encoder)
    )
    words = {
        (number, at)
        for number, prompt in enumerate(prompts)
        for at in range(1, len(prompt.text) + 1)
        if not prompt.text[at - 1].isspace() and (prompt.text + " ")[at].isspace()
    }
    last_a, last_b = ({end: row for row, end in enumerate(ends)} for ends in (ends_a, ends_b))
    common = sorted(words & set(ends_a) & set(ends_b))
    assert result["unit"] == "word"
    assert result["tokens"] == len(common)
    assert_is_dense(result, a[[last_a[end] for end in common]], b[[last_b[end] for end in common]])


def test_two_layers_of_a_model_are_read_in_one_pass(runs, monkeypatch):
    loads = []
    load = comparing.load_model
    monkeypatch.setattr(comparing, "load_model", lambda *a, **o: loads.append(a) or load(*a, **o))
    result = compared(runs.first, runs.second)
    assert len(loads) == 1
    of_both = (coefficients_of(run.directory)[0] for run in (runs.first, runs.second))
    assert_is_dense(result, *of_both)


def test_one_model_is_let_go_of_before_the_other_is_loaded(runs, monkeypatch):
    loads, alive, load = [], [], comparing.load_model

    def seen(*arguments, **options):
        alive.append([one() is not None for one in loads])
        loads.append(weakref.ref((model := load(*arguments, **options)).module))
        return model

    monkeypatch.setattr(comparing, "load_model", seen)
    compared(runs.first, runs.other)
    assert alive == [[], [False]]


def test_a_model_that_is_read_block_by_block_gives_the_same(runs, result, monkeypatch):
    load = comparing.load_model
    monkeypatch.setattr(comparing, "load_model", lambda *a, **o: SweptLike(load(*a, **o)))
    assert compared(runs.first, runs.other) == result


def test_on_a_device_it_is_what_the_cpu_gives(runs, monkeypatch):
    result = compared(runs.first, runs.second)
    monkeypatch.setenv("ITDA_DEVICE", "pretend")
    with PretendDevice() as seen:
        found = compared(runs.first, runs.second)
    assert seen.waits["to the CPU"] > 0
    assert found["tokens"] == result["tokens"]
    assert found["median_value"] == pytest.approx(result["median_value"], abs=1e-3)
    uses = [[row["uses_a"] for row in one["latents"]] for one in (found, result)]
    assert np.abs(np.subtract(*uses)).sum() <= 2  # ties in a pursuit's choice


def test_from_the_other_side_it_is_the_same_comparison(runs, result):
    back = compared(runs.other, runs.first)
    assert back["best_value"] == pytest.approx(result["best_value"])
    assert back["median_value"] == pytest.approx(result["median_value"])
    by_latent = {row["latent_b"]: row for row in back["latents"]}
    for row in result["latents"]:
        other = by_latent[row["latent_a"]]
        assert other["correlation"] == pytest.approx(row["correlation"])
        assert (other["rank_b"], other["uses_b"]) == (row["rank_a"], row["uses_a"])


def test_the_tokens_are_the_first_so_many(runs):
    result = compared(runs.first, runs.other, tokens=50)
    a, b = (coefficients_of(run.directory)[0][:50] for run in (runs.first, runs.other))
    assert result["tokens"] == 50
    for row in result["latents"]:
        assert row["uses_a"] == np.count_nonzero(a[:, row["latent_a"]])
        assert row["uses_b"] == np.count_nonzero(b[:, row["latent_b"]])


def test_only_prompts_that_neither_has_read(runs, tmp_path, tiny_texts, tiny_corpus_file):
    ids = {prompt.prompt_id for prompt in unseen_prompts(runs.first, runs.other)}
    assert ids == {prompt.prompt_id for prompt in held_out(runs.first)}
    corpus = CorpusSpec(str(tiny_corpus_file))
    read = [
        set(pd.read_parquet(run.directory / "prompts.parquet")["prompt_id"])
        for run in (runs.first, runs.other)
    ]
    every = {prompt.prompt_id for prompt in load_corpus(corpus).prompts}
    found = {prompt.prompt_id for prompt in unseen_prompts(runs.first, runs.other, corpus)}
    assert found == every - read[0] - read[1]
    # B trained on what A holds out
    file = tmp_path / "held-out.txt"
    file.write_text("\n\n".join(prompt.text for prompt in held_out(runs.first)))
    corpus = CorpusSpec(str(file))
    config = dataclasses.replace(runs.other.config, corpus=corpus, layers=(1,), max_atoms=20)
    trained(config, tmp_path / "runs")
    [thief] = list_runs(tmp_path / "runs")
    left = {prompt.prompt_id for prompt in unseen_prompts(runs.first, thief)}
    assert len(left) == len(load_corpus(config.corpus).held_out())
    with pytest.raises(InputError, match=r"was trained on every prompt of .*Give others"):
        unseen_prompts(thief, runs.first, CorpusSpec(str(_only_read(thief, tmp_path))))


def _only_read(run, folder):
    texts = pd.read_parquet(run.directory / "prompts.parquet")["text"]
    file = folder / "read.txt"
    file.write_text("\n\n".join(texts))
    return file


def test_what_can_not_be_compared_is_refused_with_the_reason(runs, monkeypatch):
    with pytest.raises(InputError, match="two different runs"):
        compared(runs.first, runs.first)
    with pytest.raises(ComparisonError, match="5 tokens of these prompts in common, too few"):
        compared(runs.first, runs.other, tokens=5)
    monkeypatch.setattr(Dictionary, "kind", "sae")
    with pytest.raises(ComparisonError, match="none of them has a namesake"):
        compared(runs.first, runs.other)


def test_namesakes_by_hand():
    a = NamedSources(
        "one", ("p", 3, 6, 9, " of"), ("p", 5, 14, 20, " peace"), ("q", 3, 6, 9, " of"),
        ("q", 8, 25, 30, " trea"),
    )  # fmt: skip
    b = NamedSources(
        "one", ("q", 3, 6, 9, " of"), ("p", 5, 14, 20, " peace"), ("p", 4, 6, 9, " of")
    )
    assert namesakes(a, b).tolist() == [[1, 1], [2, 0]]
    # Across tokenizers (p, 9) and (q, 9) end alike. No other does: not the start of a word and the
    # whole of it, nor two parts of one.
    c = NamedSources(
        "two", ("p", 2, 7, 9, "of"), ("q", 7, 28, 31, "ties"), ("q", 6, 25, 28, "tre"),
        ("p", 9, 14, 18, "peac"), ("q", 1, 7, 9, "of"),
    )  # fmt: skip
    assert namesakes(a, c).tolist() == [[0, 0], [2, 4]]
    numbers = np.array([7, 2, 5, 9]), np.array([5, 7, 1, 0, 3])
    assert namesakes(a, c, numbers).tolist() == [[0, 1], [2, 0]]
    special = NamedSources("two", ("p", 0, 0, 0, "[CLS]")), NamedSources("one", ("p", 1, 1, 1, "x"))
    with pytest.raises(ComparisonError, match="no source in common"):
        namesakes(*special)


def test_the_mark_that_closes_a_cut_text_is_no_namesake_of_a_word_behind_the_cut():
    word, mark = ("p", 1, 0, 4, "ship"), ("p", 2, 0, 0, "[SEP]")
    cut = NamedSources("one", word, mark)
    whole = NamedSources("one", word, ("p", 2, 5, 10, "sails"), ("p", 3, 0, 0, "[SEP]"))
    assert namesakes(cut, whole).tolist() == [[0, 0]]
    assert namesakes(cut, NamedSources("one", mark)).tolist() == [[1, 0]]


def test_runs_that_were_moved_from_one_are_matched_by_its_numbers(runs):
    class Moved:
        def __init__(self, numbers, digest="d"):
            self._numbers, self.digest = np.array(numbers), digest

        def latents_in_origin(self):
            return self._numbers

        def __len__(self):
            return len(self._numbers)

    def run(run_id, root="", digest="d"):
        first = SimpleNamespace(run_id=root, digest=digest)
        config = SimpleNamespace(moved_from=SimpleNamespace(first=first) if root else None)
        return SimpleNamespace(run_id=run_id, root=root or run_id, config=config)

    def numbers(a, b, *latents):
        sides = dict(zip("ab", map(Moved, latents), strict=True))
        found = comparing.common_numbers(a, b, sides)
        return found and [one.tolist() for one in found]

    own, moved, again = run("own"), run("moved", "own"), run("again", "own")
    assert numbers(own, moved, [0, 1, 2], [2, 0]) == [[0, 1, 2], [2, 0]]
    assert numbers(moved, again, [2, 0], [1, 2]) == [[2, 0], [1, 2]]
    assert numbers(own, run("moved", "another"), [0], [0]) is None
    trained_anew = run("moved", "own", "another")
    assert numbers(own, trained_anew, [0], [0]) is None, "whose numbers are of other tokens"
    assert numbers(runs.first, runs.other, [0], [0]) is None


def test_the_most_changed_are_those_least_alike_that_are_used_enough():
    """By Fisher's z with 1.96 / √(n − 3), n the tokens that either uses, by hand: 0.5 on 103 is
    surely below tanh(0.549 + 0.196) = 0.63, 0.3 on 28 below tanh(0.310 + 0.392) = 0.61, 0 on 24
    below tanh(0.428) = 0.40."""
    rows = [
        {"latent_a": number, "correlation": value, "uses_a": a, "uses_b": b, "uses_both": both}
        for number, (value, a, b, both) in enumerate([
            (0.5, 100, 100, 97), (0.3, 26, 20, 18), (0.0, 22, 2, 0), (-0.2, 3, 1, 0),
            (None, 50, 0, 0), (1.0, 40, 40, 40),
        ])
    ]  # fmt: skip
    assert [row["latent_a"] for row in most_changed(rows)] == [2, 1, 0, 5]
    strong = [{"latent_a": row["latent_a"]} for row in rows]
    for one, row in zip(strong, rows, strict=True):
        one |= {f"strong_{name}": value for name, value in row.items()}
    strong[2] |= {"strong_uses_a": 5, "strong_uses_b": 1}  # six: up to tanh(1.96 / √3) = 0.81
    assert [row["latent_a"] for row in most_changed(strong, of_strong=True)] == [1, 0, 2, 5]


def test_thresholds_come_from_the_scores_of_both_and_where_there_are_none_it_is_said(
    runs, monkeypatch
):
    cuts = np.full(len(runs.first.dictionary()), np.inf, np.float32)
    with_scores = {runs.first.run_id: cuts}
    monkeypatch.setattr(comparing, "thresholds_of", lambda run: with_scores.get(run.run_id))
    first, *_ = steps = list(compare_latents(runs.first, runs.second, 100))
    [note] = first.notes
    assert f"{runs.second.run_id} has no scores" in note
    assert steps[-1].results[0]["strong"] is None
    with_scores[runs.second.run_id] = np.full(len(runs.second.dictionary()), np.nan, np.float32)
    first, *_ = steps = list(compare_latents(runs.first, runs.second, 100))
    [result] = steps[-1].results
    assert first.notes == []
    assert {row["strong_uses_a"] for row in result["latents"]} == {0}
    assert all(row["strong_uses_b"] == row["uses_b"] for row in result["latents"])
    assert result["strong"]["compared"] == 0


# Kept, and found again


def with_strong(result):
    """A comparison of two runs with scores: every number of strong uses has a value of its own."""
    n_rows = len(result["latents"])
    rows = [
        row
        | {
            "strong_correlation": number / n_rows,
            "strong_rank_a": 1 + number,
            "strong_rank_b": 2 + number,
            "strong_uses_a": 3 + number,
            "strong_uses_b": 4 + number,
            "strong_uses_both": 2,
            "strong_chance": 0.0,
        }
        for number, row in enumerate(result["latents"])
    ]
    strong = {name: result[name] for name in kept.SUMS} | {"median_value": 0.625, "only_a": 1}
    return {**result, "latents": rows, "strong": strong}


def test_strong_uses_are_kept_and_the_store_answers_of_them(result, copied):
    assert result["strong"] is None, "the runs have no scores"
    given = with_strong(result)
    path = save_latent_comparison(latent_comparisons_folder(copied), given)
    found = read_latent_comparison(path)
    assert found.latents.to_pylist() == given["latents"]
    assert found.strong == given["strong"]
    store, (a, b) = Store(), (result["run_a"], result["run_b"])
    store.import_new(copied)
    sums = store.namesakes.comparisons(of_strong=True).set_index(["run_a", "run_b"])
    assert sums["median_value"].tolist() == [0.625, 0.625]
    assert sums.loc[(b, a), "only_b"] == 1
    assert set(store.namesakes.comparisons()["median_value"]) == {result["median_value"]}
    table = store.namesakes.table(a, b, of_strong=True)
    assert table["latent_a"].tolist() == by_interval(given["latents"], prefix="strong_")
    first = given["latents"][0]
    from_b = store.namesakes.pairs(b, a, [first["latent_b"]], of_strong=True).iloc[0]
    assert (from_b["uses_a"], from_b["uses_b"], from_b["rank_a"]) == (4, 3, 2)
    assert len(store.namesakes.table(a, b, "denser")) == len(given["latents"]), "each pair once"
    latent = first["latent_a"]
    for of_strong, known in ((True, 0.0), (False, first["correlation"])):
        other = store.latents.elsewhere(a, latent, of_strong).set_index("run_id").loc[b]
        assert other["compared_strong"] == of_strong
        assert other["correlation"] == known or known is None


def test_a_comparison_that_tells_no_strong_uses_answers_of_all_where_others_do(result, copied):
    save_latent_comparison(latent_comparisons_folder(copied), result)
    store = Store()
    store.import_new(copied)
    assert store.namesakes.comparisons(of_strong=True).empty
    row = next(row for row in result["latents"] if row["correlation"] is not None)
    table = store.latents.elsewhere(result["run_a"], row["latent_a"], True).set_index("run_id")
    assert table.loc[result["run_b"], "correlation"] == row["correlation"]
    assert not table.loc[result["run_b"], "compared_strong"]


def test_a_comparison_is_kept_as_it_is(result, tmp_path):
    path = save_latent_comparison(tmp_path, result)
    found = read_latent_comparison(path)
    names = list(kept.ABOUT)[:-1]
    assert {name: found.about[name] for name in names} == {name: result[name] for name in names}
    assert found.latents.to_pylist() == result["latents"]
    assert found.settings == {"max_tokens": N_WORDS, "corpus": None}
    assert save_latent_comparison(tmp_path, result) == path
    assert read_latent_comparisons(tmp_path)[0][0].about["created"] > found.about["created"]


def test_files_that_can_not_be_read_cost_no_other(result, tmp_path):
    save_latent_comparison(tmp_path, result)
    for name, content in (("a", b"no table"), ("b", b"")):
        (tmp_path / f"{name}.parquet").write_bytes(content)
    pq.write_table(pa.table({"latent_a": [1]}), tmp_path / "c.parquet")
    [found], failed = read_latent_comparisons(tmp_path)
    assert found.about["run_a"] == result["run_a"]
    assert isinstance(failed, RunError)
    assert "Delete it and compare again" in str(failed)
    with pytest.raises(RunError, match="it is no comparison of latents"):
        read_latent_comparison(tmp_path / "c.parquet")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": kept.FORMAT_VERSION + 1}, "newer version"),
        ({"tokens": "many"}, "its tokens is 'many'"),
        ({"best_value": "x"}, "its best_value is 'x'"),
        ({"run_a": None}, "its run_a is None"),
        ({"run_b": "\ud800"}, "its run_b is"),
        ({"tokens": 2**70}, "22 digits"),
        ({"settings": {"max_tokens": "many", "corpus": None}}, "its max_tokens is 'many'"),
        ({"settings": {"max_tokens": 9, "corpus": {"name": " "}}}, "Give a corpus"),
        ({"settings": {"max_tokens": 9, "corpus": "sotu"}}, "compare again"),
        ({"settings": "many"}, "compare again"),
        ({"strong": {"compared": 3}}, "compare again"),
    ],
)
def test_a_header_that_says_what_it_can_not_is_refused(result, tmp_path, change, said):
    path = save_latent_comparison(tmp_path, result)
    table = pq.read_table(path)
    header = {**json.loads(table.schema.metadata[b"itda"]), **change}
    pq.write_table(table.replace_schema_metadata({b"itda": json.dumps(header)}), path)
    with pytest.raises(RunError, match=said):
        read_latent_comparison(path)


def test_the_store_answers_from_either_side(result, copied):
    save_latent_comparison(latent_comparisons_folder(copied), result)
    store, (a, b) = Store(), (result["run_a"], result["run_b"])
    store.import_new(copied)
    table = store.namesakes.comparisons().set_index(["run_a", "run_b"])
    assert set(table.index) == {(a, b), (b, a)}
    assert table.loc[(a, b), "best_value"] == result["best_value"]
    assert table.loc[(b, a), "only_a"] == result["only_b"]
    assert table.loc[(b, a), "alone_b"] == result["alone_a"]
    there, back = store.namesakes.table(a, b), store.namesakes.table(b, a)
    assert len(there) == len(back) == result["compared"]
    assert sorted(there["latent_a"]) == sorted(back["latent_b"])
    assert there["latent_a"].tolist() == by_interval(result["latents"])
    alike = store.namesakes.table(a, b, "most_alike")["latent_a"].tolist()
    assert alike == by_interval(result["latents"], -1)
    used = store.namesakes.numbers(a, b, min_uses=MIN_USES)
    assert used[:10] == [row["latent_a"] for row in most_changed(result["latents"])]
    by_latent = {row["latent_a"]: row for row in result["latents"]}
    for row in there.to_dict("records"):
        known = by_latent[row["latent_a"]]
        assert row["density_a"] == known["uses_a"] / result["tokens"]
        assert row["alone_b"] == pytest.approx(1 - known["uses_both"] / known["uses_b"])
    sources = pd.read_parquet(copied / a / "sources.parquet").set_index("latent")
    names = ["token", "prompt_id", "position"]
    assert there[names].to_numpy().tolist() == sources.loc[there["latent_a"], names].values.tolist()


def test_lists_and_histogram_of_the_store(result, copied):
    rows = [
        {"latent_a": n, "latent_b": n, "correlation": value, "rank_a": rank, "rank_b": rank,
         "uses_a": here, "uses_b": there, "uses_both": 0}
        for n, (value, rank, here, there) in enumerate([
            (-1.0, 9, 5, 9), (1.0, 1, 40, 40), (0.99, 1, 30, 10), (None, None, 7, 0),
            (None, None, 0, 8), (None, None, 0, 0), (0.05, 3, 10, 30),
        ])
    ]  # fmt: skip
    save_latent_comparison(latent_comparisons_folder(copied), {**result, "latents": rows})
    store, pair = Store(), (result["run_a"], result["run_b"])
    store.import_new(copied)
    listed = {
        order: store.namesakes.table(*pair, order)["latent_a"].tolist()
        for order in ("most_changed", "most_alike", "only_a", "only_b", "denser", "sparser")
    }
    assert listed == {
        "most_changed": [0, 6, 2, 1],
        "most_alike": [1, 2, 6, 0],
        "only_a": [3],
        "only_b": [4],
        "denser": [6, 4, 0, 1, 5, 3, 2],
        "sparser": [2, 3, 1, 5, 0, 4, 6],
    }
    assert store.namesakes.table(*pair, rows=2, first=1)["latent_a"].tolist() == [6, 2]
    assert store.namesakes.table(*pair, min_uses=30)["latent_a"].tolist() == [6, 2, 1]
    assert store.namesakes.histogram(*pair, bins=4)["latents"].tolist() == [1, 0, 1, 2]
    assert store.namesakes.histogram(*pair, bins=4)["low"].tolist() == [-1, -0.5, 0, 0.5]
    [other] = store.namesakes.pairs(*pair[::-1], [2]).itertuples()
    assert (other.latent_b, other.correlation) == (2, 0.99), "the same from the other side"
    with pytest.raises(InputError, match="There is no order"):
        store.namesakes.table(*pair, "x")


def test_latents_are_found_by_their_labels(result, copied):
    row = result["latents"][0]
    source = pd.read_parquet(copied / result["run_a"] / "sources.parquet").set_index("latent")
    about = source.loc[row["latent_a"]]
    names = result["run_a"], row["latent_a"], about["prompt_id"], int(about["position"])
    add_changes(labels_file(copied), [Change(Label(*names, label="Treaties of peace"))])
    save_latent_comparison(latent_comparisons_folder(copied), result)
    store, pair = Store(), (result["run_a"], result["run_b"])
    store.import_new(copied)
    found = store.namesakes.table(*pair, "denser", label="TREATIES")
    assert found["latent_a"].tolist() == [row["latent_a"]]
    assert found["label"].tolist() == ["Treaties of peace"]
    has_value = row["correlation"] is not None
    assert store.namesakes.histogram(*pair, label="treaties")["latents"].sum() == has_value


def test_only_comparisons_of_the_runs_as_they_are(result, copied):
    folder = latent_comparisons_folder(copied)
    save_latent_comparison(folder, result)
    save_latent_comparison(folder, {**result, "run_b": "gone", "digest_b": "x"})
    store = Store()
    store.import_new(copied)
    assert len(store.namesakes.comparisons()) == 2
    odd = save_latent_comparison(folder, {**result, "digest_a": "x", "created_a": "yesterday"})
    newer = Store()
    newer.import_new(copied)
    assert newer.namesakes.comparisons().empty
    odd.unlink()
    edit_about(copied / result["run_b"], created="2031-01-01T00:00:00+00:00")
    anew = Store()
    anew.import_new(copied)
    assert anew.namesakes.comparisons().empty
    assert anew.namesakes.table(result["run_a"], result["run_b"]).empty


def test_a_rebuilt_database_has_them_and_a_damaged_one_keeps_no_other_out(result, copied):
    folder = latent_comparisons_folder(copied)
    save_latent_comparison(folder, result)
    (folder / "0.parquet").write_bytes(b"damaged")
    file = copied.parent / "explorer.duckdb"
    with pytest.raises(RunError, match=r"0\.parquet is damaged"):
        rebuild(file, copied)
    store = Store(file)
    assert len(store.namesakes.comparisons()) == 2
    store.close()


def test_the_command_prints_and_keeps_it(runs, result, folder, cli):
    names = [runs.first.run_id, runs.other.run_id]
    options = ["--runs", str(folder / "runs"), "--max-tokens", str(N_WORDS)]
    code, printed, _ = cli("compare-latents", *names, *options, "--json", "--save")
    assert code == 0
    assert json.loads(printed) == result
    [found], failed = read_latent_comparisons(latent_comparisons_folder(folder / "runs"))
    assert failed is None
    assert found.about["median_value"] == result["median_value"]
    shutil.rmtree(latent_comparisons_folder(folder / "runs"))
    _, table, _ = cli("compare-latents", *names, *options)
    assert f"{result['best_value']:.4f}" in table
    for row in most_changed(result["latents"]):
        assert f"{row['correlation']:.4f}" in table
    heads = [line.split() for line in table.splitlines() if line.startswith(("nam", "latent_a"))]
    explained = table.replace("density_a", "density").replace("density_b", "density")
    for name in {"low", "high", "chance", *heads[0], *heads[1]} - set(EXPLAIN_THEMSELVES):
        name = "density" if name.startswith("density") else name
        assert explained.lower().count(name.removesuffix("s")) > 1, f"{name} is not explained"


def made_again(made, runs, data, cli):
    """The one comparison that is kept after the queue's job has made it again; data: the folder
    that the runs' folder is in."""
    jobs = []
    queue = SimpleNamespace(enqueue=lambda *job, device: jobs.append((*job, device)))
    submit_comparison_again(queue, made, runs, "cpu")
    [(command, arguments, title, device)] = jobs
    assert device == "cpu"
    assert title.startswith("Same latents in ")
    assert cli(command, *arguments, "--runs", str(data / "runs"))[0] == 0
    [found], _ = read_latent_comparisons(latent_comparisons_folder(data / "runs"))
    return found


def test_a_comparison_is_made_again_of_the_same_tokens(runs, folder, tmp_path, cli):
    words = "The Senate will ratify this treaty with Spain after a long debate number"
    texts = tmp_path / "-texts.csv"
    texts.write_text("".join(f"{n};{words} {n}\n" for n in range(40)))
    corpus = CorpusSpec(str(texts), column="column 2", separator=";", header=False)
    path = latent_comparisons_folder(folder / "runs")
    save_latent_comparison(path, compared(runs.other, runs.first, 300, corpus=corpus))
    [made], _ = read_latent_comparisons(path)
    of_both = runs.first, runs.other
    found = made_again(made, of_both, folder, cli)
    assert {**found.about, "created": ""} == {**made.about, "created": ""}
    assert found.about["run_a"] == runs.other.run_id
    assert found.settings == made.settings
    assert found.latents == made.latents
    # One that has no settings: as many tokens of the texts that it names.
    save_latent_comparison(path, compared(runs.other, runs.first, 200))
    [made], _ = read_latent_comparisons(path)
    found = made_again(dataclasses.replace(made, settings=None), of_both, folder, cli)
    names = ("run_a", "held_out", "corpus", "tokens")
    assert [found.about[name] for name in names] == [made.about[name] for name in names]
    shutil.rmtree(path)


def test_what_a_kept_comparison_takes_the_place_of_is_said(runs, result, folder, cli):
    names = [runs.first.run_id, runs.other.run_id]
    options = ["--runs", str(folder / "runs"), "--save", "--max-tokens"]
    folder = latent_comparisons_folder(folder / "runs")
    _, printed, _ = cli("compare-latents", *names, *options, str(N_WORDS))
    assert printed.endswith("\nKept beside the runs.\n")
    [found], _ = read_latent_comparisons(folder)
    when = found.about["created"][:16].replace("T", " ")
    said = (
        f"Kept beside the runs, in place of the one of {when} UTC: {names[0]} and {names[1]} on "
        f"{result['tokens']:,} {result['unit']}s of held-out prompts of {result['corpus']}. "
        "Of each two runs the newest is shown.\n"
    )
    _, printed, told = cli("compare-latents", *reversed(names), *options, "300", "--json")
    assert told.endswith(said)
    [found], _ = read_latent_comparisons(folder)
    assert found.about["tokens"] == json.loads(printed)["tokens"] == 300
    assert found.about["run_a"] == names[1]
    shutil.rmtree(folder)
