"""What if: terms of a decomposition are changed, and edited activations put back into the model.

Beside the change stands what the reconstruction alone does, so that an edit is told apart from the
error that a sum of latents makes anyway.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from itda_core.analysis.decomposition import NO_ROOM_FOR_TEXT, Decomposition
from itda_core.devices import full_memory_as_sentence, in_float64
from itda_core.dictionary.dictionary import Dictionary
from itda_core.errors import InputError
from itda_core.model.model import Model
from itda_core.model.steps_of_work import Step, last_value

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
    most likely ones of each and those that the edit changes most, against the same as in `kl_edit`;
    the most likely of the model as it is first."""
    likeliest: dict[str, list[str]]
    """"before" and "after" the edit: the likeliest next token after each token, [n_tokens]; before
    it is the model as it is, or, with edits of the reconstruction, the reconstruction"""


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
    return last_value(unedited_steps(model, dictionary, result))


def unedited_steps(
    model: Model, dictionary: Dictionary, result: Decomposition
) -> Iterator[Step[Unedited]]:
    """`unedited`, which tells how far it is while a model is read block by block; the last step has
    the value."""
    model = model.at(dictionary.hook_point.site)
    with full_memory_as_sentence(model.device, NO_ROOM_FOR_TEXT):
        for step in _outputs(model, dictionary, result):
            yield Step(step.fraction)
        outputs, layer = step.value, dictionary.hook_point.layer
        for step in _predictions(model, layer, result, outputs):
            yield Step(step.fraction)
        yield Step(1.0, 0, _compared(outputs, step.value))


def _compared(outputs: Sequence[torch.Tensor], predictions: Sequence[torch.Tensor]) -> Unedited:
    return Unedited(*outputs, *predictions, _kl(*predictions))


def _outputs(
    model: Model, dictionary: Dictionary, result: Decomposition
) -> Iterator[Step[tuple[torch.Tensor, torch.Tensor]]]:
    """The layer's output as it is and rebuilt, [1, n_tokens, d_model] each, in the last step. Its
    fractions are of all blocks of the model."""
    layer, share = dictionary.hook_point.layer, _share_below(model, dictionary)
    model.abilities.require(model.name, "splicing")
    for step in model.hidden_each([result.tokens], layer):
        if step.value is None:
            yield Step(share * step.fraction)
        else:
            hidden = step.value
    rebuilt = hidden.clone()
    rows = torch.from_numpy(result.positions).to(hidden.device)
    decoded = dictionary.to(hidden.device).decode(result.codes.to(hidden.device))
    rebuilt[0, rows] = decoded.to(hidden.dtype)
    yield Step(share, 0, (hidden, rebuilt))


def _share_below(model: Model, dictionary: Dictionary) -> float:
    """The share of a model's blocks up to the layer; its head counts as one more."""
    return (dictionary.hook_point.layer + 1) / (model.n_layers + 1)


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
    steps = what_if_steps(model, dictionary, result, edits, position, onto, before)
    return last_value(steps)


def what_if_steps(
    model: Model,
    dictionary: Dictionary,
    result: Decomposition,
    edits: Sequence[Edit],
    position: int,
    onto: str = "activation",
    before: Unedited | None = None,
) -> Iterator[Step[WhatIf]]:
    """`what_if`, which tells how far it is while a model is read block by block; the last step has
    the value. Such a model is read once, or, with `before`, the blocks above the layer alone, and
    nothing of it where nothing is changed."""
    model = model.at(dictionary.hook_point.site)
    length = int(result.tokens.mask[0].sum())
    if not 0 <= position < length:
        raise InputError(f"The text has tokens 0 to {length - 1}; there is no token {position}.")
    with full_memory_as_sentence(model.device, NO_ROOM_FOR_TEXT):
        dictionary, outputs, done = dictionary.to(model.device), (), 0.0
        if before is None:
            for step in _outputs(model, dictionary, result):
                yield Step(step.fraction)
            outputs, done = step.value, step.fraction
        is_added, own = onto == "activation", outputs or (before.hidden, before.rebuilt)
        changed, edited = _edited(dictionary, result, edits, own[0 if is_added else 1])
        streams = [*outputs, *([edited] if changed.any() else ())]
        for step in _predictions(model, dictionary.hook_point.layer, result, streams):
            yield Step(done + (1 - done) * step.fraction)
        predictions = step.value
        before = before or _compared(outputs, predictions[:2])
        after = predictions[-1] if changed.any() else None
        yield Step(
            1.0, 0, _outcome(model, result.positions[changed], before, after, position, is_added)
        )


