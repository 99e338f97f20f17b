"""Jaccard between dictionaries: hand-worked, as plain sets, and across tokenizers."""

import itertools
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import save_tiny_model, tiny_module, tiny_tokenizer
from trained import shared_runs, tiny_config, trained

from itda_core.config import HookPoint
from itda_core.corpus import prompt_id
from itda_core.dictionary import Dictionary
from itda_core.errors import ComparisonError
from itda_core.models import Model
from itda_core.runs import list_runs
from itda_core.similarity import (
    SourceSet,
    compare,
    compare_all,
    jaccard,
    jaccard_matrix,
    model_comparison,
)

PROMPT_IDS = tuple(prompt_id(f"prompt {number}") for number in range(6))
P, Q, R = PROMPT_IDS[:3]


def made(sources, prompt_ids=PROMPT_IDS, tokenizer="one", words=None, layer=0, reading=""):
    """A dictionary of given sources (prompt, position); words: the character of each, or none."""
    table = pd.DataFrame(
        {
            "latent": range(len(sources)),
            "prompt_id": [prompt for prompt, _ in sources],
            "position": [position for _, position in sources],
            "start": [3 * position for _, position in sources],
            "end": [3 * position + 2 for _, position in sources],
            "token": [f"t{position}" for _, position in sources],
        }
    ).astype({"position": "int64", "start": "int64", "end": "int64"})
    return Dictionary(
        atoms=torch.nn.functional.normalize(torch.randn(len(sources), 4), dim=1),
        offset=torch.zeros(4),
        l0=2,
        hook_point=HookPoint("a/model", layer),
        sources=table,
        words=np.array([] if words is None else words, dtype=np.int64),
        prompt_ids=tuple(prompt_ids),
        tokenizer=tokenizer,
        reading=reading,
    )


def rows(table):
    return list(zip(table["prompt_id"], table["position"], strict=True))


# Hand-worked


def test_by_token_two_of_five_sources_are_shared():
    a = made([(P, 1), (P, 2), (Q, 1)])
    b = made([(P, 2), (Q, 1), (Q, 2), (R, 1)])
    assert jaccard(a, b) == 2 / 5


def test_the_comparison_lists_what_is_shared_and_what_is_not():
    a = made([(P, 1), (P, 2), (Q, 1)])
    b = made([(Q, 9), (Q, 1), (P, 2), (R, 1)])
    found = compare(a, b)
    assert rows(found.shared) == [(P, 2), (Q, 1)]
    assert found.shared["latent"].tolist() == [1, 2]
    assert found.shared["latent_b"].tolist() == [2, 1]
    assert rows(found.only_a) == [(P, 1)]
    assert rows(found.only_b) == [(Q, 9), (R, 1)]
    assert found.union == 5
    assert found.jaccard == 2 / 5


def test_the_same_position_of_another_prompt_is_another_token():
    assert jaccard(made([(P, 1)]), made([(Q, 1)])) == 0.0


def test_by_word_the_pieces_of_a_word_count_once():
    # A has three pieces of the word at 0 and one of the word at 8, B one of each and one at 20.
    a = made([(P, 1), (P, 2), (P, 3), (P, 4)], words=[0, 0, 0, 8])
    b = made([(P, 1), (P, 5), (P, 9)], words=[0, 8, 20])
    assert jaccard(a, b, "word") == 2 / 3
    assert jaccard(a, b, "token") == 1 / 6
    found = compare(a, b, "word")
    assert rows(found.shared) == [(P, 1), (P, 4)]
    assert found.shared["latent_b"].tolist() == [0, 1]
    assert rows(found.only_b) == [(P, 9)]


def test_special_tokens_share_no_word_with_each_other_or_with_the_first_word():
    a = made([(P, 0), (P, 1)], words=[-1, 0])
    b = made([(P, 7), (P, 1)], words=[-1, 0])
    assert jaccard(a, b, "word") == 1 / 3
    assert jaccard(a, a, "word") == 1.0


def test_empty_dictionaries_have_nothing_in_common():
    empty, one = made([]), made([(P, 1)])
    assert jaccard(empty, empty) == 0.0
    assert jaccard(empty, one) == jaccard(one, empty) == 0.0


