"""Detection scores: planted titles are found out, and what is drawn is what it is said to be."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from itda_core.cli.parser import make_parser
from itda_core.errors import RunError
from itda_core.evaluation.detection import (
    AGAINST,
    EMBEDDER,
    SAMPLE,
    Nearness,
    auroc,
    best_threshold,
    detect,
    detection_scores,
    embed,
    mean_interval,
    shares,
    threshold_accuracy,
)
from itda_core.evaluation.detection_examples import (
    DRAWN,
    MIN_USES,
    QUARTERS,
    Examples,
    draw_examples,
    draw_latents,
)
from itda_core.model.loading import load_model
from itda_core.runs.latent_uses import CodeTable, read_tokens, title_tokens
from itda_core.runs.run import Run, list_runs
from tests.support.slow_thresholds import slow_threshold
from tests.support.tiny_models import save_tiny_model
from tests.support.trained_runs import shared_runs

KINDS = ["all", *QUARTERS, "positive", "negative", "leading", "strong"]


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_model_folder, tiny_corpus_file):
    return list_runs(shared_runs(tmp_path_factory, tiny_model_folder, tiny_corpus_file))[1]


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory):
    return load_model(str(save_tiny_model(tmp_path_factory.mktemp("bert") / "tiny-bert", "bert")))


@pytest.fixture(scope="module")
def minilm(model_cache):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ITDA_DATA", str(model_cache))
        return load_model(EMBEDDER, device="cpu")


def tables(run):
    """prompts, sources and codes of a run, as they are."""
    names = ("prompts", "sources", "codes")
    return [pd.read_parquet(run.directory / f"{name}.parquet") for name in names]


def last(steps):
    return [*steps][-1]


# AUROC, threshold, interval


def test_auroc_is_that_of_scikit_learn():
    draw = np.random.default_rng(0)
    uses = draw.integers(0, 9, (7, 12)).astype(float)  # few values, many ties
    others = draw.integers(0, 7, (7, 5)).astype(float)
    uses[2, 3:] = np.nan
    others[4, 0] = np.nan
    for number, found in enumerate(auroc(uses, others)):
        near, far = (row[~np.isnan(row)] for row in (uses[number], others[number]))
        truth = [1] * len(near) + [0] * len(far)
        assert found == pytest.approx(roc_auc_score(truth, np.concatenate([near, far])))


def test_auroc_is_no_number_where_there_is_nothing_to_tell():
    found = auroc(np.array([[np.nan, np.nan], [2, 3]]), np.array([[1.0], [1.0]]))
    assert np.isnan(found[0])
    assert found[1] == 1


def test_the_threshold_is_the_best_there_is():
    draw = np.random.default_rng(1)
    uses, others = draw.normal(0.5, 1, 40).round(1), draw.normal(0, 1, 25).round(1)
    truth = [1] * 40 + [0] * 25
    values = np.concatenate([uses, others])
    scores = [balanced_accuracy_score(truth, values > t) for t in np.linspace(-4.05, 4.05, 82)]
    chosen = best_threshold(uses, others)
    assert balanced_accuracy_score(truth, values > chosen) == pytest.approx(max(scores))


def test_the_threshold_is_measured_on_the_other_half_of_the_latents():
    """On latents 0 and 2 it lies between 1 and 2, on latents 1 and 3 between 3 and 4. So on the
    other half each tells the one from the other only where it is on the right side by chance."""
    uses, others = np.array([[2.0], [4], [2], [4]]), np.array([[1.0], [3], [1], [3]])
    assert threshold_accuracy(uses, others) == 0.5
    assert threshold_accuracy(uses[[0, 2]], others[[0, 2]]) == 1
    assert threshold_accuracy(uses[:1], others[:1]) is None  # no other half


def test_the_interval_of_a_mean_is_that_of_its_standard_error():
    values = np.random.default_rng(2).normal(0.7, 0.1, 400)
    found = mean_interval(np.concatenate([values, [np.nan]]))
    assert found["latents"] == 400
    assert found["auroc"] == pytest.approx(values.mean())
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * 0.1 / 20, rel=0.15)
    assert mean_interval(np.array([np.nan]))["auroc"] is None


# Planted nearness


def planted(n_latents, seed=0):
    """Titles, and for each latent 20 uses, 20 others and 20 alike: consecutive numbers."""
    numbers = np.arange(n_latents * 61).reshape(n_latents, 61)
    uses, alike = {}, {}
    for kind in KINDS:
        uses[kind], alike[kind] = numbers[:, 1:21], numbers[:, 41:]
    return numbers[:, 0], Examples(uses, alike, numbers[:, 21:41])


def units(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_a_title_that_lies_at_its_uses_tells_them_from_all_others():
    titles, examples = planted(30)
    draw = np.random.default_rng(3)
    centres = draw.normal(size=(30, 50))
    vectors = 0.5 * draw.normal(size=(30 * 61, 50))
    for latent in range(30):
        vectors[[titles[latent], *examples.uses["all"][latent]]] += centres[latent]
    rows, by_latent = detection_scores(
        Nearness(np.arange(30 * 61), units(vectors)), titles, examples
    )
    assert [(row["uses"], row["against"]) for row in rows] == [
        (kind, against) for kind in KINDS for against in AGAINST
    ]
    for row in rows:
        assert row["latents"] == 30
        assert row["low"] <= row["auroc"] <= row["high"]
        assert row["auroc"] > 0.99
        assert row["accuracy"] > 0.95
        assert 0.4 < row["shuffled"] < 0.6
    assert by_latent.mean() == pytest.approx(rows[0]["auroc"])


def test_titles_that_say_nothing_score_as_chance_does():
    titles, examples = planted(300)
    vectors = np.random.default_rng(4).normal(size=(300 * 61, 20))
    rows, _ = detection_scores(Nearness(np.arange(300 * 61), units(vectors)), titles, examples)
    for row in rows:
        assert row["low"] < 0.51
        assert row["high"] > 0.49
        assert row["accuracy"] == pytest.approx(0.5, abs=0.02)


def test_against_the_same_token_a_use_without_one_is_left_out():
    """Latent 0's first use is far off, but nothing is alike beside it."""
    titles, examples = planted(2)
    vectors = np.tile(units(np.array([[1.0, 1.0]])), (2 * 61, 1))
    vectors[titles] = vectors[examples.uses["all"]] = [1, 0]
    vectors[examples.uses["all"][0, 0]] = [0, 1]
    alike = examples.alike["all"].copy()
    alike[0, 0] = -1
    examples = examples._replace(alike=dict.fromkeys(KINDS, alike))
    rows, _ = detection_scores(Nearness(np.arange(2 * 61), vectors), titles, examples)
    assert rows[0]["auroc"] == pytest.approx((19 / 20 + 1) / 2)
    assert rows[1]["auroc"] == 1


