"""What a model predicts when the output of one of its blocks is replaced by a reconstruction."""

import dataclasses
import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from itda_core.activations.plan import Plan, make_plan
from itda_core.config import HookPoint, TrainConfig
from itda_core.corpus.corpus import Prompt
from itda_core.devices import check_same_device, in_float64, to_device
from itda_core.evaluation.losses import Losses
from itda_core.model.model import Model
from itda_core.model.steps_of_work import Step, in_halves
from itda_core.model.tokens import Tokens, batches

_LOGIT_TOKENS = 1_024
"""Tokens of one forward pass: its logits are kept whole, [n_tokens, n_vocabulary]."""

Stream = tuple[Tokens, torch.Tensor]
"""Texts and an output of a block on them, [n_texts, longest, d_model]"""
Rebuilt = torch.Tensor | float | Callable[[slice], torch.Tensor]
"""What is put in place of a batch's activations: rows, a number for all entries, or a function that
gives the rows of a slice"""


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

    def texts(self, first: int, last: int) -> "SplicedBatch":
        """The same of texts `first` to `last` (not included)."""
        tokens = self.tokens.select(range(first, last))
        hidden = self._hidden[first:last, : tokens.ids.shape[1]]
        places = (self._model, self._layer, tokens, self._skip_first, self.kept_on, hidden)
        return SplicedBatch(*places)

    def losses(self, *reconstructions: Rebuilt) -> list[Losses]:
        """The losses of the model as it is, then those with each of `reconstructions` put in; see
        `losses_each`."""
        steps = losses_each(self._model, self._layer, [(self, reconstructions)])
        return next(step.value for step in steps if step.value is not None)

    def streams(self, reconstructions: Iterable[torch.Tensor | float]) -> Iterator[Stream]:
        """The block's output as it is, then with each reconstruction of all rows in its place."""
        output = self._output
        yield self.tokens, output
        for rows in reconstructions:
            hidden = output.clone(memory_format=torch.contiguous_format)
            if not torch.is_tensor(rows):
                rows = torch.full((), rows, dtype=hidden.dtype, device=hidden.device)
            hidden.flatten(0, 1)[self._rows] = rows.to(hidden.dtype)
            yield self.tokens, hidden

    def log_probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Of the next token where one is counted, [n_predictions, n_vocabulary]."""
        return logits.flatten(0, 1)[self._predicts].log_softmax(1)

    def losses_of(self, predicted: torch.Tensor, plain: torch.Tensor | None) -> Losses:
        """Of predictions, beside those of the model as it is, where it is not these themselves.
        Both: what `log_probabilities` gives."""
        entropy = -in_float64(predicted.gather(1, self._targets[:, None])).sum()
        if plain is None:
            return Losses(len(predicted), entropy)
        divergences = (plain - predicted).mul_(plain.exp()).sum(1)
        return Losses(len(predicted), entropy, in_float64(divergences).sum())


@dataclass(frozen=True)
class _Part:
    """Some texts of a batch, and what is to be put in their place."""

    number: int
    """of the batch"""
    batch: SplicedBatch
    """of these texts"""
    rows: slice
    """their activations among the whole batch's"""
    reconstructions: Sequence[Rebuilt]
    """of the whole batch"""
    is_last: bool = True
    """whether the batch ends with them"""

    def __len__(self) -> int:
        return len(self.batch.tokens)

    def streams(self) -> Iterator[Stream]:
        return self.batch.streams(map(self._own, self.reconstructions))

    def _own(self, rebuilt: Rebuilt) -> torch.Tensor | float:
        if isinstance(rebuilt, int | float):
            return rebuilt
        rows = rebuilt[self.rows] if torch.is_tensor(rebuilt) else rebuilt(self.rows)
        check_same_device(activations=self.batch._rows, reconstructions=rows)
        return rows

    def halves(self) -> list["_Part"]:
        middle = len(self) // 2
        first, second = self.batch.texts(0, middle), self.batch.texts(middle, len(self))
        edge = self.rows.start + len(first)
        return [
            dataclasses.replace(
                self, batch=first, rows=slice(self.rows.start, edge), is_last=False
            ),
            dataclasses.replace(self, batch=second, rows=slice(edge, self.rows.stop)),
        ]