def test_different_tokenizers_are_refused_by_token_and_compared_by_word():
    # "the 🎉🎉 the" has its words at the characters 0, 4 and 7. One tokenizer takes words with the
    # space before them: the · 🎉🎉 · the. The other takes bytes: t h e · · 🎉🎉 in 8 · · t h e.
    words = made([(P, 1), (P, 2)], tokenizer="words", words=[4, 7])
    data = made([(P, 1), (P, 2), (P, 5), (P, 9), (P, 13)], tokenizer="bytes", words=[0, 0, 4, 4, 7])
    with pytest.raises(ComparisonError, match=r'different tokenizers.*by word \(key="word"\)'):
        jaccard(words, data, "token")
    assert jaccard(words, data, "word") == jaccard(data, words, "word") == 2 / 3
    found = compare(words, data, "word")
    assert set(rows(found.shared)) == set(rows(words.sources))
    assert dict(zip(found.shared["latent"], found.shared["latent_b"], strict=True)) == {0: 2, 1: 4}
    assert rows(found.only_b) == [(P, 1)]


def test_an_unknown_key_is_refused_with_those_there_are():
    with pytest.raises(ComparisonError, match="token, word, got 'letter'"):
        jaccard(made([]), made([]), "letter")


# Matrices


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
    found = set()
    for (prompt, position), word in zip(rows(dictionary.sources), dictionary.words, strict=True):
        name = ("token", position) if key == "token" or word < 0 else ("word", int(word))
        if prompt in prompts:
            found.add((prompt, *name))
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
@pytest.mark.parametrize("block", [None, 70, 1])
def test_a_matrix_is_what_plain_sets_give_pair_by_pair(key, block, monkeypatch):
    if block:  # a few keys at a time, or one
        pass
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


# Prompts


def test_different_prompts_are_refused_with_the_reason():
    a = made([(P, 1)], PROMPT_IDS)
    others = [prompt_id(f"other {number}") for number in range(4)]
    for wrong in (
        tuple(others),  # none in common
        (*PROMPT_IDS[:3], *others),  # some
        tuple(reversed(PROMPT_IDS)),  # all, in another order
        PROMPT_IDS[1:],
        (),
    ):
        b = made([(P, 1)], wrong, layer=3)
        for one, other in ((a, b), (b, a)):
            with pytest.raises(ComparisonError, match="different prompts") as caught:
                jaccard(one, other)
            assert f"they share {len(set(wrong) & set(PROMPT_IDS))} of" in str(caught.value)
            assert "a/model layer 3" in str(caught.value)
            assert "Train both with the same corpus and seed" in str(caught.value)


def test_only_the_prompts_that_both_were_offered_count():
    fewer = made([(P, 1), (Q, 1)], PROMPT_IDS[:2])
    more = made([(P, 1), (Q, 2), (R, 1), (R, 2)], PROMPT_IDS)
    for a, b in ((fewer, more), (more, fewer)):
        found = compare(a, b)
        assert found.jaccard == 1 / 3
        assert found.union == 3
        assert R not in {*found.only_a["prompt_id"], *found.only_b["prompt_id"]}


# Trained dictionaries, as plain sets


@pytest.fixture(scope="module")
def dictionaries(tmp_path_factory, tiny_model_folder, tiny_corpus_file):
    folder = shared_runs(tmp_path_factory, tiny_model_folder, tiny_corpus_file)
    return {run.layer: run.dictionary() for run in list_runs(folder)}


@pytest.fixture(scope="module")
def others(tmp_path_factory, tiny_model_folder, tiny_corpus_file):
    """The same layers with another threshold, so that other tokens are chosen."""
    folder = tmp_path_factory.mktemp("others")
    trained(tiny_config(tiny_model_folder, tiny_corpus_file, threshold=0.12), folder)
    return {run.layer: run.dictionary() for run in list_runs(folder)}


def names(dictionary, key, texts):
    """Sources as a plain set of (prompt, token position) or (prompt, first character of word)."""
    found = set()
    for source in dictionary.sources.itertuples():
        second = source.position
        if key == "word":  # a word that holds the token's first character, or the one after it
            words = re.finditer(r"\S+", texts[source.prompt_id])
            second = next((word.start() for word in words if word.end() > source.start), None)
        if key == "word" and source.start == source.end:
            second = source.token, source.position
        found.add((source.prompt_id, second))
    return found


@pytest.fixture(scope="module")
def texts(tiny_texts):
    return {prompt_id(text): text for text in tiny_texts}


@pytest.mark.parametrize("key", ["token", "word"])
def test_trained_dictionaries_compare_as_plain_sets(dictionaries, others, texts, key):
    for a, b in itertools.product(dictionaries.values(), others.values()):
        set_a, set_b = names(a, key, texts), names(b, key, texts)
        found = compare(a, b, key)
        assert found.jaccard == len(set_a & set_b) / len(set_a | set_b)
        assert 0 < found.jaccard < 1
        assert found.union == len(set_a | set_b)
        assert (len(found.shared), len(found.only_a), len(found.only_b)) == (
            len(set_a & set_b),
            len(set_a - set_b),
            len(set_b - set_a),
        )


