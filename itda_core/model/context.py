"""What a model can take: how many tokens at once, and which."""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from torch import nn

from itda_core.errors import InputError, ModelError
from itda_core.model.blocks import OTHER_SENSES

DEFAULT_CONTEXT_LENGTH = 1_024
_LIMITS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "max_sequence_length",
    "max_target_positions",
    "n_ctx",
    "seq_length",
    "seq_len",
    "model_max_length",
)
"""What configurations call the number of tokens that a model takes"""
_UNLIMITED = 2**25
"""A limit that no model has: transformers writes 10³⁰ for "none" """
_POSITIONS = re.compile(r"(position_embeddings?|positions_embed|embed_positions|wpe)$")


def context_length(module: nn.Module, tokenizer: Any = None) -> int:
    """The most tokens that a model takes: the smallest limit that its configuration or its table of
    positions sets, else its tokenizer's, else 1,024, as for models without positions.

    A limit of −1, None or 10³⁰ is none.
    """
    config = module.config.get_text_config()
    named = [_sane(getattr(config, name, None)) for name in _LIMITS]
    limits = [limit for limit in (*named, *_table_limits(module)) if limit]
    if limits:
        return min(limits)
    return _sane(getattr(tokenizer, "model_max_length", None)) or DEFAULT_CONTEXT_LENGTH


def _sane(limit: Any) -> int | None:
    """A number of tokens, or None for what is none."""
    is_number = isinstance(limit, int | float) and not isinstance(limit, bool)
    return int(limit) if is_number and math.isfinite(limit) and 1 <= limit < _UNLIMITED else None


def _table_limits(module: nn.Module) -> Iterator[int]:
    """How many positions each table of learned ones has room for."""
    for name, table in module.named_modules():
        # A table of sines is not learned, and has no end.
        is_table = isinstance(table, nn.Embedding) and _POSITIONS.search(name)
        if not is_table or OTHER_SENSES.search(name):
            continue
        # Models of the RoBERTa family count positions from padding_idx + 1 on, OPT and BART from
        # an offset.
        offset = getattr(table, "offset", None)
        if offset is None:
            offset = 0 if table.padding_idx is None else table.padding_idx + 1
        if len(table.weight) > offset:
            yield len(table.weight) - offset


def check_layers(layers: Sequence[int], n_layers: int, name: str) -> None:
    """Raises InputError for a layer that does not exist. name: the model's."""
    wrong = [str(layer) for layer in layers if not 0 <= layer < n_layers]
    if wrong:
        raise InputError(
            f"{name} has layers 0 to {n_layers - 1}; there is no layer {', '.join(wrong[:5])}."
        )


def check_ids(ids: Iterable[np.ndarray], rows: int | None, tokenizer: Any, name: str) -> None:
    """Raises ModelError for a token that the model has no embedding for.

    ids: [n_tokens] each; rows: what `embedding_rows` gives; tokenizer: that of the tokens; name:
    the model's.
    """
    if rows is None:
        return
    for one in ids:
        if len(one) and int(one.max()) >= rows:
            unknown = int(one[one >= rows][0])
            raise ModelError(
                f"The tokenizer of {name} makes the token "
                f"{tokenizer.convert_ids_to_tokens(unknown)!r} (number {unknown:,}) of a text, but "
                f"the model has embeddings for numbers below {rows:,} only. Leave out texts with "
                "this token, or put the tokenizer that belongs to the model beside it."
            )


def embedding_rows(module: nn.Module) -> int | None:
    """How many tokens a model knows; None where it has no table of them."""
    try:
        weight = getattr(module.get_input_embeddings(), "weight", None)
    except (NotImplementedError, AttributeError):
        return None
    return len(weight) if weight is not None and weight.ndim == 2 else None
