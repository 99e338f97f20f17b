"""Which characters a token stands for, where the tokenizer's own offsets do not say so.

Two kinds of token are reported wrongly. One of nothing but a space that the tokenizer put before
the text (`▁`, `Ġ`) claims the first character, which is the next token's. And tokenizers of
RoBERTa's kind trim white space off every span, so that nothing is left of a token of white space.
"""

import re
from typing import Any

import numpy as np

_SPACES = re.compile("▁+|Ġ+")
"""How SentencePiece and byte-level tokenizers write a token of nothing but spaces"""


def true_spans(
    tokenizer: Any, text: str, ids: np.ndarray, spans: np.ndarray, special: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`spans` and `special` of one text, mended; see `Tokens`. The arrays are as the tokenizer gave
    them, [n_tokens], [n_tokens, 2], [n_tokens]; of a space that it put in they become (0, 0) and
    true.
    """
    spans, special = spans.copy(), special.copy()
    own = np.flatnonzero(~special)  # of the text itself
    for place, name in _space_tokens(tokenizer, ids[own], spans[own]):
        here = own[place]
        if spans[here, 0] == spans[here, 1]:
            span = _untrimmed(text, int(spans[here, 1]), len(name))
        else:
            span = None if _begins_a_part(tokenizer, ids, own, place) else tuple(spans[here])
        spans[here] = span or (0, 0)
        special[here] = span is None
    return spans, special


def _space_tokens(tokenizer: Any, ids: np.ndarray, spans: np.ndarray) -> list[tuple[int, str]]:
    """Place and name of the tokens of spaces whose span is empty or begun by the next token too."""
    doubtful = spans[:, 0] == spans[:, 1]
    doubtful[:-1] |= spans[1:, 0] < spans[:-1, 1]
    places = np.flatnonzero(doubtful)
    names = [tokenizer.convert_ids_to_tokens(number) for number in ids[places].tolist()]
    return [
        (int(place), name)
        for place, name in zip(places, names, strict=True)
        if _SPACES.fullmatch(name)
    ]


def _untrimmed(text: str, end: int, length: int) -> tuple[int, int] | None:
    """The span of a token of `length` spaces that was trimmed to nothing at `end`, or at 0, where
    the text begins with it; None where there are no spaces there."""
    end = max(end, length)
    return (end - length, end) if text[end - length : end] == " " * length else None


def _begins_a_part(tokenizer: Any, ids: np.ndarray, own: np.ndarray, place: int) -> bool:
    """Whether a token that shares its character with the next one is the first of the text, or of
    what follows a token like <s> in it: there tokenizers put a space. Elsewhere the character
    itself was taken apart, as "¨" into a space and a combining diaeresis."""
    return place == 0 or int(ids[own[place - 1]]) in tokenizer.added_tokens_decoder
