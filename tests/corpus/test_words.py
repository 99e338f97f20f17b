"""Words that say something by themselves."""

import pytest

from itda_core.corpus.words import is_content_word


@pytest.mark.parametrize("word", [" war", "Treaty", "мир", "économie", "tax "])
def test_nouns_of_any_language_say_something(word):
    assert is_content_word(word)


@pytest.mark.parametrize("word", [".", " the", "The", "of", "", " ", "1945", "ed", "-war", "which"])
def test_punctuation_numbers_pieces_and_function_words_do_not(word):
    assert not is_content_word(word)
