"""What a model predicts when the output of one of its blocks is replaced by a reconstruction."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from itda_core.activations.plan import Plan, make_plan
from itda_core.config import TrainConfig
from itda_core.corpus.corpus import Prompt
from itda_core.devices import check_same_device, halving, in_float64, to_device
from itda_core.evaluation.metrics import Sum
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
    cross_entropy: Sum = 0.0
    divergence: Sum = 0.0
    """Σ KL(model as it is ‖ spliced)"""

    def add(self, other: "Losses") -> None:
        self.predictions += other.predictions
        self.cross_entropy = self.cross_entropy + other.cross_entropy
        self.divergence = self.divergence + other.divergence

    @property
    def kl(self) -> float:
        """Mean over predictions of Σ_v p(v) (log p(v) − log q(v)), p of the model as it is and q
        spliced, in nats; `kl_div_with_sae` in SAEBench. NaN without predictions."""
        return float(self.divergence) / self.predictions if self.predictions else float("nan")

    def score(self, plain: "Losses", zeroed: "Losses") -> float:
        """The CE loss score; NaN without predictions."""
        return ce_loss_score(*(float(of.cross_entropy) for of in (plain, zeroed, self)))


class SplicedBatch:
    """Some prompts, the activations of one layer on them, and the predictions that follow.

    Replaced are the positions that training reads: with `skip_first` the first position keeps its
    own activation. Counted are the predictions made at replaced positions that have a next token.
    Activations and losses are on the model's device, what is known of the tokens on the host.
    """

    def __init__(
        self,
        model: Model,
        layer: int,
        tokens: Tokens,
        skip_first: bool = True,
        kept_on: torch.device | str | None = None,
        hidden: torch.Tensor | None = None,
    ):
        """kept_on: where the block's output waits for its use, by default the model's device;
        hidden: that output, [n_texts, longest, d_model], where it is there already."""
        self._model, self._layer, self.tokens = model, layer, tokens
        self._skip_first = skip_first
        self.kept_on = torch.device(kept_on or model.device)
        hidden = model.hidden(tokens, layer) if hidden is None else hidden
        self._hidden = hidden.to(self.kept_on)
        self.where = tokens.mask.clone()
        """[n_texts, longest] bool, the positions replaced"""
        if skip_first:
            self.where[:, :1] = False
        predicts = self.where & _has_next(tokens.mask)
        # As numbers, since the host waits for a device to count what a mask takes.
        self._rows = to_device(_places(self.where), model.device)
        self._predicts = to_device(_places(predicts), model.device)
        self._targets = to_device(tokens.ids.roll(-1, 1)[predicts], model.device)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def activations(self) -> torch.Tensor:
        """What is replaced, [n_tokens, d_model] float32: text by text, in order of positions."""
        return self._output.flatten(0, 1)[self._rows].float()

    @property
    def positions(self) -> torch.Tensor:
        """The position of each activation in its text, [n_tokens] int64."""
        return self.where.nonzero()[:, 1]

    @property
    def ids(self) -> torch.Tensor:
        """The token of each activation, [n_tokens] int64."""
        return self.tokens.ids[self.where]

    @property
    def _output(self) -> torch.Tensor:
        """The block's own output, [n_texts, longest, d_model]."""
        return self._hidden.to(self._model.device)

    def losses(self, *reconstructions: torch.Tensor | float) -> list[Losses]:
        """The losses of the model as it is, then those with each of `reconstructions` put in, of
        shape [n_tokens, d_model] or a number for all entries.

        Where the predictions fill memory, those of half as many texts are made at once. Raises
        InputError where one text's don't fit, and for reconstructions on another device than the
        model.
        """
        for rows in filter(torch.is_tensor, reconstructions):
            check_same_device(activations=self._rows, reconstructions=rows)
        n_texts, totals = len(self.tokens), [Losses() for _ in range(1 + len(reconstructions))]
        work = functools.partial(self._losses_of_texts, reconstructions)
        for part in halving(work, n_texts, n_texts, _no_room(self._model, self.tokens)):
            for total, losses in zip(totals, part, strict=True):
                total.add(losses)
        return totals

    def _losses_of_texts(
        self, reconstructions: Sequence[torch.Tensor | float], first: int, last: int
    ) -> list[Losses]:
        """The losses of texts `first` to `last` (not included)."""
        if last - first == len(self.tokens):
            return self._all_losses(reconstructions)
        tokens = self.tokens.select(range(first, last))
        hidden = self._hidden[first:last, : tokens.ids.shape[1]]
        places = (self._model, self._layer, tokens, self._skip_first, self.kept_on, hidden)
        rows = slice(int(self.where[:first].sum()), int(self.where[:last].sum()))
        own = [one[rows] if torch.is_tensor(one) else one for one in reconstructions]
        return SplicedBatch(*places)._all_losses(own)

    def _all_losses(self, reconstructions: Sequence[torch.Tensor | float]) -> list[Losses]:
        output = self._output
        plain = self._log_probabilities(output)
        losses = [self._losses(plain, None)]
        for rows in reconstructions:
            hidden = output.clone(memory_format=torch.contiguous_format)
            if not torch.is_tensor(rows):
                rows = torch.full((), rows, dtype=hidden.dtype, device=hidden.device)
            hidden.flatten(0, 1)[self._rows] = rows.to(hidden.dtype)
            losses.append(self._losses(self._log_probabilities(hidden), plain))
        return losses

    def _log_probabilities(self, hidden: torch.Tensor) -> torch.Tensor:
        """Of the next token where one is counted, [n_predictions, n_vocabulary]."""
        logits = self._model.logits_after(self.tokens, self._layer, hidden)
        return logits.flatten(0, 1)[self._predicts].log_softmax(1)

    def _losses(self, predicted: torch.Tensor, plain: torch.Tensor | None) -> Losses:
        entropy = -in_float64(predicted.gather(1, self._targets[:, None])).sum()
        if plain is None:
            return Losses(len(predicted), entropy)
        divergences = (plain - predicted).mul_(plain.exp()).sum(1)
        return Losses(len(predicted), entropy, in_float64(divergences).sum())


