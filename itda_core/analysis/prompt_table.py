"""Several prompts side by side: how well each is explained, by which latents, and on which latents
two groups of them differ."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from itda_core.analysis.decomposition import NO_ROOM_FOR_TEXT
from itda_core.config import TrainConfig
from itda_core.devices import full_memory_as_sentence
from itda_core.dictionary.dictionary import Dictionary
from itda_core.errors import InputError
from itda_core.evaluation.intervals import RESAMPLES
from itda_core.evaluation.metrics import used_terms
from itda_core.evaluation.strong_uses import is_strong
from itda_core.model.model import Activations, Model
from itda_core.model.steps_of_work import Step

_TOGETHER = 16
"""Prompts in a batch"""
_PERCENTILES = (0.025, 0.975)
_SEED = 0
_LATENTS_TOGETHER = 4_096


@dataclass(frozen=True)
class PromptTable:
    """Prompts by the latents of one dictionary."""

    prompts: pd.DataFrame
    """a row a prompt, in their order: text, tokens (that were decomposed) and left, Σ‖x − x̂‖² /
    Σ‖x − offset‖² over them, NaN where there is none"""
    uses: pd.DataFrame
    """a row for each latent that a prompt uses, the prompt's strongest first: prompt (its row),
    latent, tokens (that use it), coefficient (of the token with the largest |coefficient|) and
    share, of the squares of all coefficients of the prompt, in [0, 1]"""

    def matrix(self) -> pd.DataFrame:
        """The shares, [n_prompts, n_latents], of the latents that any prompt uses, the largest sum
        first; 0 where a prompt does not use one."""
        table = self.uses.pivot(index="prompt", columns="latent", values="share")
        table = table.reindex(range(len(self.prompts))).fillna(0.0)
        sums = table.sum()
        return table[sorted(table.columns, key=lambda latent: (-sums[latent], latent))]


def prompt_table(
    dictionary: Dictionary,
    model: Model,
    texts: Sequence[str],
    config: TrainConfig,
    thresholds: np.ndarray | None = None,
) -> PromptTable:
    """Decompose every token of each text but those that training leaves out.

    thresholds: [n_latents], of strong uses, which alone are in `uses` then (shares are of all
    squares); NaN where every use of a latent is. A text is cut as `decompose` cuts it. Raises
    InputError without texts, for activations that are not finite, and where memory is full.
    """
    steps = prompt_table_steps(dictionary, model, texts, config, thresholds)
    return joined([step.value for step in steps if step.value is not None])


def prompt_table_steps(
    dictionary: Dictionary,
    model: Model,
    texts: Sequence[str],
    config: TrainConfig,
    thresholds: np.ndarray | None = None,
    after: int = 0,
) -> Iterator[Step[PromptTable]]:
    """`prompt_table` batch by batch: the values are the tables of some prompts each, in their
    order, of which `joined` makes one. after: how many prompts were read before and are left out.
    """
    if not len(texts):
        raise InputError("There is no prompt. Add some to the list.")
    layer, model = dictionary.hook_point.layer, model.at(dictionary.hook_point.site)
    with full_memory_as_sentence(model.device, NO_ROOM_FOR_TEXT):
        dictionary = dictionary.to(model.device)
        parts = [
            list(texts[first : first + _TOGETHER]) for first in range(after, len(texts), _TOGETHER)
        ]
        batches = [model.tokenize(part) for part in parts]
        for step in model.capture_each(batches, [layer], config.skip_first):
            if step.value is None:
                yield Step(step.fraction)
                continue
            tokens, uses = _part(dictionary, step.value, layer, after + step.number * _TOGETHER)
            table = _table(parts[step.number], tokens, uses, thresholds)
            yield Step(step.fraction, step.number, table)


def joined(tables: Sequence[PromptTable]) -> PromptTable:
    """One table of the prompts of several, one after another. tables: at least one."""
    ends = np.cumsum([0, *(len(table.prompts) for table in tables)])
    uses = [
        table.uses.assign(prompt=table.uses["prompt"] + first)
        for table, first in zip(tables, ends, strict=False)
    ]
    prompts = pd.concat([table.prompts for table in tables], ignore_index=True)
    return PromptTable(prompts, pd.concat(uses, ignore_index=True))


def _part(
    dictionary: Dictionary, activations: Activations, layer: int, first: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Of one batch: prompt (its row there), whole and left (squares) of each token; prompt,
    position, latent and coefficient of each use. first: how many prompts come before it."""
    x, prompts = activations[layer], activations.prompts
    finite = torch.isfinite(x).all(1).cpu().numpy()
    if not finite.all():
        number = first + int(prompts[~finite][0]) + 1
        raise InputError(f"The model gives activations that are not finite for prompt {number:,}.")
    codes = dictionary.encode(x)
    norms = dictionary.coder.residual_norms(x, codes).double().cpu().numpy()
    codes = codes.to("cpu")
    rows, _ = np.nonzero(is_term := used_terms(codes).numpy())
    terms = pd.DataFrame(
        {
            "prompt": prompts[rows],
            "position": activations.positions[rows],
            "latent": codes.latents.numpy()[is_term],
            "coefficient": codes.coefficients.double().numpy()[is_term],
        }
    )
    uses = terms.groupby(["prompt", "position", "latent"], as_index=False)["coefficient"].sum()
    squares = np.square(norms)
    return pd.DataFrame({"prompt": prompts, "whole": squares[:, 0], "left": squares[:, -1]}), uses


