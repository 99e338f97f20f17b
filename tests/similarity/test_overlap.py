"""Matrices of sets against plain set arithmetic; chance, seeds and intervals against slow ones."""

import itertools

import numpy as np
import pytest

from itda_core.errors import ComparisonError
from itda_core.similarity.dictionaries import compare, jaccard, jaccard_matrix, model_comparison
from itda_core.similarity.overlap import RESAMPLES, compare_all, prompt_weights
from itda_core.similarity.source_sets import SourceSet
from tests.support.made_sources import PROMPT_IDS, P, Q, R, made, offered_all, rows


def many_made(seed, prompt_ids=PROMPT_IDS, **changes):
    """Dictionaries of all sizes down to none, drawn from tokens of which three share a word."""
    random = np.random.default_rng(seed)
    tokens = [(prompt, position) for prompt in prompt_ids[:4] for position in range(10)]
    found = []
    for layer, n_atoms in enumerate((25, 12, 0, 30, 1)):
        sources = [tokens[number] for number in random.permutation(len(tokens))[:n_atoms]]
        words = [-1 if position == 0 else position // 3 for _, position in sources]
        found.append(made(sources, prompt_ids, words=words, layer=layer, **changes))
    return found


def plain_set(dictionary, key, prompts):
    """Keys of the sources of the given prompts, for dictionaries made by `made`."""
    return {name for name in ordered_keys(dictionary, key) if name[0] in prompts}


def ordered_keys(dictionary, key):
    found = []
    for (prompt, position), word in zip(rows(dictionary.sources), dictionary.words, strict=True):
        name = ("token", position) if key == "token" or word < 0 else ("word", int(word))
        found.append((prompt, *name))
    return found


def assert_is_pairwise(matrix, a, b, key):
    """The matrix against set arithmetic, each pair on the prompts that both were offered."""
    for (i, one), (j, other) in itertools.product(enumerate(a), enumerate(b)):
        prompts = set(one.prompt_ids) & set(other.prompt_ids)
        set_a, set_b = plain_set(one, key, prompts), plain_set(other, key, prompts)
        assert matrix.shared[i, j] == len(set_a & set_b)
        assert matrix.union[i, j] == len(set_a | set_b)
        assert matrix.reasons[i, j] == ""
        expected = len(set_a & set_b) / len(set_a | set_b) if set_a | set_b else 0.0
        assert matrix.jaccard[i, j] == expected


def single(dictionaries):
    return [{0: SourceSet.of(one)} for one in dictionaries]


@pytest.mark.parametrize("key", ["token", "word"])
def test_a_matrix_is_what_plain_sets_give_pair_by_pair(key):
    a, b = many_made(0), many_made(1)[:4]
    matrix = compare_all(single(a), single(b), key)
    assert matrix.shared.shape == (5, 4)
    assert matrix.shared.max() > 5
    assert_is_pairwise(matrix, a, b, key)
    assert np.array_equal(jaccard_matrix(a, b, key), matrix.jaccard)


@pytest.mark.parametrize("key", ["token", "word"])
def test_in_a_matrix_each_pair_has_its_own_common_prompts(key):
    a = [*many_made(2), *many_made(3, prompt_ids=PROMPT_IDS[:2])]
    b = [*many_made(4, prompt_ids=PROMPT_IDS[:3]), *many_made(5), *many_made(6)]
    matrix = compare_all(single(a), single(b), key)
    assert_is_pairwise(matrix, a, b, key)
    everything = [*b, *a]
    assert_is_pairwise(
        compare_all(single(everything), single(everything), key), everything, everything, key
    )


def test_what_cannot_be_compared_has_its_reason_beside_the_rest():
    marked = many_made(3, tokenizer="other")
    a, b = many_made(0), [*many_made(1), *marked]
    matrix = compare_all(single(a), single(b), "token")
    for (i, one), (j, other) in itertools.product(enumerate(a), enumerate(marked, start=5)):
        with pytest.raises(ComparisonError, match="different tokenizers") as caught:
            jaccard(one, other)
        assert matrix.reasons[i, j] == str(caught.value)
        assert np.isnan(matrix.jaccard[i, j])
        assert matrix.shared[i, j] == matrix.union[i, j] == 0
    assert (matrix.reasons[:, :5] == "").all()
    assert np.array_equal(matrix.jaccard[:, :5], jaccard_matrix(a, b[:5]))
    assert_is_pairwise(compare_all(single(a), single(b), "word"), a, b, "word")
    with pytest.raises(ComparisonError, match="different tokenizers"):
        jaccard_matrix(a, b)


def test_dictionaries_that_name_no_prompts_are_compared_by_all_their_sources():
    a, b = made([(P, 1), (Q, 1)], ()), made([(Q, 1), (R, 1)], ())
    assert jaccard_matrix([a, b], [a, b]).tolist() == [[1, 1 / 3], [1 / 3, 1]]


def test_a_matrix_of_nothing_is_empty():
    assert jaccard(made([], ()), made([], ())) == 0.0
    assert compare(made([], ()), made([], ())).chance == 0.0
    assert jaccard_matrix([], [made([])]).shape == (0, 1)
    assert jaccard_matrix([made([])], [made([])]).tolist() == [[0.0]]


def test_a_matrix_refuses_an_unknown_key():
    with pytest.raises(ComparisonError, match="token, word, got 'letter'"):
        compare_all([], [], "letter")


@pytest.mark.parametrize("key", ["token", "word"])
def test_a_matrix_of_models_is_their_comparison_pair_by_pair(key):
    usual, short = many_made(0), many_made(1, prompt_ids=PROMPT_IDS[:2])
    far, other = many_made(2), many_made(3, reading="64 tokens")
    models = [
        {0: usual[0], 1: usual[1], 2: usual[2]},
        {0: far[3], 1: far[0], 2: far[1]},
        {0: short[0], 1: short[3]},
        {1: usual[3], 2: far[0], 5: short[1]},
        {2: other[0]},
        {2: usual[3]},
        {9: usual[0]},
    ]
    sides = [{layer: SourceSet.of(one) for layer, one in model.items()} for model in models]
    matrix = compare_all(sides, sides, key)
    for (i, a), (j, b) in itertools.product(enumerate(models), enumerate(models)):
        try:
            found = model_comparison(a, b, key)
            expected = found.jaccard, len(found.shared), found.union, ""
        except ComparisonError as error:
            expected = None, 0, 0, str(error)
        known = None if np.isnan(matrix.jaccard[i, j]) else matrix.jaccard[i, j]
        assert (known, matrix.shared[i, j], matrix.union[i, j], matrix.reasons[i, j]) == expected
    assert "no layer in common" in matrix.reasons[0, 6]
    assert "64 tokens" in matrix.reasons[0, 4]
    assert matrix.reasons[0, 3] == matrix.reasons[2, 0] == ""


def test_900_pairs_are_900_set_computations():
    a, b = (
        [one for seed in seeds for one in many_made(seed)] for seeds in (range(6), range(6, 12))
    )
    matrix = compare_all(single(a), single(b))
    assert matrix.shared.shape == (30, 30)
    assert_is_pairwise(matrix, a, b, "token")


# Chance


def test_chance_is_what_sets_of_these_sizes_share_on_average():
    # 6 prompts of 5 tokens: N = 30. |A| = 3, |B| = 4: 3 · 4 / 30 = 0.4 shared of 7 - 0.4 in either.
    pool = offered_all(5)
    a = made([(P, 1), (P, 2), (Q, 1)], pool=pool)
    b = made([(P, 2), (Q, 1), (Q, 2), (R, 1)], pool=pool)
    found = compare(a, b)
    assert (found.pool_size, found.is_assumed) == (30, False)
    assert found.chance == pytest.approx(0.4 / 6.6)
    matrix = compare_all(single([a]), single([b]))
    assert matrix.expected[0, 0] == pytest.approx(0.4)
    assert matrix.chance[0, 0] == found.chance


def test_by_word_chance_draws_from_the_words():
    # Tokens 0 1, 2 3 and 4 of each prompt are a word each: N = 18. Two words and one word.
    pool = offered_all(5, per_word=2)
    a = made([(P, 0), (P, 1), (P, 4)], words=[0, 0, 6], pool=pool)
    b = made([(P, 2)], words=[3], pool=pool)
    found = compare(a, b, "word")
    assert (found.pool_size, found.size_a, found.size_b) == (18, 2, 1)
    assert found.chance == pytest.approx((2 / 18) / (3 - 2 / 18))


def test_chance_draws_only_from_what_both_were_offered():
    # A could choose from 4 tokens of a prompt, B from 6: N = 24, and B has 2 sources among them.
    a = made([(P, 1), (Q, 1)], pool=offered_all(4))
    b = made([(P, 1), (P, 2), (P, 5)], pool=offered_all(6))
    found = compare(a, b)
    assert (found.pool_size, found.size_a, found.size_b) == (24, 2, 3)
    assert found.chance == pytest.approx((2 * 2 / 24) / (5 - 2 * 2 / 24))
    assert compare(b, a).chance == found.chance


def test_random_sets_have_the_index_of_chance():
    random, pool = np.random.default_rng(0), offered_all(100)
    tokens = [(prompt, position) for prompt in PROMPT_IDS for position in range(100)]
    dictionaries = [
        made([tokens[number] for number in random.permutation(600)[:200]], pool=pool)
        for _ in range(12)
    ]
    matrix = compare_all(single(dictionaries[:6]), single(dictionaries[6:]))
    assert matrix.chance == pytest.approx(0.2)  # 66.7 of 333.3
    assert matrix.jaccard.mean() == pytest.approx(0.2, abs=0.01)
    assert ((matrix.low < 0.2) & (matrix.high > 0.2)).mean() > 0.6


def test_for_models_chance_draws_unions_from_the_union_of_what_was_offered():
    few, many = offered_all(4), offered_all(6)
    a = {0: made([(P, 1)], pool=few), 1: made([(P, 2), (P, 1)], pool=many)}
    b = {0: made([(Q, 1)], pool=few), 1: made([(P, 5)], pool=many)}
    found = model_comparison(a, b)
    assert (found.pool_size, found.size_a, found.size_b, found.intersection) == (36, 2, 2, 0)
    assert found.chance == pytest.approx((4 / 36) / (4 - 4 / 36))


def test_where_nothing_is_known_of_the_tokens_chance_is_told_too_high_and_marked():
    # Up to the furthest source: positions 1 to 4 of P and 1 of Q.
    a, b = made([(P, 1), (P, 4)]), made([(Q, 1)])
    found = compare(a, b)
    assert (found.pool_size, found.is_assumed) == (5, True)
    assert found.chance == pytest.approx((2 / 5) / (3 - 2 / 5))
    by_word = compare(a, b, "word")
    assert (by_word.pool_size, by_word.is_assumed) == (0, True)
    assert np.isnan(by_word.chance)
    known = compare(made([(P, 1), (P, 4)], pool=offered_all(5)), b)
    assert (known.pool_size, known.is_assumed) == (30, False)


# Seeds


def test_what_one_side_took_without_choice_counts_for_neither():
    # A's seed is (P, 0), B's (Q, 0), which A chose. Left: A = {P1, P2}, B = {P2, P3}; N = 30 - 2.
    pool = offered_all(5)
    a = made([(P, 0), (P, 1), (P, 2), (Q, 0)], pool=pool, n_seed_atoms=1)
    b = made([(Q, 0), (P, 2), (P, 3)], pool=pool, n_seed_atoms=1)
    found = compare(a, b)
    assert found.jaccard == jaccard(a, b) == 1 / 3
    assert (found.size_a, found.size_b, found.union, found.pool_size) == (2, 2, 3, 28)
    assert found.chance == pytest.approx((4 / 28) / (4 - 4 / 28))
    assert rows(found.shared) == [(P, 2)]
    assert rows(found.only_a) == [(P, 1)]
    published = compare(a, b, seeds=True)
    assert published.jaccard == jaccard(a, b, seeds=True) == 2 / 5
    assert (published.size_a, published.size_b, published.pool_size) == (4, 3, 30)


def test_by_word_the_word_of_a_seed_is_left_out_whole():
    pool = offered_all(6, per_word=2)
    a = made([(P, 0), (P, 1), (P, 2)], words=[0, 0, 3], pool=pool, n_seed_atoms=1)
    b = made([(P, 1), (P, 3), (P, 4)], words=[0, 3, 6], pool=pool)
    found = compare(a, b, "word")
    assert (found.intersection, found.union, found.pool_size) == (1, 2, 17)


def test_a_seed_of_one_layer_is_left_out_of_the_whole_model():
    a = {0: made([(P, 0), (P, 1)], n_seed_atoms=1), 1: made([(P, 2), (P, 0)], n_seed_atoms=1)}
    b = {0: made([(P, 1), (P, 2)]), 1: made([(P, 3)])}
    found = model_comparison(a, b)
    assert rows(found.shared) == [(P, 1)]
    assert rows(found.only_b) == [(P, 3)]
    assert (found.size_a, found.size_b) == (1, 2)


def test_dictionaries_of_nothing_but_seeds_have_no_choice_to_compare():
    a = made([(P, 0), (P, 1)], n_seed_atoms=2, pool=offered_all(2, 1), prompt_ids=PROMPT_IDS[:1])
    found = compare(a, a)
    assert (found.jaccard, found.chance, found.union, found.pool_size) == (0.0, 0.0, 0, 0)


# Intervals


@pytest.mark.parametrize("key", ["token", "word"])
@pytest.mark.parametrize("seeds", [0, 3])
def test_the_interval_is_that_of_a_slow_loop_over_the_same_draws(key, seeds):
    a, b = many_made(0, n_seed_atoms=seeds), many_made(1, n_seed_atoms=0)
    matrix = compare_all(single(a), single(b), key)
    weights = prompt_weights(len(PROMPT_IDS))
    assert weights.shape == (RESAMPLES, 6)
    assert (weights.sum(1) == 6).all()
    everything = set(PROMPT_IDS)
    for (i, one), (j, other) in itertools.product(enumerate(a), enumerate(b)):
        unchosen = {
            name
            for side in (one, other)
            for name in itertools.islice(ordered_keys(side, key), side.n_seed_atoms)
        }
        set_a, set_b = (plain_set(side, key, everything) - unchosen for side in (one, other))
        values = []
        for draw in weights:
            times = dict(zip(PROMPT_IDS, draw, strict=True))
            shared, union = (
                sum(times[name[0]] for name in names) for names in (set_a & set_b, set_a | set_b)
            )
            values.append(shared / union if union else 0.0)
        assert matrix.low[i, j] == pytest.approx(np.percentile(values, 2.5))
        assert matrix.high[i, j] == pytest.approx(np.percentile(values, 97.5))
        assert matrix.shared[i, j] == len(set_a & set_b)


def test_a_pair_has_the_interval_of_its_cell_and_always_the_same():
    a, b = many_made(0, n_seed_atoms=2), many_made(1)
    matrix = compare_all(single(a), single(b))
    for (i, one), (j, other) in itertools.product(enumerate(a), enumerate(b)):
        found = compare(one, other)
        assert (found.low, found.high) == (matrix.low[i, j], matrix.high[i, j])
        assert (found.size_a, found.size_b) == (matrix.size_a[i, j], matrix.size_b[i, j])
        assert found.intersection == len(found.shared)


def test_one_prompt_gives_no_interval():
    a = made([(P, 1), (P, 2)], prompt_ids=(P,))
    found = compare(a, a)
    assert found.jaccard == 1.0
    assert np.isnan(found.low)
    assert np.isnan(found.high)
