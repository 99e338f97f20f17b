"""What if: terms of a decomposition are changed, and edited activations put back into the model.

Beside the change stands what the reconstruction alone does, so that an edit is told apart from the
error that a sum of latents makes anyway.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from itda_core.analysis.decomposition import Decomposition
from itda_core.devices import in_float64
from itda_core.dictionary.dictionary import Dictionary
from itda_core.errors import InputError
from itda_core.model.model import Model

TOP = 10
"""Next tokens of each list"""
_ROWS_TOGETHER = 64
"""Tokens whose predictions are compared at once"""


@dataclass(frozen=True)
class Edit:
    """One latent's terms changed."""

    latent: int
    factor: float = 0.0
    """what its coefficients are multiplied by; 0 removes it"""
    instead: int | None = None
    """the latent that gets the changed coefficients in its place"""
    positions: tuple[int, ...] | None = None
    """the tokens at which it is changed; None for all"""


@dataclass(frozen=True)
class WhatIf:
    """A text's predictions: of the model as it is, with the reconstruction, and with the edit."""

    changed: np.ndarray
    """[n_changed] int64: token positions whose activation the edit changes"""
    kl_reconstruction: np.ndarray
    """[n_tokens] float64: KL(model as it is ‖ reconstruction) of the next token after each, nats"""
    kl_edit: np.ndarray
    """[n_tokens] float64: KL(‖ edited) against the model as it is, or, with edits of the
    reconstruction, against the reconstruction: what the edit alone does"""
    kl_total: np.ndarray
    """[n_tokens] float64: KL(model as it is ‖ edited)"""
    next_tokens: pd.DataFrame
    """After one token: token_id, token, and the probabilities plain, reconstruction and edited. The
    most likely ones of each, the most likely of the model as it is first."""


def edited_terms(
    dictionary: Dictionary, result: Decomposition, edits: Sequence[Edit]
) -> torch.Tensor:
    """What the edits add to each reconstruction, Σ (changed − original terms), [n_decomposed,
    d_model] float32 on the dictionary's device. Raises InputError for a latent that there is
    not."""
    shape = (len(result.codes), dictionary.d_model)
    change = torch.zeros(shape, dtype=torch.float32, device=dictionary.device)
    for edit in edits:
        for latent in filter(lambda one: one is not None, (edit.latent, edit.instead)):
            if not 0 <= latent < len(dictionary.atoms):
                raise InputError(
                    f"There is no latent {latent}: they go from 0 to {len(dictionary.atoms) - 1}."
                )
        here = result.codes.latents == edit.latent
        if edit.positions is not None:
            here &= torch.from_numpy(np.isin(result.positions, edit.positions))[:, None]
        sizes = (result.codes.coefficients * here).sum(1).to(dictionary.device)
        target = edit.latent if edit.instead is None else edit.instead
        change += edit.factor * torch.outer(sizes, dictionary.atoms[target])
        change -= torch.outer(sizes, dictionary.atoms[edit.latent])
    return change


def what_if(
    model: Model,
    dictionary: Dictionary,
    result: Decomposition,
    edits: Sequence[Edit],
    position: int,
    onto: str = "activation",
) -> WhatIf:
    """Put edited activations back into the model.

    result: of this model, dictionary and text; position: the token after which the next one is
    asked for; onto: the edit is added to the "activation" itself, so that what the reconstruction
    leaves out stays as it is, or to the "reconstruction". Computed on the model's device. Raises
    ModelError for encoders, and InputError for a position that the text has not.
    """
    layer = dictionary.hook_point.layer
    length = int(result.tokens.mask[0].sum())
    if not 0 <= position < length:
        raise InputError(f"The text has tokens 0 to {length - 1}; there is no token {position}.")
    dictionary = dictionary.to(model.device)
    change = edited_terms(dictionary, result, edits)
    hidden = model.hidden(result.tokens, layer)
    rows = torch.from_numpy(result.positions).to(hidden.device)
    rebuilt, edited = hidden.clone(), hidden.clone()
    rebuilt[0, rows] = dictionary.decode(result.codes.to(hidden.device)).to(hidden.dtype)
    start = hidden if onto == "activation" else rebuilt
    edited[0, rows] = (start[0, rows].float() + change).to(hidden.dtype)
    plain, reconstruction, after = (
        model.logits_after(result.tokens, layer, output)[0].log_softmax(1)
        for output in (hidden, rebuilt, edited)
    )
    return WhatIf(
        changed=result.positions[change.any(1).cpu().numpy()],
        kl_reconstruction=_kl(plain, reconstruction),
        kl_edit=_kl(plain if onto == "activation" else reconstruction, after),
        kl_total=_kl(plain, after),
        next_tokens=_next_tokens(model, plain[position], reconstruction[position], after[position]),
    )


def _kl(p: torch.Tensor, q: torch.Tensor) -> np.ndarray:
    """Σ_v p(v) (log p(v) − log q(v)) of each row of log-probabilities, [n] float64."""
    # A vocabulary is large, and each of these is twice as large as p.
    n_blocks = -(-len(p) // _ROWS_TOGETHER)
    blocks = zip(p.tensor_split(n_blocks), q.tensor_split(n_blocks), strict=True)
    sums = [_divergences(in_float64(p_rows), in_float64(q_rows)) for p_rows, q_rows in blocks]
    return torch.cat(sums).clamp(min=0).cpu().numpy()


def _divergences(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    return (p.exp() * (p - q)).sum(1)


def _next_tokens(model: Model, *predictions: torch.Tensor) -> pd.DataFrame:
    """predictions: log-probabilities, [n_vocabulary] each."""
    predictions = [item.cpu() for item in predictions]
    likely = torch.cat([item.topk(min(TOP, len(item))).indices for item in predictions]).unique()
    order = predictions[0][likely].argsort(descending=True)
    ids = likely[order].tolist()
    columns = dict(zip(("plain", "reconstruction", "edited"), predictions, strict=True))
    return pd.DataFrame(
        {
            "token_id": ids,
            "token": [model.tokenizer.decode([item]) for item in ids],
            **{name: values[ids].exp().numpy() for name, values in columns.items()},
        }
    )
