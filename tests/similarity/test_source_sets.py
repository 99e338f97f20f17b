"""What a source is called by, across tokenizers, and which dictionaries compare."""

import re
from collections import UserDict
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from itda_core.activations.pool import CandidatePool
from itda_core.corpus.corpus import prompt_id
from itda_core.errors import ComparisonError
from itda_core.model.model import Model
from itda_core.model.tokens import tokenize, word_start, word_table
from itda_core.similarity.dictionaries import compare, compare_all, jaccard
from itda_core.similarity.source_sets import SourceSet, doubt_of_words, same_tokenizer
from tests.support.made_sources import PROMPT_IDS, P, Q, R, made, rows
from tests.support.tiny_models import tiny_module, tiny_tokenizer

# Words


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


def test_words_that_white_space_does_not_separate_are_doubted():
    """Twelve paragraphs of Chinese are twelve "words"."""
    chinese = ["參議院將批准與西班牙的條約商業將再次流動今晚我們的聯邦強大"] * 12
    english = ["the senate will ratify the treaty and commerce will flow again"] * 12
    for texts, is_doubted in ((chinese, True), (english, False)):
        starts = [[word_start(text, at) for at in range(0, len(text), 2)] for text in texts]
        words = np.concatenate(starts)
        counts = np.array([len(one) for one in starts])
        pool = CandidatePool.of(counts, np.concatenate([np.arange(n) for n in counts]), words)
        distinct = sum(len(set(one)) for one in starts)
        assert pool.tokens_per_word == len(words) / distinct
        side = {0: SourceSet.of(replace(made([(P, 1)]), pool=pool))}
        assert ("white space" in doubt_of_words([side])) == is_doubted
    assert doubt_of_words([{0: SourceSet.of(made([(P, 1)]))}]) == ""


def test_special_tokens_share_no_word_with_each_other_or_with_the_first_word():
    a = made([(P, 0), (P, 1)], words=[-1, 0])
    b = made([(P, 7), (P, 1)], words=[-1, 0])
    assert jaccard(a, b, "word") == 1 / 3
    assert jaccard(a, a, "word") == 1.0


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


def test_a_tokenizer_that_puts_marks_before_the_text_is_another_one():
    """The vocabulary is the same, yet every position is one further."""
    rest = ("", "model.layers")
    plain, marked = (
        Model("tiny", tiny_module(), tiny_tokenizer(with_marks), *rest).tokenizer_digest
        for with_marks in (False, True)
    )
    assert plain != marked
    assert plain == Model("other", tiny_module(seed=1), tiny_tokenizer(), *rest).tokenizer_digest


OLD, NEW, OTHER = "0123456789abcdef", "0123456789abcdef-aa", "0123456789abcdef-bb"


def named(tokenizer, model="a/model", digest="m"):
    dictionary = made([(P, 1)], tokenizer=tokenizer, model_digest=digest)
    return replace(dictionary, hook_point=replace(dictionary.hook_point, model=model))


@pytest.mark.parametrize(
    ("a", "b", "is_same"),
    [
        (named(NEW), named(NEW, "another"), True),
        (named(NEW), named(OTHER), False),
        # A digest of an earlier version names several tokenizers: it takes the same model.
        (named(OLD), named(NEW), True),
        (named(OLD), named(OLD), True),
        (named(OLD), named(NEW, "another"), False),
        (named(OLD), named(NEW, digest="changed"), False),
        (named(OLD), named(OLD, "another"), False),
        (named(OLD, digest="built-in-1"), named(NEW, "another", "built-in-1"), True),
        (named(OLD), named("f" * 16), False),
    ],
)
def test_by_token_dictionaries_compare_where_the_tokenizer_is_surely_one(a, b, is_same):
    for one, other in ((a, b), (b, a)):
        assert same_tokenizer(one, other) == is_same
        sides = [{0: SourceSet.of(each)} for each in (one, other)]
        matrix = compare_all(sides, sides, "token")
        assert (matrix.reasons[0, 1] == "") == is_same
        assert is_same or "tokenizer" in matrix.reasons[0, 1]
        assert matrix.reasons[0, 0] == matrix.reasons[1, 1] == ""
        assert compare_all(sides, sides, "word").reasons[0, 1] == ""


def test_a_tokenizer_that_is_not_named_is_not_taken_for_another_that_is_not():
    """Two folders of activations may be of two tokenizers, and say so of neither."""
    first, second = named(""), named("", "another")
    assert not same_tokenizer(first, second)
    for sides in ([{0: SourceSet.of(first)}], [{0: SourceSet.of(named(NEW))}]):
        others = [{0: SourceSet.of(second)}]
        assert "does not say which tokenizer" in compare_all(sides, others, "token").reasons[0, 0]
        assert compare_all(sides, others, "word").reasons[0, 0] == ""


