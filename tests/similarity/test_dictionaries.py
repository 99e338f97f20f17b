"""Jaccard between dictionaries: hand-worked, and trained ones as plain sets."""

import itertools
import re

import numpy as np
import pytest

from itda_core.corpus.corpus import prompt_id
from itda_core.errors import ComparisonError
from itda_core.runs.run import list_runs
from itda_core.similarity.dictionaries import compare, jaccard, jaccard_matrix, model_comparison
from tests.support.made_sources import P, Q, R, made, rows
from tests.support.tiny_models import save_tiny_model
from tests.support.trained_runs import shared_runs, tiny_config, trained

# Hand-worked


def test_by_token_two_of_five_sources_are_shared():
    a = made([(P, 1), (P, 2), (Q, 1)])
    b = made([(P, 2), (Q, 1), (Q, 2), (R, 1)])
    assert jaccard(a, b) == 2 / 5


def test_the_comparison_lists_what_is_shared_and_what_is_not():
    a = made([(P, 1), (P, 2), (Q, 1)])
    b = made([(Q, 9), (Q, 1), (P, 2), (R, 1)])
    found = compare(a, b)
    latents = zip(found.shared["latent"], found.shared["latent_b"], strict=True)
    assert dict(zip(rows(found.shared), latents, strict=True)) == {(P, 2): (1, 2), (Q, 1): (2, 1)}
    assert rows(found.only_a) == [(P, 1)]
    assert set(rows(found.only_b)) == {(Q, 9), (R, 1)}
    assert (found.intersection, found.union, found.size_a, found.size_b) == (2, 5, 3, 4)
    assert found.jaccard == 2 / 5


def test_the_same_position_of_another_prompt_is_another_token():
    assert jaccard(made([(P, 1)]), made([(Q, 1)])) == 0.0


def test_empty_dictionaries_have_nothing_in_common():
    empty, one = made([]), made([(P, 1)])
    assert jaccard(empty, empty) == 0.0
    assert jaccard(empty, one) == jaccard(one, empty) == 0.0


def test_an_unknown_key_is_refused_with_those_there_are():
    with pytest.raises(ComparisonError, match="token, word, got 'letter'"):
        jaccard(made([]), made([]), "letter")


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


def names(dictionary, key, texts, first=None):
    """Sources as a plain set of (prompt, token position) or (prompt, first character of word);
    first: only so many of them."""
    found = set()
    for source in dictionary.sources.head(len(dictionary) if first is None else first).itertuples():
        second = source.position
        if key == "word":  # a word that holds the token's first character, or the one after it
            words = re.finditer(r"\S+", texts[source.prompt_id])
            second = next((word.start() for word in words if word.end() > source.start), None)
        if key == "word" and source.start == source.end:
            second = source.token, source.position
        found.add((source.prompt_id, second))
    return found


def plain_sets(a, b, key, texts, seeds):
    """Both sides, lists of dictionaries, as sets of the prompts they have in common; without the
    first 16, d_model, of each dictionary unless `seeds`."""
    common = set(a[0].prompt_ids) & set(b[0].prompt_ids)
    unchosen = set().union(*(names(one, key, texts, 0 if seeds else 16) for one in (*a, *b)))
    return (
        {
            name
            for name in set().union(*(names(one, key, texts) for one in side)) - unchosen
            if name[0] in common
        }
        for side in (a, b)
    )


def assert_is(found, set_a, set_b):
    assert found.jaccard == len(set_a & set_b) / len(set_a | set_b)
    assert (found.intersection, found.union) == (len(set_a & set_b), len(set_a | set_b))
    assert (found.size_a, found.size_b) == (len(set_a), len(set_b))
    assert (len(found.shared), len(found.only_a), len(found.only_b)) == (
        len(set_a & set_b),
        len(set_a - set_b),
        len(set_b - set_a),
    )
    assert found.low <= found.jaccard <= found.high


@pytest.fixture(scope="module")
def texts(tiny_texts):
    return {prompt_id(text): text for text in tiny_texts}


@pytest.mark.parametrize("seeds", [False, True])
@pytest.mark.parametrize("key", ["token", "word"])
def test_trained_dictionaries_compare_as_plain_sets(dictionaries, others, texts, key, seeds):
    for a, b in itertools.product(dictionaries.values(), others.values()):
        set_a, set_b = plain_sets([a], [b], key, texts, seeds)
        found = compare(a, b, key, seeds)
        assert_is(found, set_a, set_b)
        assert 0 < found.jaccard < 1
        assert jaccard(a, b, key, seeds) == found.jaccard


def test_the_seed_atoms_lift_the_index_and_are_left_out_by_default(dictionaries, others):
    a, b = dictionaries[1], others[1]
    assert a.n_seed_atoms == b.n_seed_atoms == 16
    assert jaccard(a, b) < jaccard(a, b, seeds=True)
    assert compare(a, b).pool_size == compare(a, b, seeds=True).pool_size - 16


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


@pytest.mark.parametrize("seeds", [False, True])
@pytest.mark.parametrize("key", ["token", "word"])
@pytest.mark.parametrize("layers", [(1,), (0, 2), (0, 1, 2)])
def test_two_models_are_compared_by_the_union_over_their_common_layers(
    dictionaries, others, texts, key, layers, seeds
):
    a = {layer: dictionaries[layer] for layer in layers} | {7: dictionaries[1]}
    b = {layer: others[layer] for layer in layers} | {9: others[0]}
    sides = ([one[layer] for layer in layers] for one in (a, b))
    set_a, set_b = plain_sets(*sides, key, texts, seeds)
    found = model_comparison(a, b, key, seeds)
    assert_is(found, set_a, set_b)
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
    set_a, set_b = plain_sets([short], [dictionaries[1]], "token", texts, seeds=False)
    assert_is(compare(short, dictionaries[1]), set_a, set_b)


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
    set_a, set_b = plain_sets([other], [dictionaries[1]], "word", texts, seeds=False)
    assert len(set_a & set_b) > 5
    assert_is(compare(other, dictionaries[1], "word"), set_a, set_b)
