"""What dictionary files of earlier versions do not say, from the run directory beside them."""

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from itda_core.activations.pool import CandidatePool, candidate_rows, count_seed_atoms
from itda_core.config import TrainConfig
from itda_core.errors import InputError
from itda_core.model.tokens import word_table


@dataclass(frozen=True)
class Remembered:
    """What an older dictionary file does not say of its training."""

    pool: CandidatePool | None
    n_seed_atoms: int


def remembered(
    directory: Path, prompt_ids: Sequence[str], sources: pd.DataFrame, d_model: int
) -> Remembered | None:
    """The same from the run directory of a training; None where it can't tell."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, InputError):
        about = json.loads((directory / "config.json").read_text())
        config = TrainConfig.of_finished(about["config"])
        if about.get("kind", "itda") != "itda" or "origin" in about:
            return None
        prompts = pd.read_parquet(
            directory / "prompts.parquet", columns=["prompt_id", "text", "starts", "ends"]
        )
        n_seed_atoms = count_seed_atoms(config, d_model, len(sources))
        return Remembered(_pool(prompts, config, prompt_ids, sources), n_seed_atoms)
    return None


def _pool(
    prompts: pd.DataFrame, config: TrainConfig, prompt_ids: Sequence[str], sources: pd.DataFrame
) -> CandidatePool:
    """prompts: the prompts that were read, with the spans of their tokens."""
    first = int(config.skip_first)
    lengths = prompts["starts"].map(len).to_numpy(np.int64) - first
    rows = candidate_rows(config, prompts["prompt_id"], lengths, sources)
    positions, words = [], []
    for text, starts, ends in prompts[["text", "starts", "ends"]].itertuples(index=False):
        positions.append(np.arange(first, len(starts)))
        words.append(np.where(starts == ends, -1, word_table(text)[starts])[first:])
    numbers = np.repeat(pd.Index(prompt_ids).get_indexer(prompts["prompt_id"]), lengths)[rows]
    if len(numbers) and numbers.min() < 0:
        raise ValueError("prompts were read that the dictionary does not name")
    counts = np.bincount(numbers, minlength=len(prompt_ids))
    return CandidatePool.of(counts, np.concatenate(positions)[rows], np.concatenate(words)[rows])