def losses_each(
    model: Model,
    layer: int,
    batches: Iterable[tuple[SplicedBatch, Sequence[Rebuilt]]],
    n_tokens: int | None = None,
) -> Iterator[Step[list[Losses]]]:
    """The losses of each batch: of the model as it is, then with each reconstruction put in.

    All go through the blocks above in one call, so that a model that is read block by block reads
    each once. Such a model takes all batches before it gives anything, so that reconstructions of
    many should be functions; a model in memory takes a batch when the one before is done.

    batches: each with its reconstructions: [n_tokens, d_model], a number for all entries, or a
    function that gives the rows of a slice, and gives them again where it is asked again. n_tokens:
    that go through the model in all, by which the fraction goes; see `logits_after_each`. Where the
    predictions fill memory, those of half as many texts are made at once. Raises InputError where
    one text's don't fit, and for reconstructions on another device than the model.
    """
    parts = (
        _Part(number, batch, slice(0, len(batch)), reconstructions)
        for number, (batch, reconstructions) in enumerate(batches)
    )
    run = functools.partial(_losses_of_parts, model, layer, n_tokens)
    say, totals = functools.partial(_no_room_for_part, model), None
    for step in in_halves(run, parts, _Part.halves, say):
        if step.value is None:
            yield step
            continue
        part, losses = step.value
        totals = totals or [Losses() for _ in losses]
        for total, of_part in zip(totals, losses, strict=True):
            total.add(of_part)
        done, totals = totals, None if part.is_last else totals
        yield Step(step.fraction, part.number, done) if part.is_last else Step(step.fraction)


def _losses_of_parts(
    model: Model, layer: int, n_tokens: int | None, parts: Iterator[_Part]
) -> Iterator[Step[list[Losses]]]:
    given: deque[_Part] = deque()

    def streams() -> Iterator[Stream]:
        for part in parts:
            given.append(part)
            yield from part.streams()

    losses, plain = [], None
    for step in model.logits_after_each(layer, streams(), n_tokens):
        if step.number is None:
            yield step
            continue
        part, fraction = given[0], step.fraction
        predicted = part.batch.log_probabilities(step.value)
        del step  # its logits are not needed any more
        losses.append(part.batch.losses_of(predicted, plain))
        plain = predicted if plain is None else plain
        del predicted
        if len(losses) == 1 + len(part.reconstructions):
            given.popleft()
            done, losses, plain = losses, [], None
            yield Step(fraction, part.number, done)


