"""The same tokens of several models: which row of one model's activations is which of another's.

Models with one tokenizer share token positions. With different ones a white-space word is taken
where it ends, since only there has each model read all of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from itda_core.model.tokens import Tokens


@dataclass(frozen=True)
class RowNames:
    """What each captured token is called, as a token and as the word that it ends."""

    tokens: np.ndarray
    """[n_rows, 2] int64: prompt number, token position"""
    words: np.ndarray
    """[n_rows, 2] int64: prompt number, character where the word begins; −1 where the token is
    not the last one of a word"""

    def __len__(self) -> int:
        return len(self.tokens)

    def count(self, unit: str) -> int:
        """How many rows have a name."""
        return int((self.of(unit)[:, 1] >= 0).sum())

    def of(self, unit: str) -> np.ndarray:
        return self.tokens if unit == "token" else self.words

    @classmethod
    def joined(cls, parts: Sequence["RowNames"]) -> "RowNames":
        """The rows of several batches, one after another."""
        tokens, words = ([getattr(part, name) for part in parts] for name in ("tokens", "words"))
        return cls(np.concatenate(tokens), np.concatenate(words))


def row_names(tokens: Tokens, first_prompt: int) -> tuple[np.ndarray, RowNames]:
    """Which tokens of a batch compare, [n_texts, longest] bool, and what they are called, in order
    of texts and positions.

    The first position of each text is left out, an attention sink in most models, and so are the
    tokens that the tokenizer adds. first_prompt: the number of the batch's first text.
    """
    compares = tokens.mask.numpy() & ~tokens.special
    compares[:, :1] = False
    texts, positions = compares.nonzero()
    words = np.full(len(texts), -1)
    for text in np.unique(texts):
        here = texts == text
        words[here] = _ended_words(tokens, int(text), positions[here])
    prompts = texts + first_prompt
    return compares, RowNames(np.stack([prompts, positions], 1), np.stack([prompts, words], 1))


def _ended_words(tokens: Tokens, text: int, positions: np.ndarray) -> np.ndarray:
    """[n] int64: where the word begins that a token ends; −1 where it ends none."""
    begins, characters = tokens.word_starts(text, positions), tokens.texts[text] + " "
    spaces = np.flatnonzero([character.isspace() for character in characters])
    ends = spaces[np.searchsorted(spaces, begins)]
    # Tokens that share a character share its span, so that several can reach a word's end.
    is_last = np.append(begins[1:] != begins[:-1], True)
    is_whole = tokens.spans[text, positions, 1] >= ends
    return np.where(is_last & is_whole & (begins < len(tokens.texts[text])), begins, -1)


def common_rows(
    a: RowNames, b: RowNames, unit: str, max_rows: int, left_out: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the tokens (words) that both have, at most `max_rows`, in order: [n] int64 each.

    left_out: rows of each that do not count, bool.
    """
    numbers = _numbered(a.of(unit), left_out[0]), _numbered(b.of(unit), left_out[1])
    common, rows_a, rows_b = np.intersect1d(*numbers, return_indices=True)
    named = common >= 0
    return rows_a[named][:max_rows], rows_b[named][:max_rows]


def _numbered(names: np.ndarray, left_out: np.ndarray) -> np.ndarray:
    """One number for each name, ascending with prompt and place; −1 − row for none."""
    rows = np.arange(len(names))
    return np.where((names[:, 1] < 0) | left_out, -1 - rows, (names[:, 0] << 32) + names[:, 1])
