"""Which characters each token stands for, and how batches are cut."""

import numpy as np
import pytest

from itda_core.errors import InputError
from itda_core.model.tokens import batches, padded, tokenized_texts, word_start

FAMILY = "👩‍👩‍👧"
HARD_TEXTS = [
    "plain words, nothing else",
    f"a family {FAMILY} of five code points",
    "combining e\u0301 and n\u0303o and Z\u0351\u036b\u0343algo",
    "שלום עולם, مرحبا بالعالم",
    "line one\nline two\r\n\r\n\ttabbed  end ",
    "<script>alert('$x$')</script> **bold** `code` |a|",
    "東京 — ½ ﬁ İ ß 𝔘𝔫𝔦",
]


def pieces(tokens, row):
    """(text, start, end) of each token of one text."""
    return [
        (tokens.token_text(row, position), *tokens.spans[row, position].tolist())
        for position in range(tokens.lengths[row])
    ]


@pytest.mark.parametrize("which", ["tiny_model", "smollm2"])
def test_spans_cover_every_character_in_order(which, request):
    model = request.getfixturevalue(which)
    tokens = model.tokenize(HARD_TEXTS)
    for row, text in enumerate(HARD_TEXTS):
        covered = np.zeros(len(text), dtype=int)
        before = 0
        for piece, start, end in pieces(tokens, row):
            assert piece == text[start:end] != ""
            assert start >= before
            before = start
            covered[start:end] += 1
        assert covered.all(), f"characters without a token in {text!r}"


@pytest.mark.parametrize("which", ["tiny_model", "smollm2"])
def test_spans_agree_with_the_bytes_that_the_ids_stand_for(which, request):
    """The tokenizer's own decoding of ids[:n] ends within the span of token n - 1."""
    model = request.getfixturevalue(which)
    tokens = model.tokenize(HARD_TEXTS)
    for row, text in enumerate(HARD_TEXTS):
        for position in range(tokens.lengths[row]):
            ids = tokens.ids[row, : position + 1].tolist()
            decoded = model.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
            whole = decoded.rstrip("\ufffd")  # what is left of a character begun but not ended
            assert text.startswith(whole)
            start, end = tokens.spans[row, position].tolist()
            assert start <= len(whole) <= end


def test_an_emoji_split_over_tokens_gives_each_of_them_the_whole_character(tiny_model):
    # The tiny tokenizer knows no emoji, so that each of the four bytes is a token of its own.
    tokens = tiny_model.tokenize(["a🎉b"])
    assert pieces(tokens, 0) == [("a", 0, 1), *[("🎉", 1, 2)] * 4, ("b", 2, 3)]


def test_combining_characters_keep_their_own_span(tiny_model):
    tokens = tiny_model.tokenize(["e\u0301x"])
    assert pieces(tokens, 0) == [("e", 0, 1), *[("\u0301", 1, 2)] * 2, ("x", 2, 3)]


def test_right_to_left_text_is_counted_in_reading_order(tiny_model):
    tokens = tiny_model.tokenize(["שת"])
    assert pieces(tokens, 0) == [*[("ש", 0, 1)] * 2, *[("ת", 1, 2)] * 2]


def test_a_newline_is_a_character_like_any_other(tiny_model):
    tokens = tiny_model.tokenize(["a\nb"])
    assert pieces(tokens, 0) == [("a", 0, 1), ("\n", 1, 2), ("b", 2, 3)]


def test_special_tokens_go_by_their_names_and_have_no_word():
    from itda_core.model.tokens import tokenize
    from tests.support.tiny_models import tiny_tokenizer

    tokens = tokenize(tiny_tokenizer(with_marks=True), ["the treaty", "a"], 10)
    assert [tokens.token_text(1, position) for position in range(3)] == ["[CLS]", "a", "[SEP]"]
    assert [tokens.word_start(1, position) for position in range(3)] == [-1, 0, -1]
    assert tokens.special[1, :3].tolist() == [True, False, True]
    assert tokens.lengths[1] == 3


# Words: "  On the\n\n whole," has its words at 2, 5 and 11; what each character's token begins.
@pytest.mark.parametrize(
    ("character", "word"),
    [(0, 2), (1, 2), (2, 2), (3, 2), (4, 5), (5, 5), (7, 5), (8, 11), (10, 11), (11, 11), (15, 11)],
)
def test_a_word_begins_after_white_space_and_white_space_counts_to_the_next(character, word):
    assert word_start("  On the\n\n whole,", character) == word