def test_nearness_is_the_cosine_and_no_number_where_something_is_missing():
    vectors = units(np.array([[1.0, 0], [1, 1], [0, 3], [1, 0]]))
    vectors[3] = 0
    nearness = Nearness(np.array([4, 7, 9, 12]), vectors)
    found = nearness.of(np.array([4, 12]), np.array([[7, 9, 12, -1, 4], [7, 9, 12, -1, 4]]))
    np.testing.assert_allclose(found[0], [0.5**0.5, 0, np.nan, np.nan, 1], atol=1e-6)
    assert np.isnan(found[1]).all()


# What a run directory says


def test_the_tokens_that_were_read_are_those_of_the_tokenizer(run, tiny_model):
    prompts, _, _ = tables(run)
    tokens = read_tokens(prompts)
    assert tokens.offsets[-1] == len(tokens.spans) == len(tokens.prompts) == len(tokens.words)
    of_word = {}
    for number, text in enumerate(prompts["text"]):
        read = tiny_model.tokenize([text], 32)
        first, end = tokens.offsets[number], tokens.offsets[number + 1]
        length = end - first
        assert length == read.lengths[0] or number == len(prompts) - 1  # the last is cut to fit
        assert tokens.spans[first:end].tolist() == read.spans[0, :length].tolist()
        assert set(tokens.prompts[first:end]) == {number}
        assert text.startswith(tokens.texts[number])
        assert len(tokens.texts[number]) == read.spans[0, length - 1, 1]
        for token in range(first, end):
            seen = read.token_text(0, token - first).strip().casefold()
            if seen:
                assert of_word.setdefault(tokens.words[token], seen) == seen
            else:
                assert tokens.words[token] == -1
    assert len({*of_word.values()}) == len(of_word)


