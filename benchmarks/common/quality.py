"""How good the reconstructions of dictionaries and autoencoders are, on the same held-out tokens.

The same measures as itda_core.evaluation, whose code starts every forward pass from the tokens.
Here many reconstructions of the same tokens are measured, so the pass resumes at the layer.

A *coder* is whatever has `hook_point`, `encode(activations) -> Codes` and `decode(codes)`.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from unittest import mock

import torch

from benchmarks.common.captured import config, is_massive
from itda_core.activations.plan import make_plan
from itda_core.corpus.corpus import load_corpus
from itda_core.evaluation.metrics import ReconstructionSums, ce_loss_score
from itda_core.model.model import Model
from itda_core.model.tokens import Tokens, batches

TOKENS = 2_048
_LOGIT_TOKENS = 1_024
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


@dataclass(frozen=True)
class _Batch:
    tokens: Tokens
    where: torch.Tensor
    """[n_texts, longest] bool: the positions that are replaced, all but the first"""
    predicts: torch.Tensor
    """[n_texts, longest - 1] bool: replaced positions with a next token"""
    targets: torch.Tensor
    plain: torch.Tensor
    """[n_predictions, n_vocabulary] log-probabilities of the unchanged model"""
    hidden: dict[int, torch.Tensor]
    """By layer, [n_texts, longest, d_model]: what the unchanged model has there"""


class Splicing:
    """The unchanged model's losses and activations, kept for all that is compared with them."""

    def __init__(self, model: Model, layers: tuple[int, ...], max_tokens: int = TOKENS):
        self.model = model
        settings = config(model.name)
        prompts = load_corpus(settings.corpus).held_out()
        plan = make_plan(model, prompts, settings, max_tokens)
        self._batches = [
            self._prepare(plan.tokens(first, last), layers)
            for first, last in batches(plan.lengths, _LOGIT_TOKENS)
        ]
        self.predictions = sum(len(batch.targets) for batch in self._batches)
        self._plain = sum(_cross_entropy(batch.plain, batch.targets) for batch in self._batches)
        self._zeroed: dict[int, float] = {}

    def _prepare(self, tokens: Tokens, layers: tuple[int, ...]) -> _Batch:
        where = tokens.mask.clone()
        where[:, 0] = False
        predicts = where[:, :-1] & tokens.mask[:, 1:]
        captured = self.model.capture(tokens, layers, skip_first=False)
        hidden = {}
        for layer in layers:
            hidden[layer] = torch.zeros(*where.shape, self.model.d_model)
            hidden[layer][tokens.mask] = captured[layer]
        logits = self.model.logits(tokens)[:, :-1][predicts]
        return _Batch(
            tokens, where, predicts, tokens.ids[:, 1:][predicts], logits.log_softmax(1), hidden
        )

    def cost(self, coder) -> dict[str, float]:
        """CE loss score and KL (nats) with a coder's reconstructions at all positions but the
        first."""
        layer = coder.hook_point.layer
        entropy, divergence = 0.0, 0.0
        for batch in self._batches:
            rows = coder.decode(coder.encode(batch.hidden[layer][batch.where]))
            spliced = self._spliced(batch, layer, rows)
            entropy += _cross_entropy(spliced, batch.targets)
            # p (log p − log q) without another array as large as these
            divergence += float(torch.nn.functional.kl_div(
                spliced, batch.plain, reduction="sum", log_target=True
            ))  # fmt: skip
        score = ce_loss_score(self._plain, self._zeroed_at(layer), entropy)
        return {"ce_loss_score": score, "kl": divergence / self.predictions}

    def _zeroed_at(self, layer: int) -> float:
        if layer not in self._zeroed:
            self._zeroed[layer] = sum(
                _cross_entropy(self._spliced(batch, layer, 0.0), batch.targets)
                for batch in self._batches
            )
        return self._zeroed[layer]

    def _spliced(self, batch: _Batch, layer: int, rows: torch.Tensor | float) -> torch.Tensor:
        """[n_predictions, n_vocabulary] log-probabilities with `rows` in place of the layer's."""
        hidden = batch.hidden[layer].clone()
        hidden[batch.where] = rows
        with ExitStack() as changes:
            # The blocks before need not run: what they give is replaced, first position included.
            for block in self.model.blocks[:layer]:
                changes.enter_context(mock.patch.object(block, "forward", _pass_on))
            changes.enter_context(self.model.splice(layer, hidden, batch.tokens.mask))
            logits = self.model.logits(batch.tokens)
        return logits[:, :-1][batch.predicts].log_softmax(1)


def _pass_on(hidden: torch.Tensor, *_arguments, **_options) -> torch.Tensor:
    return hidden


def _cross_entropy(log_probabilities: torch.Tensor, targets: torch.Tensor) -> float:
    """Summed over predictions, in nats."""
    return -float(log_probabilities.gather(1, targets[:, None]).double().sum())
