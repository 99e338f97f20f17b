"""The order of sources and the counts of words, against hand-worked numbers."""

import math

import pandas as pd
import pytest

from itda_core.similarity.dictionaries import compare
from itda_core.similarity.log_odds import by_log_odds, word_counts
from tests.support.made_sources import P, Q, made


def listed(*tokens):
    return pd.DataFrame({"latent": range(len(tokens)), "token": tokens})


def test_log_odds_are_those_of_the_formula():
    # ship: 3 of A's 4 and 1 of B's 6; prior 4 of 10, and 1 for words that neither has.
    a, b = listed("ship", " Ship", "ship ", "the"), listed("ship", *["the"] * 5)
    found = word_counts(a, b).set_index("word")
    odds_a, odds_b = (3 + 4) / (4 + 11 - 3 - 4), (1 + 4) / (6 + 11 - 1 - 4)
    expected = math.log(odds_a) - math.log(odds_b)
    assert found.loc["ship", ["only_a", "only_b"]].tolist() == [3, 1]
    assert found.loc["ship", "log_odds"] == pytest.approx(expected)
    assert found.loc["ship", "z"] == pytest.approx(expected / math.sqrt(1 / 7 + 1 / 5))
    assert found.loc["the", "z"] < 0


def test_words_that_tell_the_lists_apart_come_first_and_common_ones_last():
    a = listed(*["war"] * 20, *["the"] * 50, "peace")
    b = listed(*["tax"] * 20, *["the"] * 50, "law")
    found = word_counts(a, b)
    assert list(found.columns) == ["word", "only_a", "only_b", "log_odds", "z"]
    assert set(found["word"][:2]) == {"war", "tax"}
    assert found["word"].iloc[-1] == "the"
    assert found.set_index("word")["z"]["the"] == pytest.approx(0)
    mirrored = word_counts(b, a).set_index("word")["z"]
    assert (mirrored == -found.set_index("word")["z"][mirrored.index]).all()


def test_lists_take_one_source_of_each_word_in_turn_and_ties_keep_their_order():
    a = listed("the", " war", "the", "war", "war", " peace")
    b = listed("The", " law", "law", "LAW", "the")
    shared, only_a, only_b = by_log_odds(listed(" a", " a", "treaty"), a, b)
    # Of 6 and 5 sources: war 3 to 0, peace 1 to 0 and, as the other side has it more often, the.
    assert only_a["token"].tolist() == [" war", " peace", "war", "war", "the", "the"]
    assert only_a["latent"].tolist() == [1, 5, 3, 4, 0, 2]
    assert only_b["token"].tolist() == [" law", "The", "law", "the", "LAW"]
    assert shared["token"].tolist() == ["treaty", " a", " a"]
    # "treaty" is twice, "a" four times among the 3 + 3 + 6 + 5 sources of both.
    assert shared["score"].tolist() == pytest.approx([math.log(17 / 2)] + 2 * [math.log(17 / 4)])


def test_a_frequent_word_of_which_a_side_has_a_few_more_comes_behind_what_only_it_has():
    common = [f"w{number}" for number in range(1_000)]
    a = listed(*["the"] * 300, *common, *["tax"] * 8)
    b = listed(*["the"] * 200, *common, *["law"] * 108)
    words = word_counts(a, b).set_index("word")
    assert words["z"]["the"] > words["z"]["tax"]
    assert by_log_odds(listed().astype({"token": object}), a, b)[1]["token"].iloc[0] == "tax"


def test_nothing_on_a_side_is_no_trouble():
    empty = listed().astype({"token": object})
    assert word_counts(empty, empty).empty
    assert word_counts(listed("a"), empty)["z"].tolist() == pytest.approx([math.log(2) / 1], abs=1)
    shared, only_a, only_b = by_log_odds(empty, listed("a", "  "), empty)
    assert (len(shared), len(only_a), len(only_b)) == (0, 2, 0)


def test_comparisons_come_in_this_order():
    a = made([(P, 1), (P, 2), (P, 3), (P, 4)], tokens=["the", " ship", "ship", "x"])
    b = made([(Q, 1), (Q, 2), (P, 4)], tokens=["the", "the", "x"])
    assert compare(a, b).only_a["token"].tolist() == [" ship", "ship", "the"]