def test_white_space_at_the_end_counts_to_no_word_of_the_text():
    assert word_start("On  ", 2) == word_start("On  ", 3) == 4


def test_a_token_with_a_leading_space_belongs_to_the_word_it_begins(smollm2):
    tokens = smollm2.tokenize(["the treaty with\n\nSpain"])
    words = {
        tokens.token_text(0, position): tokens.word_start(0, position)
        for position in range(tokens.lengths[0])
    }
    assert words["the"] == 0
    assert words[" treaty"] == 4
    assert words[" with"] == 11
    assert words["\n"] == 17
    assert words["Spain"] == 17


def test_all_pieces_of_a_word_are_called_by_the_same_word(smollm2, tiny_model):
    text = "antidisestablishmentarianism is long"
    for model in (smollm2, tiny_model):
        tokens = model.tokenize([text])
        words = [tokens.word_start(0, position) for position in range(tokens.lengths[0])]
        assert len(words) > 3
        assert sorted(set(words)) == [0, 29, 32]


def test_texts_are_padded_on_the_right_and_cut_to_the_context_length(tiny_model):
    tokens = tiny_model.tokenize(["a b c d e f", "a", ""], context_length=4)
    assert tokens.lengths.tolist() == [4, 1, 0]
    assert tokens.mask.tolist() == [[True] * 4, [True, False, False, False], [False] * 4]
    assert tokens.ids[0, 0] == tokens.ids[1, 0]
    assert not tokens.spans[1, 1:].any()


def test_one_string_instead_of_a_list_is_refused(tiny_model):
    with pytest.raises(InputError, match="list"):
        tiny_model.tokenize("a b")


def test_half_a_character_is_shown_as_a_question_mark(tiny_model):
    tokens = tiny_model.tokenize(["a\ud83db", "\udcff"])
    assert tokens.texts == ("a?b", "?")
    assert pieces(tokens, 0) == [("a", 0, 1), ("?", 1, 2), ("b", 2, 3)]


def test_no_text_gives_no_tokens(tiny_model):
    tokens = tiny_model.tokenize([])
    assert len(tokens) == 0
    assert len(tokens.lengths) == 0


def test_select_gives_what_tokenizing_only_those_texts_gives(tiny_model):
    texts = ["a b c d e f", "the treaty", "with Spain 🎉", "a"]
    some = tiny_model.tokenize(texts).select([3, 1])
    alone = tiny_model.tokenize([texts[3], texts[1]])
    assert some.texts == alone.texts
    assert some.names == alone.names
    for field in ("ids", "mask", "spans", "special"):
        one, other = np.asarray(getattr(some, field)), np.asarray(getattr(alone, field))
        assert one.shape == other.shape
        assert (one == other).all(), field


def test_the_first_tokens_of_one_text_leave_the_others_as_they_are(tiny_model):
    texts = ["a b c d", "a b c"]
    tokens = tiny_model.tokenize(texts)
    one, other = tokenized_texts(tiny_model.tokenizer, texts, 64)
    cut = padded(tiny_model.tokenizer, [one.first(2), other])
    assert one.first(2).is_cut and not other.is_cut
    assert cut.lengths.tolist() == [2, tokens.lengths[1]]
    assert tokens.lengths[0] > 2
    assert (cut.ids[0, :2] == tokens.ids[0, :2]).all()


@pytest.mark.parametrize(
    ("lengths", "batch_tokens", "expected"),
    [
        ([], 10, []),
        ([3], 10, [(0, 1)]),
        ([5, 5], 10, [(0, 2)]),
        ([5, 5, 1], 10, [(0, 2), (2, 3)]),
        ([2, 2, 6], 10, [(0, 2), (2, 3)]),  # 3 × 6 padded tokens would be too many
        ([50], 10, [(0, 1)]),  # longer than allowed, yet it can't be divided
        ([1, 50, 1], 10, [(0, 1), (1, 2), (2, 3)]),
    ],
)
def test_batches_hold_consecutive_texts_within_the_padded_size(lengths, batch_tokens, expected):
    assert batches(lengths, batch_tokens) == expected


def test_batches_take_every_text_once_whatever_the_lengths():
    lengths = np.random.default_rng(0).integers(1, 60, 300).tolist()
    cuts = batches(lengths, 200)
    assert [n for first, last in cuts for n in range(first, last)] == list(range(300))
    assert all(max(lengths[a:b]) * (b - a) <= 200 for a, b in cuts)