def test_titles_are_the_tokens_of_the_sources(run):
    prompts, sources, _ = tables(run)
    tokens = read_tokens(prompts)
    titles = title_tokens(sources, prompts, tokens)
    assert len(titles) == len(sources)
    for title, source in zip(titles, sources.itertuples(), strict=True):
        if not source.token.strip():
            assert title == -1
            continue
        assert prompts["prompt_id"][tokens.prompts[title]] == source.prompt_id
        assert tokens.spans[title].tolist() == [source.start, source.end]
    sources.loc[0, "prompt_id"] = "0" * 16
    sources.loc[1, "position"] = 10_000
    assert title_tokens(sources, prompts, tokens)[:2].tolist() == [-1, -1]


def slow_uses(prompts, codes, tokens):
    """{latent: {token: coefficient}} by loops."""
    numbers = {name: number for number, name in enumerate(prompts["prompt_id"])}
    found = {}
    for row in codes.itertuples():
        token = tokens.offsets[numbers[row.prompt_id]] + row.position
        of_latent = found.setdefault(row.latent, {})
        of_latent[token] = of_latent.get(token, 0.0) + row.coefficient
    return found


@pytest.mark.parametrize("rows", [None, 101], ids=["as written", "tokens fall apart"])
def test_uses_are_the_sums_of_the_codes(run, tmp_path, rows):
    prompts, _, codes = tables(run)
    path = run.directory / "codes.parquet"
    if rows:
        path = tmp_path / "codes.parquet"
        codes.to_parquet(path, row_group_size=rows)
    tokens = read_tokens(prompts)
    expected = slow_uses(prompts, codes, tokens)
    uses = CodeTable(path, prompts, tokens).uses_of(np.array([3, 60, 17]))
    assert set(uses) == {3, 17, 60}
    for latent, table in uses.items():
        found = dict(zip(table["token"], table["coefficient"], strict=True))
        assert found == pytest.approx(expected[latent])


def test_a_survey_counts_uses_outside_the_prompt_of_the_title(run):
    prompts, sources, codes = tables(run)
    tokens = read_tokens(prompts)
    titles = title_tokens(sources, prompts, tokens)
    survey = CodeTable(run.directory / "codes.parquet", prompts, tokens).survey(titles)
    largest = {}
    for latent, used in slow_uses(prompts, codes, tokens).items():
        outside = [
            token
            for token in used
            if titles[latent] >= 0
            and tokens.words[token] >= 0
            and tokens.prompts[token] != tokens.prompts[titles[latent]]
        ]
        assert survey.uses[latent] == len(outside)
        for token, coefficient in used.items():
            largest[token] = max(largest.get(token, 0), abs(coefficient))
    assert np.flatnonzero(survey.explored).tolist() == sorted(largest)
    np.testing.assert_allclose(
        survey.largest[sorted(largest)], [*map(largest.get, sorted(largest))]
    )


def test_a_coefficient_of_zero_is_no_use(run, tmp_path):
    prompts, sources, codes = tables(run)
    codes.loc[codes["latent"] == 5, "coefficient"] = 0.0
    codes.to_parquet(tmp_path / "codes.parquet")
    tokens = read_tokens(prompts)
    table = CodeTable(tmp_path / "codes.parquet", prompts, tokens)
    assert table.survey(title_tokens(sources, prompts, tokens)).uses[5] == 0
    assert set(table.uses_of(np.array([5, 6]))) == {6}


# What is drawn


@pytest.fixture(scope="module")
def drawn(run):
    """Everything that drawing needs, and what it draws for 30 latents."""
    prompts, sources, _ = tables(run)
    tokens = read_tokens(prompts)
    titles = title_tokens(sources, prompts, tokens)
    table = CodeTable(run.directory / "codes.parquet", prompts, tokens)
    survey = table.survey(titles)
    latents = draw_latents(np.where(survey.uses >= 5, MIN_USES, 0), 30, 0)
    uses = table.uses_of(latents)
    arguments = (latents, uses, titles[latents], tokens, survey)
    return (*arguments, draw_examples(*arguments, seed=0))