def _table(
    texts: list[str], tokens: pd.DataFrame, uses: pd.DataFrame, thresholds: np.ndarray | None
) -> PromptTable:
    every = range(len(texts))
    sums = tokens.groupby("prompt")[["whole", "left"]].sum().reindex(every)
    counts = tokens.groupby("prompt").size().reindex(every, fill_value=0)
    left = (sums["left"] / sums["whole"]).to_numpy()
    prompts = pd.DataFrame({"text": texts, "tokens": counts.to_numpy(), "left": left})
    uses = uses.assign(square=uses["coefficient"] ** 2)
    totals = uses.groupby("prompt")["square"].sum()
    if thresholds is not None:
        uses = uses[is_strong(uses["coefficient"], thresholds[uses["latent"]])]
    uses = uses.sort_values(["square", "position"], ascending=[False, True], kind="stable")
    found = uses.groupby(["prompt", "latent"], as_index=False).agg(
        tokens=("position", "size"), coefficient=("coefficient", "first"), share=("square", "sum")
    )
    found["share"] /= found["prompt"].map(totals)
    found = found.sort_values(["prompt", "share", "latent"], ascending=[True, False, True])
    return PromptTable(prompts, found.reset_index(drop=True))


def with_tokens(table: PromptTable, rows: Sequence[int]) -> list[int]:
    """Those of some prompts of which a token was decomposed, each once, in their order. rows: of
    `table.prompts`."""
    tokens = table.prompts["tokens"]
    return [row for row in dict.fromkeys(rows) if tokens[row] > 0]


def compare_groups(table: PromptTable, a: Sequence[int], b: Sequence[int]) -> pd.DataFrame:
    """On which latents two groups of prompts differ, by the mean share of the prompts' squares.

    latent, mean_a, mean_b, difference (mean_a − mean_b), low and high (its 95 % percentile
    interval, the prompts of each group drawn anew 1,000 times), prompts_a, prompts_b (that use it).
    First those whose interval leaves out 0, the largest |difference| first. a, b: rows of
    `table.prompts`; those without a decomposed token have no shares and are left out. Raises
    InputError where a group has fewer than two prompts then, or they share one.
    """
    if set(a) & set(b):
        raise InputError("A prompt is in both groups. Leave it in one.")
    given = len(set(a)) + len(set(b))
    a, b = with_tokens(table, a), with_tokens(table, b)
    if min(len(a), len(b)) < 2:
        left_out = given - len(a) - len(b)
        of = " with a decomposed token" if left_out else ""
        raise InputError(
            f"Group A has {len(a):,} and group B {len(b):,} prompts{of}: an interval over prompts "
            "needs two of each at least."
        )
    matrix = table.matrix()
    of_a, of_b = matrix.loc[a].to_numpy(), matrix.loc[b].to_numpy()
    low, high = _intervals(of_a, of_b)
    means = of_a.mean(0), of_b.mean(0)
    found = pd.DataFrame(
        {
            "latent": matrix.columns.to_numpy(),
            "mean_a": means[0],
            "mean_b": means[1],
            "difference": means[0] - means[1],
            "low": low,
            "high": high,
            "prompts_a": (of_a > 0).sum(0),
            "prompts_b": (of_b > 0).sum(0),
        }
    )
    found = found[found["prompts_a"] + found["prompts_b"] > 0]
    order = [found["latent"], -found["difference"].abs(), (found["low"] * found["high"]) <= 0]
    return found.iloc[np.lexsort(order)].reset_index(drop=True)


def _intervals(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The interval of each column's mean in a minus that in b: what `resampled_interval` gives for
    one column after another. a, b: [n, n_latents] float64."""
    draw = np.random.default_rng(_SEED)
    weights = [_weights(draw, len(group)) for group in (a, b)]
    ends = []
    for first in range(0, a.shape[1], _LATENTS_TOGETHER):
        part = slice(first, first + _LATENTS_TOGETHER)
        means = [w @ group[:, part] for w, group in zip(weights, (a, b), strict=True)]
        ends.append(np.quantile(means[0] - means[1], _PERCENTILES, axis=0))
    low, high = np.concatenate(ends, axis=1) if ends else np.zeros((2, 0))
    return low, high


def _weights(draw: np.random.Generator, n: int) -> np.ndarray:
    """How much of each row each resample has, [RESAMPLES, n] float64; each sums to 1."""
    rows = draw.integers(n, size=(RESAMPLES, n)) + n * np.arange(RESAMPLES)[:, None]
    return np.bincount(rows.ravel(), minlength=RESAMPLES * n).reshape(RESAMPLES, n) / n
