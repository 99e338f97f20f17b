"""What a dictionary explains and what it costs the model, on prompts it was not trained on."""

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
from itda_core.evaluation.splicing import Losses, SplicedBatch, spliced_batches
from itda_core.evaluation.token_errors import TokenErrors
from itda_core.model.model import Model
from itda_core.pursuit.codes import Codes

EVALUATION_TOKENS = 4_096
_KEPT_BYTES = 32
"""Of each component: as the model gives it, rebuilt, and at the end both in float64 with their
difference."""


@dataclass
class AtL0:
    """What one L0 gives: sums over the tokens so far."""

    sparsity: SparsitySums
    everything: ReconstructionSums = field(default_factory=ReconstructionSums)
    usual: ReconstructionSums = field(default_factory=ReconstructionSums)
    """without massive activations"""
    spliced: Losses = field(default_factory=Losses)

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
    captured: int = 0
    """tokens whose activation is there"""
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
        return self._largest.everything.tokens

    @property
    def fraction(self) -> float:
        """How much of the work is done, in [0, 1]."""
        done = self.capture_share * self.captured + (1 - self.capture_share) * self.tokens
        return done / self.total_tokens

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
    (the first). The prefix of a pursuit is the pursuit of smaller L0. Yields after each batch;
    the last is the result. All is computed on the model's device. The activations of all tokens
    are kept there, or in main memory where they would fill it.

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
    for batch in spliced_batches(model, layer, plan, kept_on):
        batches.append(batch)
        result.captured += len(batch)
        yield result
    yield from _measure(result, dictionary, batches, frequencies)


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
    """Where activations and reconstructions of so many tokens wait: on the model's device, unless
    they would take more than a quarter of what is free there."""
    needed = tokens * model.d_model * _KEPT_BYTES
    fits = needed <= free_memory(model.device) // 4
    return model.device if fits else torch.device("cpu")


def _capture_share(model: Model, layer: int, n_l0s: int) -> float:
    """The capture's share of all the work, counted in blocks that a token passes through."""
    # The unembedding is one more block.
    after = model.n_layers - layer if model.can_be_spliced else 0
    return (layer + 1) / (layer + 1 + (n_l0s + 2) * after)  # 2: as it is, and zeroed


def _measure(
    result: Evaluation,
    dictionary: Dictionary,
    batches: list[SplicedBatch],
    frequencies: np.ndarray | None,
) -> Iterator[Evaluation]:
    norms = torch.cat([batch.activations.norm(dim=1) for batch in batches]).cpu()
    result.median_norm = result.median_norm or float(norms.median())
    is_massive = massive(norms, result.median_norm)
    result.massive_tokens = int(is_massive.sum())
    gram = dictionary.gram()
    reconstructions = []
    parts = is_massive.split([len(batch) for batch in batches])
    for batch, massive_here in zip(batches, parts, strict=True):
        x = batch.activations
        codes = dictionary.encode(x, gram=gram)
        prefixes = {l0: codes.prefix(l0) for l0 in result.at}
        reconstructed = {l0: dictionary.decode(prefix) for l0, prefix in prefixes.items()}
        reconstructions.append(reconstructed[max(reconstructed)].to(batch.kept_on))
        usual = to_device((~massive_here).nonzero()[:, 0], x.device)
        _add_reconstructions(result, x, usual, prefixes, reconstructed)
        if not result.why_no_losses:
            plain, zeroed, *spliced = batch.losses(0.0, *reconstructed.values())
            result.plain.add(plain)
            result.zeroed.add(zeroed)
            for sums, losses in zip(result.at.values(), spliced, strict=True):
                sums.spliced.add(losses)
        if batch is batches[-1]:
            result.errors = _errors(result, batches, reconstructions, frequencies)
        yield result


def _add_reconstructions(
    result: Evaluation,
    x: torch.Tensor,
    usual: torch.Tensor,
    codes: dict[int, Codes],
    reconstructed: dict[int, torch.Tensor],
) -> None:
    """usual: the numbers of the rows that are not massive."""
    for l0, xhat in reconstructed.items():
        result.at[l0].sparsity.add(codes[l0])
        result.at[l0].everything.add(x, xhat)
        result.at[l0].usual.add(x[usual], xhat[usual])


def _errors(
    result: Evaluation,
    batches: list[SplicedBatch],
    reconstructions: list[torch.Tensor],
    frequencies: np.ndarray | None,
) -> TokenErrors:
    ids = torch.cat([batch.ids for batch in batches]).numpy()
    return TokenErrors.of(
        torch.cat([batch.activations.to(batch.kept_on) for batch in batches]),
        torch.cat(reconstructions),
        torch.cat([batch.positions for batch in batches]).numpy(),
        None if frequencies is None else frequencies[ids],
        result.median_norm,
    )
