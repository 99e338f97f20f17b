"""Tokens of white space, and the space that some tokenizers put before a text: worked by hand."""

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from itda_core.model.tokens import tokenize
from tests.support.tiny_tokenizers import byte_level, fast, sentencepiece

GPT2, PREFIXED = byte_level(), byte_level(prefix_space=True)
ROBERTA, BARE_ROBERTA = byte_level(True, roberta=True), byte_level(roberta=True)
LLAMA, LLAMA_2 = sentencepiece(), sentencepiece(by_normalizer=True)


def read(tokenizer, text):
    """Name, span, and whether it was put in, of each token."""
    tokens = tokenize(tokenizer, [text], 99)
    parts = zip(tokens.names[0], tokens.spans[0].tolist(), tokens.special[0], strict=True)
    return [(name, *span, bool(special)) for name, span, special in parts]


@pytest.mark.parametrize(
    ("tokenizer", "text", "expected"),
    [
        # A space that is put in stands for no character of the text.
        (PREFIXED, "東", [("Ġ", 0, 0, True), *[(name, 0, 1, False) for name in "æĿ±"]]),
        (ROBERTA, "東", [("Ġ", 0, 0, True), *[(name, 0, 1, False) for name in "æĿ±"]]),
        (PREFIXED, "a", [("Ġ", 0, 0, True), ("a", 0, 1, False)]),
        (LLAMA, "a", [("▁", 0, 0, True), ("a", 0, 1, False)]),
        (LLAMA_2, "a", [("▁", 0, 0, True), ("a", 0, 1, False)]),
        (LLAMA, "\na", [("▁", 0, 0, True), ("<0x0A>", 0, 1, False), ("a", 1, 2, False)]),
        # One that the text has is its own.
        (GPT2, " 東", [("Ġ", 0, 1, False), *[(name, 1, 2, False) for name in "æĿ±"]]),
        (PREFIXED, " 東", [("Ġ", 0, 1, False), *[(name, 1, 2, False) for name in "æĿ±"]]),
        (ROBERTA, " 東", [("Ġ", 0, 1, False), *[(name, 1, 2, False) for name in "æĿ±"]]),
        (BARE_ROBERTA, " 東", [("Ġ", 0, 1, False), *[(name, 1, 2, False) for name in "æĿ±"]]),
        (LLAMA, "  ", [("▁", 0, 1, False), ("▁", 1, 2, False)]),
        (LLAMA_2, " ", [("▁", 0, 0, True), ("▁", 0, 1, False)]),
        (LLAMA, "▁", [("▁", 0, 1, False)]),
        # White space between and after words.
        (
            BARE_ROBERTA,
            "a   b ",
            [("a", 0, 1, False), *[("Ġ", at, at + 1, False) for at in (1, 2, 3)],
             ("b", 4, 5, False), ("Ġ", 5, 6, False)],
        ),
        (ROBERTA, "  a", [("Ġ", 0, 1, False), ("Ġ", 1, 2, False), ("a", 2, 3, False)]),
        # After a token such as </s> in the text a space is put in again.
        (
            LLAMA_2,
            "a</s>b",
            [("▁", 0, 0, True), ("a", 0, 1, False), ("</s>", 1, 5, False), ("▁", 0, 0, True),
             ("b", 5, 6, False)],
        ),
    ],
)  # fmt: skip
def test_a_token_of_spaces_has_the_spaces_of_the_text_or_was_put_in(tokenizer, text, expected):
    marks = ("<s>", "</s>")
    found = read(tokenizer, text)
    inner = [one for one in found if not (one[0] in marks and one[3])]
    assert inner == expected
    assert all(one[1:3] == (0, 0) for one in found if one[3])


@pytest.mark.parametrize("tokenizer", [GPT2, PREFIXED, ROBERTA, BARE_ROBERTA, LLAMA, LLAMA_2])
def test_every_character_has_a_token_and_only_those_put_in_have_none(tokenizer):
    texts = [
        "The  senate met\n\n 東京 🎉  ",
        " a\tb",
        "   ",
        "東",
        "a </s> b</s>東",
        "\u00a0 x\u2003y ",
    ]
    tokens = tokenize(tokenizer, texts, 99)
    for row, text in enumerate(texts):
        covered = np.zeros(len(text), bool)
        for position in range(tokens.lengths[row]):
            start, end = tokens.spans[row, position]
            assert (start == end) == tokens.special[row, position]
            covered[start:end] = True
        # RoBERTa's spans leave out the space that begins a word's token.
        missed = {character for character, has in zip(text, covered, strict=True) if not has}
        assert missed <= ({" "} if tokenizer in (ROBERTA, BARE_ROBERTA) else set())


def test_a_character_that_is_taken_apart_keeps_its_span():
    """NFKD makes a space and a combining diaeresis of ¨: the space was not put in."""
    backend = Tokenizer(models.BPE(vocab={"▁": 0, "\u0308": 1, "a": 2}, merges=[]))
    backend.normalizer = normalizers.NFKD()
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    tokens = tokenize(fast(backend), ["a¨a"], 9)
    assert tokens.spans[0].tolist() == [[0, 1], [1, 2], [1, 2], [2, 3]]
    assert not tokens.special.any()


def test_a_space_that_was_put_in_belongs_to_no_word_and_is_left_out_of_comparisons():
    from itda_core.activations.alignment import row_names

    tokens = tokenize(LLAMA, ["東 a"], 99)
    assert [tokens.word_start(0, position) for position in (0, 1, 2)] == [-1, -1, 0]
    assert tokens.token_text(0, 1) == "▁"
    compares, _ = row_names(tokens, 0)
    assert compares[0, :3].tolist() == [False, False, True]