def test_old_and_new_files_of_several_models_compare_pair_by_pair():
    sides = [named(NEW), named(NEW, "another"), named(OLD)]
    sides = [{0: SourceSet.of(dictionary)} for dictionary in sides]
    reasons = compare_all(sides, sides, "token").reasons
    assert ((reasons == "") == [[1, 1, 1], [1, 1, 0], [1, 0, 1]]).all()
    assert "earlier version" in reasons[1, 2]


def test_dictionaries_that_read_different_parts_of_the_prompts_are_refused():
    a, b = made([(P, 1)]), made([(P, 1)])
    a, b = replace(a, reading="64 tokens"), replace(b, reading="128 tokens")
    with pytest.raises(ComparisonError, match="64 tokens; 128 tokens"):
        jaccard(a, b)


TEXTS = [
    "the ship and the ship and the ship",
    "naïve cafe\u0301 e\u0301tude 東京 東京 👩‍👩‍👧 🎉🎉 the\u00a0end",
    "  two  spaces\n\nand lines ",
    "🎉",
]


def all_tokens(tokenizer, texts, name):
    """A dictionary whose sources are all the tokens of some texts."""
    tokens = tokenize(tokenizer, texts, 200)
    places = [
        (row, position) for row, length in enumerate(tokens.lengths) for position in range(length)
    ]
    ids = [prompt_id(text) for text in texts]
    return made(
        [(ids[row], position) for row, position in places],
        prompt_ids=ids,
        words=[tokens.word_start(*place) for place in places],
        tokens=[tokens.token_text(*place) for place in places],
        tokenizer=name,
    )


class Characters:
    """A tokenizer with a token for every character, white space too, and a mark at the end."""

    def __call__(self, texts, **_):
        spans = [[(i, i + 1) for i in range(len(text))] + [(0, 0)] for text in texts]
        found = {
            "input_ids": [list(range(len(one))) for one in spans],
            "offset_mapping": spans,
            "special_tokens_mask": [[0] * (len(one) - 1) + [1] for one in spans],
        }
        encoded = UserDict(found)
        encoded.encodings = [SimpleNamespace(overflowing=[]) for _ in texts]
        return encoded

    def convert_ids_to_tokens(self, _ids):
        return "<end>"


@pytest.mark.parametrize("text", TEXTS)
def test_tokenizers_that_split_differently_find_the_same_words(text):
    # Bytes (emoji and CJK in several tokens) against characters: the same words, each once,
    # though one has many more tokens; the mark at the end has no partner. White space at the end
    # belongs to a word that never comes, at the end of the text.
    bytewise = all_tokens(tiny_tokenizer(), [text], "bytes")
    characters = all_tokens(Characters(), [text], "characters")
    words = {match.start() for match in re.finditer(r"\S+", text)}
    words |= {len(text)} if text[-1].isspace() else set()
    found = compare(bytewise, characters, "word")
    assert found.intersection == found.size_a == len(words)
    assert found.size_b == len(words) + 1  # <end>
    assert found.only_b["token"].tolist() == ["<end>"]
    first = dict(zip(bytewise.sources["latent"], bytewise.words.tolist(), strict=True))
    assert sorted(first[latent] for latent in found.shared["latent"]) == sorted(words)


def test_a_repeated_word_is_another_one_at_each_place():
    whole = all_tokens(tiny_tokenizer(), [TEXTS[0]], "bytes")
    ships = [
        row for row, token in enumerate(whole.sources["token"]) if token.strip().startswith("s")
    ]
    assert len(ships) >= 2
    a, b = (
        made(
            [(whole.sources["prompt_id"][row], whole.sources["position"][row])],
            prompt_ids=whole.prompt_ids,
            words=[whole.words[row]],
        )
        for row in (ships[0], ships[-1])
    )
    assert whole.words[ships[0]] != whole.words[ships[-1]]
    assert jaccard(a, b, "word") == 0.0
    assert jaccard(a, a, "word") == 1.0


def test_marks_of_two_tokenizers_are_no_words():
    marked = all_tokens(tiny_tokenizer(with_marks=True), [TEXTS[0]], "marked")
    plain = all_tokens(tiny_tokenizer(), [TEXTS[0]], "plain")
    found = compare(marked, plain, "word")
    assert found.only_b.empty
    assert sorted(found.only_a["token"]) == ["[CLS]", "[SEP]"]
    assert found.jaccard == 8 / 10


@pytest.mark.parametrize("text", [*TEXTS, "", " ", "a", "a "])
def test_the_table_of_words_is_the_word_of_each_character(text):
    assert word_table(text).tolist() == [word_start(text, i) for i in range(len(text) + 1)]


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
