"""The tokens that a training could choose its atoms from: what chance would have drawn from.

Dictionaries keep them since they say how alike two sets are by chance. For runs made before,
they follow from the run directory.
"""

import contextlib
import hashlib
import json
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from itda_core.config import TrainConfig
from itda_core.errors import InputError
from itda_core.tokens import word_table

LEAST_SAMPLE = 65_536
_SAMPLE_PER_ATOM = 4
"""The sample holds so many activations for each atom, and at least `LEAST_SAMPLE`, or all."""
_KNOWN: weakref.WeakValueDictionary[bytes, "Offered"] = weakref.WeakValueDictionary()
"""Layers of one training were offered the same; memory holds that once."""


@dataclass(frozen=True, eq=False)
class Offered:
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

    @classmethod
    def of(cls, counts: np.ndarray, positions: np.ndarray, words: np.ndarray) -> "Offered":
        """Raises ValueError where the counts are not those of the tokens."""
        arrays = [np.ascontiguousarray(one, np.int32) for one in (counts, positions, words)]
        if not len(arrays[1]) == len(arrays[2]) == arrays[0].sum():
            raise ValueError("its counts of offered tokens do not fit")
        digest = hashlib.blake2b(b"".join(one.tobytes() for one in arrays), digest_size=16)
        digest.update(str(len(counts)).encode())
        return _KNOWN.setdefault(digest.digest(), cls(*arrays))

    def tensors(self) -> dict[str, torch.Tensor]:
        """As a dictionary file holds them."""
        return {f"offered.{name}": torch.from_numpy(one.copy()) for name, one in vars(self).items()}

    @classmethod
    def of_tensors(cls, tensors: dict[str, torch.Tensor]) -> "Offered | None":
        """From a dictionary file; None where it was written before there was such a thing."""
        if "offered.counts" not in tensors:
            return None
        names = ("counts", "positions", "words")
        return cls.of(*(tensors[f"offered.{name}"].numpy() for name in names))


def sample_size(max_atoms: int) -> int:
    """Activations, at most, that the coverage chooses from."""
    return max(LEAST_SAMPLE, _SAMPLE_PER_ATOM * max_atoms)


def sample_rows(total: int, size: int, seed: int) -> np.ndarray:
    """[min(size, total)] row numbers in ascending order, each row as likely as any other.

    How many rows there will be is known beforehand, so that no reservoir is needed.
    """
    if total <= size:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).choice(total, size, replace=False))


def choosable_rows(
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


def seeds_of(config: TrainConfig, d_model: int, n_atoms: int) -> int:
    """How many atoms, the first ones, a training took before it chose any: with the threshold
    up to d_model."""
    return min(d_model, n_atoms) if config.selection == "threshold" else 0


@dataclass(frozen=True)
class Remembered:
    """What an older dictionary file does not say of its training."""

    offered: Offered | None
    seeds: int


def remembered(
    directory: Path, prompt_ids: Sequence[str], sources: pd.DataFrame, d_model: int
) -> Remembered | None:
    """The same from the run directory of a training; None where it can't tell."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, InputError):
        about = json.loads((directory / "config.json").read_text())
        config = TrainConfig.from_dict(about["config"])
        if about.get("kind", "itda") != "itda" or "origin" in about:
            return None
        prompts = pd.read_parquet(
            directory / "prompts.parquet", columns=["prompt_id", "text", "starts", "ends"]
        )
        seeds = seeds_of(config, d_model, len(sources))
        return Remembered(_offered(prompts, config, prompt_ids, sources), seeds)
    return None


def _offered(
    prompts: pd.DataFrame, config: TrainConfig, prompt_ids: Sequence[str], sources: pd.DataFrame
) -> Offered:
    """prompts: the prompts that were read, with the spans of their tokens."""
    first = int(config.skip_first)
    lengths = prompts["starts"].map(len).to_numpy(np.int64) - first
    rows = choosable_rows(config, prompts["prompt_id"], lengths, sources)
    positions, words = [], []
    for text, starts, ends in prompts[["text", "starts", "ends"]].itertuples(index=False):
        positions.append(np.arange(first, len(starts)))
        words.append(np.where(starts == ends, -1, word_table(text)[starts])[first:])
    numbers = np.repeat(pd.Index(prompt_ids).get_indexer(prompts["prompt_id"]), lengths)[rows]
    if len(numbers) and numbers.min() < 0:
        raise ValueError("prompts were read that the dictionary does not name")
    counts = np.bincount(numbers, minlength=len(prompt_ids))
    return Offered.of(counts, np.concatenate(positions)[rows], np.concatenate(words)[rows])
