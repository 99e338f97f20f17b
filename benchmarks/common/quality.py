"""How good the reconstructions of dictionaries and autoencoders are, on the same held-out tokens.

A *coder* is whatever has `hook_point`, `encode(activations) -> Codes` and `decode(codes)`.
"""

import functools

import torch

from benchmarks.common.captured import config, is_massive
from itda_core.config import HookPoint, ModelSpec
from itda_core.corpus.corpus import load_corpus
from itda_core.evaluation.metrics import ReconstructionSums
from itda_core.evaluation.splicing import SplicedPrompts
from itda_core.model.loading import load_model
from itda_core.model.model import Model

TOKENS = 2_048
_TOGETHER = 2_048


def reconstruction(coder, x: torch.Tensor) -> dict[str, float]:
    """FVU of `x`, [n_tokens, d_model]: without tokens of massive activations, of all ("fvu_all");
    the mean number of terms that a token uses; and the share of latents that none uses."""
    massive, usual, every, terms = is_massive(x), ReconstructionSums(), ReconstructionSums(), 0
    used = torch.zeros(len(coder), dtype=torch.bool)
    for part, is_out in zip(x.split(_TOGETHER), massive.split(_TOGETHER), strict=True):
        codes = coder.encode(part)
        decoded = coder.decode(codes)
        every.add(part, decoded)
        usual.add(part[~is_out], decoded[~is_out])
        terms += int((codes.coefficients != 0).sum())
        used[codes.latents[codes.coefficients != 0]] = True
    unused = 1 - float(used.float().mean())
    return {"fvu": usual.fvu, "fvu_all": every.fvu, "l0": terms / len(x), "unused": unused}


def cost(coder) -> dict[str, float]:
    """CE loss score and KL (nats) with a coder's reconstructions at all positions but the first."""
    spliced = _spliced(coder.hook_point)
    return spliced.score(coder.decode(coder.encode(spliced.activations)))


@functools.cache
def _spliced(hook_point: HookPoint) -> SplicedPrompts:
    """TOKENS tokens of prompts that nothing is trained on, for all that is compared there."""
    settings = config(hook_point.model)
    prompts = load_corpus(settings.corpus).held_out()
    model = _model(settings.model).at(hook_point.site)
    return SplicedPrompts(model, hook_point.layer, prompts, settings, TOKENS)


@functools.cache
def _model(spec: ModelSpec) -> Model:
    return load_model(spec)