def _edited(
    dictionary: Dictionary, result: Decomposition, edits: Sequence[Edit], output: torch.Tensor
) -> tuple[np.ndarray, torch.Tensor]:
    """Which rows the edits change, [n_decomposed] bool, and the layer's output with them."""
    change, edited = edited_terms(dictionary, result, edits), output.clone()
    rows = torch.from_numpy(result.positions).to(edited.device)
    edited[0, rows] = (edited[0, rows].float() + change).to(edited.dtype)
    return change.any(1).cpu().numpy(), edited


def _outcome(
    model: Model,
    changed: np.ndarray,
    before: Unedited,
    after: torch.Tensor | None,
    position: int,
    is_added: bool,
) -> WhatIf:
    """What `what_if` gives. after: predictions with the edits, None where nothing is changed;
    is_added: the edits to the activation, else to the reconstruction."""
    compared = before.plain if is_added else before.reconstruction
    after = compared if after is None else after
    kl_edit = _kl(compared, after)
    predictions = (before.plain, before.reconstruction, after)
    return WhatIf(
        changed=changed,
        kl_reconstruction=before.divergence,
        kl_edit=kl_edit,
        kl_total=kl_edit if is_added else _kl(before.plain, after),
        next_tokens=_next_tokens(
            model, 0 if is_added else 1, torch.stack([one[position] for one in predictions]).cpu()
        ),
        likeliest=_likeliest(model, compared, after),
    )


def _likeliest(model: Model, before: torch.Tensor, after: torch.Tensor) -> dict[str, list[str]]:
    """The likeliest next token after each token. before, after: log-probabilities, [n_tokens,
    n_vocabulary] each."""
    found = torch.stack([one.argmax(1) for one in (before, after)]).cpu()
    texts = [[model.tokenizer.decode([item]) for item in one] for one in found.tolist()]
    return dict(zip(("before", "after"), texts, strict=True))


def _predictions(
    model: Model, layer: int, result: Decomposition, outputs: Sequence[torch.Tensor]
) -> Iterator[Step[list[torch.Tensor]]]:
    """Log-probabilities of the next token with each of `outputs` as the layer's output, [n_tokens,
    n_vocabulary] float32 each, in the last step."""
    found = []
    streams = [(result.tokens, hidden) for hidden in outputs]
    for step in model.logits_after_each(layer, streams) if streams else ():
        if step.value is not None:
            found.append(step.value[0].log_softmax(1))
            step = Step(step.fraction)  # its logits are not needed any more
        yield step
    yield Step(1.0, 0, found)


def _kl(p: torch.Tensor, q: torch.Tensor) -> np.ndarray:
    """Σ_v p(v) (log p(v) − log q(v)) of each row of log-probabilities, [n] float64."""
    blocks = zip(p.split(_ROWS_TOGETHER), q.split(_ROWS_TOGETHER), strict=True)
    sums = [_divergences(in_float64(of_p), in_float64(of_q)) for of_p, of_q in blocks]
    return torch.cat(sums).clamp(min=0).cpu().numpy()


def _divergences(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    return (p.exp() * (p - q)).sum(1)


def _next_tokens(model: Model, compared: int, predictions: torch.Tensor) -> pd.DataFrame:
    """predictions: log-probabilities on the host, [3, n_vocabulary]: plain, of the reconstruction,
    edited; compared: the row that the last one is the edit of."""
    moved = (predictions[-1].exp() - predictions[compared].exp()).abs()
    told = [*predictions, *[moved] * bool(moved.any())]
    likely = torch.cat([item.topk(min(TOP, len(item))).indices for item in told]).unique()
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
