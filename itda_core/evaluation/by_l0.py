"""What a dictionary explains and what it costs the model, on prompts it was not trained on."""

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from itda_core.activations.massive import massive
from itda_core.activations.plan import make_plan
from itda_core.config import TrainConfig
from itda_core.corpus.corpus import Prompt
from itda_core.devices import free_memory, to_device
from itda_core.dictionary.dictionary import Dictionary
from itda_core.errors import InputError
from itda_core.evaluation.metrics import ReconstructionSums, SparsitySums, density_histogram
from itda_core.evaluation.splicing import (
    Losses,
    Rebuilt,
    SplicedBatch,
    losses_each,
    spliced_batches,
)
from itda_core.evaluation.token_errors import GatheredErrors, TokenErrors
from itda_core.model.model import Model
from itda_core.model.steps_of_work import Step
from itda_core.pursuit.codes import Codes

EVALUATION_TOKENS = 4_096
_KEPT_BYTES = 4
"""Of each component of a token, as the model gives it, at most"""


@dataclass
class AtL0:
    """What one L0 gives: sums over the tokens so far."""

    sparsity: SparsitySums
    everything: ReconstructionSums = field(default_factory=ReconstructionSums)
    usual: ReconstructionSums = field(default_factory=ReconstructionSums)
    """without massive activations"""
    spliced: Losses = field(default_factory=Losses)

    def add(self, codes: Codes, x: torch.Tensor, xhat: torch.Tensor, usual: torch.Tensor) -> None:
        """Count a batch: codes, activations and reconstructions. usual: the numbers of the rows
        that are not massive."""
        self.sparsity.add(codes)
        self.everything.add(x, xhat)
        self.usual.add(x[usual], xhat[usual])

    def to_dict(self, plain: Losses, zeroed: Losses) -> dict[str, float | None]:
        """Every measure by name; None where there is nothing to divide by."""
        has_losses = self.spliced.predictions > 0
        measures = {
            "mean_l0": self.sparsity.mean_l0,
            "mean_latents": self.sparsity.mean_latents,
            "fvu": self.everything.fvu,
            "fvu_without_massive": self.usual.fvu,
            "explained_variance": self.everything.explained_variance,
            "cosine": self.everything.cosine,
            "norm_ratio": self.everything.norm_ratio,
            "ce_loss_score": self.spliced.score(plain, zeroed) if has_losses else math.nan,
            "kl": self.spliced.kl,
        }
        return {name: None if math.isnan(value) else value for name, value in measures.items()}


