"""Where the sources of a dictionary stand in the prompts as another model reads them.

With the same tokenizer that is the same position. With another one it is the token that ends where
the source ends, else the last token of the source's white-space word: only there has a model read
all of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from itda_core.errors import RunError
from itda_core.model.model import Model
from itda_core.model.tokens import TokenizedText, Tokens, padded, word_table

_TOGETHER = 256
"""Prompts that are tokenised at once"""
BEYOND = "it lies beyond the tokens that the model takes"
NOTHING = "it stands for nothing in the text"
FIRST = "there it is the first token of its prompt, which is not read"
NO_TOKEN = "no token ends its word"


@dataclass(frozen=True)
class Reading:
    """A prompt as it is read for the sources in it."""

    prompt_id: str
    text: TokenizedText
    """its tokens; of a model whose tokens do not look ahead, up to the last source"""
    is_further: bool = False
    """Whether it is read beyond the context length"""


@dataclass
class SourcePlaces:
    """Where each source of a dictionary is found."""

    readings: list[Reading] = field(default_factory=list)
    """Prompts that hold sources. One that has sources beyond the context length comes once more,
    as it is read for those."""
    reading: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """[n_sources] int64: the number of each source's reading, −1 where it has no token"""
    position: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """[n_sources] int64: its token there, −1 where it has none"""
    why: dict[int, str] = field(default_factory=dict)
    """By the number of a source that has no token: what keeps it from having one"""


def find_sources(
    sources: pd.DataFrame,
    texts: Mapping[str, str],
    model: Model,
    longest: int,
    skip_first: bool,
    is_same: bool = False,
) -> SourcePlaces:
    """Each source's token in the tokens of `model`.

    sources: columns prompt_id, position, start, end, token; texts: of their prompts, by id;
    longest: tokens of a prompt that are read, unless a source lies beyond; skip_first: whether the
    first position is left out; is_same: the tokenizer is that of the sources, so that a source that
    is not found at its position raises RunError.
    """
    numbers = np.arange(len(sources))
    found = SourcePlaces(reading=np.full(len(sources), -1), position=np.full(len(sources), -1))
    _find(found, sources, numbers, texts, model, longest, skip_first, is_same, False)
    beyond = np.array([number for number, why in found.why.items() if why is BEYOND], np.int64)
    if len(beyond) and longest < model.context_length:
        for number in beyond.tolist():
            del found.why[number]
        limit = model.context_length
        _find(found, sources, beyond, texts, model, limit, skip_first, is_same, True)
    return found


def _find(
    found: SourcePlaces,
    sources: pd.DataFrame,
    numbers: np.ndarray,
    texts: Mapping[str, str],
    model: Model,
    longest: int,
    skip_first: bool,
    is_same: bool,
    is_further: bool,
) -> None:
    """Add the sources of these numbers, read up to `longest` tokens. is_further: whether that is
    more than is read of all prompts."""
    by_prompt = sources.iloc[numbers].groupby("prompt_id", sort=False).indices
    names = [*by_prompt]
    for first in range(0, len(names), _TOGETHER):
        some = names[first : first + _TOGETHER]
        tokenized = model.tokenized([texts[name] for name in some], longest)
        for name, text in zip(some, tokenized, strict=True):
            here = numbers[by_prompt[name]]
            places = _Places(text, padded(model.tokenizer, [text]), skip_first, is_same)
            looked_up = [places.of(row) for row in sources.iloc[here].itertuples()]
            kept = _add(found, here, looked_up)
            if kept:
                text = text.first(kept) if model.is_causal else text
                found.readings.append(Reading(name, text, is_further))


def _add(found: SourcePlaces, numbers: np.ndarray, looked_up: list[int | str]) -> int:
    """Add what was found in the next reading; how many of its tokens are needed. looked_up: the
    position of each source, or why it has none."""
    needed = 0
    for number, place in zip(numbers.tolist(), looked_up, strict=True):
        if isinstance(place, str):
            found.why[number] = place
            continue
        found.reading[number], found.position[number] = len(found.readings), place
        needed = max(needed, place + 1)
    return needed


class _Places:
    """The tokens of one prompt, in which its sources are looked up."""

    def __init__(self, text: TokenizedText, tokens: Tokens, skip_first: bool, is_same: bool):
        self._text, self._tokens, self._is_same = text, tokens, is_same
        self._first = int(skip_first)
        self._is_own = ~text.special & (text.spans[:, 0] < text.spans[:, 1])
        self._words = tokens.word_starts(0, np.arange(len(text)))
        self._word_of = word_table(text.text)

    def of(self, source) -> int | str:
        """The position of a source's token, or why it has none."""
        if self._is_at_its_place(source):
            return int(source.position)
        if self._is_same and source.start == source.end:  # a closing token of a text that was cut
            return NOTHING
        if self._is_same and source.position < len(self._text):
            if self._text.is_cut and self._text.special[int(source.position)]:
                return BEYOND  # the mark that closes a cut text; the source was read further
            raise RunError(
                f"The token {source.token!r} is not where the run says, at position "
                f"{source.position} of prompt {source.prompt_id}: its texts or its sources are "
                "damaged. Train it again."
            )
        if self._is_same or source.end > self._last_character():
            return BEYOND if self._text.is_cut else NO_TOKEN
        if source.start == source.end:
            return NOTHING
        return self._nearest(source)

    def _is_at_its_place(self, source) -> bool:
        """Whether the same characters are the same token at the same position."""
        position = int(source.position)
        if not self._first <= position < len(self._text):
            return False
        is_same_span = tuple(self._text.spans[position]) == (source.start, source.end)
        return is_same_span and self._tokens.token_text(0, position) == source.token

    def _nearest(self, source) -> int | str:
        """The token that ends where the source ends, else the last one of its word."""
        ends = self._is_own & (self._text.spans[:, 1] == source.end)
        in_word = self._is_own & (self._words == self._word_of[source.start])
        for candidates in (ends, in_word):
            places = np.flatnonzero(candidates)
            if not len(places):
                continue
            if candidates is in_word and self._goes_on(int(places[-1])):
                return BEYOND
            if places[-1] >= self._first:
                return int(places[-1])
        return FIRST if (ends | in_word).any() else NO_TOKEN

    def _goes_on(self, position: int) -> bool:
        """Whether the text was cut in the word of a token."""
        end = int(self._text.spans[position, 1])
        is_inside = end < len(self._text.text) and not self._text.text[end].isspace()
        return self._text.is_cut and is_inside and end >= self._last_character()

    def _last_character(self) -> int:
        """The end of what is read of the text."""
        return int(self._text.spans[:, 1].max(initial=0))
