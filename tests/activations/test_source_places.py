"""A source is found in the tokens of another tokenizer where a reader would find it."""

import functools
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import transformers
from filelock import FileLock

from itda_core.activations.source_places import (
    BEYOND,
    FIRST,
    NO_TOKEN,
    NOTHING,
    find_sources,
)
from itda_core.errors import RunError
from itda_core.model.built_in import built_in_folder
from itda_core.model.tokenizer import prepared
from itda_core.model.tokens import TokenizedText, padded, tokenized_texts

TEXT = "ab cde fg"
#       012345678


class Words:
    """Tokens of whole words with the space before them, after a mark that stands for nothing."""

    spans = ((0, 0), (0, 2), (2, 6), (6, 9))
    special = (True, False, False, False)

    def convert_ids_to_tokens(self, numbers):
        return "[CLS]" if isinstance(numbers, int) else ["[CLS]" for _ in numbers]


class Letters(Words):
    """Tokens of one character, without a mark."""

    spans = tuple((place, place + 1) for place in range(9))
    special = (False,) * 9


class Halves(Words):
    """cde falls into c and de; the other words are whole, without the spaces."""

    spans = ((0, 0), (0, 2), (3, 4), (4, 6), (7, 9))
    special = (True, False, False, False, False)


def model(tokenizer, context_length=100, is_causal=True):
    def tokenized(texts, longest):
        spans, special = np.array(tokenizer.spans), np.array(tokenizer.special)
        ids = np.arange(len(spans), dtype=np.int32)
        text = TokenizedText(TEXT, ids, spans, special)
        return [text.first(longest) if longest < len(ids) else text for _ in texts]

    about = {"context_length": context_length, "is_causal": is_causal}
    return SimpleNamespace(tokenizer=tokenizer, tokenized=tokenized, **about)


def sources(*places):
    """(position, start, end) of each in TEXT."""
    return pd.DataFrame(
        [
            {
                "prompt_id": "p",
                "position": position,
                "start": start,
                "end": end,
                "token": TEXT[start:end] or "[CLS]",
            }
            for position, start, end in places
        ]
    )


def found(table, tokenizer, longest=100, skip_first=True, is_same=False, **about):
    return find_sources(table, {"p": TEXT}, model(tokenizer, **about), longest, skip_first, is_same)


# By hand: characters 0 1 | 2 | 3 4 5 | 6 | 7 8 are "ab", " ", "cde", " ", "fg".


def test_words_are_found_among_letters_at_the_letter_that_ends_them():
    words = sources((1, 0, 2), (2, 2, 6), (3, 6, 9))
    assert found(words, Letters()).position.tolist() == [1, 5, 8]


def test_letters_are_found_among_words_at_the_word_that_holds_them():
    """ "b", "e" and "g" end their words; "c", "d" and "f" don't, and the last of their words is
    taken; the space counts to the word after it."""
    letters = sources(*((place, place, place + 1) for place in (1, 5, 8, 3, 4, 7, 2)))
    assert found(letters, Words()).position.tolist() == [1, 2, 3, 2, 2, 3, 2]


def test_the_token_that_ends_where_the_source_ends_goes_before_the_last_of_the_word():
    letters = sources((3, 3, 4), (4, 4, 5))  # c ends where a token does, d does not
    assert found(letters, Halves()).position.tolist() == [2, 3]


def test_the_same_tokens_are_found_at_their_positions():
    places = found(sources((1, 0, 2), (3, 6, 9)), Words(), is_same=True)
    assert places.position.tolist() == [1, 3]
    assert [len(reading.text) for reading in places.readings] == [4]


def test_a_token_that_is_not_where_the_run_says_it_is_refused():
    with pytest.raises(RunError, match="position 2 of prompt p"):
        found(sources((2, 0, 2)), Words(), is_same=True)


def test_what_has_no_token_is_named_with_the_reason():
    table = sources((0, 0, 0), (1, 0, 1), (5, 5, 6))
    places = found(table, Letters(), longest=2, context_length=5)
    assert places.position.tolist() == [-1, 1, -1], "the last letter of ab, since a is not read"
    assert places.reading.tolist() == [-1, 0, -1]
    assert places.why == {0: NOTHING, 2: BEYOND}


@pytest.mark.parametrize("table", [((8, 8, 9),), ((1, 0, 2), (8, 8, 9))])
def test_a_prompt_that_is_read_further_says_so_where_all_sources_lie_there_too(table):
    places = found(sources(*table), Letters(), longest=4)
    assert places.position.tolist()[-1] == 8
    assert places.readings[-1].is_further
    assert not any(reading.is_further for reading in places.readings[:-1])


def test_the_first_token_of_a_prompt_is_none_where_first_positions_are_not_read():
    class Whole(Words):
        spans = ((0, 2), (2, 6), (6, 9))
        special = (False,) * 3

    assert found(sources((1, 0, 2)), Whole()).why == {0: FIRST}
    assert found(sources((1, 0, 2)), Whole(), skip_first=False).position.tolist() == [0]


def test_a_mark_is_itself_where_it_is_the_same_mark():
    assert found(sources((0, 0, 0)), Words(), skip_first=False).position.tolist() == [0]
    assert found(sources((0, 0, 0)), Letters(), skip_first=False).why == {0: NOTHING}