@dataclass
class Evaluation:
    """Measures of one dictionary by L0, over the tokens so far; the last one is the result."""

    total_tokens: int
    prompts: int
    """how many are read"""
    at: dict[int, AtL0]
    """by L0"""
    capture_share: float
    """of the whole work, in [0, 1]"""
    captured: float = 0.0
    """share of the capture that is done, in [0, 1]"""
    measured: float = 0.0
    """share of what follows that is done, in [0, 1]"""
    median_norm: float | None = None
    """‖x‖ from which massive activations are told: of the training tokens where the dictionary
    knows it, else of these"""
    massive_tokens: int = 0
    plain: Losses = field(default_factory=Losses)
    zeroed: Losses = field(default_factory=Losses)
    why_no_losses: str = ""
    """why there is no cross-entropy; empty where there is"""
    errors: TokenErrors | None = None
    """at the dictionary's own L0; there once all tokens are measured"""
    stage = "evaluating"

    @property
    def tokens(self) -> int:
        """Those that are reconstructed so far."""
        return self._largest.everything.tokens

    @property
    def fraction(self) -> float:
        """How much of the work is done, in [0, 1]."""
        return self.capture_share * self.captured + (1 - self.capture_share) * self.measured

    @property
    def _largest(self) -> AtL0:
        return self.at[max(self.at)]

    def by_l0(self) -> list[dict[str, float | int | None]]:
        """l0 and each measure of metrics.py for each L0; None where there is no next token, or
        no variance. kl is in nats."""
        return [{"l0": l0, **sums.to_dict(self.plain, self.zeroed)} for l0, sums in self.at.items()]

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON types; density and errors are those at the largest L0."""
        sparsity = self._largest.sparsity
        return {
            "tokens": self.tokens,
            "prompts": self.prompts,
            "by_l0": self.by_l0(),
            "median_norm": self.median_norm,
            "massive_tokens": self.massive_tokens,
            "unused_share": sparsity.unused_share,
            "density": density_histogram(sparsity.densities, sparsity.tokens),
            "errors": self.errors.to_dict() if self.errors else {},
            **({"why_no_losses": self.why_no_losses} if self.why_no_losses else {}),
        }


def evaluate(
    dictionary: Dictionary,
    model: Model,
    prompts: Sequence[Prompt],
    config: TrainConfig,
    max_tokens: int = EVALUATION_TOKENS,
    l0s: Sequence[int] | None = None,
    frequencies: np.ndarray | None = None,
) -> Iterator[Evaluation]:
    """Measure a dictionary for several L0, from one pursuit; see `Evaluation`.

    The reconstruction replaces the activation at every position but those left out in training
    (the first). The prefix of a pursuit is the pursuit of smaller L0. Yields after each batch, and
    while a model is read block by block; the last is the result. Such a model is read once: the
    blocks up to the layer for the activations, those above it for the model as it is, zeros and
    every L0 together.

    All is computed on the model's device. What the model gives for all tokens at the layer (2 or 4
    bytes a component) and their codes (at most 8 · L0 bytes a token, 4 · L0² more where
    coefficients are fitted together) are kept there, or the former in main memory where it would
    take more than a quarter of what is free there. A model that is read block by block keeps
    hidden states of (number of L0s + 2) times the tokens beside.

    l0s: by default 1, 2, 4 … and the dictionary's own. frequencies: how often each token id occurs
    in the training part of the corpus, [n_ids]. Raises CorpusError where no prompt has two tokens.
    """
    l0s = nested_l0s(dictionary.l0) if l0s is None else _checked_l0s(l0s, dictionary.l0)
    layer = dictionary.hook_point.layer
    model.check_layers([layer])
    model = model.at(dictionary.hook_point.site)
    plan = make_plan(model, prompts, config, max_tokens)
    median_norm, dictionary = dictionary.median_norm, dictionary.to(model.device)
    sparsities = (SparsitySums.of(len(dictionary), dictionary.device) for _ in l0s)
    at = {l0: AtL0(sums) for l0, sums in zip(l0s, sparsities, strict=True)}
    result = Evaluation(
        plan.total_rows, len(plan.prompts), at, _capture_share(model, layer, len(l0s))
    )
    result.median_norm = median_norm
    result.why_no_losses = model.why_not("splicing")
    batches: list[SplicedBatch] = []
    kept_on = _where_kept(model, plan.total_rows)
    for step in spliced_batches(model, layer, plan, kept_on):
        if step.value is not None:
            batches.append(step.value)
        result.captured = step.fraction
        yield result
    yield from _Measuring(result, dictionary, model, batches).steps(frequencies)


def nested_l0s(l0: int) -> tuple[int, ...]:
    """1, 2, 4 … and `l0` itself."""
    powers = [1]
    while powers[-1] * 2 < l0:
        powers.append(powers[-1] * 2)
    return tuple(dict.fromkeys([*powers, l0]))


def _checked_l0s(l0s: Sequence[int], max_l0: int) -> tuple[int, ...]:
    if not l0s or min(l0s) < 1 or max(l0s) > max_l0:
        raise InputError(f"L0 is from 1 to the dictionary's {max_l0}, got {list(l0s)}.")
    return tuple(sorted(set(l0s)))


def _where_kept(model: Model, tokens: int) -> torch.device:
    """Where the activations of so many tokens wait: on the model's device, unless they would take
    more than a quarter of what is free there."""
    needed = tokens * model.d_model * _KEPT_BYTES
    fits = needed <= free_memory(model.device) // 4
    return model.device if fits else torch.device("cpu")


def _capture_share(model: Model, layer: int, n_l0s: int) -> float:
    """The capture's share of all the work, counted in blocks that a token passes through."""
    # The unembedding is one more block.
    after = model.n_layers - layer if model.can_be_spliced else 0
    return (layer + 1) / (layer + 1 + (n_l0s + 2) * after)  # 2: as it is, and zeroed