class SplicedPrompts:
    """Prompts on which several dictionaries of one layer are compared, by what they cost the model.

    The model is run over them once, and its losses as it is and with zeros are measured once:

        spliced = SplicedPrompts(model, 15, corpus.held_out(), config)
        dictionary = dictionary.to(model.device)
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
        self.batches = [*spliced_batches(model, layer, plan)]
        self.activations = torch.cat([batch.activations for batch in self.batches])
        """[n_tokens, d_model] float32, on the model's device"""
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


def _has_next(mask: torch.Tensor) -> torch.Tensor:
    """[n_texts, longest] bool: whether a token follows. mask: where there is one."""
    return torch.nn.functional.pad(mask[:, 1:], (0, 1))


def _places(where: torch.Tensor) -> torch.Tensor:
    """The numbers of the true entries, counted row by row, [n] int64."""
    return where.flatten().nonzero()[:, 0]


def spliced_batches(
    model: Model, layer: int, plan: Plan, kept_on: torch.device | str | None = None
) -> Iterator[SplicedBatch]:
    """A plan's prompts in batches of one forward pass with logits; in smaller ones where a pass
    fills memory. Raises InputError where one text does not fit."""
    for first, last in batches(plan.lengths, _LOGIT_TOKENS):
        tokens = plan.tokens(first, last)

        def captured(first: int, last: int, tokens: Tokens = tokens) -> SplicedBatch:
            part = tokens.select(range(first, last))
            return SplicedBatch(model, layer, part, plan.skip_first, kept_on)

        yield from halving(captured, len(tokens), len(tokens), _no_room(model, tokens))


def _no_room(model: Model, tokens: Tokens) -> str:
    return (
        f"There is no room on the device {model.device} for what {model.name} predicts on one text "
        f"of up to {tokens.ids.shape[1]:,} tokens. Free memory there, or choose another device."
    )
