"""A tokenizer as this project uses it: nothing that its files set for other uses is taken over.

What is the model's own stays, since it was trained so: the special tokens that are put around a
text, and whether a space is put before it. Cutting and padding are this project's.
"""

import json
import re
from typing import Any

from itda_core.digests import digest
from itda_core.model.tokens import tokenized_texts

_PROBE = "The Senate of 1790 didn't re-ratify it:\n naïve 🎉 東京"
_BEFORE = re.compile("[0-9a-f]{16}")
"""A digest as earlier versions wrote it"""
_SHORT = 64
"""Tokens in which any single character has room"""
_OURS = ("truncation", "padding")
"""Parts of a tokenizer file that say how a batch is made of texts, and nothing of the tokens"""
_SETTINGS = ("split_special_tokens",)
"""Settings beside the tokenizer file that change which tokens are read"""


def prepared(tokenizer: Any) -> Any:
    """The tokenizer itself, made to cut the end of a text and to pad on the right, and only where
    that is asked for, whatever its files say."""
    tokenizer.truncation_side = tokenizer.padding_side = "right"
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer


def tokenizer_digest(tokenizer: Any) -> str:
    """Names a tokenizer by all that it does to a text: "aaaaaaaaaaaaaaaa-bbbbbbbbbbbbbbbb".

    The second part is of the whole tokenizer: normaliser, pre-tokeniser, vocabulary and merges,
    post-processor, decoder, added tokens and settings. The first part, of the vocabulary and of
    what becomes of one sentence, is all that earlier versions looked at and wrote into their runs.
    """
    vocabulary = sorted(tokenizer.get_vocab().items())
    before = digest(json.dumps([vocabulary, tokenizer(_PROBE)["input_ids"]]))
    whole = json.loads(tokenizer.backend_tokenizer.to_str())
    whole = {name: part for name, part in whole.items() if name not in _OURS}
    settings = {name: getattr(tokenizer, name, None) for name in _SETTINGS}
    return f"{before}-{digest(json.dumps([whole, settings], sort_keys=True))}"


def put_in(tokenizer: Any) -> dict[str, list[str]]:
    """The names of the tokens that the tokenizer puts "before" and "after" each text by itself,
    special ones and a space that is a token of its own; they are the model's, so they stay."""
    tokens = tokenized_texts(tokenizer, ["\N{WHITE SQUARE}"], _SHORT)[0]  # merges with no space
    names = [tokenizer.convert_ids_to_tokens(number) for number in tokens.ids.tolist()]
    own = (~tokens.special).nonzero()[0].tolist() or [len(names)]
    return {"before": names[: own[0]], "after": names[own[-1] + 1 :]}


def is_of_before(tokenizer: str) -> bool:
    """Whether a tokenizer's digest is one of earlier versions, which some tokenizers share."""
    return bool(_BEFORE.fullmatch(tokenizer))


def may_be_same(a: str, b: str) -> bool:
    """Whether two digests agree as far as both go. Where one is of earlier versions it takes more
    to be sure, such as one model. Where one is "", since a folder of activations does not name its
    tokenizer, nothing is known."""
    if not (a and b):
        return False
    if is_of_before(a) or is_of_before(b):
        return a.partition("-")[0] == b.partition("-")[0]
    return a == b
