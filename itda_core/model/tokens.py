"""Tokenised prompts: ids, mask, and the characters that each token stands for."""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Tokens:
    """A batch of tokenised texts, padded on the right."""

    texts: tuple[str, ...]
    ids: torch.Tensor
    """[n_texts, longest] int64"""
    mask: torch.Tensor
    """[n_texts, longest] bool, true where there is a token"""
    spans: np.ndarray
    """[n_texts, longest, 2] int64: first character and the one after the last; (0, 0) for
    special tokens and padding. Where one character is split into several tokens, each has the
    whole character's span."""
    special: np.ndarray
    """[n_texts, longest] bool, true where the tokenizer put in a token of its own"""
    names: tuple[tuple[str, ...], ...]
    """What to call each token where the text has no characters for it, like [CLS]"""

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
            names=tuple(self.names[row] for row in rows),
        )

    def shortened(self, row: int, length: int) -> "Tokens":
        """The same texts, with only the first `length` tokens of the text in `row`."""
        mask = self.mask.clone()
        mask[row, length:] = False
        return dataclasses.replace(self, mask=mask)

    def token_text(self, row: int, position: int) -> str:
        """The characters of a token, or its name where it has none."""
        start, end = self.spans[row, position]
        return self.texts[row][start:end] or self.names[row][position]

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
    # Half a character, as a command line can hold, is more than a tokenizer takes.
    texts = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
    encoded = {"input_ids": []}
    if texts:
        encoded = tokenizer(
            texts,
            truncation=True,
            max_length=context_length,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
        )
    lengths = [len(ids) for ids in encoded["input_ids"]]
    shape = (len(lengths), max(lengths, default=0))
    ids = torch.zeros(shape, dtype=torch.int64)
    mask = torch.zeros(shape, dtype=torch.bool)
    spans = np.zeros((*shape, 2), dtype=np.int64)
    special = np.zeros(shape, dtype=bool)
    for row, length in enumerate(lengths):
        if not length:
            continue
        ids[row, :length] = torch.tensor(encoded["input_ids"][row])
        mask[row, :length] = True
        spans[row, :length] = encoded["offset_mapping"][row]
        special[row, :length] = encoded["special_tokens_mask"][row]
    names = tuple(tuple(tokenizer.convert_ids_to_tokens(ids)) for ids in encoded["input_ids"])
    return Tokens(tuple(texts), ids, mask, spans, special, names)


def batches(lengths: Sequence[int], batch_tokens: int) -> list[tuple[int, int]]:
    """Runs of consecutive prompts whose padded size stays within `batch_tokens`: first prompt
    and the one after the last."""
    made, first, width = [], 0, 0
    for number, length in enumerate(lengths):
        widest = max(width, length)
        if number > first and widest * (number - first + 1) > batch_tokens:
            made.append((first, number))
            first, widest = number, length
        width = widest
    if lengths:
        made.append((first, len(lengths)))
    return made