@pytest.mark.parametrize("key", ["token", "word"])
def test_the_index_is_symmetric_and_one_with_itself(dictionaries, others, key):
    everything = [*dictionaries.values(), *others.values()]
    matrix = jaccard_matrix(everything, everything, key)
    assert matrix.shape == (6, 6)
    assert matrix.dtype == np.float64
    assert np.array_equal(matrix, matrix.T)
    assert np.array_equal(np.diag(matrix), np.ones(6))
    assert ((matrix >= 0) & (matrix <= 1)).all()
    pairwise = [[jaccard(one, other, key) for other in everything] for one in everything]
    assert matrix.tolist() == pairwise
    part = jaccard_matrix(everything[:2], everything[3:], key)
    assert np.array_equal(part, matrix[:2, 3:])
    assert part[1, 0] == jaccard(everything[1], everything[3], key)


@pytest.mark.parametrize("key", ["token", "word"])
@pytest.mark.parametrize("layers", [(1,), (0, 2), (0, 1, 2)])
def test_two_models_are_compared_by_the_union_over_their_common_layers(
    dictionaries, others, texts, key, layers
):
    a = {layer: dictionaries[layer] for layer in layers} | {7: dictionaries[1]}
    b = {layer: others[layer] for layer in layers} | {9: others[0]}
    set_a, set_b = (
        set().union(*(names(one[layer], key, texts) for layer in layers)) for one in (a, b)
    )
    found = model_comparison(a, b, key)
    assert found.jaccard == len(set_a & set_b) / len(set_a | set_b)
    assert found.union == len(set_a | set_b)
    assert len(found.shared) == len(set_a & set_b)
    assert len(found.only_a) == len(set_a - set_b)
    assert len(found.only_b) == len(set_b - set_a)
    if key == "token":
        assert set(rows(found.only_a)) == set_a - set_b


def test_models_without_a_common_layer_are_refused(dictionaries):
    with pytest.raises(ComparisonError, match=r"no layer in common: train one that is"):
        model_comparison({0: dictionaries[0]}, {1: dictionaries[1]})
    with pytest.raises(ComparisonError, match="no layer in common"):
        model_comparison({}, {1: dictionaries[1]})


def test_a_shorter_training_compares_on_the_prompts_of_the_shorter(
    tmp_path, tiny_model_folder, tiny_corpus_file, dictionaries, texts
):
    config = tiny_config(tiny_model_folder, tiny_corpus_file, max_tokens=400, layers=(1,))
    trained(config, tmp_path)
    short = list_runs(tmp_path)[0].dictionary()
    assert 0 < len(short.prompt_ids) < len(dictionaries[1].prompt_ids)
    common = set(short.prompt_ids)
    set_a = names(short, "token", texts)
    set_b = {one for one in names(dictionaries[1], "token", texts) if one[0] in common}
    assert jaccard(short, dictionaries[1]) == len(set_a & set_b) / len(set_a | set_b)


# Different tokenizers


def test_models_with_different_tokenizers_compare_by_word_as_plain_sets(
    tmp_path, tiny_corpus_file, dictionaries, texts
):
    folder = save_tiny_model(tmp_path / "tiny-bert", "bert")  # it puts marks around each text
    config = tiny_config(folder, tiny_corpus_file, layers=(1,), threshold=0.02)
    trained(config, tmp_path / "runs")
    other = list_runs(tmp_path / "runs")[0].dictionary()
    assert "[SEP]" in set(other.sources["token"])
    with pytest.raises(ComparisonError, match="different tokenizers"):
        jaccard(other, dictionaries[1])
    common = set(other.prompt_ids) & set(dictionaries[1].prompt_ids)
    set_a, set_b = (
        {name for name in names(one, "word", texts) if name[0] in common}
        for one in (other, dictionaries[1])
    )
    assert len(set_a & set_b) > 5
    found = compare(other, dictionaries[1], "word")
    assert found.jaccard == len(set_a & set_b) / len(set_a | set_b)
    assert found.union == len(set_a | set_b)


def test_a_tokenizer_that_puts_marks_before_the_text_is_another_one():
    """The vocabulary is the same, yet every position is one further."""
    plain, marked = (
        Model("tiny", tiny_module(), tiny_tokenizer(with_marks)).tokenizer_digest
        for with_marks in (False, True)
    )
    assert plain != marked
    assert plain == Model("other", tiny_module(seed=1), tiny_tokenizer()).tokenizer_digest


def test_dictionaries_that_read_different_parts_of_the_prompts_are_refused():
    a, b = made([(P, 1)]), made([(P, 1)])
    a, b = replace(a, reading="64 tokens"), replace(b, reading="128 tokens")
    with pytest.raises(ComparisonError, match="64 tokens; 128 tokens"):
        jaccard(a, b)
