"""The dictionaries that are compared in one layer of one model, and what each of them leaves.

*Own* was chosen there, *moved* has the sources of a dictionary that was chosen elsewhere, *random*
as many tokens as were moved, drawn from those that own could choose from. All three have the mean
of the same tokens as their offset, the same L0 and the same pursuit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.moving.reading import Reading
from itda_core.activations.centre import centre_of
from itda_core.activations.source_places import find_sources
from itda_core.activations.sources import source_table, sources_at
from itda_core.config import HookPoint
from itda_core.dictionary.dictionary import Dictionary
from itda_core.dictionary.moving import is_same_tokenizer, moved_atoms, taken_over
from itda_core.evaluation.intervals import resampled_interval
from itda_core.selection.coverage import choose

ATOMS, L0, SEED = 1_024, 32, 0


@dataclass(frozen=True)
class Moved:
    """A dictionary in another model or layer."""

    dictionary: Dictionary
    left_out: int
    """Latents without a token there"""
    together: int
    """Latents on the token of another latent"""


@dataclass(frozen=True)
class Left:
    """What a dictionary leaves of the held-out tokens."""

    errors: np.ndarray
    """[n_prompts] float64, Σ‖x − x̂‖² of each prompt's tokens"""
    fvu: float
    ce_loss_score: float | None = None


def own(reading: Reading, layer: int, n_atoms: int = ATOMS, seed: int = SEED) -> Dictionary:
    """The dictionary that the coverage chooses in a layer."""
    choice = choose(reading.x[layer], n_atoms, L0, seed)
    return dictionary_of(reading, layer, choice.rows.numpy())


def random(
    reading: Reading, layer: int, n_atoms: int, seed: int, among: np.ndarray | None = None
) -> Dictionary:
    """A dictionary of tokens drawn without replacement. among: rows of the training tokens that
    are drawn from, by default all."""
    rows = np.arange(len(reading.x[layer])) if among is None else among
    drawn = np.random.default_rng(seed).choice(rows, n_atoms, replace=False)
    return dictionary_of(reading, layer, np.sort(drawn))


def dictionary_of(reading: Reading, layer: int, rows: np.ndarray) -> Dictionary:
    """A dictionary of given rows of the training tokens."""
    x, tokenizer = reading.x[layer], reading.model.tokenizer_digest
    centred = x - _mean(x)
    table = source_table(sources_at(reading.plan, rows))
    return Dictionary(
        atoms=torch.nn.functional.normalize(centred[rows], dim=1),
        offset=_mean(x),
        l0=L0,
        hook_point=HookPoint(reading.model.name, layer),
        sources=table.drop(columns="word"),
        words=table["word"].to_numpy(),
        tokenizer=tokenizer,
        pursuit="orthogonal",
    )


def moved(
    origin: Dictionary, reading: Reading, layers: Sequence[int] | None = None
) -> dict[int, Moved]:
    """By layer of `reading`, by default of all: a dictionary there, as `itda move` makes it."""
    is_same = is_same_tokenizer(origin, reading.model)
    how = reading.plan.context_length, reading.plan.skip_first, is_same
    places = find_sources(origin.sources, reading.texts, reading.model, *how)
    latents = np.flatnonzero(places.reading >= 0)
    sources, at_sources = reading.at_sources(places, latents)
    found = {}
    for layer in layers or reading.layers:
        x = at_sources[layer]
        sample = reading.x[layer]
        made = moved_atoms(origin, x, sample, np.zeros(len(sample), bool))
        there = HookPoint(reading.model.name, layer)
        dictionary = taken_over(origin, made, latents, sources, there, reading.model)
        distinct = len(dictionary.sources[["prompt_id", "position"]].drop_duplicates())
        counts = len(origin) - len(dictionary), len(dictionary) - distinct
        found[layer] = Moved(dictionary, *counts)
    return found


def rows_with_ends_of(reading: Reading, origin: Reading) -> np.ndarray:
    """Training tokens of `reading` that end where a token of `origin` ends, [n] int64: where a
    source can come to stand, but for the ends of words."""
    ends = [
        [(source[0], source[3]) for source in sources_at(one.plan, np.arange(one.plan.total_rows))]
        for one in (reading, origin)
    ]
    known = set(ends[1])
    return np.flatnonzero([end in known for end in ends[0]])


def left_by(
    reading: Reading, layer: int, dictionaries: Mapping[str, Dictionary]
) -> dict[str, Left]:
    """What each dictionary leaves of the held-out tokens of one layer."""
    x, prompts = reading.held_out[layer]
    variance = float((x.double() - x.double().mean(0)).square().sum())
    errors = {name: _errors(one, x, prompts) for name, one in dictionaries.items()}
    scores, spliced = dict.fromkeys(dictionaries), reading.spliced(layer)
    if spliced is not None:
        there = spliced.activations
        rebuilt = [one.decode(one.encode(there)) for one in dictionaries.values()]
        scores = dict(zip(dictionaries, spliced.scores(rebuilt), strict=True))
    return {
        name: Left(of, float(of.sum()) / variance, scores[name] and scores[name]["ce_loss_score"])
        for name, of in errors.items()
    }


def ratio(one: Left, other: Left) -> tuple[float, float, float]:
    """The FVU of one over that of the other, and its 95 % bootstrap interval over prompts."""
    pairs = np.stack([one.errors, other.errors], 1)
    low, high = resampled_interval(lambda d: d[..., 0].sum(1) / d[..., 1].sum(1), pairs)
    return one.fvu / other.fvu, low, high


def _errors(dictionary: Dictionary, x: torch.Tensor, prompts: np.ndarray) -> np.ndarray:
    xhat = dictionary.decode(dictionary.encode(x))
    squared = (x.double() - xhat.double()).square().sum(1).numpy()
    return np.bincount(prompts, squared)


def _mean(x: torch.Tensor) -> torch.Tensor:
    return centre_of(x).mean
