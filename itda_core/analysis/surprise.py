"""How much a model is surprised by each token of a text."""

from collections.abc import Iterator

import numpy as np
import torch

from itda_core.analysis.decomposition import NO_ROOM_FOR_TEXT
from itda_core.devices import full_memory_as_sentence
from itda_core.model.model import Model
from itda_core.model.steps_of_work import Step, last_value
from itda_core.model.tokens import Tokens

_ROWS_TOGETHER = 64
"""Tokens whose predictions are summed at once, so that a long text needs no second copy of them"""


def surprise(model: Model, tokens: Tokens) -> np.ndarray:
    """−log2 p of each token of one text, given those before it, [n_tokens] float64, bits; NaN for
    the first one, which nothing precedes.

    tokens: of one text. Computed by one pass of the whole model, on its device. Raises ModelError
    for a model that predicts no next tokens, and InputError where memory is full.
    """
    return last_value(surprise_steps(model, tokens))


def surprise_steps(model: Model, tokens: Tokens) -> Iterator[Step[np.ndarray]]:
    """`surprise`, which tells how far it is while a model is read block by block; the last step has
    the value."""
    model.abilities.require(model.name, "next_tokens")
    with full_memory_as_sentence(model.device, NO_ROOM_FOR_TEXT):
        if not model.is_swept:
            yield Step(1.0, 0, _bits(model.logits(tokens)[0], tokens))
            return
        share = 1 / (model.n_layers + 1)
        for step in model.hidden_each([tokens], 0):
            yield Step(share * step.fraction)
            hidden = step.value
        for step in model.logits_after_each(0, [(tokens, hidden)]):
            if step.value is not None:
                found = _bits(step.value[0], tokens)
            yield Step(share + (1 - share) * step.fraction)
        yield Step(1.0, 0, found)


def log_probabilities(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """log p of each of `ids` by the logits of its position, [n] float32 on the host, nats. logits:
    [n, n_vocabulary] float32; ids: [n] int64."""
    found = [
        rows.log_softmax(1).gather(1, wanted[:, None])[:, 0].cpu()
        for rows, wanted in zip(
            logits.split(_ROWS_TOGETHER),
            ids.to(logits.device).split(_ROWS_TOGETHER),
            strict=True,
        )
    ]
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.float32)


def _bits(logits: torch.Tensor, tokens: Tokens) -> np.ndarray:
    """logits: [longest, n_vocabulary] of the text."""
    length = int(tokens.mask[0].sum())
    known = log_probabilities(logits[: length - 1], tokens.ids[0, 1:length])
    return np.append(np.nan, -known.double().numpy() / np.log(2))
