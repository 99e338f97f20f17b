"""What dictionary files of earlier versions do not say, from the run directory beside them."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from itda_core.activations.pool import CandidatePool, candidate_rows, count_seed_atoms
from itda_core.config import TrainConfig
from itda_core.errors import InputError
from itda_core.files.json_files import read_json
from itda_core.model.tokens import word_table
from itda_core.tables import read_frame

_NO_TOKEN = np.iinfo(np.int32).max


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
        about = read_json(directory / "config.json")
        config = TrainConfig.of_finished(about["config"])
        if about.get("kind", "itda") != "itda" or "origin" in about:
            return None
        prompts = read_frame(
            directory / "prompts.parquet", columns=["prompt_id", "text", "starts", "ends"]
        )
        n_seed_atoms = count_seed_atoms(config, d_model, len(sources))
        return Remembered(_pool(prompts, config, prompt_ids, sources), n_seed_atoms)
    return None


def model_digest(directory: Path) -> str:
    """The digest of a run's model; empty where the directory is of no run."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return read_json(directory / "config.json").get("model_digest") or ""
    return ""


def reads_ends(directory: Path) -> bool:
    """Whether a run read the ends of long prompts, as earlier versions did where a tokenizer's
    settings said so: of a prompt that was cut, the text's last token was read and its first was
    not."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        file = directory / "prompts.parquet"
        spans = read_frame(file, columns=["starts", "ends"])
        lengths = spans["starts"].map(len)
        cut = spans[lengths == lengths.max()]
        first = [starts[starts < ends].min(initial=_NO_TOKEN) for starts, ends in cut.to_numpy()]
        late = cut.index[np.array(first, np.int64) > 0]
        if not len(late):
            return False
        texts = read_frame(file, columns=["text"])["text"]
        return any(_is_end(texts[number], *cut.loc[number]) for number in late)
    return False


def _is_end(text: str, starts: np.ndarray, ends: np.ndarray) -> bool:
    """Whether tokens reach the end of a text but not what its first word is."""
    first = starts[starts < ends].min(initial=_NO_TOKEN)
    return bool(text[:first].strip()) and int(ends.max()) >= len(text.rstrip())


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