class SplicedPrompts:
    """Prompts on which several dictionaries of one layer are compared, by what they cost the model.

    The model is run over them once, and its losses as it is and with zeros are measured once, with
    the first reconstructions that are scored:

        dictionary = dictionary.to(model.device)
        spliced = SplicedPrompts(model, dictionary.hook_point, corpus.held_out(), config)
        xhat = dictionary.decode(dictionary.encode(spliced.activations))
        spliced.score(xhat)  # {"ce_loss_score": …, "kl": …}

    Of a model that is read block by block every call reads the blocks above the layer anew: give it
    all reconstructions together (`scores`).
    """

    def __init__(
        self,
        model: Model,
        layer: int | HookPoint,
        prompts: Sequence[Prompt],
        config: TrainConfig,
        max_tokens: int = 4_096,
    ):
        """Read `max_tokens` tokens of the prompts as `config` says (context length, first
        positions). layer: the dictionary's hook point, which says the place in the block too; a
        number is a layer at the site of the model, `model.at(site)`, by default its block's output.
        Raises CorpusError where no prompt has two tokens, ModelError for encoders."""
        if isinstance(layer, HookPoint):
            model, layer = model.at(layer.site), layer.layer
        model.abilities.require(model.name, "splicing")
        self._model, self._layer = model, layer
        plan = make_plan(model, prompts, config, max_tokens)
        steps = spliced_batches(model, layer, plan)
        self.batches = [step.value for step in steps if step.value is not None]
        self.activations = torch.cat([batch.activations for batch in self.batches])
        """[n_tokens, d_model] float32, on the model's device"""
        self._known: tuple[Losses, Losses] | None = None

    @property
    def plain(self) -> Losses:
        """Of the model as it is."""
        return self._as_it_is_and_zeroed()[0]

    @property
    def zeroed(self) -> Losses:
        """With zeros in place of the activations."""
        return self._as_it_is_and_zeroed()[1]

    def losses(self, reconstructions: torch.Tensor) -> Losses:
        """The losses with `reconstructions`, [n_tokens, d_model], in place of `activations`."""
        return self._measured([reconstructions])[0]

    def score(self, reconstructions: torch.Tensor) -> dict[str, float]:
        """ce_loss_score, and kl in nats."""
        return self.scores([reconstructions])[0]

    def scores(self, reconstructions: Sequence[torch.Tensor]) -> list[dict[str, float]]:
        """The same of several, [n_tokens, d_model] each, which go through the model together."""
        found = self._measured(reconstructions)
        return [
            {"ce_loss_score": one.score(self.plain, self.zeroed), "kl": one.kl} for one in found
        ]

    def _as_it_is_and_zeroed(self) -> tuple[Losses, Losses]:
        if self._known is None:
            self._measured([])
        return self._known

    def _measured(self, reconstructions: Sequence[torch.Tensor]) -> list[Losses]:
        """The losses of each, and those of the model as it is and zeroed where they are not known
        yet."""
        lengths = [len(batch) for batch in self.batches]
        by_batch = zip(*(rows.split(lengths) for rows in reconstructions), strict=True)
        zeros = [] if self._known else [0.0]
        parts = by_batch if reconstructions else [()] * len(lengths)
        work = [(batch, [*zeros, *rows]) for batch, rows in zip(self.batches, parts, strict=True)]
        plain, *others = [Losses() for _ in range(1 + len(zeros) + len(reconstructions))]
        for step in losses_each(self._model, self._layer, work):
            if step.value is not None:
                for total, of_batch in zip((plain, *others), step.value, strict=True):
                    total.add(of_batch)
        if self._known is None:
            self._known = plain, others[0]
        return others[len(zeros) :]


def _has_next(mask: torch.Tensor) -> torch.Tensor:
    """[n_texts, longest] bool: whether a token follows. mask: where there is one."""
    return torch.nn.functional.pad(mask[:, 1:], (0, 1))


def _places(where: torch.Tensor) -> torch.Tensor:
    """The numbers of the true entries, counted row by row, [n] int64."""
    return where.flatten().nonzero()[:, 0]


def spliced_batches(
    model: Model, layer: int, plan: Plan, kept_on: torch.device | str | None = None
) -> Iterator[Step[SplicedBatch]]:
    """A plan's prompts in batches of one forward pass with logits; in smaller ones where a pass
    fills memory. Raises InputError where one text does not fit."""
    tokens = [plan.tokens(*bounds) for bounds in batches(plan.lengths, _LOGIT_TOKENS)]

    def captured(some: Iterator[Tokens]) -> Iterator[Step[SplicedBatch]]:
        chosen = list(some)
        for step in model.hidden_each(chosen, layer):
            if step.number is None:
                yield step
                continue
            places = (model, layer, chosen[step.number], plan.skip_first, kept_on, step.value)
            found = Step(step.fraction, step.number, SplicedBatch(*places))
            del step, places  # the output may lie on the model's device
            yield found

    for step in in_halves(captured, tokens, _halves, functools.partial(_no_room, model)):
        yield step if step.value is None else dataclasses.replace(step, value=step.value[1])


def _halves(tokens: Tokens) -> list[Tokens]:
    middle = len(tokens) // 2
    return [tokens.select(range(middle)), tokens.select(range(middle, len(tokens)))]


def _no_room_for_part(model: Model, part: _Part) -> str:
    return _no_room(model, part.batch.tokens)


def _no_room(model: Model, tokens: Tokens) -> str:
    return (
        f"There is no room on the device {model.device} for what {model.name} predicts on one text "
        f"of up to {tokens.ids.shape[1]:,} tokens. Free memory there, or choose another device."
    )
