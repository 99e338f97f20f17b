"""What if: terms of a decomposition are changed, and edited activations put back into the model.

Beside the change stands what the reconstruction alone does, so that an edit is told apart from the
error that a sum of latents makes anyway.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from itda_core.analysis.decomposition import NO_ROOM_FOR_TEXT, Decomposition
from itda_core.devices import full_memory_as_sentence, in_float64
from itda_core.dictionary.dictionary import Dictionary
from itda_core.errors import InputError
from itda_core.model.model import Model

TOP = 10
"""Next tokens of each list"""
_ROWS_TOGETHER = 16
"""Tokens whose predictions are compared at once: so many rows of a vocabulary stay in a cache"""


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


@dataclass(frozen=True)
class Unedited:
    """What no edit changes of a decomposition's predictions; made once, every edit is one pass."""

    hidden: torch.Tensor
    """[1, n_tokens, d_model] in the model's data type: the layer's output as it is"""
    rebuilt: torch.Tensor
    """the same with the reconstruction in its place at the decomposed tokens"""
    plain: torch.Tensor
    """[n_tokens, n_vocabulary] float32, log-probabilities of the next token, from `hidden`"""
    reconstruction: torch.Tensor
    """the same from `rebuilt`"""
    divergence: np.ndarray
    """[n_tokens] float64: KL(plain ‖ reconstruction), nats"""


def unedited(model: Model, dictionary: Dictionary, result: Decomposition) -> Unedited:
    """What `what_if` compares edits with, on the model's device. result: of this model and
    dictionary. Raises ModelError for encoders, and InputError where memory is full."""
    model = model.at(dictionary.hook_point.site)
    with full_memory_as_sentence(model.device, NO_ROOM_FOR_TEXT):
        return _unedited(model, dictionary, result)


def _unedited(model: Model, dictionary: Dictionary, result: Decomposition) -> Unedited:
    layer = dictionary.hook_point.layer
    hidden = model.hidden(result.tokens, layer)
    rebuilt = hidden.clone()
    rows = torch.from_numpy(result.positions).to(hidden.device)
    decoded = dictionary.to(hidden.device).decode(result.codes.to(hidden.device))
    rebuilt[0, rows] = decoded.to(hidden.dtype)
    plain = _predictions(model, layer, result, hidden)
    reconstruction = _predictions(model, layer, result, rebuilt)
    return Unedited(hidden, rebuilt, plain, reconstruction, _kl(plain, reconstruction))


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
    before: Unedited | None = None,
) -> WhatIf:
    """Put edited activations back into the model.

    result: of this model, dictionary and text; position: the token after which the next one is
    asked for; onto: the edit is added to the "activation" itself, so that what the reconstruction
    leaves out stays as it is, or to the "reconstruction"; before: `unedited` of the same, where it
    is at hand. Computed on the model's device. Raises ModelError for encoders, and InputError for a
    position that the text has not, and where memory is full.
    """
    model = model.at(dictionary.hook_point.site)
    length = int(result.tokens.mask[0].sum())
    if not 0 <= position < length:
        raise InputError(f"The text has tokens 0 to {length - 1}; there is no token {position}.")
    with full_memory_as_sentence(model.device, NO_ROOM_FOR_TEXT):
        dictionary = dictionary.to(model.device)
        before = before or _unedited(model, dictionary, result)
        return _edited(model, dictionary, result, edits, position, onto == "activation", before)


def _edited(
    model: Model,
    dictionary: Dictionary,
    result: Decomposition,
    edits: Sequence[Edit],
    position: int,
    is_added: bool,
    before: Unedited,
) -> WhatIf:
    """What `what_if` gives. is_added: the edits to the activation, else to the reconstruction."""
    change = edited_terms(dictionary, result, edits)
    is_changed = change.any(1).cpu().numpy()
    compared = before.plain if is_added else before.reconstruction
    after = compared
    if is_changed.any():
        edited = (before.hidden if is_added else before.rebuilt).clone()
        rows = torch.from_numpy(result.positions).to(edited.device)
        edited[0, rows] = (edited[0, rows].float() + change).to(edited.dtype)
        after = _predictions(model, dictionary.hook_point.layer, result, edited)
    kl_edit = _kl(compared, after)
    predictions = (before.plain, before.reconstruction, after)
    return WhatIf(
        changed=result.positions[is_changed],
        kl_reconstruction=before.divergence,
        kl_edit=kl_edit,
        kl_total=kl_edit if is_added else _kl(before.plain, after),
        next_tokens=_next_tokens(model, *(one[position] for one in predictions)),
    )


def _predictions(
    model: Model, layer: int, result: Decomposition, hidden: torch.Tensor
) -> torch.Tensor:
    """Log-probabilities of the next token with `hidden` as the layer's output, [n_tokens,
    n_vocabulary] float32."""
    return model.logits_after(result.tokens, layer, hidden)[0].log_softmax(1)


def _kl(p: torch.Tensor, q: torch.Tensor) -> np.ndarray:
    """Σ_v p(v) (log p(v) − log q(v)) of each row of log-probabilities, [n] float64."""
    blocks = zip(p.split(_ROWS_TOGETHER), q.split(_ROWS_TOGETHER), strict=True)
    sums = [_divergences(in_float64(of_p), in_float64(of_q)) for of_p, of_q in blocks]
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
