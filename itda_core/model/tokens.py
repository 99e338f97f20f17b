"""Tokenised prompts: ids, mask, and the characters that each token stands for."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from itda_core.corpus.reading import whole_characters
from itda_core.model.spans import true_spans

_TOGETHER_CHARACTERS = 2**20


@dataclass(frozen=True)
class TokenizedText:
    """One tokenised text, as little as has to be kept of it."""

    text: str
    ids: np.ndarray
    """[n_tokens] int32"""
    spans: np.ndarray
    """[n_tokens, 2] int32, see `Tokens`"""
    special: np.ndarray
    """[n_tokens] bool"""
    is_cut: bool = False
    """Whether the text has more tokens than were asked for"""

    def __len__(self) -> int:
        return len(self.ids)

    def first(self, length: int) -> "TokenizedText":
        """The text's first `length` tokens."""
        ids, spans, special = self.ids[:length], self.spans[:length], self.special[:length]
        return TokenizedText(self.text, ids, spans, special, self.is_cut or length < len(self))


@dataclass(frozen=True)
class Tokens:
    """A batch of tokenised texts, padded on the right."""

    texts: tuple[str, ...]
    ids: torch.Tensor
    """[n_texts, longest] int64"""
    mask: torch.Tensor
    """[n_texts, longest] bool, true where there is a token"""
    spans: np.ndarray
    """[n_texts, longest, 2] int64: first character and the one after the last; (0, 0) for padding
    and for what the tokenizer put in. Where one character is split into several tokens, each has
    the whole character's span."""
    special: np.ndarray
    """[n_texts, longest] bool, true where the tokenizer put in a token that stands for nothing in
    the text: [CLS], or the space that some put before a text"""
    tokenizer: Any = field(repr=False, compare=False)
    """What to ask for the name of a token that the text has no characters for, like [CLS]"""

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens in each text, [n_texts] int64."""
        return self.mask.sum(1).numpy()

    def select(self, rows: Sequence[int]) -> "Tokens":
        """The given texts, padded only to the longest of them."""
        rows = list(rows)
        width = int(self.lengths[rows].max()) if rows else 0
        return Tokens(
            texts=tuple(self.texts[row] for row in rows),
            ids=self.ids[rows, :width],
            mask=self.mask[rows, :width],
            spans=self.spans[rows, :width],
            special=self.special[rows, :width],
            tokenizer=self.tokenizer,
        )

    @property
    def names(self) -> tuple[tuple[str, ...], ...]:
        """What the tokenizer calls each token of each text."""
        rows = zip(self.ids.tolist(), self.lengths.tolist(), strict=True)
        name = self.tokenizer.convert_ids_to_tokens
        return tuple(tuple(name(ids[:length])) for ids, length in rows)

    def token_text(self, row: int, position: int) -> str:
        """The characters of a token, or its name where it has none."""
        start, end = self.spans[row, position]
        name = self.tokenizer.convert_ids_to_tokens
        return self.texts[row][start:end] or name(int(self.ids[row, position]))

    def word_start(self, row: int, position: int) -> int:
        """The character where the white-space word that holds the token begins.

        This names the word in any tokenizer's terms. A token of nothing but white space counts
        to the word that follows it; special tokens have none and get -1.
        """
        start, end = (int(value) for value in self.spans[row, position])
        return -1 if start == end else word_start(self.texts[row], start)

    def word_starts(self, row: int, positions: np.ndarray) -> np.ndarray:
        """The same for several tokens of a text, [n] int64."""
        starts, ends = self.spans[row, positions].T
        return np.where(starts == ends, -1, word_table(self.texts[row])[starts])


def word_table(text: str) -> np.ndarray:
    """[len(text) + 1] int64: `word_start` of every character, and of the end."""
    table, last = np.full(len(text) + 1, len(text)), 0
    for word in re.finditer(r"\S+", text):
        table[last : word.end()] = word.start()
        last = word.end()
    if last and last == len(text):
        table[last] = table[last - 1]
    return table


def word_start(text: str, character: int) -> int:
    """Where the white-space word at or after `character` begins."""
    first = character
    while first < len(text) and text[first].isspace():
        first += 1
    while first > 0 and not text[first - 1].isspace():
        first -= 1
    return first


def tokenize(tokenizer, texts: Sequence[str], context_length: int) -> Tokens:
    """Tokenise with the special tokens that the tokenizer adds by itself.

    texts: any strings; each is cut to `context_length` tokens.
    """
    return padded(tokenizer, tokenized_texts(tokenizer, texts, context_length))


def tokenized_texts(tokenizer, texts: Sequence[str], context_length: int) -> list[TokenizedText]:
    """The same, text by text and without padding.

    The end is cut, whatever side the tokenizer's settings name, and closing special tokens stay.
    The tokenizer is not changed, so that several threads may read with it, each to its own length.
    """
    # Half a character, as a command line can hold, is more than a tokenizer takes.
    texts = [whole_characters(text) for text in texts]
    return [
        _cut(tokenizer, text, encoded, row, context_length)
        for some in _together(texts)
        for encoded in [_encoded(tokenizer, some)]
        for row, text in enumerate(some)
    ]


def _together(texts: list[str]) -> Iterator[list[str]]:
    """The texts in groups, so that the tokens of whole books are not in memory all at once."""
    first, size = 0, 0
    for number, text in enumerate(texts):
        if number > first and size + len(text) > _TOGETHER_CHARACTERS:
            yield texts[first:number]
            first, size = number, 0
        size += len(text)
    if texts:
        yield texts[first:]


def _encoded(tokenizer, texts: list[str]) -> Any:
    """All tokens of each text, with the special ones that belong to the model and no padding."""
    return tokenizer(
        texts,
        add_special_tokens=True,
        truncation=False,
        padding=False,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
        verbose=False,  # of texts longer than some limit
    )


def _cut(tokenizer, text: str, encoded: Any, row: int, longest: int) -> TokenizedText:
    """One text's tokens, at most `longest`: its first ones and the special ones that close it."""
    special = np.array(encoded["special_tokens_mask"][row], bool)
    length = len(special)
    closing = int(special[::-1].cumprod().sum()) if length > longest else 0
    kept = np.r_[: min(length, longest) - min(closing, longest), length - closing : length]
    kept = kept[:longest]
    ids = np.array(encoded["input_ids"][row], np.int32)
    spans = np.array(encoded["offset_mapping"][row], np.int32).reshape(-1, 2)
    spans, special = true_spans(tokenizer, text, ids[kept], spans[kept], special[kept])
    return TokenizedText(text, ids[kept], spans, special, is_cut=length > longest)


