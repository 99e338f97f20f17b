"""What a model predicts when the output of one of its blocks is replaced by a reconstruction."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from itda_core.activations.plan import Plan, make_plan
from itda_core.config import TrainConfig
from itda_core.corpus.corpus import Prompt
from itda_core.model.model import Model
from itda_core.model.tokens import Tokens, batches

_LOGIT_TOKENS = 1_024
"""Tokens of one forward pass: its logits are kept whole, [n_tokens, n_vocabulary]."""


def ce_loss_score(model: float, zeroed: float, spliced: float) -> float:
    """(H_zero − H_spliced) / (H_zero − H_model), H in nats: 1 = nothing lost, 0 = all lost.

    `ce_loss_score` in SAEBench. NaN where zeroing costs nothing.
    """
    return (zeroed - spliced) / (zeroed - model) if zeroed != model else float("nan")


@dataclass
class Losses:
    """Sums over predictions, in nats: cross-entropy, and divergence from the model as it is."""

    predictions: int = 0
    cross_entropy: float = 0.0
    divergence: float = 0.0
    """Σ KL(model as it is ‖ spliced)"""

    def add(self, other: "Losses") -> None:
        self.predictions += other.predictions
        self.cross_entropy += other.cross_entropy
        self.divergence += other.divergence

    @property
    def kl(self) -> float:
        """Mean over predictions of Σ_v p(v) (log p(v) − log q(v)), p of the model as it is and q
        spliced, in nats; `kl_div_with_sae` in SAEBench. NaN without predictions."""
        return self.divergence / self.predictions if self.predictions else float("nan")

    def score(self, plain: "Losses", zeroed: "Losses") -> float:
        """The CE loss score; NaN without predictions."""
        return ce_loss_score(plain.cross_entropy, zeroed.cross_entropy, self.cross_entropy)


class SplicedBatch:
    """Some prompts, the activations of one layer on them, and the predictions that follow.

    Replaced are the positions that training reads: with `skip_first` the first position keeps its
    own activation. Counted are the predictions made at replaced positions that have a next token.
    """

    def __init__(self, model: Model, layer: int, tokens: Tokens, skip_first: bool = True):
        self._model, self._layer, self.tokens = model, layer, tokens
        self._hidden = model.hidden(tokens, layer).cpu()
        self.where = tokens.mask.clone()
        """[n_texts, longest] bool, the positions replaced"""
        if skip_first:
            self.where[:, :1] = False
        self._predicts = self.where[:, :-1] & tokens.mask[:, 1:]
        self._targets = tokens.ids[:, 1:][self._predicts]

    def __len__(self) -> int:
        return int(self.where.sum())

    @property
    def activations(self) -> torch.Tensor:
        """What is replaced, [n_tokens, d_model] float32: text by text, in order of positions."""
        return self._hidden[self.where].float()

    @property
    def positions(self) -> torch.Tensor:
        """The position of each activation in its text, [n_tokens] int64."""
        return self.where.nonzero()[:, 1]

    @property
    def ids(self) -> torch.Tensor:
        """The token of each activation, [n_tokens] int64."""
        return self.tokens.ids[self.where]

    def losses(self, *reconstructions: torch.Tensor | float) -> list[Losses]:
        """The losses of the model as it is, then those with each of `reconstructions` put in, of
        shape [n_tokens, d_model] or a number for all entries."""
        plain = self._log_probabilities(self._hidden)
        losses = [self._losses(plain, None)]
        for rows in reconstructions:
            hidden = self._hidden.clone()
            hidden[self.where] = torch.as_tensor(rows).to(hidden.dtype)
            losses.append(self._losses(self._log_probabilities(hidden), plain))
        return losses

    def _log_probabilities(self, hidden: torch.Tensor) -> torch.Tensor:
        """Of the next token where one is counted, [n_predictions, n_vocabulary]."""
        logits = self._model.logits_after(self.tokens, self._layer, hidden)
        return logits[:, :-1].cpu()[self._predicts].log_softmax(1)

    def _losses(self, predicted: torch.Tensor, plain: torch.Tensor | None) -> Losses:
        entropy = -float(predicted.gather(1, self._targets[:, None]).double().sum())
        if plain is None:
            return Losses(len(predicted), entropy)
        divergences = (plain.exp() * (plain - predicted)).sum(1)
        return Losses(len(predicted), entropy, float(divergences.double().sum()))


class SplicedPrompts:
    """Prompts on which several dictionaries of one layer are compared, by what they cost the model.

    The model is run over them once, and its losses as it is and with zeros are measured once:

        spliced = SplicedPrompts(model, 15, corpus.held_out(), config)
        xhat = dictionary.decode(dictionary.encode(spliced.activations))
        spliced.score(xhat)  # {"ce_loss_score": …, "kl": …}
    """

    def __init__(
        self,
        model: Model,
        layer: int,
        prompts: Sequence[Prompt],
        config: TrainConfig,
        max_tokens: int = 4_096,
    ):
        """Read `max_tokens` tokens of the prompts as `config` says (context length, first
        positions). Raises CorpusError where no prompt has two tokens, ModelError for encoders."""
        plan = make_plan(model, prompts, config, max_tokens)
        self.batches = [
            SplicedBatch(model, layer, tokens, config.skip_first) for tokens in token_batches(plan)
        ]
        self.activations = torch.cat([batch.activations for batch in self.batches])
        """[n_tokens, d_model] float32"""
        self.plain, self.zeroed = Losses(), Losses()
        for batch in self.batches:
            plain, zeroed = batch.losses(0.0)
            self.plain.add(plain)
            self.zeroed.add(zeroed)

    def losses(self, reconstructions: torch.Tensor) -> Losses:
        """The losses with `reconstructions`, [n_tokens, d_model], in place of `activations`."""
        total, rows = Losses(), reconstructions.split([len(batch) for batch in self.batches])
        for batch, rows_of_batch in zip(self.batches, rows, strict=True):
            total.add(batch.losses(rows_of_batch)[1])
        return total

    def score(self, reconstructions: torch.Tensor) -> dict[str, float]:
        """ce_loss_score, and kl in nats."""
        spliced = self.losses(reconstructions)
        return {"ce_loss_score": spliced.score(self.plain, self.zeroed), "kl": spliced.kl}


def token_batches(plan: Plan) -> list[Tokens]:
    """The tokens of a plan's prompts in batches of one forward pass with logits."""
    return [plan.tokens(first, last) for first, last in batches(plan.lengths, _LOGIT_TOKENS)]
