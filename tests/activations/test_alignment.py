"""Rows of several models that are the same token or word, against slow loops and by hand."""

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from itda_core.activations.alignment import RowNames, common_rows, row_names
from itda_core.activations.massive import massive_rows
from itda_core.model.tokens import tokenize
from tests.support.tiny_models import tiny_tokenizer

NOTHING = (np.zeros(0, bool),) * 2
TEXTS = [
    "The senate met to ratify  the treaty.",
    "naïve 🎉 東京 the\n senate ",
    "one",
    "",
    "the the the river the",
]


def letters():
    """A tokenizer that takes every character for a token."""
    known = {character: number for number, character in enumerate(sorted({*"".join(TEXTS)}))}
    tokenizer = Tokenizer(models.BPE(vocab={**known, "?": len(known)}, merges=[], unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="?")


def words_of(text):
    """Begin and end of each white-space word, by a loop over characters."""
    found, begin = [], None
    for place, character in enumerate([*text, " "]):
        if character.isspace():
            found += [] if begin is None else [(begin, place)]
            begin = None
        elif begin is None:
            begin = place
    return found


def expected_names(tokens, first):
    """Token by token: (text, position, begin of the word it ends or −1)."""
    found = []
    for text in range(len(tokens)):
        length = int(tokens.mask[text].sum())
        for position in range(1, length):
            if tokens.special[text, position]:
                continue
            ended = -1
            for begin, end in words_of(tokens.texts[text]):
                reaching = [
                    place
                    for place in range(length)
                    if not tokens.special[text, place]
                    and tokens.spans[text, place, 0] < end <= tokens.spans[text, place, 1]
                ]
                if reaching and max(reaching) == position:
                    ended = begin
            found.append((first + text, position, ended))
    return found


@pytest.mark.parametrize("context_length", [64, 5, 2])
@pytest.mark.parametrize(
    "tokenizer", [tiny_tokenizer(), tiny_tokenizer(with_marks=True), letters()]
)
def test_each_token_is_called_by_its_place_and_by_the_word_that_it_ends(tokenizer, context_length):
    tokens = tokenize(tokenizer, TEXTS, context_length)
    kept, names = row_names(tokens, 7)
    expected = expected_names(tokens, 7)
    assert [
        (*token, word)
        for token, (_, word) in zip(names.tokens.tolist(), names.words.tolist(), strict=True)
    ] == expected
    assert kept.sum() == len(names) == len(expected)
    assert names.count("token") == len(expected)
    assert names.count("word") == sum(word >= 0 for *_, word in expected)
    texts, positions = kept.nonzero()
    assert (texts + 7).tolist() == names.tokens[:, 0].tolist()
    assert positions.tolist() == names.tokens[:, 1].tolist()


def test_the_rows_of_two_tokenizers_end_the_same_words():
    bpe, by_letter = (tokenize(one, TEXTS, 64) for one in (tiny_tokenizer(), letters()))
    (_, a), (_, b) = row_names(bpe, 0), row_names(by_letter, 0)
    none = np.zeros(len(a), bool), np.zeros(len(b), bool)
    rows_a, rows_b = common_rows(a, b, "word", 1_000, none)
    ended = [(int(a.words[row][0]), int(a.words[row][1])) for row in rows_a]
    assert ended == [(int(b.words[row][0]), int(b.words[row][1])) for row in rows_b]
    # What is one token in both at the first position is left out of both: "one" of BPE is not.
    words = [(text, begin) for text, line in enumerate(TEXTS) for begin, _ in words_of(line)]
    assert set(ended) <= set(words)
    assert len(ended) >= len(words) - len(TEXTS)


def names_of(*pairs):
    tokens = np.array([(prompt, place) for prompt, place, _ in pairs])
    return RowNames(tokens, np.array([(prompt, word) for prompt, _, word in pairs]))


def test_by_token_rows_are_those_of_the_same_place_in_order():
    a = names_of((0, 1, -1), (0, 2, 4), (1, 1, 0), (2, 5, 3))
    b = names_of((0, 2, 9), (1, 1, -1), (1, 2, 0), (2, 5, 3))
    kept = np.zeros(4, bool), np.zeros(4, bool)
    rows = common_rows(a, b, "token", 10, kept)
    assert [side.tolist() for side in rows] == [[1, 2, 3], [0, 1, 3]]
    rows = common_rows(a, b, "token", 2, kept)
    assert [side.tolist() for side in rows] == [[1, 2], [0, 1]]
    rows = common_rows(a, b, "word", 10, kept)
    assert [side.tolist() for side in rows] == [[2, 3], [2, 3]]


def test_rows_that_do_not_count_on_either_side_are_left_out_of_both():
    a = names_of((0, 1, 0), (0, 2, 4), (0, 3, 8))
    left_out = np.array([True, False, False]), np.array([False, False, True])
    rows = common_rows(a, a, "token", 10, left_out)
    assert [side.tolist() for side in rows] == [[1], [1]]


def test_batches_are_joined_in_their_order():
    one, other = names_of((0, 1, 0)), names_of((1, 1, -1), (1, 2, 4))
    joined = RowNames.joined([one, other])
    assert joined.tokens.tolist() == [[0, 1], [1, 1], [1, 2]]
    assert joined.words.tolist() == [[0, 0], [1, -1], [1, 4]]


def test_a_massive_row_is_longer_than_ten_times_the_median():
    x = torch.ones(9, 4)
    x[3] *= 11
    x[5] *= 9.9
    assert massive_rows(x).nonzero()[0].tolist() == [3]
