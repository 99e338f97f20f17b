"""What stands in the tooltips of the pages: nothing twice."""

import json
import re

import pytest

from itda_core.settings import MEMORY, SETTINGS
from pages.components.evaluate.columns import COLUMNS
from tests.support.app import open_page

PAGES = ("overview", "train", "latents", "decompose", "similarity", "evaluate")


def said_twice(text):
    """What a text repeats: a sentence that another one begins with, articles apart, or a number
    with the words around it."""
    sentences = [
        [word for word in re.findall(r"[\w.]*\w", part.lower()) if word not in ("a", "an", "the")]
        for part in re.split(r"[.:;] +", text)
    ]
    found = [
        " ".join(one)
        for number, one in enumerate(sentences)
        for place, other in enumerate(sentences)
        if number != place and len(one) > 1 and other[: len(one)] == one
    ]
    words = [word for one in sentences for word in one]
    triples = [tuple(words[at : at + 3]) for at in range(len(words) - 2)]
    numbers = [one for one in triples if any(word.isdecimal() for word in one)]
    return found + [" ".join(one) for one in numbers if numbers.count(one) > 1]


def help_texts(app):
    for element in app:
        proto = getattr(element, "proto", None)
        if help_text := getattr(proto, "help", ""):
            yield str(help_text)
        if isinstance(columns := getattr(proto, "columns", None), str) and columns:
            for column in json.loads(columns).values():
                yield (column or {}).get("help") or ""


def test_what_repeats_itself_is_told():
    assert said_twice("Terms that one token may use. Terms that one token may use. Fewer are.")
    assert said_twice("Place in the block. A place in a block: the stream before it.")
    assert said_twice("Weights (about 1 GB on top). It comes on top, about 1 GB on top.")
    assert not said_twice("Size of a dictionary. More atoms reconstruct better and differ less.")


@pytest.mark.parametrize("name", PAGES)
def test_no_help_text_says_a_thing_twice(data, name):
    texts = list(help_texts(open_page(name)))
    assert texts or name == "overview"
    assert [(text, said_twice(text)) for text in texts if said_twice(text)] == []


def test_no_setting_or_measure_says_a_thing_twice():
    numbers = [setting for setting in SETTINGS.values() if setting.kind in ("whole", "number")]
    texts = [*(setting.page_help for setting in numbers), MEMORY.advice]
    texts += [setting.advice for setting in SETTINGS.values()]
    texts += [column.help for column in COLUMNS.values()]
    assert [text for text in texts if said_twice(text)] == []