def padded(tokenizer, texts: Sequence[TokenizedText]) -> Tokens:
    """Tokenised texts as one batch. tokenizer: theirs."""
    shape = (len(texts), max(map(len, texts), default=0))
    ids = torch.zeros(shape, dtype=torch.int64)
    mask = torch.zeros(shape, dtype=torch.bool)
    spans = np.zeros((*shape, 2), dtype=np.int64)
    special = np.zeros(shape, dtype=bool)
    for row, text in enumerate(texts):
        length = len(text)
        ids[row, :length] = torch.from_numpy(text.ids)
        mask[row, :length] = True
        spans[row, :length] = text.spans
        special[row, :length] = text.special
    return Tokens(tuple(text.text for text in texts), ids, mask, spans, special, tokenizer)


def batches(lengths: Sequence[int], batch_tokens: int) -> list[tuple[int, int]]:
    """Runs of consecutive prompts whose padded size stays within `batch_tokens`: first prompt
    and the one after the last."""
    bounds, first, width = [], 0, 0
    for number, length in enumerate(lengths):
        widest = max(width, length)
        if number > first and widest * (number - first + 1) > batch_tokens:
            bounds.append((first, number))
            first, widest = number, length
        width = widest
    if lengths:
        bounds.append((first, len(lengths)))
    return bounds
