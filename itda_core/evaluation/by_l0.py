"""What a dictionary explains and what it costs the model, on prompts it was not trained on."""

import functools
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from itda_core.activations.massive import massive
from itda_core.activations.plan import Plan, make_plan
from itda_core.config import TrainConfig
from itda_core.corpus.corpus import Prompt
from itda_core.devices import free_memory, to_device
from itda_core.dictionary.dictionary import Dictionary
from itda_core.errors import InputError
from itda_core.evaluation.cost import blocks_run
from itda_core.evaluation.evaluated import AtL0, Evaluation
from itda_core.evaluation.losses import Losses
from itda_core.evaluation.metrics import SparsitySums
from itda_core.evaluation.pca import MAX_WIDTH, pca_errors
from itda_core.evaluation.splicing import Rebuilt, SplicedBatch, losses_each, spliced_batches
from itda_core.evaluation.token_errors import GatheredErrors
from itda_core.model.model import Model
from itda_core.model.steps_of_work import Step
from itda_core.pursuit.codes import Codes

EVALUATION_TOKENS = 4_096
QUICK_TOKENS = 1_024
"""Of a quick run"""
_KEPT_BYTES = 4
"""Of each component of a token, as the model gives it, at most"""


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

    All is computed on the model's device. What the model gives for all tokens at the layer, 2 or 4
    bytes a component, is kept there, or in main memory where it would take more than a quarter of
    what is free there. A model that is read block by block keeps hidden states of (number of L0s +
    2) times the tokens beside, and their codes wait on its device: 16 · L0 bytes a token, and 4 ·
    L0² more where coefficients are fitted together.

    l0s: by default 1, 2, 4 … and the dictionary's own. frequencies: how often each token id occurs
    in the training part of the corpus, [n_ids]. Raises CorpusError where no prompt has two tokens.
    """
    of_one = [dictionary], model, prompts, config, max_tokens, l0s, frequencies
    for [result] in evaluate_together(*of_one):
        yield result


def evaluate_together(
    dictionaries: Sequence[Dictionary],
    model: Model,
    prompts: Sequence[Prompt],
    config: TrainConfig,
    max_tokens: int = EVALUATION_TOKENS,
    l0s: Sequence[int] | None = None,
    frequencies: np.ndarray | None = None,
) -> Iterator[list[Evaluation]]:
    """`evaluate` of several dictionaries of one layer, each with what it alone would give, in the
    same two readings of a model that is read block by block. All of them are on the model's device
    together. Raises InputError for dictionaries of several layers, or of several sites."""
    points = (dictionary.hook_point for dictionary in dictionaries)
    (layer, site), *others = {(point.layer, point.site) for point in points}
    if others:
        raise InputError("Dictionaries that are evaluated together must be of one layer and site.")
    model.check_layers([layer])
    model = model.at(site)
    sizes = [_l0s_of(dictionary, l0s) for dictionary in dictionaries]
    plan = make_plan(model, prompts, config, max_tokens)
    moved = [dictionary.to(model.device) for dictionary in dictionaries]
    n_l0s = sum(map(len, sizes))
    results = [
        _empty(dictionary, model, plan, of_one, n_l0s)
        for dictionary, of_one in zip(moved, sizes, strict=True)
    ]
    for result, dictionary in zip(results, dictionaries, strict=True):
        result.median_norm = dictionary.median_norm
    batches: list[SplicedBatch] = []
    kept_on = _where_kept(model, plan.total_rows)
    for step in spliced_batches(model, layer, plan, kept_on):
        if step.value is not None:
            batches.append(step.value)
        for result in results:
            result.captured = step.fraction
        yield results
    measuring = [
        _Measuring(result, dictionary, batches)
        for result, dictionary in zip(results, moved, strict=True)
    ]
    has_losses = not results[0].why_no_losses
    for step in _losses(model, layer, measuring) if has_losses else _reconstructed(measuring):
        for one in measuring:
            one.result.measured = step.fraction
            if step.number == len(batches) - 1:
                one.finish(frequencies)
        yield results


def _empty(
    dictionary: Dictionary, model: Model, plan: Plan, l0s: Sequence[int], n_l0s: int
) -> Evaluation:
    """Nothing is measured yet. n_l0s: how many are measured together."""
    sparsities = (SparsitySums.of(len(dictionary), dictionary.device) for _ in l0s)
    at = {l0: AtL0(sums) for l0, sums in zip(l0s, sparsities, strict=True)}
    share = _capture_share(model, dictionary.hook_point.layer, n_l0s)
    result = Evaluation(plan.total_rows, len(plan.prompts), at, share)
    result.why_no_losses = model.why_not("splicing")
    return result


def _l0s_of(dictionary: Dictionary, l0s: Sequence[int] | None) -> tuple[int, ...]:
    return nested_l0s(dictionary.l0) if l0s is None else _checked_l0s(l0s, dictionary.l0)


def nested_l0s(l0: int) -> tuple[int, ...]:
    """1, 2, 4 … and `l0` itself."""
    powers = [1]
    while powers[-1] * 2 < l0:
        powers.append(powers[-1] * 2)
    return tuple(dict.fromkeys([*powers, l0]))


def quick_l0s(l0: int) -> tuple[int, ...]:
    """What a quick run measures: a quarter of `l0`, and `l0` itself."""
    return tuple(dict.fromkeys([max(1, l0 // 4), l0]))


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
    passes = n_l0s + 2 if model.can_be_spliced else 0  # 2: as it is, and zeroed
    after = blocks_run(model.site, layer, model.n_layers, passes, model.is_swept and bool(passes))
    return (layer + 1) / (layer + 1 + after + passes)  # the unembedding is one more block


class _Measuring:
    """What a dictionary makes of all batches."""

    def __init__(self, result: Evaluation, dictionary: Dictionary, batches: list[SplicedBatch]):
        self.result, self.batches = result, batches
        self._dictionary, self._errors = dictionary, GatheredErrors()
        norms = torch.cat([batch.activations.norm(dim=1) for batch in batches]).cpu()
        result.median_norm = result.median_norm or float(norms.median())
        is_massive = massive(norms, result.median_norm)
        result.massive_tokens = int(is_massive.sum())
        self._is_massive = is_massive.split([len(batch) for batch in batches])

    def reconstructions(self) -> Iterator[list[Rebuilt]]:
        """Of each batch, for every L0. They are counted here, and made again when they are put in:
        codes take little room until then."""
        gram = self._dictionary.gram()
        for batch, is_massive in zip(self.batches, self._is_massive, strict=True):
            x = batch.activations
            codes = self._dictionary.encode(x, gram=gram)
            usual = to_device((~is_massive).nonzero()[:, 0], x.device)
            for l0, sums in self.result.at.items():
                prefix = codes.prefix(l0)
                xhat = self._dictionary.decode(prefix)
                sums.add(prefix, x, xhat, usual)
            self._errors.add(x, xhat)
            del x, xhat, prefix
            rebuilt = functools.partial(_rebuilt, self._dictionary, codes)
            yield [functools.partial(rebuilt, l0) for l0 in self.result.at]

    def add(self, plain: Losses, zeroed: Losses, spliced: Sequence[Losses]) -> None:
        """Count a batch. spliced: with the reconstruction of each L0."""
        self.result.plain.add(plain)
        self.result.zeroed.add(zeroed)
        for sums, losses in zip(self.result.at.values(), spliced, strict=True):
            sums.spliced.add(losses)

    def finish(self, frequencies: np.ndarray | None) -> None:
        """All batches are measured. frequencies: see `evaluate`."""
        ids = torch.cat([batch.ids for batch in self.batches]).numpy()
        self.result.errors = self._errors.finished(
            lambda: (batch.activations for batch in self.batches),
            torch.cat([batch.positions for batch in self.batches]).numpy(),
            None if frequencies is None else frequencies[ids],
            self.result.median_norm,
        )
        for sums in self.result.at.values():
            sums.finish(self.result.errors.squared_distances)
        if len(self._dictionary.offset) <= MAX_WIDTH:
            self.result.pca = pca_errors(
                lambda: (batch.activations for batch in self.batches),
                self._is_massive,
                max(self.result.at),
            )


def _losses(model: Model, layer: int, measuring: Sequence[_Measuring]) -> Iterator[Step[None]]:
    """Put in what all dictionaries make of each batch, and count what that costs the model."""
    batches = measuring[0].batches
    rebuilt = [one.reconstructions() for one in measuring]
    if len(rebuilt) > 1:  # of one dictionary after another: a Gram matrix may fill the memory
        rebuilt = [list(of_batches) for of_batches in rebuilt]
    work = (
        (batch, [0.0, *itertools.chain(*of_batch)])
        for batch, *of_batch in zip(batches, *rebuilt, strict=True)
    )
    counts = [len(one.result.at) for one in measuring]
    tokens = sum(int(batch.tokens.mask.sum()) for batch in batches)
    for step in losses_each(model, layer, work, tokens * (2 + sum(counts))):
        if step.value is not None:
            plain, zeroed, *others = step.value
            spliced = iter(others)
            for one, count in zip(measuring, counts, strict=True):
                one.add(plain, zeroed, [*itertools.islice(spliced, count)])
        yield Step(step.fraction, step.number)


def _reconstructed(measuring: Sequence[_Measuring]) -> Iterator[Step[None]]:
    """The same of a model that predicts nothing."""
    for number, _ in enumerate(zip(*(one.reconstructions() for one in measuring), strict=True)):
        result = measuring[0].result
        yield Step(result.tokens / result.total_tokens, number)


def _rebuilt(dictionary: Dictionary, codes: Codes, l0: int, rows: slice) -> torch.Tensor:
    """Some rows' reconstructions of `l0` terms, [n, d_model]."""
    return dictionary.decode(codes.rows(rows).prefix(l0))