def test_latents_are_drawn_from_those_with_enough_uses():
    uses = np.array([MIN_USES, MIN_USES - 1, 500, 0, MIN_USES + 1])
    assert set(draw_latents(uses, 10, 0)) == {0, 2, 4}
    assert len(draw_latents(uses, 2, 0)) == 2
    many = np.full(1_000, MIN_USES)
    one, again, other = (draw_latents(many, 50, seed).tolist() for seed in (0, 0, 1))
    assert one == again != other


def test_what_is_drawn_is_what_it_is_said_to_be(drawn):
    latents, uses, titles, tokens, survey, examples = drawn
    assert list(examples.uses) == list(examples.alike) == KINDS
    assert examples.others.shape == (30, DRAWN)
    assert (examples.others >= 0).all()
    for kind in KINDS:
        assert (examples.uses[kind] >= 0).any()
        assert (examples.alike[kind] >= 0).any()
    for row, latent in enumerate(latents):
        used = dict(zip(uses[latent]["token"], uses[latent]["coefficient"], strict=True))
        everything = [examples.others[row], *(some[row] for some in examples.uses.values())]
        everything += [some[row] for some in examples.alike.values()]
        for some in everything:
            real = some[some >= 0]
            assert survey.explored[real].all()
            assert (tokens.words[real] >= 0).all()
            assert (tokens.prompts[real] != tokens.prompts[titles[row]]).all()
        for kind, some in examples.uses.items():
            real = some[row][some[row] >= 0].tolist()
            assert len({*real}) == len(real)
            assert {*real} <= {*used}
            alike = examples.alike[kind][row]
            for token, other in zip(some[row], alike, strict=True):
                if other >= 0:
                    assert tokens.words[token] == tokens.words[other]
        for some in [examples.others[row], *(alike[row] for alike in examples.alike.values())]:
            assert not {*some[some >= 0].tolist()} & {*used}
        positive, negative, leading = (
            [used[token] for token in examples.uses[kind][row] if token >= 0]
            for kind in ("positive", "negative", "leading")
        )
        assert all(value > 0 for value in positive)
        assert all(value < 0 for value in negative)
        led = examples.uses["leading"][row]
        assert np.abs(leading) == pytest.approx(survey.largest[led[led >= 0]])


def elsewhere(drawn, row):
    """Coefficients of a latent's uses outside the prompt of its title, by token."""
    latents, uses, titles, tokens, *_ = drawn
    table = uses[latents[row]]
    return {
        token: np.float32(coefficient)
        for token, coefficient in zip(table["token"], table["coefficient"], strict=True)
        if tokens.prompts[token] != tokens.prompts[titles[row]]
    }


def test_strong_uses_are_those_above_the_threshold_of_the_signs(drawn):
    for row, some in enumerate(drawn[-1].uses["strong"]):
        coefficients = elsewhere(drawn, row)
        expected = slow_threshold([*map(float, coefficients.values())])
        strong = {token for token, c in coefficients.items() if expected and c >= expected[0]}
        usable = {token for token in strong if drawn[3].words[token] >= 0}
        assert {*some[some >= 0].tolist()} <= usable
        assert (some >= 0).sum() == min(DRAWN, len(usable))


def test_strong_uses_by_a_share_hold_it_and_the_others_stay_as_they_are(drawn):
    *arguments, examples = drawn
    found = draw_examples(*arguments, seed=0, strong_share=0.3)
    for row, some in enumerate(found.uses["strong"]):
        coefficients = elsewhere(drawn, row)
        held, total, cut = 0.0, sum(float(c) ** 2 for c in coefficients.values()), np.inf
        for c in sorted((float(c) for c in coefficients.values() if c > 0), reverse=True):
            if held < 0.3 * total:
                held, cut = held + c**2, c
        is_held = held >= 0.3 * total
        wanted = {token for token, c in coefficients.items() if is_held and c >= cut}
        assert {*some[some >= 0].tolist()} <= wanted
        some_of_it = {token for token in wanted if arguments[3].words[token] >= 0}
        assert (some >= 0).sum() == min(DRAWN, len(some_of_it))
    for kind in KINDS[:-1]:
        assert found.uses[kind].tolist() == examples.uses[kind].tolist()
        assert found.alike[kind].tolist() == examples.alike[kind].tolist()


