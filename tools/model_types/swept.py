"""Whether a tiny model can be read block by block: every layer of a sweep against the same model in
memory."""

import dataclasses

import torch

from itda_core.config import ModelSpec
from itda_core.errors import ModelError
from itda_core.model.model import Model
from itda_core.model.pretrained import ENCODER, without_part, without_weights
from itda_core.model.proof import proof_tokens
from itda_core.model.proved import candidates
from itda_core.model.swept import SweptModel

_ROUNDING = 1e-5
"""The largest ‖found − expected‖ / ‖expected‖ of a row that passes of one shape may differ by"""
_MEMORY = 2**40
"""Of a tiny model, more than enough"""


def why_not_swept(resident: Model) -> str:
    """Why the model of a local folder can't be read block by block; empty where it can."""
    try:
        swept = _swept(resident)
        return _difference(resident, swept)
    except ModelError as error:
        return str(error).replace(without_part(resident.name), "MODEL").rstrip(".")
    except Exception as error:  # whatever a family's own code raises
        line = str(error).strip().split("\n")[0][:150]
        return f"it stops with {type(error).__name__}: {line}".rstrip(".: ")


def _swept(resident: Model) -> SweptModel:
    folder = without_part(resident.name)
    module, tokenizer, weights = without_weights(
        ModelSpec(resident.name, dtype="float32"), folder, torch.float32
    )
    part, blocks = candidates(module)[0]
    inside = next(path for path, one in weights.module.named_modules() if one is module)
    assert bool(inside) == resident.name.endswith(ENCODER)
    path = ".".join(filter(None, (inside, part)))
    place = (weights, path, blocks, tokenizer, resident.digest, torch.device("cpu"), _MEMORY)
    model = SweptModel(resident.name, *place)
    model.d_model = resident.d_model
    model.abilities = dataclasses.replace(resident.abilities, cached_steps="it is swept")
    return model


def _difference(resident: Model, swept: SweptModel) -> str:
    tokens = proof_tokens(resident)
    layers = range(resident.n_layers)
    swept.first_blocks([tokens], min(2, len(layers)))
    expected = resident.capture(tokens, layers, skip_first=False)
    found = swept.capture(tokens, layers, skip_first=False)
    for layer in layers:
        if reason := _differs(found[layer], expected[layer], f"block {layer}"):
            return reason
    if resident.abilities.splicing:
        return ""
    return _differs(swept.logits(tokens), resident.logits(tokens), "the logits")


def _differs(found: torch.Tensor, expected: torch.Tensor, what: str) -> str:
    if found.shape != expected.shape:
        return f"{what} has another shape"
    norms = expected.norm(dim=-1).clamp(min=1e-6)
    difference = float(((found - expected).norm(dim=-1) / norms).max())
    return "" if difference <= _ROUNDING else f"{what} differs by {difference:.0%} from the model's"
