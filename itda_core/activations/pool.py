"""The candidate pool: the tokens that a training could choose its atoms from, as chance would.

Dictionaries keep them since they say how alike two sets are by chance. For runs made before,
they follow from the run directory.
"""

import itertools
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from itda_core.activations.plan import Plan
from itda_core.config import TrainConfig
from itda_core.digests import digest

MIN_SAMPLE = 65_536
_SAMPLE_PER_ATOM = 4
"""The sample holds so many activations for each atom, and at least `MIN_SAMPLE`, or all."""
_KNOWN: weakref.WeakValueDictionary[str, "CandidatePool"] = weakref.WeakValueDictionary()
"""Layers of one training have the same pool; memory holds it once."""


@dataclass(frozen=True, eq=False)
class CandidatePool:
    """Tokens that could become atoms, in the order of the prompts. Equal ones are one object."""

    counts: np.ndarray
    """[n_prompts] int32: how many there are in each of the dictionary's `prompt_ids`"""
    positions: np.ndarray
    """[n_offered] int32: token index"""
    words: np.ndarray
    """[n_offered] int32: the character where the token's white-space word begins, -1 for special
    tokens"""

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def tokens_per_word(self) -> float:
        """How many candidate tokens a white-space word has on average; NaN where none is in one."""
        prompts = np.repeat(np.arange(len(self.counts), dtype=np.int64), self.counts)
        inside = self.words >= 0
        words = np.unique(prompts[inside] << 32 | self.words[inside])
        return float(inside.sum() / len(words)) if len(words) else float("nan")

    @classmethod
    def of(cls, counts: np.ndarray, positions: np.ndarray, words: np.ndarray) -> "CandidatePool":
        """Raises ValueError where the counts are not those of the tokens."""
        arrays = [np.ascontiguousarray(array, np.int32) for array in (counts, positions, words)]
        if not len(arrays[1]) == len(arrays[2]) == arrays[0].sum():
            raise ValueError("its counts of candidate tokens do not fit")
        parts = [*(array.tobytes() for array in arrays), str(len(counts))]
        return _KNOWN.setdefault(digest(parts, size=16), cls(*arrays))

    def tensors(self) -> dict[str, torch.Tensor]:
        """As a dictionary file holds them."""
        return {
            f"offered.{name}": torch.from_numpy(array.copy()) for name, array in vars(self).items()
        }

    @classmethod
    def of_tensors(cls, tensors: dict[str, torch.Tensor]) -> "CandidatePool | None":
        """From a dictionary file; None where it was written before there was such a thing."""
        if "offered.counts" not in tensors:
            return None
        names = ("counts", "positions", "words")
        return cls.of(*(tensors[f"offered.{name}"].numpy() for name in names))


def sample_size(max_atoms: int) -> int:
    """Activations, at most, that the coverage chooses from."""
    return max(MIN_SAMPLE, _SAMPLE_PER_ATOM * max_atoms)


def sample_rows(total: int, size: int, seed: int) -> np.ndarray:
    """[min(size, total)] row numbers in ascending order, each row as likely as any other.

    How many rows there will be is known beforehand, so that no reservoir is needed.
    """
    if total <= size:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).choice(total, size, replace=False))


def candidate_rows(
    config: TrainConfig, names: Sequence[str], lengths: np.ndarray, sources: pd.DataFrame
) -> np.ndarray:
    """Numbers, ascending, of the activations that could become atoms.

    names, lengths: the prompts that were read and the activations that each gave, [n_prompts].
    With the coverage that is its sample. The threshold looks at all, or, where the dictionary is
    full, at all until its last source.
    """
    total = int(lengths.sum())
    if config.selection == "coverage":
        return sample_rows(total, sample_size(config.max_atoms), config.seed)
    if len(sources) < config.max_atoms:
        return np.arange(total)
    starts = np.cumsum(lengths) - lengths
    prompts = pd.Index(names).get_indexer(sources["prompt_id"])
    rows = starts[prompts] + sources["position"].to_numpy() - config.skip_first
    return np.arange(int(rows.max()) + 1)


def count_seed_atoms(config: TrainConfig, d_model: int, n_atoms: int) -> int:
    """How many atoms, the first ones, a training took before it chose any: with the threshold up to
    d_model."""
    return min(d_model, n_atoms) if config.selection == "threshold" else 0


def pool_at(plan: Plan, rows: np.ndarray) -> CandidatePool:
    """The tokens of the given rows of a plan, ascending, as what a choice was made from."""
    prompts, positions = (places[rows] for places in plan.first_rows(plan.total_rows))
    words = np.zeros(len(rows), np.int64)
    for first, last in plan.windows:
        tokens = plan.tokens(first, last)
        edges = np.searchsorted(prompts, np.arange(first, last + 1))
        for row, (start, end) in enumerate(itertools.pairwise(edges)):
            words[start:end] = tokens.word_starts(row, positions[start:end])
    places = {name: number for number, name in enumerate(plan.prompt_ids)}
    numbers = np.array([places[prompt.prompt_id] for prompt in plan.prompts])
    counts = np.bincount(numbers[prompts], minlength=len(plan.prompt_ids))
    return CandidatePool.of(counts, positions, words)
