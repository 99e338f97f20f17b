"""What a dictionary's reconstructions cost the model, on prompts it was not trained on."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from itda_core.codes import Codes
from itda_core.config import TrainConfig
from itda_core.corpus import Prompt
from itda_core.dictionary import Dictionary
from itda_core.metrics import ReconstructionSums, ce_loss_score
from itda_core.models import Activations, Model
from itda_core.plan import make_plan
from itda_core.tokens import Tokens, batches

EVALUATION_TOKENS = 4_096
_LOGIT_TOKENS = 1_024
"""Tokens of one forward pass: its logits are kept whole, [n_tokens, n_vocabulary]."""


@dataclass
class _Losses:
    """Sums over predictions: cross-entropy and KL in nats."""

    cross_entropy: float = 0.0
    divergence: float = 0.0


@dataclass
class Evaluation:
    """Measures of one dictionary by L0, over the batches so far; the last one is the result."""

    total_tokens: int
    l0s: tuple[int, ...]
    is_causal: bool
    predictions: int = 0
    model: _Losses = field(default_factory=_Losses)
    zeroed: _Losses = field(default_factory=_Losses)
    spliced: dict[int, _Losses] = field(default_factory=dict)
    sums: dict[int, ReconstructionSums] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        return self.sums[self.l0s[0]].tokens

    def by_l0(self) -> list[dict[str, float | int | None]]:
        """l0, fvu, ce_loss_score, kl (nats) for each L0; None where there is no next token,
        or no variance."""
        return [{"l0": l0, "fvu": self._fvu(l0), **self._cost(l0)} for l0 in self.l0s]

    def _fvu(self, l0: int) -> float | None:
        value = self.sums[l0].fvu
        return None if math.isnan(value) else value

    def _cost(self, l0: int) -> dict[str, float | None]:
        if not self.is_causal or not self.predictions:
            return {"ce_loss_score": None, "kl": None}
        spliced = self.spliced[l0]
        score = ce_loss_score(
            self.model.cross_entropy, self.zeroed.cross_entropy, spliced.cross_entropy
        )
        return {"ce_loss_score": score, "kl": spliced.divergence / self.predictions}


def evaluate(
    dictionary: Dictionary,
    model: Model,
    prompts: Sequence[Prompt],
    config: TrainConfig,
    max_tokens: int = EVALUATION_TOKENS,
) -> Iterator[Evaluation]:
    """FVU, CE loss score and KL for L0 = 1, 2, 4 … the dictionary's own, from one pursuit.

    The reconstruction replaces the activation at every position but those left out in training
    (the first). The prefix of a pursuit is the pursuit of smaller L0. Yields after each batch;
    the last is the result. Raises CorpusError where no prompt has two tokens.
    """
    layer = dictionary.hook_point.layer
    model.check_layers([layer])
    plan = make_plan(model, prompts, config, max_tokens)
    l0s = nested_l0s(dictionary.l0)
    result = Evaluation(plan.total_rows, l0s, model.is_causal)
    result.spliced = {l0: _Losses() for l0 in l0s}
    result.sums = {l0: ReconstructionSums() for l0 in l0s}
    gram = dictionary.gram()
    for first, last in batches(plan.lengths, _LOGIT_TOKENS):
        tokens = plan.tokens(model, first, last)
        activations = model.capture(tokens, [layer], config.skip_first)
        codes = dictionary.encode(activations[layer], gram=gram)
        for l0 in l0s:
            result.sums[l0].add(activations[layer], dictionary.decode(codes.prefix(l0)))
        if model.is_causal:
            _add_losses(result, dictionary, model, tokens, activations, codes)
        yield result


def nested_l0s(l0: int) -> tuple[int, ...]:
    """1, 2, 4 … and `l0` itself."""
    powers = [1]
    while powers[-1] * 2 < l0:
        powers.append(powers[-1] * 2)
    return tuple(dict.fromkeys([*powers, l0]))


def _add_losses(
    result: Evaluation,
    dictionary: Dictionary,
    model: Model,
    tokens: Tokens,
    activations: Activations,
    codes: Codes,
) -> None:
    layer = dictionary.hook_point.layer
    where = torch.zeros_like(tokens.mask)
    where[activations.prompts, activations.positions] = True
    predicts = where[:, :-1] & tokens.mask[:, 1:]
    targets = tokens.ids[:, 1:][predicts]

    def log_probabilities(rows: torch.Tensor | None) -> torch.Tensor:
        if rows is None:
            logits = model.logits(tokens)
        else:
            hidden = torch.zeros(*where.shape, dictionary.d_model)
            hidden[where] = rows
            with model.splice(layer, hidden, where):
                logits = model.logits(tokens)
        return logits[:, :-1].cpu()[predicts].log_softmax(1)

    plain = log_probabilities(None)
    result.predictions += len(targets)
    _add(result.model, plain, plain, targets)
    zero = torch.zeros(len(activations.prompts), dictionary.d_model)
    _add(result.zeroed, log_probabilities(zero), plain, targets)
    for l0 in result.l0s:
        spliced = log_probabilities(dictionary.decode(codes.prefix(l0)))
        _add(result.spliced[l0], spliced, plain, targets)


def _add(losses: _Losses, predicted: torch.Tensor, plain: torch.Tensor, targets: torch.Tensor):
    """Count predictions; `predicted` and `plain` are log-probabilities, [n, n_vocabulary]."""
    losses.cross_entropy -= float(predicted.gather(1, targets[:, None]).double().sum())
    losses.divergence += float((plain.exp() * (plain - predicted)).double().sum())