def test_quarters_run_from_the_weakest_uses_to_the_strongest(drawn):
    latents, uses, _, _, _, examples = drawn
    for row, latent in enumerate(latents):
        used = dict(zip(uses[latent]["token"], uses[latent]["coefficient"].abs(), strict=True))
        sizes = [
            [used[token] for token in examples.uses[quarter][row] if token >= 0]
            for quarter in QUARTERS
        ]
        for weaker, stronger in itertools.pairwise(sizes):
            assert max(weaker) <= min(stronger)
        together = np.concatenate([examples.uses[quarter][row] for quarter in QUARTERS])
        assert examples.uses["all"][row].tolist() == together.tolist()


def test_what_is_drawn_for_a_latent_depends_on_the_seed_alone(drawn):
    latents, uses, titles, tokens, survey, examples = drawn
    some = draw_examples(latents[7:9], uses, titles[7:9], tokens, survey, seed=0)
    assert some.others.tolist() == examples.others[7:9].tolist()
    assert some.uses["all"].tolist() == examples.uses["all"][7:9].tolist()
    other = draw_examples(latents[7:9], uses, titles[7:9], tokens, survey, seed=1)
    assert other.others.tolist() != some.others.tolist()


def test_a_token_without_another_of_its_text_has_none_beside_it(drawn):
    """Where a word is there once, nothing can stand beside it."""
    latents, uses, titles, tokens, survey, _ = drawn
    words = np.arange(len(tokens.words))
    alone = tokens._replace(words=words)
    found = draw_examples(latents, uses, titles, alone, survey, seed=0)
    assert (found.alike["all"] == -1).all()


# The judge


def test_an_embedding_is_the_mean_of_the_tokens_that_share_its_characters():
    wanted = np.array([[0, 4], [3, 9], [9, 12], [20, 24]])
    spans = np.array([[0, 0], [0, 3], [4, 9], [9, 10], [11, 12], [0, 0]])
    assert shares(wanted, spans).tolist() == [
        [0, 1, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 0],
        [0, 0, 0, 0.5, 0.5, 0],
        [0, 0, 0, 0, 0, 0],
    ]


def test_embeddings_are_those_of_one_prompt_at_a_time(run, tiny_bert, monkeypatch):
    monkeypatch.setattr("itda_core.evaluation.detection._EMBED_TOGETHER", 3)
    prompts, _, _ = tables(run)
    tokens = read_tokens(prompts)
    needed = np.sort(np.random.default_rng(5).choice(len(tokens.words), 120, replace=False))
    vectors = np.zeros((120, 16))
    steps = []
    for read, rows, some in embed(tiny_bert, tokens, needed):
        vectors[rows] = some
        steps.append(read)
    assert steps[-1] == len(set(tokens.prompts[needed]))
    for place, token in enumerate(needed):
        text = tokens.texts[tokens.prompts[token]]
        start, end = tokens.spans[token]
        encoded = tiny_bert.tokenizer(text, return_offsets_mapping=True, return_tensors="pt")
        with torch.no_grad():
            hidden = tiny_bert.module(encoded["input_ids"]).last_hidden_state[0]
        meets = [min(e, end) > max(s, start) for s, e in encoded["offset_mapping"][0].tolist()]
        expected = hidden[torch.tensor(meets)].mean(0).numpy() if any(meets) else np.zeros(16)
        expected = expected / max(np.linalg.norm(expected), 1e-12)
        np.testing.assert_allclose(vectors[place], expected, atol=1e-4)


# The whole way, from a run directory


WORDS = ["treaty", "river", "farmers", "ships", "people", "house", "senate", "price"]