def test_a_word_that_is_cut_has_no_last_token():
    """Of "cde" only "c" is read: another letter of it is beyond."""
    assert found(sources((4, 4, 5)), Halves(), longest=3, context_length=3).why == {0: BEYOND}


def test_a_source_beyond_the_context_length_is_read_as_far_as_the_model_goes():
    table = sources((1, 0, 2), (3, 6, 9))
    places = found(table, Letters(), longest=4)
    assert places.position.tolist() == [1, 8]
    assert [(len(one.text), one.is_further) for one in places.readings] == [(2, False), (9, True)]


def test_the_mark_that_closes_a_cut_text_is_not_taken_for_the_source_that_was_read_further():
    """Letters, closed by a mark: read to 5 tokens, it stands where the fifth letter is."""

    class Closed(Letters):
        spans = (*Letters.spans, (0, 0))
        special = (*Letters.special, True)

    def tokenized(texts, longest):
        spans, special = np.array(Closed.spans), np.array(Closed.special)
        kept = [*range(min(longest, len(spans)) - 1), len(spans) - 1]
        ids = np.arange(len(spans), dtype=np.int32)
        is_cut = longest < len(spans)
        text = TokenizedText(TEXT, ids[kept], spans[kept], special[kept], is_cut)
        return [text for _ in texts]

    reader = SimpleNamespace(**vars(model(Closed())) | {"tokenized": tokenized})
    table = sources((4, 4, 5), (6, 0, 0))
    places = find_sources(table, {"p": TEXT}, reader, 5, skip_first=True, is_same=True)
    assert places.position.tolist() == [4, -1]
    assert places.why == {1: NOTHING}


def test_a_model_that_looks_ahead_reads_the_whole_prompt():
    places = found(sources((1, 0, 2)), Letters(), is_causal=False)
    assert [len(reading.text) for reading in places.readings] == [9]


def test_a_word_without_a_token_is_named():
    class Gap(Words):
        spans = ((0, 0), (0, 2), (6, 9))
        special = (True, False, False)

    assert found(sources((4, 4, 5)), Gap()).why == {0: NO_TOKEN}


# Real tokenizers


REAL = "Senators ratify 東京 treaties."
"""Read by hand: where each token of three models ends, special tokens apart"""
TOKENS = {
    "smollm2-135m": "Sen 3|ators 8| rat 12|ify 15| 東 17|東 17|東 17|京 18|京 18| treaties 27|. 28",
    "minilm-l6": "[CLS] 0|Senators 8|rat 12|ify 15|東 17|京 18|treaties 27|. 28|[SEP] 0",
    "tiny-6x128-0": "S 1|en 3|ators 8| rat 12|ify 15|  16|東 17|東 17|東 17|京 18|京 18|京 18"
    "| treaties 27|. 28",
}


@pytest.fixture(scope="module")
def real(model_cache):
    """The tokenizers of three built-in models, as models."""
    model_cache.mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch, FileLock(model_cache / "lock"):
        patch.setenv("ITDA_DATA", str(model_cache))
        tokenizers = {
            name: prepared(transformers.AutoTokenizer.from_pretrained(built_in_folder(name)))
            for name in TOKENS
        }
    return {
        name: SimpleNamespace(
            tokenizer=tokenizer,
            tokenized=functools.partial(tokenized_texts, tokenizer),
            is_causal=name != "minilm-l6",
            context_length=100,
        )
        for name, tokenizer in tokenizers.items()
    }


@pytest.mark.parametrize(
    ("origin", "other", "expected"),
    [
        # "ators" is the end of MiniLM's one token of that word; three bytes of 東 are one token.
        ("smollm2-135m", "minilm-l6", [1, 2, 3, 4, 4, 4, 5, 5, 6, 7]),
        # Of several tokens that end with a character the last one; [SEP] stands for nothing.
        ("minilm-l6", "smollm2-135m", [1, 2, 3, 6, 8, 9, 10, -1]),
        # "en" ends with SmolLM2's first token, which is not read: the last of the word. The space
        # alone counts to the word that follows.
        ("tiny-6x128-0", "smollm2-135m", [1, 1, 2, 3, 8, 6, 6, 6, 8, 8, 8, 9, 10]),
        ("smollm2-135m", "smollm2-135m", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
    ],
)
def test_tokens_of_real_models_are_found_where_they_are_by_hand(real, origin, other, expected):
    [text] = real[origin].tokenized([REAL], 100)
    names = [token.rpartition(" ") for token in TOKENS[origin].split("|")]
    assert text.spans[:, 1].tolist() == [int(end) for *_, end in names]
    places = np.arange(1, len(text))  # the first position is not read
    table = pd.DataFrame(
        {
            "prompt_id": "p",
            "position": places,
            "start": text.spans[places, 0],
            "end": text.spans[places, 1],
            "token": [padded(real[origin].tokenizer, [text]).token_text(0, one) for one in places],
        }
    )
    found = find_sources(table, {"p": REAL}, real[other], 100, True, origin == other)
    assert found.position.tolist() == expected