class _Measuring:
    """What is rebuilt of all batches, and what that costs the model."""

    def __init__(
        self,
        result: Evaluation,
        dictionary: Dictionary,
        model: Model,
        batches: list[SplicedBatch],
    ):
        self._result, self._dictionary, self._model = result, dictionary, model
        self._batches, self._errors = batches, GatheredErrors()
        norms = torch.cat([batch.activations.norm(dim=1) for batch in batches]).cpu()
        result.median_norm = result.median_norm or float(norms.median())
        is_massive = massive(norms, result.median_norm)
        result.massive_tokens = int(is_massive.sum())
        self._is_massive = is_massive.split([len(batch) for batch in batches])

    def steps(self, frequencies: np.ndarray | None) -> Iterator[Evaluation]:
        """frequencies: see `evaluate`."""
        result = self._result
        for step in self._without_losses() if result.why_no_losses else self._losses():
            result.measured = step.fraction
            if step.value is not None:
                for total, losses in zip(self._totals, step.value, strict=True):
                    total.add(losses)
            if step.number == len(self._batches) - 1:
                result.errors = self._finished_errors(frequencies)
            yield result

    @property
    def _totals(self) -> list[Losses]:
        result = self._result
        return [result.plain, result.zeroed, *(sums.spliced for sums in result.at.values())]

    def _losses(self) -> Iterator[Step[list[Losses]]]:
        tokens = sum(int(batch.tokens.mask.sum()) for batch in self._batches)
        layer, work = self._dictionary.hook_point.layer, self._reconstructed()
        return losses_each(self._model, layer, work, tokens * len(self._totals))

    def _without_losses(self) -> Iterator[Step]:
        for number, _ in enumerate(self._reconstructed()):
            yield Step(self._result.tokens / self._result.total_tokens, number)

    def _reconstructed(self) -> Iterator[tuple[SplicedBatch, list[Rebuilt]]]:
        """Each batch with what is to be put in its place. Reconstructions are counted here, and
        made again when they are put in: codes take little room until then."""
        gram, result = self._dictionary.gram(), self._result
        for batch, is_massive in zip(self._batches, self._is_massive, strict=True):
            x = batch.activations
            codes = self._dictionary.encode(x, gram=gram)
            usual = to_device((~is_massive).nonzero()[:, 0], x.device)
            for l0, sums in result.at.items():
                prefix = codes.prefix(l0)
                xhat = self._dictionary.decode(prefix)
                sums.add(prefix, x, xhat, usual)
            self._errors.add(x, xhat)
            del x, xhat, prefix
            rebuilt = functools.partial(_rebuilt, self._dictionary, codes)
            yield batch, [0.0, *(functools.partial(rebuilt, l0) for l0 in result.at)]

    def _finished_errors(self, frequencies: np.ndarray | None) -> TokenErrors:
        batches = self._batches
        ids = torch.cat([batch.ids for batch in batches]).numpy()
        return self._errors.finished(
            lambda: (batch.activations for batch in batches),
            torch.cat([batch.positions for batch in batches]).numpy(),
            None if frequencies is None else frequencies[ids],
            self._result.median_norm,
        )


def _rebuilt(dictionary: Dictionary, codes: Codes, l0: int, rows: slice) -> torch.Tensor:
    """Some rows' reconstructions of `l0` terms, [n, d_model]."""
    return dictionary.decode(codes.rows(rows).prefix(l0))