def written_run(folder, latents, n_prompts=120):
    """A run directory as far as detection reads it: prompts of eight words in mixed order, a token
    being a word. latents: (the title's word, by word whether a token uses it) of each."""
    draw = np.random.default_rng(6)
    prompts, places = [], []
    for number in range(n_prompts):
        words = draw.permutation(WORDS)
        ends = np.cumsum([len(word) + 1 for word in words]) - 1
        starts = ends - [len(word) for word in words]
        name = f"{number:016x}"
        prompts.append((name, " ".join(words), "", True, starts, ends))
        places += [(name, position, word) for position, word in enumerate(words)]
    columns = ["prompt_id", "text", "title", "explored", "starts", "ends"]
    pd.DataFrame(prompts, columns=columns).to_parquet(folder / "prompts.parquet")
    sources, codes = [], []
    for latent, (title, is_use) in enumerate(latents):
        name, position, word = next(place for place in places if place[2] == title)
        sources.append((latent, name, position, 0, 1, word))
        for name, position, word in places:
            if is_use(word):
                codes.append((latent, name, position, 0, draw.normal() or 1.0))
    for name, position, _ in places:  # a latent without a title that every token uses
        codes.append((len(latents), name, position, 1, 1e-3))
    sources.append((len(latents), "f" * 16, 0, 0, 0, ""))
    columns = ["latent", "prompt_id", "position", "start", "end", "token"]
    pd.DataFrame(sources, columns=columns).to_parquet(folder / "sources.parquet")
    columns = ["latent", "prompt_id", "position", "step", "coefficient"]
    pd.DataFrame(codes, columns=columns).to_parquet(folder / "codes.parquet")
    return Run(folder, {"run_id": "written"}, {})


def test_a_latent_used_by_its_titles_word_is_told_and_one_used_anywhere_is_not(tmp_path, minilm):
    draw = np.random.default_rng(7)
    own = [(word, lambda other, word=word: other == word) for word in WORDS]
    (tmp_path / "own").mkdir()
    found = last(detect(written_run(tmp_path / "own", own), minilm))
    assert {row["title"] for row in found.latents} == {*WORDS}  # none without a title
    assert found.scores[0]["auroc"] > 0.95
    assert found.scores[0]["accuracy"] > 0.85
    assert found.scores[0]["shuffled"] < 0.6
    # Every token of the title's word uses the latent: no token of that text is left to tell from.
    assert found.scores[1]["latents"] == 0
    anywhere = [(word, lambda _: draw.random() < 0.5) for word in WORDS * 10]
    (tmp_path / "anywhere").mkdir()
    found = last(detect(written_run(tmp_path / "anywhere", anywhere), minilm))
    for row in found.scores[:2]:
        assert row["latents"] == len(anywhere)
        assert row["auroc"] == pytest.approx(0.5, abs=0.04)


def test_detecting_yields_progress_and_rows_that_json_can_hold(run, tiny_bert, monkeypatch):
    monkeypatch.setattr("itda_core.evaluation.detection._EMBED_TOGETHER", 8)
    monkeypatch.setattr("itda_core.evaluation.detection_examples.MIN_USES", 12)
    steps = [(step.prompts, step.total_prompts) for step in detect(run, tiny_bert, 20)]
    assert steps == sorted(steps)
    assert steps[-1][0] == steps[-1][1]
    assert len(steps) > 2
    one, again = (last(detect(run, tiny_bert, 20)) for _ in range(2))
    assert json.loads(json.dumps([one.scores, one.latents])) == [one.scores, one.latents]
    assert one == again
    assert [(row["uses"], row["against"]) for row in one.scores] == [
        (kind, against) for kind in KINDS for against in AGAINST
    ]
    assert len(one.latents) <= 20
    values = [row["auroc"] for row in one.latents]
    assert values == sorted(values, reverse=True)
    assert np.mean(values) == pytest.approx(one.scores[0]["auroc"])
    sources = run.dictionary().sources
    for row in one.latents:
        assert row["title"] == sources["token"][row["latent"]]
        assert row["uses"] >= 12


def test_a_run_with_too_few_uses_is_refused(run, tiny_bert, monkeypatch):
    for module in ("detection", "detection_examples"):
        monkeypatch.setattr(f"itda_core.evaluation.{module}.MIN_USES", 10_000)
    with pytest.raises(RunError, match="10000 explored tokens"):
        last(detect(run, tiny_bert))


def test_the_command_line_has_the_same_default():
    assert make_parser().parse_args(["detect", "x"]).latents == SAMPLE
